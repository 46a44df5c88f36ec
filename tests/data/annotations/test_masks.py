"""MeViS, Ref-YouTube-VOS, DAVIS and SA-V: masks of all objects, and which of them a sentence means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stvg_lightning.data.annotations import davis, mevis, ref_youtube_vos, sav
from stvg_lightning.data.annotations.conversions import OTHER_LENGTH, OTHER_SIZE
from stvg_lightning.data.annotations.masks import NO_MASKS, NO_OBJECT, NO_SENTENCE, OTHER_FRAMES
from stvg_lightning.data.annotations.videos import NO_PICTURES, NO_VIDEO
from stvg_lightning.data.video import VideoInfo, decode_frames, probe_video
from stvg_lightning.tubes import Rle, decode_mask, encode_mask, mask_box
from tests.data.annotations.reading import (
    ANNOTATIONS,
    VIDEOS,
    Facts,
    make_pictures,
    read,
    real,
    through_shards,
    written,
)

NAMES = ["00000", "00005", "00010"]


def mask_of(x1: int, y1: int, x2: int, y2: int, width: int = 32, height: int = 16) -> Rle:
    mask = np.zeros((height, width), dtype=bool)
    mask[y1:y2, x1:x2] = True
    return encode_mask(mask)


LEFT, RIGHT = mask_of(1, 2, 5, 6), mask_of(20, 8, 30, 12)


def mevis_files(tmp_path: Path, masks: dict[str, Any] | None = None, **expressions: Any) -> tuple[Path, Path]:
    """A video of three frames: object 0 (annotation 7) seen in the first two, object 3 (annotation 9) in the last."""
    default = {
        "0": {"exp": "the left one", "obj_id": [0], "anno_id": [7]},
        "1": {"exp": "both", "obj_id": [3, 0], "anno_id": [9, 7]},
    }
    video = {"expressions": expressions or default, "frames": NAMES, "vid_id": 0}
    written(tmp_path / "mask_dict.json", masks or {"7": [LEFT, LEFT, None], "9": [None, None, RIGHT]})
    make_pictures(tmp_path / "JPEGImages" / "vid", NAMES)
    return written(tmp_path / "meta_expressions.json", {"videos": {"vid": video}}), tmp_path / "JPEGImages"


def test_mevis_by_hand(tmp_path: Path) -> None:
    samples, report = read(mevis, *mevis_files(tmp_path), fps=2.0)
    assert not report.changes and not report.drops
    left, both = (sample.truth for sample in samples)
    assert (left.id, left.query, left.task, left.fps, left.num_frames) == ("vid/0", "the left one", "spatial", 2.0, 3)
    assert left.object_id == 1 and left.boxes_xyxy == {0: (1.0, 2.0, 5.0, 6.0), 1: (1.0, 2.0, 5.0, 6.0)}
    assert left.tracks.keys() == {1, 4} and samples[0].masks == {1: {0: LEFT, 1: LEFT}, 4: {2: RIGHT}}
    assert both.object_id is None and both.object_ids == (1, 4), "all targets are kept"
    assert sorted(both.boxes_xyxy) == [0, 1, 2] and both.boxes_xyxy[2] == (20.0, 8.0, 30.0, 12.0)


def test_several_objects_are_the_union_of_their_masks(tmp_path: Path) -> None:
    masks = {"7": [LEFT, LEFT, None], "9": [RIGHT, None, None]}
    samples, _ = read(mevis, *mevis_files(tmp_path, masks), fps=2.0)
    union = decode_mask(LEFT) | decode_mask(RIGHT)
    assert samples[1].truth.boxes_xyxy == {0: mask_box(union), 1: (1.0, 2.0, 5.0, 6.0)}


def test_mevis_streams_back_with_its_pictures(tmp_path: Path) -> None:
    samples, _ = read(mevis, *mevis_files(tmp_path), fps=2.0)
    stored = through_shards(samples, tmp_path / "out")
    assert [s.truth for s in stored] == [s.truth for s in samples] and stored[1].masks == samples[1].masks
    info = probe_video(stored[0].video)
    assert (info.num_frames, info.width, info.height, info.fps) == (3, 32, 16, 2.0)


def test_mevis_drops_and_counts(tmp_path: Path) -> None:
    """`valid` names no objects."""
    file, pictures = mevis_files(
        tmp_path,
        {"7": [None, None, None]},
        **{"0": {"exp": "a"}, "1": {"exp": "b", "obj_id": [], "anno_id": []}},
        **{"2": {"exp": "c", "obj_id": [0], "anno_id": [7]}},
    )
    samples, report = read(mevis, file, pictures, fps=2.0)
    assert not samples and (report.num_dropped(NO_OBJECT), report.num_dropped(NO_MASKS)) == (2, 1)
    (pictures / "vid" / "00010.png").unlink()
    assert read(mevis, file, pictures, fps=2.0)[1].num_dropped(OTHER_FRAMES) == 1
    for picture in (pictures / "vid").iterdir():
        picture.unlink()
    assert read(mevis, file, pictures, fps=2.0)[1].num_dropped(NO_PICTURES) == 1


def test_masks_of_another_size_are_dropped(tmp_path: Path) -> None:
    other = mask_of(0, 0, 2, 2, width=30)
    _, report = read(mevis, *mevis_files(tmp_path, {"7": [other, None, None], "9": [None] * 3}), fps=2.0)
    assert report.num_dropped(OTHER_SIZE) == 2


@pytest.mark.parametrize(
    ("masks", "expression", "message"),
    [
        ({"7": [LEFT]}, {}, "mask '7' of .*mask_dict.json has 1 entries: it must have one for each of 3 frames"),
        ({"8": [LEFT] * 3}, {}, "anno_id '7' is not in .*mask_dict.json"),
        ({"7": [{"size": [16, 32], "counts": "04"}] * 3}, {}, "a mask's counts '04' are broken"),
        ({"7": [{"size": [16, 32], "counts": [1, 2]}] * 3}, {}, r"the counts of mask '7' .* must be compressed text"),
        ({"7": [{"size": [16], "counts": "04"}] * 3}, {}, "the size of mask '7'"),
        ({"7": [4] * 3}, {}, "mask '7' .* is 4: it must be an object"),
        ({"7": [LEFT] * 3}, {"anno_id": []}, "there are 1 obj_id and 0 anno_id"),
        ({"7": [LEFT] * 3}, {"obj_id": ["a"]}, "obj_id is 'a'"),
        ({"7": [LEFT] * 3}, {"exp": 4}, "exp is 4"),
    ],
)
def test_broken_mevis_files_are_named(
    tmp_path: Path, masks: dict[str, Any], expression: dict[str, Any], message: str
) -> None:
    item = {"exp": "a", "obj_id": [0], "anno_id": [7]} | expression
    with pytest.raises(ValueError, match=rf"meta_expressions\.json\['videos'\]\['vid'\](\['0'\])?: {message}"):
        read(mevis, *mevis_files(tmp_path, masks, **{"0": item}), fps=2.0)


def label_picture(path: Path, labels: np.ndarray, mode: str = "P") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8), mode="L")
    if mode == "P":
        image = Image.fromarray(labels.astype(np.uint8))
        image.putpalette([value for entry in range(256) for value in (entry, 255 - entry, 0)])
    image.save(path)


def labels_with(*areas: tuple[int, tuple[int, int, int, int]], width: int = 32, height: int = 16) -> np.ndarray:
    labels = np.zeros((height, width), dtype=np.uint8)
    for value, (x1, y1, x2, y2) in areas:
        labels[y1:y2, x1:x2] = value
    return labels


def test_ref_youtube_vos_by_hand(tmp_path: Path) -> None:
    """Frames need not begin at 0 and are five apart; the third has no picture of labels."""
    names = ["00010", "00015", "00020"]
    make_pictures(tmp_path / "JPEGImages" / "v1", names)
    label_picture(tmp_path / "Annotations" / "v1" / "00010.png", labels_with((2, (1, 2, 5, 6)), (1, (8, 0, 9, 1))))
    label_picture(tmp_path / "Annotations" / "v1" / "00015.png", labels_with((2, (2, 2, 6, 6))))
    expressions = {"0": {"exp": "a dog", "obj_id": "2"}, "1": {"exp": "b", "obj_id": "1"}, "2": {"exp": "c"}}
    expressions["3"] = {"exp": "d", "obj_id": "5"}
    file = written(tmp_path / "m.json", {"videos": {"v1": {"expressions": expressions, "frames": names}}})
    samples, report = read(ref_youtube_vos, file, tmp_path / "JPEGImages", fps=6.0)
    assert [(s.truth.id, s.truth.object_id) for s in samples] == [("v1/0", 2), ("v1/1", 1)]
    assert samples[0].truth.boxes_xyxy == {0: (1.0, 2.0, 5.0, 6.0), 1: (2.0, 2.0, 6.0, 6.0)}
    assert samples[1].truth.boxes_xyxy == {0: (8.0, 0.0, 9.0, 1.0)} and samples[0].truth.tracks.keys() == {1, 2}
    assert (report.num_dropped(NO_OBJECT), report.num_dropped(NO_MASKS)) == (1, 1)
    broken = {"videos": {"v1": {"expressions": {"0": {"exp": "a", "obj_id": "255"}}, "frames": names}}}
    with pytest.raises(ValueError, match=r"\['v1'\]: obj_id is '255': it must be a palette index"):
        read(ref_youtube_vos, written(tmp_path / "b.json", broken), tmp_path / "JPEGImages", fps=6.0)


def davis_folders(tmp_path: Path, mode: str, *labels: np.ndarray, width: int = 32) -> tuple[Path, Path]:
    make_pictures(tmp_path / "JPEGImages" / "seq", NAMES[: len(labels)], width=width)
    for name, picture in zip(NAMES, labels, strict=False):
        label_picture(tmp_path / "Annotations" / "seq" / f"{name}.png", picture, mode)
    return tmp_path / "Annotations", tmp_path / "JPEGImages"


def test_davis_2017_palettes_with_void(tmp_path: Path) -> None:
    first = labels_with((1, (1, 2, 5, 6)), (255, (0, 0, 1, 16)))
    second = labels_with((3, (20, 8, 30, 12)), (255, (5, 5, 7, 7)))
    samples, report = read(davis, *davis_folders(tmp_path, "P", first, second), fps=24.0)
    assert [(s.truth.id, s.truth.query) for s in samples] == [("seq/1/0", "object 1"), ("seq/3/0", "object 3")]
    assert samples[0].truth.boxes_xyxy == {0: (1.0, 2.0, 5.0, 6.0)} and report.num_changed(NO_SENTENCE) == 2
    assert samples[1].truth.tracks == {1: {0: (1.0, 2.0, 5.0, 6.0)}, 3: {1: (20.0, 8.0, 30.0, 12.0)}}


def test_davis_2016_greys_are_one_object(tmp_path: Path) -> None:
    labels = labels_with((255, (1, 2, 5, 6)), (255, (20, 8, 30, 12)))
    samples, _ = read(davis, *davis_folders(tmp_path, "L", labels), fps=24.0)
    assert len(samples) == 1 and samples[0].truth.boxes_xyxy == {0: (1.0, 2.0, 30.0, 12.0)}
    with pytest.raises(ValueError, match=r"00000\.png is of mode L: it must hold"):
        read(davis, *davis_folders(tmp_path / "b", "L", labels_with((7, (0, 0, 3, 3)))), fps=24.0)


def test_davis_sentences_and_odd_sizes(tmp_path: Path) -> None:
    labels = labels_with((2, (1, 2, 31, 6)), width=31)
    folders = davis_folders(tmp_path, "P", labels, labels, width=31)
    lines = 'seq 2 "a red bicycle"\nseq 2 the bicycle\n\nseq 5 "nobody"\nother 1 "gone"\n'
    sentences = written(tmp_path / "s.txt", lines)
    samples, report = read(davis, *folders, fps=24.0, sentences=sentences)
    assert [(s.truth.id, s.truth.query) for s in samples] == [("seq/2/0", "a red bicycle"), ("seq/2/1", "the bicycle")]
    assert (report.num_dropped(NO_MASKS), report.num_dropped(NO_PICTURES)) == (1, 1)
    stored = through_shards(samples, tmp_path / "out")
    assert stored[0].truth.width == probe_video(stored[0].video).width == 31, "no column is lost"
    with pytest.raises(ValueError, match=r"b\.txt:1: the line is 'seq two"):
        read(davis, *folders, fps=24.0, sentences=written(tmp_path / "b.txt", 'seq two "x"'))
    with pytest.raises(FileNotFoundError, match="no folder of annotations"):
        read(davis, tmp_path / "none", folders[1], fps=24.0)


def masklet_file(tmp_path: Path, **changes: Any) -> Path:
    record = {"video_id": "sav_1", "video_frame_count": 8.0, "video_height": 16.0, "video_width": 32.0}
    record |= {"masklet_id": [0, 2], "masklet": [[LEFT, mask_of(0, 0, 0, 0)], [LEFT, RIGHT]]}
    return written(tmp_path / "sav" / "sav_1_manual.json", record | changes)


def test_sav_by_hand(tmp_path: Path) -> None:
    """Annotation i is frame 4 i; objects are numbered from 1; an empty mask is no box."""
    facts = Facts({"sav_1": VideoInfo(24.0, 8, 32, 16)})
    samples, report = read(sav, masklet_file(tmp_path), facts)
    first, second = (s.truth for s in samples)
    assert [first.id, second.id] == ["sav_1/0", "sav_1/2"] and report.num_changed(NO_SENTENCE) == 2
    assert first.boxes_xyxy == {0: (1.0, 2.0, 5.0, 6.0), 4: (1.0, 2.0, 5.0, 6.0)} and first.object_id == 1
    assert second.boxes_xyxy == {4: (20.0, 8.0, 30.0, 12.0)} and second.object_id == 3
    sentences = written(tmp_path / "told.json", {"sav_1": {"2": "the ball"}})
    samples, report = read(sav, masklet_file(tmp_path).parent, facts, sentences=sentences)
    assert [s.truth.query for s in samples] == ["the ball"] and report.num_dropped() == 1
    _, report = read(sav, masklet_file(tmp_path, video_frame_count=11), facts)
    assert report.num_dropped(OTHER_LENGTH) == 2
    _, report = read(sav, masklet_file(tmp_path), Facts({}))
    assert report.num_dropped(NO_VIDEO) == 2
    late = masklet_file(tmp_path, masklet=[[LEFT, RIGHT]] * 3)
    samples, report = read(sav, late, facts)
    assert sorted(samples[0].truth.boxes_xyxy) == [0, 4] and report.num_changed(sav.LATE_MASKS) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masklet_id": [0, 0]}, "ids must differ"),
        ({"masklet": [[LEFT]]}, r"masklet\[0\] has 1 masks: there are 2 masklets"),
        ({"masklet": {}}, "masklet is {}"),
        ({"video_width": 32.5}, "video_width is 32.5"),
        ({"video_id": None}, "video_id is None"),
    ],
)
def test_a_broken_masklet_file_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"sav_1_manual\.json: .*{message}"):
        read(sav, masklet_file(tmp_path, **changes), Facts(VideoInfo(24.0, 8, 32, 16)))
    with pytest.raises(FileNotFoundError):
        read(sav, tmp_path / "none.json", Facts({}))


# The real files


@real
def test_the_real_masklet_file() -> None:
    file = ANNOTATIONS / "sav_example" / "sav_000001_manual.json"
    raw = json.loads(file.read_text())
    samples, report = read(sav, file, Facts({"sav_000001": VideoInfo(24.0, 483, 480, 848)}))
    assert len(samples) == len(raw["masklet_id"]) == 5 and len(raw["masklet"]) == 121 and not report.drops
    for column, sample in enumerate(samples):
        boxes = {4 * i: mask_box(decode_mask(rles[column])) for i, rles in enumerate(raw["masklet"])}
        assert sample.truth.boxes_xyxy == {frame: box for frame, box in boxes.items() if box is not None}
        assert max(sample.masks[column + 1]) == 480


@real
def test_the_real_ref_youtube_vos_file_names_no_object() -> None:
    file = ANNOTATIONS / "ref_youtube_vos" / "meta_expressions_valid.json"
    raw = json.loads(file.read_text())["videos"]
    samples, report = read(ref_youtube_vos, file, Facts({}), fps=6.0)
    assert not samples and report.num_dropped(NO_OBJECT) == sum(len(v["expressions"]) for v in raw.values()) == 2096


@real
def test_real_masks_in_mevis_layout_stream_back(tmp_path: Path) -> None:
    folder = ANNOTATIONS / "derived_mevis_format"
    raw = json.loads((folder / "meta_expressions.json").read_text())["videos"]
    rles = json.loads((folder / "mask_dict.json").read_text())
    samples, report = read(mevis, folder / "meta_expressions.json", VIDEOS / "davis" / "JPEGImages", fps=24.0)
    told = [(video, key, item) for video, record in raw.items() for key, item in record["expressions"].items()]
    assert len(samples) == len(told) == 4 and not report.drops and not report.changes
    for stored, (video, key, item) in zip(through_shards(samples, tmp_path), told, strict=True):
        truth, (anno,) = stored.truth, item["anno_id"]
        masks = {f: rle for f, rle in enumerate(rles[str(anno)]) if rle is not None}
        assert truth.id == f"{video}/{key}" and truth.num_frames == len(raw[video]["frames"])
        assert stored.masks == {1: masks}
        assert truth.boxes_xyxy == {f: mask_box(decode_mask(rle)) for f, rle in masks.items()}
    jump = next(s for s in samples if s.truth.id == "motocross-jump/0")
    assert min(jump.truth.boxes_xyxy) == 5, "the first five masks are null"


@real
def test_real_davis_sequences_stream_back(tmp_path: Path) -> None:
    """Grey masks of 2016, a segmenter's palettes as of 2017, the same pictures."""
    root = VIDEOS / "davis"
    grey, _ = read(davis, root / "Annotations", root / "JPEGImages", fps=24.0)
    palette, _ = read(davis, root / "osvos_predictions", root / "JPEGImages", fps=24.0)
    assert (len(grey), len(palette)) == (3, 5)
    for sample in (*grey, *palette):
        sequence, object_id, _ = sample.truth.id.split("/")
        folder = root / ("Annotations" if sample in grey else "osvos_predictions") / sequence
        pictures = sorted(folder.glob("*.png"))
        assert sample.truth.num_frames == len(pictures)
        for frame, picture in enumerate(pictures):
            labels = np.asarray(Image.open(picture))
            mask = labels > 0 if sample in grey else labels == int(object_id)
            assert sample.truth.boxes_xyxy.get(frame) == mask_box(mask)
    (stored,) = through_shards(grey[1:2], tmp_path)
    assert stored.truth == grey[1].truth and stored.masks == grey[1].masks
    shown = decode_frames(stored.video, (0, 39), 24.0).frames
    for frame, name in ((0, "00000.jpg"), (1, "00039.jpg")):
        original = np.asarray(Image.open(root / "JPEGImages" / "car-shadow" / name).convert("RGB"))
        assert np.abs(shown[frame].astype(int) - original).mean() < 4
