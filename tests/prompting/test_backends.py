"""Both SAM 2s and the detectors on real frames, of random weights: what they give is what their own programs give."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stvg_lightning.models.loading import TINY_DETECTOR_FOLDER
from stvg_lightning.prompting import (
    DetectionFilter,
    Detector,
    DetectorChoice,
    Frame,
    ObjectTracking,
    Tracker,
    TrackerChoice,
    track_objects,
)
from stvg_lightning.prompting.detectors import GroundingDino, RtDetr, Yolo
from stvg_lightning.prompting.detectors.grounding_dino import said_word
from stvg_lightning.prompting.trackers import MetaSam2, TransformersSam2
from stvg_lightning.prompting.trackers.meta_sam2 import LoadedMetaSam2
from tests.small_trackers import meta_sam2, save_rt_detr, save_sam2

NUM_FRAMES = 24
BOXES = {1: (100.0, 100.0, 200.0, 300.0), 2: (300.0, 50.0, 460.0, 400.0)}
LATE = {7: (500.0, 20.0, 700.0, 200.0)}


@pytest.fixture(scope="module")
def pictures(real_data: Path) -> list[Path]:
    return sorted((real_data / "videos/davis/JPEGImages/bmx-trees").glob("*.jpg"))[:NUM_FRAMES]


@pytest.fixture(scope="module")
def frames(pictures: list[Path]) -> list[Frame]:
    return [Frame(index, np.asarray(Image.open(picture).convert("RGB"))) for index, picture in enumerate(pictures)]


@pytest.fixture(scope="module")
def sam2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="module")
def predictor() -> Any:
    pytest.importorskip("sam2", reason="the extra sam2 is not installed")
    return meta_sam2()


@pytest.fixture(params=["transformers", "meta"])
def tracker(request: pytest.FixtureRequest, sam2_folder: Path) -> Tracker:
    if request.param == "transformers":
        return TransformersSam2(str(sam2_folder)).load("cpu")
    return LoadedMetaSam2(request.getfixturevalue("predictor"))


def followed(tracker: Tracker, frames: list[Frame], late_at: int = NUM_FRAMES) -> list[dict[int, np.ndarray]]:
    """The masks of each frame, of two things shown in the first, and one shown late."""
    session = tracker.session(*frames[0].picture.shape[:2])
    masks = []
    for frame in frames:
        seen = dict(session.advance(frame))
        if frame is frames[0]:
            seen |= session.add(BOXES)
        if frame.index == late_at:
            seen |= session.add(LATE)
        masks.append(seen)
    return masks


def assert_same(ours: list[dict[int, np.ndarray]], theirs: list[dict[int, np.ndarray]]) -> None:
    assert len(ours) == len(theirs)
    for frame, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert one.keys() == other.keys()
        for object_id in one:
            assert (one[object_id] == other[object_id]).all(), (frame, object_id)
    shares = [mask.mean() for masks in ours for mask in masks.values()]
    assert 0.02 < np.mean(shares) < 0.98 and len({round(share, 6) for share in shares}) > NUM_FRAMES, "masks that move"


def test_transformers_frame_by_frame_is_transformers_on_the_whole_video(sam2_folder: Path, frames: list[Frame]) -> None:
    from transformers import Sam2VideoModel, Sam2VideoProcessor

    network, processor = (kind.from_pretrained(sam2_folder) for kind in (Sam2VideoModel, Sam2VideoProcessor))
    session = processor.init_video_session(video=np.stack([frame.picture for frame in frames]))
    processor.add_inputs_to_inference_session(session, 0, list(BOXES), input_boxes=[[list(b) for b in BOXES.values()]])
    theirs = []
    for output in network.eval().propagate_in_video_iterator(session, start_frame_idx=0):
        size = [[session.video_height, session.video_width]]
        masks = processor.post_process_masks([output.pred_masks], size)[0][:, 0].numpy()
        theirs.append(dict(zip(output.object_ids, masks, strict=True)))
    assert_same(followed(TransformersSam2(str(sam2_folder)).load("cpu"), frames), theirs)


def test_the_package_frame_by_frame_is_the_package_on_a_folder(
    predictor: Any, frames: list[Frame], pictures: list[Path], tmp_path: Path
) -> None:
    for index, picture in enumerate(pictures):
        (tmp_path / f"{index}.jpg").symlink_to(picture.resolve())
    state = predictor.init_state(str(tmp_path))
    for object_id, box in BOXES.items():
        predictor.add_new_points_or_box(state, 0, object_id, box=np.array(box, dtype=np.float32))
    theirs = [
        dict(zip(ids, (logits > 0)[:, 0].numpy(), strict=True))
        for _, ids, logits in predictor.propagate_in_video(state, start_frame_idx=0)
    ]
    assert_same(followed(LoadedMetaSam2(predictor), frames), theirs)


def test_a_thing_that_is_shown_late_changes_nothing_for_the_others(tracker: Tracker, frames: list[Frame]) -> None:
    alone, joined = followed(tracker, frames), followed(tracker, frames, late_at=9)
    assert [sorted(masks) for masks in joined] == [[1, 2]] * 9 + [[1, 2, 7]] * (NUM_FRAMES - 9)
    for one, other in zip(alone, joined, strict=True):
        assert all((one[object_id] == other[object_id]).all() for object_id in BOXES)


def test_a_mask_shows_a_thing_as_well_as_a_box(tracker: Tracker, frames: list[Frame]) -> None:
    session = tracker.session(*frames[0].picture.shape[:2])
    assert session.advance(frames[0]) == {}
    mask = np.zeros(frames[0].picture.shape[:2], dtype=bool)
    mask[100:300, 100:200] = True
    shown = session.add({3: mask, 1: BOXES[2]})
    assert sorted(shown) == [1, 3] and (shown[3] & mask).sum() > 0.9 * mask.sum() and shown[3].sum() < 1.1 * mask.sum()
    assert sorted(session.advance(frames[1])) == [1, 3]


def test_what_is_remembered_does_not_grow_with_the_video(tracker: Tracker, frames: list[Frame]) -> None:
    session = tracker.session(*frames[0].picture.shape[:2])
    sizes = {}
    for time, frame in zip(range(60), itertools.cycle(frames)):
        session.advance(Frame(time, frame.picture))
        if time == 0:
            session.add(BOXES)
        sizes[time] = num_elements(session._state)
    assert sizes[30] == sizes[59] < 3 * sizes[5]


def num_elements(value: Any, seen: set[int] | None = None) -> int:
    """Numbers in all tensors that can be reached from a value, and entries of its tables."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        return value.numel()
    if isinstance(value, dict):
        return len(value) + sum(num_elements(item, seen) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(num_elements(item, seen) for item in value)
    return num_elements(vars(value), seen) if hasattr(value, "__dict__") else 0


class Frames:
    """Pictures as a video."""

    def __init__(self, frames: list[Frame]) -> None:
        self.frames = frames

    def forward(self) -> Iterator[Frame]:
        return iter(self.frames)

    def backward(self, last_frame: int) -> Iterator[Frame]:
        return reversed(self.frames[: last_frame + 1])


def test_the_whole_procedure_on_real_frames(tracker: Tracker, frames: list[Frame], tmp_path: Path) -> None:
    detector = RtDetr(str(save_rt_detr(tmp_path))).load("cpu")
    assert isinstance(detector, Detector) and isinstance(tracker, Tracker)
    settings = ObjectTracking(redetect_every_frames=8, detections=DetectionFilter(least_confidence=0.0, most_iou=0.3))
    tracks = track_objects(Frames(frames), detector, tracker, settings)
    assert tracks == track_objects(Frames(frames), detector, tracker, settings), "it is the same each time"
    ids = [track.object_id for track in tracks]
    assert ids == sorted(set(ids)) and ids[0] >= 1 and all(track.found_frame % 8 == 0 for track in tracks)
    size = list(frames[0].picture.shape[:2])
    assert all(rle["size"] == size for track in tracks for rle in track.masks.values())
    assert {track.category for track in tracks} <= {"person", "bicycle", "car"}


def test_rt_detr_gives_boxes_in_pixels_of_the_frame(frames: list[Frame], tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    folder = save_rt_detr(tmp_path)
    found = RtDetr(str(folder)).load("cpu")(frames[0])
    network = AutoModelForObjectDetection.from_pretrained(folder).eval()
    inputs = AutoImageProcessor.from_pretrained(folder)(images=frames[0].picture, return_tensors="pt")
    with torch.no_grad():
        outputs = network(**inputs)
    x, y, width, height = (outputs.pred_boxes[0] * torch.tensor([854, 480, 854, 480])).unbind(-1)
    corners = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=-1)
    best = torch.tensor([max(found, key=lambda d: d.confidence).box_xyxy])
    assert len(found) == 12 and (corners - best).abs().sum(-1).min() < 0.01
    assert max(d.confidence for d in found) == pytest.approx(outputs.logits.sigmoid().max().item(), abs=1e-5)


def test_grounding_dino_finds_what_its_words_name(frames: list[Frame]) -> None:
    choice = GroundingDino(("circle", "red square"), str(TINY_DETECTOR_FOLDER), text_threshold=0.0)
    found = choice.load("cpu")(frames[0])
    assert found and {d.category for d in found} <= {"circle", "red square"}
    assert all(0 <= d.confidence <= 1 for d in found) and max(d.box_xyxy[2] for d in found) > 2, "pixels, not shares"


@pytest.mark.parametrize(
    ("label", "words", "said"),
    [
        ("woman", ("man", "woman"), "woman"),
        ("woman", ("man",), None),
        ("carpet", ("car", "pet"), None),
        ("dog person", ("dog", "person"), "person"),
        ("cat dog", ("dog", "cat"), "dog"),
        ("hot dog", ("dog", "hot dog"), "hot dog"),
        ("hot cat dog", ("hot dog",), None),
        ("Fire Truck", (" fire  truck ",), " fire  truck "),
        ("t - shirt", ("shirt", "t-shirt"), "t-shirt"),
        ("##board", ("board", "skateboard"), None),
        ("", ("person",), None),
        ("- .", ("person", "?"), None),
    ],
)
def test_a_label_says_whole_words_the_longest_first(label: str, words: tuple[str, ...], said: str | None) -> None:
    assert said_word(label, words) == said


@pytest.mark.parametrize("words", [(), ("",), ("person", "a. b")])
def test_words_that_cannot_be_told_apart_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="words must be at least one"):
        GroundingDino(words)


