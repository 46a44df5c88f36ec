"""Charades-STA, ActivityNet Captions, TVGBench and Time-R1's training set: sentences with a time in seconds."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stvg_lightning.data.annotations import activitynet_captions, charades_sta, time_r1, tvgbench
from stvg_lightning.data.annotations.conversions import CLAMPED, EMPTY, OUTSIDE, REVERSED
from stvg_lightning.data.annotations.temporal import BLANKS, CROPPED, CUT_ALREADY, OTHER_DURATION
from stvg_lightning.data.annotations.videos import NO_VIDEO
from stvg_lightning.data.video import VideoInfo, decode_frames, probe_video
from stvg_lightning.tubes import Sample
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

FACTS = VideoInfo(10.0, 100, 64, 48)
CHARADES = ANNOTATIONS / "charades_sta"
ACTIVITYNET = ANNOTATIONS / "activitynet_captions"
TVG = ANNOTATIONS / "tvgbench"


def as_long_as(duration_seconds: float) -> VideoInfo:
    """A video of very many frames that is as long as its annotation says, to a millionth of a second."""
    return VideoInfo(10**8 / duration_seconds, 10**8, 64, 48)


def ends_late(end: float, duration: float) -> bool:
    """Not by binary rounding alone: some durations are differences, such as 215.82999999999998."""
    return end > duration + 1e-5


def lines(tmp_path: Path, *texts: str) -> Path:
    return written(tmp_path / "charades.txt", "\n".join(texts) + "\n")


def test_charades_by_hand(tmp_path: Path) -> None:
    """At 10 frames a second frame f is shown from f / 10 on; it belongs to a span that holds its middle."""
    file = lines(tmp_path, "AB 0.2 1.0##a person walks.", "", "CD 0.24 1.26##b", "AB 9.5 12.0## c", "AB 3.0 3.0##d")
    samples, report = read(charades_sta, file, Facts(FACTS))
    assert [(s.truth.id, s.truth.query, s.truth.span_frames) for s in samples] == [
        ("AB/0", "a person walks.", (2, 10)),
        ("CD/0", "b", (2, 13)),
        ("AB/1", "c", (95, 100)),
    ]
    assert {s.truth.task for s in samples} == {"temporal"} and samples[0].video == Path("videos/AB.mp4")
    assert (report.num_changed(CLAMPED), report.num_changed(BLANKS), report.num_dropped(EMPTY)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("AB 0.2 1.0", "it must be VIDEO START END##SENTENCE"),
        ("AB 0.2##a", "it must be VIDEO START END##SENTENCE"),
        ("AB 0.2 nan##a", "they must be finite numbers of seconds"),
        ("AB 0.2 1e999##a", "they must be finite numbers of seconds"),
        ("AB x 1##a", "they must be finite numbers of seconds"),
    ],
)
def test_a_broken_charades_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"charades\.txt:2: .*{message}"):
        read(charades_sta, lines(tmp_path, "AB 0.2 1.0##a", line), Facts(FACTS))
    with pytest.raises(FileNotFoundError, match="no annotation file at"):
        read(charades_sta, tmp_path / "none.txt", Facts(FACTS))


def dictionary(tmp_path: Path, **changes: Any) -> Path:
    record = {"duration": 10.0, "timestamps": [[1, 2], [0.0, 4.5]], "sentences": ["a", " b"]}
    return written(tmp_path / "d.json", {"v_1": record | changes})


def test_a_dictionary_of_moments_by_hand(tmp_path: Path) -> None:
    for module in (activitynet_captions, charades_sta):
        samples, report = read(module, dictionary(tmp_path), Facts(FACTS))
        assert [(s.truth.id, s.truth.query, s.truth.span_frames) for s in samples] == [
            ("v_1/0", "a", (10, 20)),
            ("v_1/1", "b", (0, 45)),
        ]
        assert report.num_changed(BLANKS) == 1
    record = {"video_duration": 10.0, "timestamps": [[1, 2]], "sentences": ["a"]}
    other = written(tmp_path / "other.json", {"v_1": record})  # the other name that Time-R1's files have for it
    assert read(activitynet_captions, other, Facts(FACTS))[0][0].truth.span_frames == (10, 20)


def test_reversed_empty_and_late_spans_are_dropped_and_counted(tmp_path: Path) -> None:
    spans = [[2, 1], [3, 3], [10, 12], [9.99, 12], [-1, 1]]
    file = dictionary(tmp_path, timestamps=spans, sentences=list("abcde"))
    samples, report = read(activitynet_captions, file, Facts(FACTS))
    assert [s.truth.id for s in samples] == ["v_1/3", "v_1/4"], "ids do not depend on what is dropped"
    assert [s.truth.span_frames for s in samples] == [(99, 100), (0, 10)]
    assert [report.num_dropped(reason) for reason in (REVERSED, EMPTY, OUTSIDE)] == [1, 1, 1]
    assert report.num_changed(CLAMPED) == 1


def test_a_video_of_another_length_is_counted(tmp_path: Path) -> None:
    _, report = read(activitynet_captions, dictionary(tmp_path, duration=11.5), Facts(FACTS))
    assert report.num_changed(OTHER_DURATION) == 2
    durations = written(tmp_path / "durations.json", {"AB": {"duration": 30.0, "subset": "testing"}})
    _, report = read(charades_sta, lines(tmp_path, "AB 0 1##a"), Facts(FACTS), durations=durations)
    assert report.num_changed(OTHER_DURATION) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sentences": ["a"]}, "there are 2 timestamps and 1 sentences"),
        ({"timestamps": [[1, 2], [3]]}, r"timestamps\[1\] is \[3\]: it must be \[start, end\] in seconds"),
        ({"timestamps": [[1, 2], ["3", 4]]}, r"timestamps\[1\] is '3': it must be a finite number"),
        ({"timestamps": {}}, "timestamps is {}: it must be a list"),
        ({"duration": "ten"}, "duration is 'ten'"),
        ({"sentences": ["a", 3]}, "the sentence is 3: it must be a text"),
        ({"timestamps": [[1, 2], [0, 10**400]]}, r"timestamps\[1\] is 1000.*: it must be a finite number"),
    ],
)
def test_a_broken_dictionary_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"d\.json\['v_1'\](\[1\])?: {message}"):
        read(activitynet_captions, dictionary(tmp_path, **changes), Facts(FACTS))
    with pytest.raises(ValueError, match="an object of videos is expected"):
        read(activitynet_captions, written(tmp_path / "list.json", [{}]), Facts(FACTS))


def bench(**changes: Any) -> dict[str, Any]:
    return {"path": "./x/KW.mp4", "question": "q", "answer": "1.5-2.5", "start": None, "end": None} | changes


def test_tvgbench_by_hand(tmp_path: Path) -> None:
    items = [bench(), bench(answer="0-1"), bench(answer="7.25-7.25"), bench(path="y/KW.mkv", answer="9.0-11.0")]
    samples, report = read(tvgbench, written(tmp_path / "t.json", items), Facts(FACTS))
    assert [(s.truth.id, s.truth.span_frames) for s in samples] == [
        ("KW/0", (15, 25)),
        ("KW/1", (0, 10)),
        ("KW/3", (90, 100)),
    ]
    assert (report.num_dropped(EMPTY), report.num_changed(CLAMPED)) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": [1, 2]}, "answer is .1, 2.: it must be a text"),
        ({"answer": "1 to 2"}, "answer is '1 to 2': it must be a text such as"),
        ({"answer": "nan-2"}, "answer is 'nan-2'"),
        ({"start": 1.0}, r"start to end is \(1\.0, None\): it must be both null"),
        ({"start": 3.0, "end": 2.0}, "start to end is"),
        ({"path": None}, "path is None"),
    ],
)
def test_a_broken_item_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"t\.json\[1\]: {message}"):
        read(tvgbench, written(tmp_path / "t.json", [bench(), bench(**changes)]), Facts(FACTS))


def training(**changes: Any) -> dict[str, Any]:
    item = {"video": "./x/KW.mp4", "sentence": "q", "timestamp": [0.5, 1.5], "duration": 4.0, "qid": "my|q"}
    return item | {"video_start": None, "video_end": None, "difficulty": 50.0, "pred": [0, 3]} | changes


def test_crops_are_cut_out_and_frames_count_from_them(tmp_path: Path) -> None:
    make_video(tmp_path / "videos" / "KW.mp4", num_frames=60, fps=10.0)
    file = written(tmp_path / "t.json", [training(video_start=2.0, video_end=5.0)])
    samples, report = read(time_r1, file, tmp_path / "videos")
    truth = samples[0].truth
    assert (truth.num_frames, truth.span_frames, report.num_changed(CROPPED)) == (30, (5, 15), 1)
    assert not Path(samples[0].video).exists(), "the uncut file must not be taken for the crop"
    (stored,) = through_shards(samples, tmp_path / "out")
    info = probe_video(stored.video)
    assert stored.truth == truth and (info.num_frames, info.fps) == (30, 10.0)
    frames = decode_frames(stored.video, (0, 29), 10.0).frames
    assert abs(int(frames[0].mean()) - 40) <= 2 and abs(int(frames[1].mean()) - 98) <= 2, "frames 20 and 49 of the file"


def test_a_file_that_is_the_crop_already_is_not_cut_again(tmp_path: Path) -> None:
    name = "KW_00:00:39:000_00:00:49:000.mp4"
    items = [training(video=name, video_start=39.0, video_end=49.0)]
    samples, report = read(time_r1, written(tmp_path / "t.json", items), Facts(FACTS))
    assert samples[0].truth.num_frames == 100 and samples[0].video == Path("videos") / name
    assert (report.num_changed(CUT_ALREADY), report.num_changed(CROPPED)) == (1, 0)


def test_crops_are_clamped_and_dropped_like_spans(tmp_path: Path) -> None:
    items = [training(video_start=8.0, video_end=10.5), training(video_start=12.0, video_end=30.5)]
    samples, report = read(time_r1, written(tmp_path / "t.json", items), Facts(FACTS))
    assert [(s.truth.num_frames, s.truth.span_frames) for s in samples] == [(20, (5, 15))]
    assert (report.num_changed(CLAMPED), report.num_dropped(OUTSIDE)) == (1, 1)


def test_difficulty_chooses(tmp_path: Path) -> None:
    items = [training(difficulty=value) for value in (0.0, 40.0, 80.0)]
    keys = {"least_difficulty": 10.0, "most_difficulty": 60.0}
    samples, report = read(time_r1, written(tmp_path / "t.json", items), Facts(FACTS), **keys)
    assert [s.truth.id for s in samples] == ["KW/1"] and report.num_dropped(time_r1.EASIER) == 2
    with pytest.raises(ValueError, match=r"t\.json\[0\]: timestamp is"):
        read(time_r1, written(tmp_path / "t.json", [training(timestamp="0-1")]), Facts(FACTS))


# The real files


def middle_frames(start: float, end: float, info: VideoInfo) -> tuple[int, int]:
    """The frames whose middle lies in a span of seconds, one by one."""
    inside = [f for f in range(info.num_frames) if start - 1e-9 <= (f + 0.5) / info.fps < end - 1e-9]
    return inside[0], inside[-1] + 1


def check_spans(samples: list[Sample], raw: dict[str, tuple[str, float, float]]) -> None:
    """Every sample's sentence and frames against the raw annotation, to half a frame and the video's end."""
    for sample in samples:
        truth = sample.truth
        query, start, end = raw[truth.id]
        assert truth.query == query.strip()
        first, last = truth.span_frames or (0, 0)
        assert abs(first - start * truth.fps) <= 0.5 + 1e-6, truth.id
        assert abs(last - min(end * truth.fps, truth.num_frames)) <= 0.5 + 1e-6, truth.id


def charades_durations() -> dict[str, float]:
    return {key: entry["duration"] for key, entry in json.loads((CHARADES / "charades.json").read_text()).items()}


@real
def test_charades_test_file_whole() -> None:
    seen: Counter[str] = Counter()
    raw = {}
    for line in (CHARADES / "charades_sta_test.txt").read_text().splitlines():
        times, sentence = line.split("##")
        video, start, end = times.split(" ")
        raw[f"{video}/{seen[video]}"] = sentence, float(start), float(end)
        seen[video] += 1
    durations = charades_durations()
    late = sum(ends_late(end, durations[id_.split("/")[0]]) for id_, (_, _, end) in raw.items())
    assert (len(raw), late) == (3720, 562)
    videos = Facts({video: as_long_as(seconds) for video, seconds in durations.items()})
    samples, report = read(
        charades_sta, CHARADES / "charades_sta_test.txt", videos, durations=CHARADES / "charades.json"
    )
    assert (
        len(samples) == 3720
        and not report.drops
        and set(report.changes)
        == {CLAMPED, BLANKS} - (set() if any(q != q.strip() for q, _, _ in raw.values()) else {BLANKS})
    )
    assert report.num_changed(CLAMPED) == 562
    check_spans(samples, raw)


@real
def test_the_two_forms_of_charades_agree() -> None:
    videos = Facts({video: as_long_as(seconds) for video, seconds in charades_durations().items()})
    texts, _ = read(charades_sta, CHARADES / "charades_sta_test.txt", videos)
    others, _ = read(charades_sta, CHARADES / "timer1_charades_test.json", videos)
    by_id = {s.truth.id: s.truth for s in texts}
    assert len(others) == len(texts) == 3720
    sentences = Counter((s.truth.id.split("/")[0], s.truth.query, s.truth.span_frames) for s in others)
    assert sentences == Counter((id_.split("/")[0], t.query, t.span_frames) for id_, t in by_id.items())


@real
def test_real_charades_videos_stream_back(tmp_path: Path) -> None:
    """5INX3's truth ends at 46.0 s, after its 721 frames at 16.12 a second (44.73 s)."""
    samples, report = read(charades_sta, CHARADES / "charades_sta_test.txt", VIDEOS / "charades")
    rows = [row for row in (CHARADES / "charades_sta_test.txt").read_text().splitlines()]
    rows = [row for row in rows if row.split(" ")[0] in ("5INX3", "OHOFG")]
    assert len(samples) == len(rows) == 7 and report.num_dropped(NO_VIDEO) == report.num_dropped() == 3713
    stored = through_shards(samples, tmp_path)
    for sample, row in zip(stored, rows, strict=True):
        times, sentence = row.split("##")
        video, start, end = times.split(" ")
        info = probe_video(VIDEOS / "charades" / f"{video}.mp4")
        truth = sample.truth
        assert (truth.query, truth.num_frames, truth.fps) == (sentence, info.num_frames, info.fps)
        assert truth.span_frames == middle_frames(float(start), float(end), info)
        assert truth.annotated_seconds == (float(start), float(end)), "as annotated, even where that is late"
        assert sample.video == (VIDEOS / "charades" / f"{video}.mp4").read_bytes()
    late = next(sample.truth for sample in stored if sample.truth.id.startswith("5INX3"))
    assert late.span_frames == (524, 721) and report.num_changed(CLAMPED) == 1
    assert not math.isclose(late.fps, 30, abs_tol=5) and not math.isclose(late.fps, 24, abs_tol=5)


