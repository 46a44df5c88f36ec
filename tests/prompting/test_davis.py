"""DAVIS: real masks in place of networks; then networks of random weights on real frames, through the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stvg_lightning.cli.main import main
from stvg_lightning.cli.prompting import _Numbered
from stvg_lightning.data.annotations import VideoFolder, count_votes, davis, elected
from stvg_lightning.data.frames import VideoFrames
from stvg_lightning.data.report import Report
from stvg_lightning.data.shards import ShardFolder, build_shards
from stvg_lightning.data.video import encode_mp4_stream
from stvg_lightning.evaluation.prompt_quality import prompt_quality_row
from stvg_lightning.prompting import DetectionFilter, Markers, NewInstanceRule, ObjectTracking, track_objects
from stvg_lightning.prompting.given import GivenDetector, GivenTracker
from stvg_lightning.tubes import Rle, encode_mask, mask_overlaps, rle_box
from tests.small_trackers import save_rt_detr, save_sam2

FPS = 24.0
SEQUENCES = ("bmx-trees", "car-shadow", "motocross-jump")
ALL = DetectionFilter(most_iou=1.0)
Masks = dict[int, dict[int, Rle]]


def film(folder: Path, sequence: str) -> _Numbered:
    pictures = sorted((folder / "JPEGImages" / sequence).glob("*.jpg"))
    frames = (np.asarray(Image.open(picture).convert("RGB")) for picture in pictures)
    return _Numbered(VideoFrames(encode_mp4_stream(frames, FPS), window_frames=20))


def labels(folder: Path) -> Masks:
    """Object -> frame -> mask, of pictures of labels; 255 alone is the one object."""
    masks: Masks = {}
    for frame, picture in enumerate(sorted(folder.glob("*.png"))):
        found = np.asarray(Image.open(picture))
        found = np.where(found == 255, 1, found)
        for number in np.unique(found[found > 0]).tolist():
            masks.setdefault(number, {})[frame] = encode_mask(found == number)
    return masks


@pytest.fixture(scope="module", params=SEQUENCES)
def sequence(request: pytest.FixtureRequest, real_data: Path) -> tuple[_Numbered, Masks, Masks]:
    """Frames, the true masks of all objects together, and a real segmenter's of each object."""
    folder = real_data / "videos/davis"
    name = request.param
    return film(folder, name), labels(folder / "Annotations" / name), labels(folder / "osvos_predictions" / name)


def test_the_true_object_is_followed_from_its_first_frame_to_its_last(
    sequence: tuple[_Numbered, Masks, Masks],
) -> None:
    video, truth, _ = sequence
    tracks = track_objects(video, GivenDetector(truth, {1: "person"}), GivenTracker(truth))
    assert [(t.object_id, t.category, t.found_frame, t.masks) for t in tracks] == [(1, "person", 0, truth[1])]
    target = tracks[0].tube
    assert elected(count_votes(target, {1: tracks[0].tube})) == (1, 1.0)
    row = prompt_quality_row("a", target, (0, len(target)), tracks, {1: len(target)}, Markers())
    assert row["oracle"] == dict.fromkeys(("0", "1/4", "1/3", "1/2"), 1.0) and row["switches"] == 0


def test_one_that_is_overlooked_until_frame_30_is_followed_back(sequence: tuple[_Numbered, Masks, Masks]) -> None:
    video, truth, _ = sequence
    late = GivenDetector(truth, blind_frames=frozenset(range(30)))
    tracks = track_objects(video, late, GivenTracker(truth))
    assert [(t.found_frame, t.masks) for t in tracks] == [(30, truth[1])]
    forward = track_objects(video, late, GivenTracker(truth), ObjectTracking(backward=False))
    assert forward[0].masks == {frame: rle for frame, rle in truth[1].items() if frame >= 30}


@pytest.mark.parametrize("memory", ["keep", "restart"])
def test_several_objects_get_the_numbers_that_the_rule_gives_them(
    sequence: tuple[_Numbered, Masks, Masks], memory: Any
) -> None:
    """A real segmenter's objects, which vanish, return and touch: each of the first frame keeps its masks, and a later
    one is numbered exactly where the rule, applied by hand to the masks of the frame, calls it new."""
    video, _, several = sequence
    settings = ObjectTracking(
        memory=memory, reidentify=None, detections=ALL, new_instance=NewInstanceRule(compare="masks")
    )
    tracks = track_objects(video, GivenDetector(several), GivenTracker(several), settings)
    expected = numbered_by_hand(several, memory == "keep")
    assert [(t.object_id, t.found_frame) for t in tracks] == [(i + 1, frame) for i, (_, frame) in enumerate(expected)]
    for track, (number, found_frame) in zip(tracks, expected, strict=True):
        if memory == "keep":
            assert track.masks == several[number]
        else:
            assert {f: m for f, m in track.masks.items() if f <= found_frame} == {
                f: m for f, m in several[number].items() if f <= found_frame
            }


def numbered_by_hand(several: Masks, keeps: bool) -> list[tuple[int, int]]:
    """(number of the given object, frame of discovery), in the order of discovery."""
    followed: dict[int, int] = {}
    found: list[tuple[int, int]] = []
    for frame in range(0, 1 + max(max(rles) for rles in several.values()), 15):
        seen = [number for number, rles in several.items() if frame in rles and rle_box(rles[frame])]
        if not keeps:
            followed = {i: number for i, number in followed.items() if number in seen}
        tracked = [several[number][frame] for number in followed.values() if number in seen]
        for number in seen:
            ious, shares = mask_overlaps([several[number][frame]], tracked)
            if not tracked or (ious.max() < 0.4 and shares.max() < 0.6):
                found.append((number, frame))
                followed[len(found)] = number
    return found


def test_the_command_with_random_networks(real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real frames, a detector and SAM 2 of random weights, loaded by name: shards, votes and figures come out."""
    folder = tmp_path / "davis"
    for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
        for picture in sorted((real_data / "videos/davis" / kind / "car-shadow").glob(f"*.{ending}"))[:16]:
            (folder / kind / "car-shadow").mkdir(parents=True, exist_ok=True)
            (folder / kind / "car-shadow" / picture.name).symlink_to(picture.resolve())
    samples = davis.read(folder / "Annotations", VideoFolder(folder / "JPEGImages"), Report(), FPS)
    build_shards(samples, tmp_path / "clean", "DAVIS", "BSD")
    (tmp_path / "detector").mkdir()
    keys = [
        f"detector={{use: stvg_lightning.prompting.detectors.RtDetr, name: {save_rt_detr(tmp_path / 'detector')}}}",
        f"tracker={{use: stvg_lightning.prompting.trackers.TransformersSam2, name: {save_sam2(tmp_path / 'sam2')}}}",
        "tracking.detections.least_confidence=0.0",
    ]
    arguments = ["--shards", str(tmp_path / "clean"), "--out", str(tmp_path / "out")]
    assert main(["shards", "prompt", *arguments, *keys]) == 0
    sample = ShardFolder(tmp_path / "out")[0]
    assert sample.truth.tracks.keys() == sample.masks.keys() == sample.categories.keys() and sample.votes
    assert sample.truth.object_id == max(sample.votes, key=lambda i: (sample.votes[i], -i))
    quality = json.loads((tmp_path / "out/quality.json").read_text())
    assert quality["samples"] == 1 and 0 <= quality["oracle"]["0"]["m_vIoU"] <= 1
