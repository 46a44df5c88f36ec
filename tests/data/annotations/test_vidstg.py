"""VidSTG: exclusive and inclusive ends, several questions a record, VidOR's boxes, crops to the used segment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stvg_lightning.data.annotations import vidstg
from stvg_lightning.data.annotations.conversions import CLAMPED, EMPTY, OTHER_LENGTH, REVERSED
from stvg_lightning.data.annotations.videos import NO_VIDEO
from stvg_lightning.data.video import VideoInfo, decode_frames, probe_video
from tests.data.annotations.reading import (
    ANNOTATIONS,
    VIDEOS,
    Facts,
    make_video,
    read,
    real,
    through_shards,
    written,
)

FACTS = VideoInfo(5.0, 20, 32, 16)
REAL = ANNOTATIONS / "vidstg"


def record(begin: int = 4, end: int = 8, segment: tuple[int, int] = (2, 15), **changes: Any) -> dict[str, Any]:
    base = {"vid": "77", "fps": 5.0, "frame_count": 20, "width": 32, "height": 16}
    base |= {"used_segment": {"begin_fid": segment[0], "end_fid": segment[1]}}
    base |= {"temporal_gt": {"begin_fid": begin, "end_fid": end}}
    base |= {"captions": [{"description": "a dog runs", "type": "dog", "target_id": 0}]}
    base |= {"questions": [{"description": "who runs?", "type": "dog", "target_id": 0}]}
    return base | changes


def trajectories(folder: Path, *frames: list[tuple[int, list[float]]]) -> Path:
    """A VidOR file of video 77; the frames are lists of (tid, corners)."""
    corners = ("xmin", "ymin", "xmax", "ymax")
    boxes = [[{"tid": t, "bbox": dict(zip(corners, box, strict=True))} for t, box in frame] for frame in frames]
    objects = [{"tid": 0, "category": "dog"}, {"tid": 1, "category": "ball"}]
    written(folder / "0001" / "77.json", {"trajectories": boxes, "subject/objects": objects})
    return folder


def moving(folder: Path) -> Path:
    """Object 0 in every frame but the fifth, object 1 in the first three."""
    frames = [[(0, [f, 0, f + 4, 4])] * (f != 5) + [(1, [0, 0, 1, 1])] * (f < 3) for f in range(20)]
    return trajectories(folder, *frames)


def test_a_record_by_hand(tmp_path: Path) -> None:
    file = written(tmp_path / "v.json", [record()])
    samples, report = read(vidstg, file, Facts(FACTS), trajectories=moving(tmp_path / "vidor"))
    assert not report.changes and not report.drops
    assert [(s.truth.id, s.truth.query) for s in samples] == [("77/0", "a dog runs"), ("77/1", "who runs?")]
    truth = samples[0].truth
    assert truth.span_frames == (4, 8), "temporal_gt leaves out its end"
    assert truth.object_id == 1 and samples[0].categories == {1: "dog", 2: "ball"}, "ours count from 1"
    assert truth.boxes_xyxy == {f: (float(f), 0.0, f + 4.0, 4.0) for f in (4, 6, 7)}, "an object may be missing"
    assert sorted(truth.tracks[1]) == [f for f in range(20) if f != 5] and sorted(truth.tracks[2]) == [0, 1, 2]


def test_kinds_choose_without_renaming(tmp_path: Path) -> None:
    file = written(tmp_path / "v.json", [record(), record()])
    for kind, ids in (("declarative", ["77/0", "77/2"]), ("interrogative", ["77/1", "77/3"])):
        samples, _ = read(vidstg, file, Facts(FACTS), kinds=kind)
        assert [s.truth.id for s in samples] == ids


def test_without_trajectories_only_the_time_is_asked_for(tmp_path: Path) -> None:
    samples, report = read(vidstg, written(tmp_path / "v.json", [record()]), Facts(FACTS))
    assert {s.truth.task for s in samples} == {"temporal"} and report.num_changed(vidstg.TIME_ONLY) == 2


def test_crops_count_from_the_segment_whose_end_counts_in(tmp_path: Path) -> None:
    make_video(tmp_path / "videos" / "0001" / "77.mp4")
    file = written(tmp_path / "v.json", [record(4, 16), record(0, 20, (0, 19), vid="77")])
    keys = {"trajectories": moving(tmp_path / "vidor"), "crop": True, "kinds": "declarative"}
    samples, report = read(vidstg, file, tmp_path / "videos", **keys)
    cropped, whole = (s.truth for s in samples)
    assert (cropped.num_frames, cropped.span_frames) == (14, (2, 14)), "[2, 15] are 14 frames, [4, 16) ends with them"
    assert cropped.boxes_xyxy[2] == (4.0, 0.0, 8.0, 4.0) and 3 not in cropped.boxes_xyxy
    assert min(cropped.tracks[1]) == 0 and max(cropped.tracks[1]) == 13 and sorted(cropped.tracks[2]) == [0]
    assert (whole.num_frames, whole.span_frames) == (20, (0, 20)) and report.num_changed(vidstg.CROPPED) == 1
    assert report.num_changed(CLAMPED) == 0
    stored, _ = through_shards(samples, tmp_path / "out")
    assert stored.truth == cropped and probe_video(stored.video).num_frames == 14
    frames = decode_frames(stored.video, (0, 13), 5.0).frames
    assert abs(int(frames[0].mean()) - 4) <= 2 and abs(int(frames[1].mean()) - 30) <= 2, "frames 2 and 15 of the file"


def test_what_is_dropped_is_counted_by_reason(tmp_path: Path) -> None:
    items = [
        record(8, 4, questions=[]),
        record(4, 4, questions=[]),
        record(18, 25, questions=[]),
        record(vid="88", questions=[]),
        record(vid="99", questions=[]),
        record(frame_count=25, questions=[]),
        record(captions=[{"description": "?", "target_id": 7}], questions=[]),
        record(5, 6, questions=[]),
    ]
    videos = Facts({"77": FACTS, "88": FACTS})
    file = written(tmp_path / "v.json", items)
    samples, report = read(vidstg, file, videos, trajectories=moving(tmp_path / "vidor"))
    assert [s.truth.span_frames for s in samples] == [(18, 20)] and report.num_changed(CLAMPED) == 1
    reasons = [REVERSED, EMPTY, vidstg.WITHOUT_TRAJECTORIES, NO_VIDEO, OTHER_LENGTH, vidstg.NO_TARGET]
    reasons.append("there is no box during the span")
    assert {reason: report.num_dropped(reason) for reason in report.drops} == dict.fromkeys(reasons, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temporal_gt": None}, "temporal_gt is None: it must be a JSON object"),
        ({"temporal_gt": {"begin_fid": 1}}, "key 'end_fid' is missing"),
        ({"temporal_gt": {"begin_fid": -1, "end_fid": 4}}, "begin_fid is -1"),
        ({"frame_count": "20"}, "frame_count is '20'"),
        ({"captions": {}}, "captions is {}: it must be a list"),
        ({"captions": [7]}, "captions is 7: it must be a JSON object"),
        ({"captions": [{"description": 7, "target_id": 0}]}, "description is 7"),
        ({"captions": [{"description": "a"}]}, "key 'target_id' is missing"),
        ({"vid": ""}, "vid is ''"),
    ],
)
def test_a_broken_record_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"v\.json\[0\](\.captions\[0\])?: {message}"):
        read(vidstg, written(tmp_path / "v.json", [record(**changes)]), Facts(FACTS))


@pytest.mark.parametrize(
    ("box", "message"),
    [([4, 0, 3, 4], "not reversed"), ([0, 0, "x", 4], "the box is 'x'"), ([0, 0, 1e308 * 10, 4], "Infinity")],
)
def test_a_broken_trajectory_file_is_named(tmp_path: Path, box: list[Any], message: str) -> None:
    folder = trajectories(tmp_path / "vidor", [(0, box)])
    with pytest.raises(ValueError, match=rf"77\.json: .*{message}"):
        read(vidstg, written(tmp_path / "v.json", [record()]), Facts(FACTS), trajectories=folder)
    with pytest.raises(FileNotFoundError, match="no folder of trajectories"):
        read(vidstg, written(tmp_path / "v.json", [record()]), Facts(FACTS), trajectories=tmp_path / "none")


# The real files


def questions_of(data: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for item in data:
        yield from ((item, asked) for asked in (*item["captions"], *item["questions"]))


def annotated(data: list[dict[str, Any]]) -> Facts:
    return Facts({r["vid"]: VideoInfo(float(r["fps"]), r["frame_count"], r["width"], r["height"]) for r in data})


@real
@pytest.mark.parametrize(("name", "num_records", "num_at_end"), [("val", 356, 64), ("test", 301, 50)])
def test_whole_subsets(name: str, num_records: int, num_at_end: int) -> None:
    file = REAL / f"{name}_annotations_subset.json"
    data = json.loads(file.read_text())
    samples, report = read(vidstg, file, annotated(data))
    asked = list(questions_of(data))
    assert len(data) == num_records and len(samples) == len(asked) and not report.drops
    assert set(report.changes) <= {vidstg.TIME_ONLY}, "nothing is clamped: the end may be the number of frames"
    at_end = [r for r in data if r["temporal_gt"]["end_fid"] == r["frame_count"] == r["used_segment"]["end_fid"] + 1]
    assert len(at_end) == num_at_end
    assert max(r["temporal_gt"]["end_fid"] - r["frame_count"] for r in data) == 0
    assert max(r["used_segment"]["end_fid"] - r["frame_count"] for r in data) == -1
    for sample, (item, question) in zip(samples, asked, strict=True):
        assert sample.truth.query == question["description"].strip()
        assert sample.truth.span_frames == (item["temporal_gt"]["begin_fid"], item["temporal_gt"]["end_fid"])


@real
def test_crops_of_the_whole_subsets_cut_no_span_short() -> None:
    for name in ("val", "test"):
        file = REAL / f"{name}_annotations_subset.json"
        data = json.loads(file.read_text())
        samples, report = read(vidstg, file, annotated(data), crop=True)
        assert report.num_changed(CLAMPED) == 0 and not report.drops
        for sample, (item, _) in zip(samples, questions_of(data), strict=True):
            used, gt = item["used_segment"], item["temporal_gt"]
            assert sample.truth.num_frames == used["end_fid"] - used["begin_fid"] + 1
            first = used["begin_fid"]
            assert sample.truth.span_frames == (gt["begin_fid"] - first, gt["end_fid"] - first)


@real
def test_real_sentences_with_real_boxes() -> None:
    """Test video 11566930393 is the one whose trajectories are at hand."""
    file = REAL / "test_annotations_subset.json"
    data = json.loads(file.read_text())
    samples, report = read(vidstg, file, annotated(data), trajectories=ANNOTATIONS / "vidor")
    own = [pair for pair in questions_of(data) if pair[0]["vid"] == "11566930393"]
    assert len(samples) == len(own) > 0
    assert report.num_dropped(vidstg.WITHOUT_TRAJECTORIES) == len(list(questions_of(data))) - len(own)
    raw = json.loads((ANNOTATIONS / "vidor" / "vidor_11566930393.json").read_text())
    for sample, (item, question) in zip(samples, own, strict=True):
        truth, target = sample.truth, question["target_id"]
        span = range(item["temporal_gt"]["begin_fid"], item["temporal_gt"]["end_fid"])
        boxes = {f: b["bbox"] for f in span for b in raw["trajectories"][f] if b["tid"] == target}
        assert {
            f: dict(zip(("xmin", "ymin", "xmax", "ymax"), b, strict=True)) for f, b in truth.boxes_xyxy.items()
        } == boxes
        assert truth.object_id == target + 1 and truth.task == "stvg"
        assert sum(map(len, truth.tracks.values())) == sum(map(len, raw["trajectories"]))


@real
def test_real_val_videos_stream_back(tmp_path: Path) -> None:
    file = REAL / "val_annotations_subset.json"
    samples, report = read(vidstg, file, VIDEOS / "vidor_vidstg")
    names = {"3843663025", "4591061010", "8665030691"}
    asked = [pair for pair in questions_of(json.loads(file.read_text())) if pair[0]["vid"] in names]
    assert len(samples) == len(asked) == 65 and report.num_dropped() == report.num_dropped(NO_VIDEO) == 730
    few = [samples[index] for index in (0, 20, 40, 64)]
    for stored, sample, (item, question) in zip(
        through_shards(few, tmp_path), few, [asked[index] for index in (0, 20, 40, 64)], strict=True
    ):
        assert stored.truth == sample.truth and stored.truth.query == question["description"].strip()
        assert stored.truth.num_frames == item["frame_count"] == probe_video(stored.video).num_frames
        assert stored.truth.span_frames == (item["temporal_gt"]["begin_fid"], item["temporal_gt"]["end_fid"])
        assert stored.truth.fps == pytest.approx(item["fps"], abs=1e-3)