@real
@pytest.mark.parametrize(
    ("name", "num", "num_reversed", "num_empty", "num_late", "num_blank"),
    [("train_subset.json", 1138, 2, 2, 0, 784), ("val_1_first400.json", 1395, 0, 0, 1, 909)],
)
def test_activitynet_files_whole(
    name: str, num: int, num_reversed: int, num_empty: int, num_late: int, num_blank: int
) -> None:
    data = json.loads((ACTIVITYNET / name).read_text())
    raw = {
        f"{video}/{n}": (sentence, *span)
        for video, record in data.items()
        for n, (span, sentence) in enumerate(zip(record["timestamps"], record["sentences"], strict=True))
    }
    length = {video: record["duration"] for video, record in data.items()}
    assert len(raw) == num
    assert sum(s > e for _, s, e in raw.values()) == num_reversed
    assert sum(s == e for _, s, e in raw.values()) == num_empty
    assert sum(ends_late(e, length[id_.rpartition("/")[0]]) for id_, (_, _, e) in raw.items()) == num_late
    videos = Facts({video: as_long_as(seconds) for video, seconds in length.items()})
    samples, report = read(activitynet_captions, ACTIVITYNET / name, videos)
    assert len(samples) == num - num_reversed - num_empty
    assert (report.num_dropped(REVERSED), report.num_dropped(EMPTY)) == (num_reversed, num_empty)
    assert report.num_dropped() == num_reversed + num_empty
    assert report.num_changed(CLAMPED) == num_late
    dropped = [s for s, start, end in raw.values() if start >= end]
    assert report.num_changed(BLANKS) == num_blank - sum(s != s.strip() for s in dropped)
    check_spans(samples, raw)


