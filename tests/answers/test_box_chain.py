"""STVG-o1's lists of boxes: what is written is read back; what is broken is named, and never raises."""

from __future__ import annotations

import re
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stvg_lightning.answers import BoxChain, Frames, View
from stvg_lightning.tubes import Box, Truth

PAPERS = (
    "<time> 5 - 7 </time> <think_bbox> 5. [271, 30, 395, 212], 6. [267, 24, 393, 216], 7. [270, 18, 395, 221] "
    "</think_bbox> <pred_bbox> 5. [278, 35, 399, 234], 6. [270, 30, 390, 230], 7. [271, 20, 395, 222] </pred_bbox>"
)
BOXES = {frame: (100.0 + frame, 50.0, 200.0 + frame, 150.0) for frame in range(50, 80)}
TRUTH = Truth("v", "a man sits down", 10.0, 100, 640, 480, span_frames=(50, 80), boxes_xyxy=BOXES)
SHOWN = View("number", Frames(tuple(range(0, 100, 5)), 336, 252, 640, 480, 10.0, 100))
LANGUAGES = [
    BoxChain(unit, coordinates, think)
    for unit in ("second", "frame")
    for coordinates in ("input", "norm1000", "original")
    for think in (True, False)
]


def text_of(time: str = "5 - 7", think: str = "", predicted: str = "") -> str:
    return f"<time> {time} </time> <think_bbox> {think} </think_bbox> <pred_bbox> {predicted} </pred_bbox>"


def differs_by(first: Box, second: Box) -> float:
    return max(abs(a - b) for a, b in zip(first, second, strict=True))


def test_the_papers_example() -> None:
    answer = BoxChain(coordinates="original").read(PAPERS, SHOWN)
    lists = answer.box_lists
    assert lists is not None and lists.think is not None
    assert lists.cells == (5, 7)
    assert lists.think == (
        (5, (271.0, 30.0, 395.0, 212.0)), (6, (267.0, 24.0, 393.0, 216.0)), (7, (270.0, 18.0, 395.0, 221.0)),
    )  # fmt: skip
    assert lists.predicted[0] == (5, (278.0, 35.0, 399.0, 234.0))
    assert answer.span_seconds == (5.0, 8.0)
    assert answer.well_formed and answer.problems == ()
    assert sorted(answer.boxes_xyxy) == list(range(50, 80))
    assert answer.boxes_xyxy[55] == (274.0, 32.5, 394.5, 232.0)  # half way from second 5 to second 6
    assert answer.boxes_xyxy[79] == answer.boxes_xyxy[70] == (271.0, 20.0, 395.0, 222.0)


def test_gold_by_hand() -> None:
    seconds = BoxChain(coordinates="original", think=False)
    assert seconds.write(TRUTH, "", SHOWN) == (
        "<time> 5 - 7 </time> <pred_bbox> 5. [150, 50, 250, 150], 6. [160, 50, 260, 150], 7. [170, 50, 270, 150] "
        "</pred_bbox>"
    )
    shown = BoxChain("frame", "norm1000").write(TRUTH, "", SHOWN)
    assert shown.startswith("<time> 10 - 15 </time> <think_bbox> 10. [234, 104, 391, 312], 11. [242, 104, 398, 312], ")
    assert (
        BoxChain(coordinates="input", think=False)
        .write(TRUTH, "", SHOWN)
        .startswith("<time> 5 - 7 </time> <pred_bbox> 5. [79, 26, 131, 79], ")
    )


@pytest.mark.parametrize("language", LANGUAGES, ids=str)
def test_what_is_written_is_read_back(language: BoxChain) -> None:
    answer = language.read(language.write(TRUTH, "", SHOWN), SHOWN)
    assert answer.well_formed and answer.problems == ()
    assert answer.span_seconds == (5.0, 8.0)
    units = {"input": 640 / 336, "norm1000": 0.64, "original": 1.0}[language.coordinates]
    grid = answer.box_lists.grid
    for lists in [answer.box_lists.predicted] + [answer.box_lists.think] * language.think:
        assert [index for index, _ in lists] == list(range(grid.cells_of((50, 80))[0], grid.cells_of((50, 80))[1] + 1))
        for index, box in lists:
            assert differs_by(box, BOXES[grid.starts_frames[index]]) <= units / 2 + 1e-9
    assert (answer.box_lists.think is not None) == language.think
    for frame, box in answer.boxes_xyxy.items():
        rested = max(frame - grid.starts_frames[grid.cells_of((50, 80))[1]], 0)  # after the last box it stands still
        assert differs_by(box, (BOXES[frame][0] - rested, 50.0, BOXES[frame][2] - rested, 150.0)) <= units / 2 + 1e-9


@pytest.mark.parametrize("language", LANGUAGES, ids=str)
def test_the_instruction_tells_the_format_and_nothing_of_the_answer(language: BoxChain) -> None:
    text = language.instruction(TRUTH, SHOWN)
    assert TRUTH.query in text and "<time> [first] - [last] </time>" in text
    assert ("<think_bbox>" in text) == language.think and "<pred_bbox>" in text
    assert ("second" in text) == (language.index_unit == "second")
    shown = text.splitlines()[-1]
    assert not re.search(r"[0-9]", shown.replace("x1, y1, x2, y2", ""))
    assert ("336" in text) == (language.coordinates == "input")
    assert ("640" in text) == (language.coordinates == "original")
    assert ("thousandths" in text) == (language.coordinates == "norm1000")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no <time>"),
        ("<time> 5 - 7 </time>", "no <think_bbox>"),
        (text_of("five to seven"), "no two whole numbers"),
        (text_of("5.5 - 7"), "no two whole numbers"),
        (text_of("5 - 7", "5. [1, 2, 3]", "5. [1, 2, 3, 4]"), "no box follows in <think_bbox> at '5. [1, 2, 3]"),
        (text_of("5 - 7", "5. [1, 2, 3, 4]", "5. [9, 2, 3, 4]"), "the box is reversed"),
        (text_of("5 - 7", "5. [1, 2, 3, 4]", "5. [1, nan, 3, 4]"), "no box follows in <pred_bbox>"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, problem: str) -> None:
    answer = BoxChain(coordinates="original").read(text, SHOWN)
    assert any(problem in one for one in answer.problems), answer.problems


