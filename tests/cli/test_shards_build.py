"""`stvg shards build` with readers of all kinds: named, own, wrong; its report, and its workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stvg_lightning.cli.building import format_names
from stvg_lightning.data.shards import ShardFolder, read_manifest
from tests.data.annotations.reading import VIDEOS, make_video, real, written

FORMATS = {"activitynet_captions", "charades_sta", "davis", "hcstvg", "hcstvg_v1", "hcstvg_v2", "jsonl", "mevis"}
FORMATS |= {"ref_youtube_vos", "refcoco", "sav", "st_align", "sti_bench", "str_questions", "time_r1", "tvgbench"}
FORMATS |= {"v_star", "vidstg"}

OWN = """
from stvg_lightning.data.annotations import Dropped, Report, VideoFolder
from stvg_lightning.data.annotations.conversions import samples_of, truth_of
from stvg_lightning.tubes import Sample


def lines(annotations, videos: VideoFolder, report: Report, end: int, query: str = "it moves"):
    def convert(where, name):
        video = videos.find(name)
        return Sample(truth_of(name, query, videos.facts(video), span_frames=(0, end), task="temporal"), video)

    names = annotations.read_text().split()
    return samples_of(((f"{annotations}:{n}", name) for n, name in enumerate(names, 1)), convert, report)


def nothing(annotations):
    return []
