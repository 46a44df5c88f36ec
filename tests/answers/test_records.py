"""Answers kept as JSON, choices by letter, and boxes in single frames."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.answers import Answer, FrameBox, Frames, choice
from stvg_lightning.answers.records import answer_from_json, answer_to_json
from stvg_lightning.evaluation import score_answer
from stvg_lightning.tubes import Truth

numbers = st.floats(allow_nan=False, allow_infinity=False)
boxes = st.tuples(numbers, numbers, numbers, numbers)
rles = st.fixed_dictionaries({"size": st.just([4, 6]), "counts": st.text("abc", max_size=5)})
answers = st.builds(
    Answer,
    text=st.text(),
    span_seconds=st.none() | st.tuples(numbers, numbers),
    object_ids=st.lists(st.integers(0, 99), max_size=3).map(tuple),
    boxes_xyxy=st.none() | st.dictionaries(st.integers(0, 999), boxes, max_size=3),
    problems=st.lists(st.text(), max_size=2).map(tuple),
    names_objects=st.booleans(),
    masks=st.none() | st.dictionaries(st.integers(0, 999), rles, max_size=3),
)


@given(answer=answers)
def test_an_answer_comes_back_from_json_unchanged(answer: Answer) -> None:
    assert answer_from_json(json.loads(json.dumps(answer_to_json(answer)))) == answer


FRAMES = Frames((7, 7), 64, 32, 1280, 640, fps=25.0, num_frames=100)


@pytest.mark.parametrize(
    ("coordinates", "box"),
    [
        ("input", (20.0, 40.0, 200.0, 400.0)),
        ("norm1000", (1.28, 1.28, 12.8, 12.8)),
        ("original", (1.0, 2.0, 10.0, 20.0)),
    ],
)
def test_a_frames_box_is_counted_in_what_was_asked_for(coordinates: str, box: tuple[float, ...]) -> None:
    language = FrameBox(coordinates)  # type: ignore[arg-type]
    assert language.read("It is at [1, 2, 10, 20].", FRAMES) == pytest.approx(box, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ('```json\n[\n\t{"bbox_2d": [10, 20, 30, 40], "label": "a man"},\n\t{"bbox_2d": [1, 1, 2, 2]}\n]\n```', 10.0),
        ("(10.0,20,30.5,40)", 10.0),
        ("[30, 20, 10, 40] is reversed, [11, 20, 30, 40] is not", 11.0),
        ("<box>[[10, 20, 30, 40]]</box>", 10.0),
        ("[10, 20, 30]", None),
        ("[10, 20, 10, 40]", None),
        ("[10, 20, 30, 40, 50]", None),
        ("", None),
        ("[" * 100_000, None),
    ],
)
def test_boxes_as_general_models_write_them(text: str, box: float | None) -> None:
    found = FrameBox("original").read(text, FRAMES)
    assert (found is None and box is None) or (found is not None and found[0] == box)


def test_a_frames_question_names_its_unit_and_shows_no_digits_to_copy() -> None:
    asked = FrameBox("norm1000").instruction("the man", FRAMES)
    assert "the man" in asked and "thousandths" in asked and "[x1, y1, x2, y2]" in asked
    assert "64 wide and 32 high" in FrameBox("input").instruction("the man", FRAMES)


def test_a_choice_is_asked_for_as_its_benchmark_does() -> None:
    truth = Truth("a", "How far?\n(A) 1 m\n(B) 2 m", 10.0, 100, 64, 48, task="choice", answer="B")
    assert choice.instruction(truth).endswith("(B) 2 m\nPlease output only the option letter!")
    assert choice.read(choice.write(truth)).well_formed and choice.holds_answer(truth)
    for text, right in (
        ("<think>A or (C)</think><answer>B</answer>", True),
        ("The answer is B", True),
        ("<answer>C</answer> (B)", False),
    ):
        row = score_answer(answer_from_json(answer_to_json(choice.read(text))), truth)
        assert row["correct"] is right and not row["unreadable"], text
    of_old = {key: value for key, value in answer_to_json(choice.read("(B)")).items() if key != "reply"}
    assert score_answer(answer_from_json(of_old), truth)["correct"] is True
    with pytest.raises(ValueError, match="letters answer the task choice, not 'stvg'"):
        choice.instruction(Truth("a", "q", 10.0, 100, 64, 48))