def test_broken_parts_leave_the_others() -> None:
    language = BoxChain(coordinates="original")
    answer = language.read(text_of("5 - 7", "", "5. [1, 2, 3, 4], 6. [9, 2, 3, 4], 7. [1, 2, 3, 4"), SHOWN)
    assert [index for index, _ in answer.box_lists.predicted] == [5]
    assert answer.box_lists.think == ()
    assert set(answer.boxes_xyxy.values()) == {(1.0, 2.0, 3.0, 4.0)}
    outside = language.read(text_of("5 - 7", "", "5. [-20, 0, 700, 9], 8. [1, 2, 3, 4]"), SHOWN)
    assert outside.box_lists.predicted[0][1] == (-20.0, 0.0, 700.0, 9.0)
    assert set(outside.boxes_xyxy.values()) == {(-20.0, 0.0, 700.0, 9.0)}  # a box of another time fills nothing
    reversed_time = language.read(text_of("7 - 5", "", "7. [1, 2, 3, 4]"), SHOWN)
    assert reversed_time.span_seconds == (7.0, 6.0) and not reversed_time.boxes_xyxy
    late = language.read(text_of("90 - 99", "", "95. [1, 2, 3, 4]"), SHOWN)
    assert late.span_seconds == (10.0, 10.0) and not late.boxes_xyxy


@pytest.mark.parametrize(
    ("text", "well_formed"),
    [
        (PAPERS, True),
        (f"\n{PAPERS}\n", True),
        (f"So: {PAPERS}", False),
        (f"{PAPERS} so", False),
        (PAPERS.replace("</time> ", "</time> so "), False),
        (PAPERS.replace("think_bbox", "pred_bbox"), False),
        (PAPERS + PAPERS, False),
        (PAPERS.replace("</pred_bbox>", ""), False),
        (re.sub(r"<think_bbox>.*</think_bbox> ", "", PAPERS), False),
    ],
)
def test_the_template(text: str, well_formed: bool) -> None:
    assert BoxChain(coordinates="original").read(text, SHOWN).well_formed is well_formed
    without = re.sub(r"<think_bbox>.*</think_bbox> ", "", PAPERS)
    assert BoxChain(think=False).read(without, SHOWN).well_formed


@given(st.text(alphabet="0123456789 .,[]-<>/timehnkpred_box", max_size=300), st.sampled_from(LANGUAGES))
@settings(deadline=None)
def test_any_text_is_read_into_an_answer_that_holds_together(content: str, language: BoxChain) -> None:
    for text in (content, text_of(content, content, content), PAPERS[: len(content)] + content, PAPERS + content):
        answer = language.read(text, SHOWN)
        lists = answer.box_lists
        assert answer.text == text and (lists.think is None) == (not language.think)
        for boxes in lists.written:
            assert all(index >= 0 and x1 <= x2 and y1 <= y2 for index, (x1, y1, x2, y2) in boxes)
        assert (lists.cells is None) == (answer.span_seconds is None)
        if lists.cells is None or not lists.predicted:
            assert answer.boxes_xyxy is None
        if lists.cells is None:
            assert answer.problems
        if answer.well_formed:
            tags = ["time", *["think_bbox"] * language.think, "pred_bbox"]
            written = re.findall(r"<(/?(?:time|think_bbox|pred_bbox))>", text)
            assert written == [mark + tag for tag in tags for mark in ("", "/")]
        for frame, (x1, y1, x2, y2) in (answer.boxes_xyxy or {}).items():
            start, end = answer.span_seconds
            assert start * 10 <= frame < end * 10 and x1 <= x2 and y1 <= y2


def test_reading_is_quick_whatever_the_text() -> None:
    started = perf_counter()
    for piece in ("5. [1, 2, 3, 4], ", "5. [", "<pred_bbox>", "[[[[", "9" * 50, "1 "):
        BoxChain().read(text_of("5 - 7", piece * 20_000, piece * 20_000), SHOWN)
    assert perf_counter() - started < 5.0


def test_what_the_language_does_not_know_is_refused() -> None:
    # Under test beartype refuses these two first, with an error of its own.
    with pytest.raises((ValueError, TypeError), match=r"minute(.|\n)*second.*frame"):
        BoxChain(index_unit="minute")  # type: ignore[arg-type]
    with pytest.raises((ValueError, TypeError), match=r"metres(.|\n)*input.*norm1000.*original"):
        BoxChain(coordinates="metres")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="are not known here"):
        BoxChain().read(PAPERS, View())
    temporal = Truth("v", "a man sits down", 10.0, 100, 640, 480, span_frames=(50, 80), task="temporal")
    with pytest.raises(ValueError, match="know the task stvg, not 'temporal'"):
        BoxChain().instruction(temporal, SHOWN)
    empty = Truth("v", "a man sits down", 10.0, 100, 640, 480)
    assert not BoxChain().holds_answer(empty) and BoxChain().holds_answer(TRUTH)
    with pytest.raises(ValueError, match="no span_frames or no boxes_xyxy"):
        BoxChain().write(empty, "", SHOWN)