def test_every_choice_is_one_and_loads_nothing_yet() -> None:
    assert all(isinstance(choice, DetectorChoice) for choice in (RtDetr(), GroundingDino(("cat",)), Yolo()))
    assert all(isinstance(choice, TrackerChoice) for choice in (MetaSam2(), TransformersSam2()))


def test_yolo_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ultralytics", None)
    with pytest.raises(ValueError, match=r"AGPL-3.0: pip install .stvg-lightning\[yolo\]"):
        Yolo().load("cpu")


def test_yolo_gives_boxes_in_pixels_of_the_frame(frames: list[Frame], tmp_path: Path) -> None:
    ultralytics = pytest.importorskip("ultralytics", reason="the extra yolo, which is AGPL, is not installed")
    torch.manual_seed(0)
    ultralytics.YOLO("yolo12n.yaml").save(tmp_path / "tiny.pt")
    found = Yolo(str(tmp_path / "tiny.pt"), 320).load("cpu")(frames[0])
    assert all(0 <= d.box_xyxy[0] <= d.box_xyxy[2] <= 854 and 0.01 <= d.confidence <= 1 for d in found)


def test_the_package_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sam2.build_sam", None)
    with pytest.raises(ValueError, match=r"pip install .stvg-lightning\[sam2\]"):
        MetaSam2().load("cpu")