@real
def test_tvgbench_whole() -> None:
    data = json.loads((TVG / "tvgbench.json").read_text())
    raw: dict[str, tuple[str, float, float]] = {}
    seen: Counter[str] = Counter()
    ends: dict[str, float] = {}
    for item in data:
        video = Path(item["path"]).stem
        start, end = map(float, item["answer"].split("-"))
        raw[f"{video}/{seen[video]}"] = item["question"], start, end
        seen[video] += 1
        ends[video] = max(ends.get(video, 0.0), item["end"] or item["duration"])
    num_cropped = sum(item["start"] is not None for item in data)
    assert (len(data), num_cropped) == (800, 252)
    assert sum(start == end for _, start, end in raw.values()) == 11
    assert sum(ends_late(float(item["answer"].split("-")[1]), item["duration"]) for item in data) == 27
    # A file a second longer than its last crop, so that none is taken for a crop already.
    longer = {Path(item["path"]).stem for item in data if item["start"] is not None}
    videos = Facts({v: as_long_as(s + 2 * (v in longer)) for v, s in ends.items()})
    samples, report = read(tvgbench, TVG / "tvgbench.json", videos)
    assert len(samples) == 789 and report.num_dropped(EMPTY) == report.num_dropped() == 11
    empty_crops = sum(item["start"] is not None and len(set(item["answer"].split("-"))) == 1 for item in data)
    assert report.num_changed(CROPPED) == 252 - empty_crops and report.num_changed(CLAMPED) == 27
    check_spans(samples, raw)


@real
def test_time_r1_training_set_whole() -> None:
    data = json.loads((TVG / "train_2k5.json").read_text())
    crops = [item for item in data if item["video_start"] is not None]
    late = [item for item in data if ends_late(item["timestamp"][1], item["duration"])]
    assert (len(data), len(crops), len(late)) == (2500, 665, 34)
    ends: dict[str, float] = {}
    for item in data:
        stem = Path(item["video"]).stem
        ends[stem] = max(ends.get(stem, 0.0), item["video_end"] + 2 if item["video_end"] else item["duration"])
    videos = Facts({stem: as_long_as(seconds) for stem, seconds in ends.items()})
    samples, report = read(time_r1, TVG / "train_2k5.json", videos)
    assert len(samples) == 2500 and not report.drops and report.num_changed(CROPPED) == 665
    assert report.num_changed(CLAMPED) == len(late)
    assert len({s.truth.id for s in samples}) == 2500
