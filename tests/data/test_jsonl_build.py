"""Truth lines and a folder of videos become samples, and shards."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.data.annotations import read_jsonl_samples, vote_object_id
from stvg_lightning.data.annotations.jsonl import check_counts, tube_of_masks
from stvg_lightning.data.shards import ShardFolder, write_shards
from stvg_lightning.tubes import Box, Rle, Sample, Tube, encode_mask
from stvg_lightning.tubes.jsonl import truth_to_json

LINE: dict[str, Any] = {
    "id": "clip",
    "query": "the dog that jumps",
    "fps": 8,
    "num_frames": 10,
    "width": 16,
    "height": 12,
    "span_frames": [2, 4],
}
NEAR, FAR = [1.0, 1.0, 5.0, 5.0], [9.0, 6.0, 15.0, 11.0]


def read(tmp_path: Path, *lines: dict[str, Any], videos: tuple[str, ...] = ("clip.mp4",)) -> list[Sample]:
    (tmp_path / "videos").mkdir(exist_ok=True)
    for name in videos:
        (tmp_path / "videos" / name).touch()
    annotations = tmp_path / "truth.jsonl"
    annotations.write_text("\n".join(map(json.dumps, lines)))
    return list(read_jsonl_samples(annotations, tmp_path / "videos"))


def rle_of(box: list[float]) -> Rle:
    x1, y1, x2, y2 = map(int, box)
    mask = np.zeros((12, 16), dtype=bool)
    mask[y1:y2, x1:x2] = True
    return encode_mask(mask)


def test_the_synthetic_world_goes_out_and_comes_back(synthetic_samples: tuple[Sample, ...], tmp_path: Path) -> None:
    lines = []
    (tmp_path / "videos").mkdir()
    for sample in synthetic_samples[:3]:
        (tmp_path / "videos" / f"{sample.truth.id}.mp4").write_bytes(sample.video)
        extras = {"masks": sample.masks, "categories": sample.categories, "thought": sample.thought}
        lines.append(truth_to_json(sample.truth) | json.loads(json.dumps(extras)))
    samples = read(tmp_path, *lines)
    report = write_shards(samples, tmp_path / "out", "made up", "CC0")
    assert report.num_written == 3 and report.skipped == ()
    for number, (built, given_sample) in enumerate(
        zip(ShardFolder(tmp_path / "out"), synthetic_samples[:3], strict=True)
    ):
        assert dataclasses.replace(built, source="") == dataclasses.replace(given_sample, source="")
        assert samples[number].source == f"{tmp_path / 'truth.jsonl'}:{number + 1}"


def test_boxes_alone_make_the_target_object_1(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, LINE | {"boxes_xyxy": {"2": NEAR, "3": FAR}})
    assert sample.truth.object_id == 1
    assert sample.truth.tracks == {1: {2: tuple(NEAR), 3: tuple(FAR)}}
    (sample,) = read(tmp_path, LINE | {"boxes_xyxy": {"2": NEAR}, "object_id": 6})
    assert sample.truth.tracks == {6: {2: tuple(NEAR)}}


def test_boxes_alone_are_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(tmp_path, LINE | {"boxes_xyxy": {"2": NEAR}, "tracks": {"1": {"2": NEAR}}})
    read(tmp_path, LINE | {"boxes_xyxy": {"2": NEAR}, "task": "temporal"})
    assert not caplog.messages
    read(tmp_path, LINE | {"boxes_xyxy": {"2": NEAR}}, LINE | {"id": "b", "video": "a.mp4", "boxes_xyxy": {"2": NEAR}})
    (message,) = caplog.messages
    assert message.startswith("2 samples (") and "the video shows the answer" in message


def test_masks_alone_give_tracks_and_boxes(tmp_path: Path) -> None:
    empty = encode_mask(np.zeros((12, 16), dtype=bool))
    masks = {"3": {"2": rle_of(NEAR), "3": rle_of(FAR), "5": empty}, "8": {"9": rle_of(NEAR)}}
    (sample,) = read(tmp_path, LINE | {"masks": masks, "object_id": 3})
    assert sample.truth.tracks == {3: {2: tuple(NEAR), 3: tuple(FAR)}, 8: {9: tuple(NEAR)}}
    assert sample.truth.boxes_xyxy == {2: tuple(NEAR), 3: tuple(FAR)}
    assert sample.masks[3].keys() == {2, 3, 5}
    (voted,) = read(tmp_path, LINE | {"masks": masks, "boxes_xyxy": {"3": FAR}})
    assert voted.truth.object_id == 3


def test_a_missing_object_id_is_voted_for_during_the_span(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracks = {"4": {"2": NEAR, "3": FAR, "6": FAR}, "5": {"2": FAR, "3": FAR, "6": NEAR, "7": NEAR}}
    boxes = {"2": NEAR, "3": FAR, "6": NEAR, "7": NEAR}
    (sample,) = read(tmp_path, LINE | {"tracks": tracks, "boxes_xyxy": boxes})
    assert sample.truth.object_id == 4 and sample.votes == {4: 2} and not caplog.messages
    with caplog.at_level(logging.WARNING, "stvg_lightning.data"):
        (sample,) = read(tmp_path, LINE | {"tracks": tracks, "boxes_xyxy": {"2": FAR, "7": FAR}})
        assert sample.truth.object_id == 5 and not caplog.messages
        (sample,) = read(tmp_path, LINE | {"tracks": tracks | {"4": {"2": NEAR}}, "boxes_xyxy": {"2": NEAR, "3": FAR}})
    assert (
        sample.truth.object_id == 4
        and "only 50 % of the frames agree that the target is object 4" in caplog.messages[0]
    )
    assert sample.votes == {4: 1, 5: 1}
    (told,) = read(tmp_path, LINE | {"tracks": tracks, "object_id": 4, "votes": {"4": 7, "5": 1}})
    assert told.votes == {4: 7, 5: 1}
    with pytest.raises(ValueError, match=r"truth\.jsonl:1: object_id is missing, and boxes_xyxy overlap none of the 2"):
        read(tmp_path, LINE | {"tracks": tracks, "boxes_xyxy": {"2": [6, 0, 8, 1]}})


def test_temporal_lines_need_no_boxes(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, LINE | {"task": "temporal"})
    assert sample.truth.tracks == {} and sample.truth.object_id is None


def test_the_video_is_found_by_name_or_by_id(tmp_path: Path) -> None:
    line = LINE | {"task": "temporal"}
    videos = tmp_path / "videos"
    assert read(tmp_path, line)[0].video == videos / "clip.mp4"
    assert read(tmp_path, line | {"id": "a.b"}, videos=("a.b.MKV", "a.b.txt"))[0].video == videos / "a.b.MKV"
    assert read(tmp_path, line | {"id": "clip"}, videos=("clip.avi",))[0].video == videos / "clip.mp4"
    assert read(tmp_path, line | {"video": "sub/other.webm"})[0].video == videos / "sub" / "other.webm"
    assert read(tmp_path, line | {"id": "absent"})[0].video == videos / "absent.mp4"
    with pytest.raises(
        ValueError, match=r"truth\.jsonl:1: id 'two' has several videos, two\.avi, two\.webm: say which"
    ):
        read(tmp_path, line | {"id": "two"}, videos=("two.avi", "two.webm"))
    for name in ("../x.mp4", "/x.mp4"):
        with pytest.raises(ValueError, match=rf"truth\.jsonl:1: video is '{name}': it must be a file name inside"):
            read(tmp_path, line | {"video": name})
    with pytest.raises(ValueError, match="its extension must be one of mp4, webm, mkv, avi, mov"):
        read(tmp_path, line | {"video": "x.gif"})


def test_a_missing_video_is_skipped_by_the_writer(tmp_path: Path) -> None:
    samples = read(tmp_path, LINE | {"task": "temporal", "id": "absent"})
    with pytest.raises(
        ValueError, match=r"1 of 1 samples cannot be used(.|\n)*absent: there is no video at .*absent\.mp4"
    ):
        write_shards(samples, tmp_path / "out", "made up", "CC0")


def test_wrong_lines_and_missing_files_are_named(tmp_path: Path) -> None:
    line = LINE | {"task": "temporal"}
    with pytest.raises(ValueError, match=r"truth\.jsonl:2: id 'clip' stands already at .*truth\.jsonl:1"):
        read(tmp_path, line, line)
    with pytest.raises(ValueError, match=r"truth\.jsonl:1: unknown key 'mask': the nearest valid key is 'masks'"):
        read(tmp_path, line | {"mask": {}})
    with pytest.raises(ValueError, match=r"truth\.jsonl:1: a mask's counts .* must cover 16 x 12 pixels"):
        read(tmp_path, line | {"masks": {"1": {"2": {"size": [12, 16], "counts": "04"}}}})
    with pytest.raises(ValueError, match=r"truth\.jsonl:1: boxes_xyxy is missing"):
        read(tmp_path, LINE)
    with pytest.raises(FileNotFoundError, match="no annotation file at"):
        read_jsonl_samples(tmp_path / "none.jsonl", tmp_path / "videos")
    with pytest.raises(FileNotFoundError, match="no folder of videos at"):
        read_jsonl_samples(tmp_path / "truth.jsonl", tmp_path / "none")


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_real_masks_pass_and_cut_ones_do_not(height: int, width: int, seed: int, density: float) -> None:
    rle = encode_mask(np.random.default_rng(seed).random((height, width)) < density)
    check_counts(rle)
    for counts in (rle["counts"][:-1], rle["counts"] + "1", ""):
        with pytest.raises(ValueError, match="must cover"):
            check_counts({"size": rle["size"], "counts": counts})


def test_a_tube_of_masks_is_tight() -> None:
    assert tube_of_masks({4: rle_of(FAR), 1: rle_of(NEAR)}) == {1: tuple(NEAR), 4: tuple(FAR)}


def naive_iou(first: Box, second: Box) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def naive_vote(boxes: Tube, tracks: dict[int, Tube]) -> tuple[int | None, float]:
    ballots = []
    for frame, box in boxes.items():
        scored = [(naive_iou(box, tube[frame]), -object_id) for object_id, tube in tracks.items() if frame in tube]
        if scored and max(scored)[0] > 0:
            ballots.append(-max(scored)[1])
    if not ballots:
        return None, 0.0
    counts = Counter(ballots)
    winner = min(counts, key=lambda object_id: (-counts[object_id], object_id))
    return winner, counts[winner] / len(ballots)


corners = st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 5), st.integers(1, 5))
tubes = st.dictionaries(
    st.integers(0, 4),
    corners.map(lambda c: (float(c[0]), float(c[1]), float(c[0] + c[2]), float(c[1] + c[3]))),
    max_size=5,
)


@given(tubes, st.dictionaries(st.integers(1, 4), tubes, max_size=4))
def test_the_vote_is_that_of_a_plain_loop(boxes: Tube, tracks: dict[int, Tube]) -> None:
    assert vote_object_id(boxes, tracks) == pytest.approx(naive_vote(boxes, tracks), abs=1e-9)


def test_the_vote_by_hand() -> None:
    """Object 2 wins frames 0 and 1, object 1 wins frame 2, nobody overlaps in frame 3, frame 4 has no track."""
    near, far = (0.0, 0.0, 4.0, 4.0), (10.0, 10.0, 14.0, 14.0)
    boxes = dict.fromkeys(range(5), near)
    half, most = (2.0, 0.0, 6.0, 4.0), (1.0, 0.0, 5.0, 4.0)
    tracks = {1: {0: half, 1: half, 2: most, 3: far}, 2: {0: most, 1: near, 2: half, 3: far}}
    assert vote_object_id(boxes, tracks) == (2, pytest.approx(2 / 3))
    assert vote_object_id(boxes, {1: {3: far}}) == (None, 0.0)
    assert vote_object_id({0: near, 1: near}, {5: {0: near, 1: half}, 3: {0: half, 1: near}}) == (3, 0.5)
