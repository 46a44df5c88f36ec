"""JSON lines: what is read is what was written, and everything wrong is refused by file and line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.tubes import TASKS, Truth
from stvg_lightning.tubes.jsonl import parse_truth, read_truths, truth_from_json, truth_to_json
from stvg_lightning.tubes.predictions import (
    Completion,
    Prediction,
    prediction_from_json,
    read_completions,
    read_predictions,
)

LINE: dict[str, Any] = {
    "id": "a",
    "query": "the dog that jumps",
    "fps": 8,
    "num_frames": 40,
    "width": 64,
    "height": 48,
    "span_frames": [8, 10],
    "boxes_xyxy": {"8": [1, 2, 10.5, 20], "9": [2, 2, 11, 20]},
}
BOX = [0.0, 0.0, 4.0, 4.0]


def write_lines(path: Path, *lines: dict[str, Any] | str) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_a_truth_line_becomes_the_truth_it_says() -> None:
    graph = {"nodes": [{"id": 1, "pos": [0.5, 0.25]}]}
    line = LINE | {"object_id": 2, "tracks": {"2": {"9": BOX, "8": BOX}, "11": {}}, "graph": graph}
    assert truth_from_json(line, "f:1") == Truth(
        id="a",
        query="the dog that jumps",
        fps=8.0,
        num_frames=40,
        width=64,
        height=48,
        span_frames=(8, 10),
        boxes_xyxy={8: (1.0, 2.0, 10.5, 20.0), 9: (2.0, 2.0, 11.0, 20.0)},
        object_id=2,
        tracks={2: {8: (0.0, 0.0, 4.0, 4.0), 9: (0.0, 0.0, 4.0, 4.0)}, 11: {}},
        graph=graph,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"querry": "x"}, "unknown key 'querry': the nearest valid key is 'query'"),
        ({"thought": "x"}, "unknown key 'thought'"),
        ({"id": ""}, "id is '': it must be a text that is not empty"),
        ({"id": 7}, "id is 7"),
        ({"query": "  "}, "query is '  '"),
        ({"fps": 0}, "fps is 0: it must be a finite number above 0"),
        ({"fps": math.nan}, "fps is nan"),
        ({"fps": True}, "fps is True"),
        ({"fps": "8"}, "fps is '8'"),
        ({"num_frames": 40.0}, "num_frames is 40.0: it must be an integer of at least 1"),
        ({"num_frames": True}, "num_frames is True"),
        ({"width": 0}, "width is 0"),
        ({"height": None}, "height is None"),
        ({"span_frames": None}, "span_frames is missing: task 'stvg' needs it"),
        ({"span_frames": [10, 8]}, r"span_frames is \[10, 8\]: .* 0 <= start < end <= 40"),
        ({"span_frames": [8, 8]}, r"span_frames is \[8, 8\]"),
        ({"span_frames": [8, 41]}, r"span_frames is \[8, 41\]"),
        ({"span_frames": [-1, 8]}, r"span_frames is \[-1, 8\]"),
        ({"span_frames": [1.0, 8]}, r"span_frames is \[1.0, 8\]"),
        ({"span_frames": [False, 8]}, r"span_frames is \[False, 8\]"),
        ({"span_frames": [1, 2, 3]}, r"span_frames is \[1, 2, 3\]"),
        ({"boxes_xyxy": {"40": BOX}}, "a frame of boxes_xyxy is '40': it must be a whole number from 0 to 39"),
        ({"boxes_xyxy": {"-1": BOX}}, "a frame of boxes_xyxy is '-1'"),
        ({"boxes_xyxy": {"08": BOX}}, "a frame of boxes_xyxy is '08'"),
        ({"boxes_xyxy": {"8": [4, 0, 0, 4]}}, "boxes_xyxy, frame 8: the box is .*reversed"),
        ({"boxes_xyxy": {"8": [0, 4, 4, 4]}}, "boxes_xyxy, frame 8: the box is .*without area"),
        ({"boxes_xyxy": {"8": [0, 0, 4, math.nan]}}, "four finite numbers"),
        ({"boxes_xyxy": {"8": [0, 0, 4, math.inf]}}, "four finite numbers"),
        ({"boxes_xyxy": {"8": [0, 0, 4, 10**400]}}, "four finite numbers"),
        ({"boxes_xyxy": {"8": [0, 0, 4]}}, "four finite numbers"),
        ({"boxes_xyxy": [BOX]}, 'boxes_xyxy is .*: it must be an object {"<frame>": ...}'),
        ({"boxes_xyxy": {}}, "boxes_xyxy is missing: task 'stvg' needs it"),
        ({"object_id": 0}, "object_id is 0"),
        ({"object_id": True}, "object_id is True"),
        ({"object_id": 3, "tracks": {"1": {"8": BOX}}}, "object_id 3 has no track: the tracks are of 1"),
        ({"object_id": 3, "object_ids": [1, 3]}, "object_id and object_ids stand together"),
        ({"object_ids": [3]}, r"object_ids is \[3\]: it must be at least two different object ids"),
        ({"object_ids": [3, 3]}, r"object_ids is \[3, 3\]"),
        ({"object_ids": [0, 3]}, r"object_ids is \[0, 3\]"),
        ({"tracks": {"x": {"8": BOX}}}, "an object id of tracks is 'x'"),
        ({"tracks": {"2": {"8": [0, 0, 0, 0]}}}, "tracks of object 2, frame 8: the box"),
        ({"task": "counting"}, "task is 'counting': it must be one of stvg, temporal, spatial, choice, numeric"),
        ({"task": "choice", "answer": 3}, "answer is 3.0: it must be a text"),
        ({"task": "choice"}, "answer is None: it must be a text"),
        ({"task": "numeric", "answer": "3"}, "answer is '3': it must be a finite number"),
        ({"task": "numeric", "answer": math.inf}, "answer is inf"),
        ({"task": "temporal", "span_frames": None}, "span_frames is missing: task 'temporal'"),
        ({"graph": [{"a": [1, math.nan]}]}, "a number in graph is nan"),
    ],
)
def test_a_wrong_truth_is_refused_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^truth\.jsonl:7: .*{message}"):
        truth_from_json(LINE | change, "truth.jsonl:7")


@pytest.mark.parametrize("key", ["id", "query", "fps", "num_frames", "width", "height"])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=f"^f:1: key '{key}' is missing"):
        truth_from_json({name: value for name, value in LINE.items() if name != key}, "f:1")


def test_several_targets_are_kept() -> None:
    truth = truth_from_json(LINE | {"object_ids": [2, 5]}, "f:1")
    assert truth.object_ids == (2, 5) and truth.object_id is None
    assert truth_from_json(json.loads(json.dumps(truth_to_json(truth))), "f:1") == truth


@pytest.mark.parametrize("task", ["spatial", "choice", "numeric"])
def test_some_tasks_need_no_span(task: str) -> None:
    answers = {"choice": "B", "numeric": 3}
    truth = truth_from_json(LINE | {"task": task, "span_frames": None, "answer": answers.get(task)}, "f:1")
    assert truth.span_frames is None and truth.answer == answers.get(task)


def test_the_targets_boxes_come_from_its_track_during_the_span() -> None:
    tracks = {"1": {"7": BOX, "9": [1, 1, 5, 5], "10": BOX}, "2": {"8": BOX}}
    truth = truth_from_json(LINE | {"boxes_xyxy": None, "object_id": 1, "tracks": tracks}, "f:1")
    assert truth.boxes_xyxy == {9: (1.0, 1.0, 5.0, 5.0)}
    with pytest.raises(ValueError, match=r"f:1: boxes_xyxy is missing: .* frames 20 to 29"):
        truth_from_json(LINE | {"boxes_xyxy": None, "object_id": 1, "tracks": tracks, "span_frames": [20, 30]}, "f:1")


def test_extra_keys_are_read_only_where_they_are_asked_for() -> None:
    rle = {"size": [48, 64], "counts": "PP3"}
    extra = {"masks": {"1": {"3": rle}}, "categories": {"1": "dog"}, "thought": "look", "video": "a.mp4"}
    truth, extras = parse_truth(LINE | extra, "f:1", extra.keys())
    assert truth == truth_from_json(LINE, "f:1")
    assert extras.masks == {1: {3: rle}} and extras.categories == {1: "dog"}
    assert (extras.thought, extras.video) == ("look", "a.mp4")
    with pytest.raises(ValueError, match="f:1: unknown key 'video'"):
        parse_truth(LINE | extra, "f:1", ("masks", "categories", "thought"))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"1": {"3": {"size": [64, 48], "counts": "PP3"}}}, r"a mask's size is \[64, 48\]: .* \[48, 64\]"),
        ({"1": {"3": {"size": [48, 64], "counts": [1, 2]}}}, r"a mask's counts is \[1, 2\]"),
        ({"1": {"40": {"size": [48, 64], "counts": "PP3"}}}, "a frame of masks of object 1 is '40'"),
        ({"1": {"3": {"size": [48, 64]}}}, "a mask is"),
        ([], "masks is"),
    ],
)
def test_wrong_masks_are_refused(masks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^f:1: {message}"):
        parse_truth(LINE | {"masks": masks}, "f:1", ("masks",))


coordinates = st.integers(0, 10**6).map(lambda thousandths: thousandths / 1000)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, float, float, float]:
    (x1, x2), (y1, y2) = (sorted(draw(st.lists(coordinates, min_size=2, max_size=2, unique=True))) for _ in "xy")
    return x1, y1, x2, y2


@st.composite
def truths(draw: st.DrawFn) -> Truth:
    num_frames = draw(st.integers(1, 30))
    tubes = st.dictionaries(st.integers(0, num_frames - 1), boxes(), min_size=1, max_size=4)
    start = draw(st.integers(0, num_frames - 1))
    task = draw(st.sampled_from(TASKS))
    tracks = draw(st.dictionaries(st.integers(1, 12), tubes, max_size=3))
    return Truth(
        id=draw(st.text(min_size=1).filter(str.strip)),
        query=draw(st.text(min_size=1).filter(str.strip)),
        fps=draw(st.floats(0.1, 240)),
        num_frames=num_frames,
        width=draw(st.integers(1, 4000)),
        height=draw(st.integers(1, 4000)),
        span_frames=(start, draw(st.integers(start + 1, num_frames))),
        boxes_xyxy=draw(tubes),
        object_id=draw(st.sampled_from(sorted(tracks))) if tracks else None,
        tracks=tracks,
        task=task,
        answer={"choice": "B", "numeric": 2.5}.get(task),
        graph=draw(st.none() | st.lists(st.integers() | st.floats(allow_nan=False, allow_infinity=False))),
    )


@given(truths())
def test_what_is_written_is_read_back(truth: Truth) -> None:
    text = json.dumps(truth_to_json(truth), allow_nan=False)
    assert truth_from_json(json.loads(text), "f:1") == truth


def test_written_boxes_are_short_and_numbers_whole_where_they_can_be() -> None:
    tube = {3: (1.0, 2.00049, 3.14159, 4.0), 1: (0.0001, 0.0, 0.0002, 1.0)}
    record = truth_to_json(Truth("a", "q", 23.976023976, 9, 64, 48, (0, 9), tube))
    assert json.dumps(record["boxes_xyxy"]) == '{"1": [0.0001, 0, 0.0002, 1], "3": [1, 2, 3.142, 4]}'
    assert record["fps"] == 23.976023976
    assert set(record) == {*LINE, "task"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: the file is empty"),
        ("\n \n", "1: the file is empty"),
        ('{"id": "a"', "1: broken JSON at column"),
        ("\n[1]\n", "2: the line is \\[1\\]: it must be a JSON object"),
        ('{"id": NaN}', "1: NaN is not allowed"),
        ('{"graph": [-Infinity]}', "1: -Infinity is not allowed"),
        ('{"graph": 1e999}', "1: 1e999 is not allowed"),
        ('{"id": "a", "id": "b"}', "1: key 'id' stands twice"),
        ("[" * 100_000, "1: broken JSON"),
    ],
)
def test_broken_files_are_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "truth.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"^{path}:{message}"):
        read_truths(path)


def test_bytes_that_are_not_utf8_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    path.write_bytes(json.dumps(LINE).encode() + b'\n{"id": "\xff"}\n')
    with pytest.raises(ValueError, match=rf"^{path}:2: .*utf-8"):
        read_truths(path)


def test_truths_come_in_order_and_a_repeated_id_names_both_lines(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "truth.jsonl", LINE, "", LINE | {"id": "b"})
    assert [truth.id for truth in read_truths(path)] == ["a", "b"]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # some editors begin a file with a mark of its encoding
    assert [truth.id for truth in read_truths(path)] == ["a", "b"]
    write_lines(path, LINE, "", LINE)
    with pytest.raises(ValueError, match=rf"^{path}:3: id 'a' stands already at {path}:1"):
        read_truths(path)


def test_predictions_of_every_kind() -> None:
    def read(**record: Any) -> Prediction:
        return prediction_from_json({"id": "a", **record}, "f:1")

    assert read(span_frames=[3, 9], object_id=4) == Prediction("a", span_frames=(3, 9), object_ids=(4,))
    assert read(span_seconds=[0, 1.5], object_ids=[2, 3]) == Prediction("a", span_seconds=(0.0, 1.5), object_ids=(2, 3))
    assert read(boxes_xyxy={"3": BOX}) == Prediction("a", boxes_xyxy={3: (0.0, 0.0, 4.0, 4.0)})
    assert read(text="") == Prediction("a", text="")
    assert read(span_frames=None, object_id=None) == Prediction("a")
    assert read(span_frames=[3, 3]).span_frames == (3, 3)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "the prediction says nothing"),
        ({"span_frame": [1, 2]}, "unknown key 'span_frame': the nearest valid key is 'span_frames'"),
        ({"span_frames": [1, 2], "span_seconds": [1, 2]}, "span_frames and span_seconds stand together"),
        ({"object_id": 1, "boxes_xyxy": {}}, "boxes_xyxy and object_id stand together"),
        ({"object_id": 1, "object_ids": [1]}, "object_id and object_ids stand together"),
        ({"text": "x", "object_id": 1}, "text and object_id stand together"),
        ({"text": 3}, "text is 3"),
        ({"text": None}, None),
        ({"object_id": 1.0}, "object_ids is"),
        ({"object_ids": 1}, "object_ids is 1"),
        ({"span_frames": [2, 1]}, r"span_frames is \[2, 1\]"),
        ({"span_frames": [0, 41]}, r"span_frames is \[0, 41\]: .* <= 40"),
        ({"span_seconds": [2, 1]}, r"span_seconds is \[2, 1\]"),
        ({"span_seconds": [0, math.nan]}, "span_seconds is"),
        ({"span_seconds": [-0.1, 1]}, "span_seconds is"),
        ({"span_seconds": [1, 5.2]}, r"span_seconds is \[1, 5.2\]: .* <= 5.125"),
        ({"span_seconds": [1, 5.1]}, None),
        ({"boxes_xyxy": {"40": BOX}}, "a frame of boxes_xyxy is '40'"),
    ],
)
def test_wrong_predictions_are_refused(record: dict[str, Any], message: str | None) -> None:
    truth = truth_from_json(LINE, "f:1")
    if message is None:
        assert prediction_from_json({"id": "a", **record}, "f:2", truth).id == "a"
        return
    with pytest.raises(ValueError, match=f"^f:2: {message}"):
        prediction_from_json({"id": "a", **record}, "f:2", truth)


def test_prediction_files(tmp_path: Path) -> None:
    truths = {"a": truth_from_json(LINE, "f:1")}
    path = write_lines(tmp_path / "p.jsonl", {"id": "a", "span_frames": [1, 50]})
    assert read_predictions(path) == [Prediction("a", span_frames=(1, 50))]
    with pytest.raises(ValueError, match=rf"^{path}:1: span_frames"):
        read_predictions(path, truths)
    write_lines(path, {"id": "b", "text": "x"})
    with pytest.raises(ValueError, match=rf"^{path}:1: id 'b' is not among the 1 truths"):
        read_predictions(path, truths)
    write_lines(path, {"id": "b", "text": "x"}, {"id": "b", "text": "x"})
    with pytest.raises(ValueError, match=rf"^{path}:2: id 'b' stands already"):
        read_predictions(path)


def test_completions_may_share_an_id(tmp_path: Path) -> None:
    truths = {"a": truth_from_json(LINE, "f:1")}
    path = write_lines(tmp_path / "c.jsonl", {"id": "a", "text": "x"}, {"id": "a", "text": ""})
    assert read_completions(path, truths) == [Completion("a", "x"), Completion("a", "")]
    write_lines(path, {"id": "a", "text": "x"}, {"id": "a"})
    with pytest.raises(ValueError, match=rf"^{path}:2: key 'text' is missing"):
        read_completions(path, truths)
    write_lines(path, {"id": "a", "text": "x", "reward": 1})
    with pytest.raises(ValueError, match=rf"^{path}:1: unknown key 'reward'"):
        read_completions(path, truths)
    write_lines(path, {"id": "a", "text": "x", "boxes_xyxy": {"39": BOX}})
    assert read_completions(path, truths)[0].boxes_xyxy == {39: tuple(BOX)}
    write_lines(path, {"id": "a", "text": "x"}, {"id": "a", "text": "x", "boxes_xyxy": {"40": BOX}})
    with pytest.raises(ValueError, match=rf"^{path}:2: a frame of boxes_xyxy is '40'"):
        read_completions(path, truths)