"""


@pytest.fixture
def charades(tmp_path: Path) -> tuple[str, ...]:
    """The options for a file of nine lines: one late, one empty, one without its video."""
    lines = [f"{name} {start} {start + 1}.0##it moves {start}" for name in ("A", "B") for start in range(3)]
    lines += ["A 3.0 9.0##late", "B 2.0 2.0##empty", "C 0.0 1.0##gone"]
    for name in ("A", "B"):
        make_video(tmp_path / "videos" / f"{name}.mp4")
    file = written(tmp_path / "c.txt", "\n".join(lines))
    return "--format", "charades_sta", "--annotations", str(file), "--videos", str(tmp_path / "videos")


def test_the_report_is_printed_and_stored(charades: tuple[str, ...], tmp_path: Path, stvg: Any) -> None:
    out = tmp_path / "out"
    printed = stvg("shards", "build", *charades, "--out", out)
    assert printed.code == 0 and f"7 samples in 1 shards at {out}" in printed.out
    assert f"what was changed, dropped and skipped: {out / 'report.json'}" in printed.out
    for line in ("changed 1: the span ends after its video: clamped", "dropped 1: the span is empty", "c.txt:9: C"):
        assert line in printed.err
    told = json.loads((out / "report.json").read_text())
    assert told["written"] == 7 and told["skipped"] == []
    assert told["dropped"]["there is no video"] == {"count": 1, "examples": [f"{charades[3]}:9: C"]}
    assert len(list(ShardFolder(out))) == 7


def test_workers_change_nothing(charades: tuple[str, ...], tmp_path: Path, stvg: Any) -> None:
    for workers in (1, 2):
        options = ("--out", tmp_path / str(workers), "--workers", workers, "--samples-per-shard", 2)
        assert stvg("shards", "build", *charades, *options).code == 0
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("1", "2"))
    assert [path.name for path in one] == [path.name for path in two] and len(one) == 6
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_every_format_is_there_and_a_wrong_one_lists_them(charades: tuple[str, ...], tmp_path: Path, stvg: Any) -> None:
    assert set(format_names()) == FORMATS
    message = stvg("shards", "build", *charades, "--format", "vote", "--out", tmp_path / "out").message
    assert "--format vote: there is no such format: choose from activitynet_captions, charades_sta" in message
    assert not (tmp_path / "out").exists()


def test_a_reader_of_ones_own(charades: tuple[str, ...], tmp_path: Path, stvg: Any) -> None:
    file, names = tmp_path / "own.py", tmp_path / "names.txt"
    file.write_text(OWN)
    names.write_text("A B C")
    given = ("shards", "build", "--annotations", names, "--videos", tmp_path / "videos", "--out", tmp_path / "out")
    printed = stvg(*given, "--format", f"{file}:lines", "end=4", "query=something moves")
    assert printed.code == 0 and "dropped 1: there is no video" in printed.err
    truths = [sample.truth for sample in ShardFolder(tmp_path / "out")]
    assert [(t.id, t.query, t.span_frames) for t in truths] == [(n, "something moves", (0, 4)) for n in ("A", "B")]
    wrong = ("shards", "build", *given[2:6], "--out", tmp_path / "wrong", "--format")
    assert "needs the key end" in stvg(*wrong, f"{file}:lines").message
    assert "has no key 'edn': did you mean 'end'?" in stvg(*wrong, f"{file}:lines", "edn=4").message
    assert "int is expected, not 'four'" in stvg(*wrong, f"{file}:lines", "end=four").message
    assert "'end' is no key=value" in stvg(*wrong, f"{file}:lines", "end").message
    assert "a reader is a function or module with read(annotations" in stvg(*wrong, f"{file}:nothing").message
    assert "there is no 'none'" in stvg(*wrong, f"{file}:none").message
    module = "stvg_lightning.data.annotations.charades_sta"
    assert stvg("shards", "build", *charades, "--format", module, "--out", tmp_path / "module").code == 0
    assert len(ShardFolder(tmp_path / "module")) == 7


def test_a_formats_keys_are_bound_by_their_types(tmp_path: Path, stvg: Any) -> None:
    """Lists, paths and choices, as in recipes."""
    make_video(tmp_path / "videos" / "a.mp4", 100, 5.0)
    record = {"bbox": [[1, 1, 4, 4]], "img_num": 100, "caption": "x", "width": 32, "height": 16, "st_frame": 3}
    train = written(tmp_path / "train.json", {"a.mp4": record, "b.mp4": record})
    test = written(tmp_path / "test.json", {"b.mkv": record})
    given = ("shards", "build", "--annotations", train, "--videos", tmp_path / "videos", "--format", "hcstvg")
    printed = stvg(*given, "--out", tmp_path / "out", f"without=[{test}]", "version=v1")
    assert printed.code == 0 and "dropped 1: the video is held out" in printed.err
    assert "'v3' is not one of v1, v2" in stvg(*given, "--out", tmp_path / "x", "version=v3").message
    assert "a list is expected" in stvg(*given, "--out", tmp_path / "x", f"without={test}").message


def test_broken_annotations_are_one_line(charades: tuple[str, ...], tmp_path: Path, stvg: Any) -> None:
    for name, text in (("cut.json", '{"a": {"duration": 3, "time'), ("nan.json", '{"a": {"duration": NaN}}')):
        file = written(tmp_path / name, text)
        message = stvg("shards", "build", *charades, "--annotations", file, "--out", tmp_path / "out").message
        assert f"{file}['a']: " in message and len(message.splitlines()) == 1
    message = stvg(
        "shards", "build", *charades, "--annotations", tmp_path / "no.txt", "--out", tmp_path / "out"
    ).message
    assert f"there is no annotation file at {tmp_path / 'no.txt'}" in message
    gone = ("--videos", tmp_path / "none", "--out", tmp_path / "out")
    assert "there is no folder of videos at" in stvg("shards", "build", *charades, *gone).message


@real
def test_a_users_own_lines_about_a_real_video(tmp_path: Path, stvg: Any) -> None:
    """Two children on a bed: 200 frames of 960 x 540 at 30 a second."""
    boxes = {str(frame): [300.5, 100.0, 520.0, 380.25] for frame in range(30, 90)}
    line = {"id": "bed-1", "query": "the child that jumps first", "fps": 30, "num_frames": 200, "width": 960}
    line |= {"height": 540, "span_frames": [30, 90], "boxes_xyxy": boxes, "video": "bedroom.mp4"}
    file = written(tmp_path / "truth.jsonl", json.dumps(line) + "\n")
    out = tmp_path / "out"
    printed = stvg("shards", "build", "--annotations", file, "--videos", VIDEOS / "sam2", "--out", out)
    assert printed.code == 0, printed.err
    (stored,) = ShardFolder(out)
    assert stored.truth.span_frames == (30, 90) and read_manifest(out).num_samples == 1
    assert stored.truth.boxes_xyxy == {int(frame): tuple(box) for frame, box in boxes.items()}
    assert stored.video == (VIDEOS / "sam2" / "bedroom.mp4").read_bytes()


def test_questions_are_built_from_kittis_labels(tmp_path: Path, stvg: Any) -> None:
    line = "{0} 0 Car 0 0 -1.5 5.0 10.0 25.0 30.0 1.5 1.6 4.0 -1.0 1.7 {1} -1.5\n"
    (tmp_path / "label_02").mkdir()
    (tmp_path / "label_02" / "0003.txt").write_text("".join(line.format(frame, 30 - frame) for frame in range(20)))
    pictures = tmp_path / "image_02" / "0003"
    pictures.mkdir(parents=True)
    for frame in range(20):
        Image.new("RGB", (64, 48)).save(pictures / f"{frame:06d}.png")
    command = ("shards", "build", "--format", "str_questions", "--annotations", tmp_path / "label_02", "--videos",
               tmp_path / "image_02", "--out", tmp_path / "out", "--overwrite")  # fmt: skip
    printed = stvg(*command, "tracks=kitti", "questions={kinds: [motion, displacement], per_kind: 2}")
    assert printed.code == 0, printed.err
    truths = [sample.truth for sample in ShardFolder(tmp_path / "out")]
    assert [truth.labels["kind"] for truth in truths] == ["motion", "motion", "displacement", "displacement"]
    assert all(f"({truth.answer}) nearer to the camera" in truth.query for truth in truths[:2])
    assert all(len(truth.graph["frames"]) == 2 for truth in truths)
    assert "kind 'speed' is unknown" in stvg(*command, "tracks=kitti", "questions={kinds: [speed]}").message
    assert "did you mean 'per_kind'?" in stvg(*command, "tracks=kitti", "questions={per_kidn: 1}").message
    assert "vidor, mot, kitti, scannet" in stvg(*command, "tracks=tao").message
