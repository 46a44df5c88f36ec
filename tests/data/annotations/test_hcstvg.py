"""HC-STVG: both versions' keys, one-based frames, boxes by width and height, and the merged training set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stvg_lightning.data.annotations import hcstvg, hcstvg_v1, hcstvg_v2
from stvg_lightning.data.annotations.conversions import CLAMPED, NO_AREA, OTHER_LENGTH, OTHER_SIZE
from stvg_lightning.data.annotations.videos import NO_VIDEO
from stvg_lightning.data.video import VideoInfo
from stvg_lightning.tubes import Sample
from tests.data.annotations.reading import ANNOTATIONS, Facts, make_video, read, real, through_shards, written

FACTS = VideoInfo(5.0, 100, 64, 48)
V1 = {"bbox": [[1, 2, 10, 20], [3, 4.5, 10, 20]], "st_time": 2.0, "ed_time": 2.4, "img_num": 100, "caption": "a man "}
V1 |= {"width": 64, "height": 48, "st_frame": 11}
V2 = {key: V1[key] for key in ("bbox", "st_time", "ed_time", "img_num", "st_frame")}
V2 |= {"English": "a man", "img_size": [48, 64, 3]}


def one(tmp_path: Path, record: dict[str, Any], facts: VideoInfo = FACTS, **keys: Any) -> Sample:
    (sample,), _ = read(hcstvg, written(tmp_path / "a.json", {"1_x.y.mkv": record}), Facts(facts), **keys)
    return sample


@pytest.mark.parametrize("record", [V1, V2])
def test_a_record_by_hand(tmp_path: Path, record: dict[str, Any]) -> None:
    sample = one(tmp_path, record)
    truth = sample.truth
    assert (truth.id, truth.query, truth.task) == ("1_x.y", "a man", "stvg")
    assert (truth.fps, truth.num_frames, truth.width, truth.height) == (5.0, 100, 64, 48)
    assert truth.span_frames == (10, 12)
    assert truth.boxes_xyxy == {10: (1.0, 2.0, 11.0, 22.0), 11: (3.0, 4.5, 13.0, 24.5)}
    assert truth.span_seconds == (2.0, 2.4) == (record["st_time"], record["ed_time"])
    assert truth.tracks == {} and truth.object_id is None, "numbers drawn on the target alone would tell the answer"
    assert sample.video == Path("videos/1_x.y.mkv") and sample.source.endswith("a.json['1_x.y.mkv']")


def test_the_rate_is_the_videos_own(tmp_path: Path) -> None:
    facts = VideoInfo(6.0, 100, 64, 48)
    (sample,), report = read(hcstvg, written(tmp_path / "a.json", {"a.mp4": V1}), Facts(facts))
    assert sample.truth.fps == 6.0 and report.num_changed(hcstvg.OTHER_RATE) == 1


def test_boxes_after_the_video_are_left_out_and_counted(tmp_path: Path) -> None:
    record = V1 | {"st_frame": 99, "bbox": [[1, 2, 3, 4]] * 4}
    (sample,), report = read(hcstvg, written(tmp_path / "a.json", {"a.mp4": record}), Facts(FACTS))
    assert sample.truth.span_frames == (98, 100) and sorted(sample.truth.boxes_xyxy) == [98, 99]
    assert report.num_changed(CLAMPED) == 1


def test_a_box_without_area_is_left_out_and_counted(tmp_path: Path) -> None:
    record = V1 | {"bbox": [[1, 2, 0, 4], [1, 2, 3, 4]]}
    (sample,), report = read(hcstvg, written(tmp_path / "a.json", {"a.mp4": record}), Facts(FACTS))
    assert sorted(sample.truth.boxes_xyxy) == [11] and sample.truth.span_frames == (10, 12)
    assert report.num_changed(NO_AREA) == 1


def test_what_is_dropped_is_counted_by_reason(tmp_path: Path) -> None:
    records = {
        "gone.mp4": V1,
        "size.mp4": V1 | {"width": 65},
        "length.mp4": V1 | {"img_num": 98},
        "queries.mp4": {key: value for key, value in V2.items() if key != "bbox"},
        "blank.mp4": V1 | {"caption": " "},
        "good.mp4": V1,
        "good.mkv": V2,
    }
    facts = dict.fromkeys(("size", "length", "queries", "blank", "good"), FACTS)
    samples, report = read(hcstvg, written(tmp_path / "a.json", records), Facts(facts))
    assert [sample.truth.id for sample in samples] == ["good"]
    reasons = (NO_VIDEO, OTHER_SIZE, OTHER_LENGTH, hcstvg.NO_BOXES, "the sentence is empty", hcstvg.TWICE)
    assert {reason: report.num_dropped(reason) for reason in report.drops} == dict.fromkeys(reasons, 1)


def test_the_merged_training_set_has_no_held_out_video(tmp_path: Path) -> None:
    train_2 = written(tmp_path / "v2_train.json", {"a.mp4": V2, "b.mp4": V2, "c.mp4": V2})
    train_1 = written(tmp_path / "v1_train.json", {"b.mkv": V1, "d.mkv": V1, "e.mp4": V1})
    test_1 = written(tmp_path / "v1_test.json", {"a.mkv": V1})
    val_2 = written(tmp_path / "v2_val.json", {"d.mp4": V2})
    keys = {"also": [str(train_1)], "without": [str(test_1), str(val_2)]}
    samples, report = read(hcstvg, train_2, Facts(FACTS), **keys)
    assert [sample.truth.id for sample in samples] == ["b", "c", "e"]
    assert samples[0].source.startswith(str(train_2)), "of a video in both, the first file counts"
    assert (report.num_dropped(hcstvg.HELD_OUT), report.num_dropped(hcstvg.TWICE)) == (2, 1)


def test_a_version_refuses_the_others_keys(tmp_path: Path) -> None:
    first, second = written(tmp_path / "1.json", {"a.mp4": V1}), written(tmp_path / "2.json", {"a.mp4": V2})
    assert len(read(hcstvg_v1, first, Facts(FACTS))[0]) == len(read(hcstvg_v2, second, Facts(FACTS))[0]) == 1
    with pytest.raises(ValueError, match=r"2\.json\['a\.mp4'\]: the record's keys are those of version 2, not of v1"):
        read(hcstvg_v1, second, Facts(FACTS))
    with pytest.raises(ValueError, match="those of version 1, not of v2"):
        read(hcstvg_v2, first, Facts(FACTS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"st_frame": 0}, "st_frame is 0: it must be an integer of at least 1"),
        ({"bbox": [[1, 2, -3, 4]]}, r"bbox\[0\] is \[1, 2, -3, 4\]: .* no negative width or height"),
        ({"bbox": [[1, 2, 3]]}, r"bbox\[0\] is \[1, 2, 3\]: it must be four finite numbers"),
        ({"bbox": "all"}, "bbox is 'all': it must be a list"),
        ({"img_num": 10**30}, "img_num is 1000.*: it must be an integer"),
        ({"img_num": None}, "img_num is None"),
        ({"caption": 7}, "caption is 7: it must be a text"),
        ({"width": "64"}, "width is '64'"),
    ],
)
def test_a_broken_record_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.json\['1_x\.y\.mkv'\]: {message}"):
        one(tmp_path, V1 | change)


def test_missing_keys_and_wrong_files_are_named(tmp_path: Path) -> None:
    for key in ("img_num", "st_frame", "width"):
        with pytest.raises(ValueError, match=f"key '{key}' is missing"):
            one(tmp_path, {name: value for name, value in V1.items() if name != key})
    with pytest.raises(ValueError, match=r"an object of video names is expected"):
        read(hcstvg, written(tmp_path / "list.json", [V1]), Facts(FACTS))
    with pytest.raises(ValueError, match=r"\['1_x\.y\.mkv'\]: .*NaN is not allowed"):
        one(tmp_path, V1 | {"width": float("nan")})
    with pytest.raises(FileNotFoundError, match="no annotation file at"):
        read(hcstvg, tmp_path / "none.json", Facts(FACTS))


def test_a_written_clip_becomes_a_shard(tmp_path: Path) -> None:
    make_video(tmp_path / "videos" / "part_1" / "a.mp4", 100, 5.0, 64, 48)
    samples, _ = read(hcstvg, written(tmp_path / "a.json", {"a.mkv": V1}), tmp_path / "videos")
    (stored,) = through_shards(samples, tmp_path / "out")
    assert stored.truth == samples[0].truth


@real
@pytest.mark.parametrize(("module", "name"), [(hcstvg_v1, "v1_test.json"), (hcstvg_v2, "v2_val.json")])
def test_real_boxes_in_its_layout_stream_back(tmp_path: Path, module: Any, name: str) -> None:
    folder = ANNOTATIONS / "derived_hcstvg_format"
    raw = json.loads((folder / name).read_text())
    samples, report = read(module, folder / name, folder)
    assert not report.changes and not report.drops and len(samples) == len(raw) == 2
    for stored, (video, record) in zip(through_shards(samples, tmp_path), raw.items(), strict=True):
        truth = stored.truth
        assert (truth.id + ".mp4", truth.query) == (video, record.get("caption", record.get("English")))
        assert truth.num_frames == record["img_num"] and truth.fps == record["img_num"] / 20
        assert truth.span_seconds == (record["st_time"], record["ed_time"])
        first = record["st_frame"] - 1
        expected = {
            first + i: (round(x, 3), round(y, 3), round(x + w, 3), round(y + h, 3))
            for i, (x, y, w, h) in enumerate(record["bbox"])
        }
        assert truth.boxes_xyxy == expected and truth.span_frames == (first, first + len(record["bbox"]))
