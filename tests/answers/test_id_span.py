"""Object-ID answers: what is written is read back, what official outputs look like is read, nothing raises."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stvg_lightning.answers import MARKER_KINDS, Answer, View, id_span
from stvg_lightning.tubes import Truth


def truth_of(task: str = "stvg", **fields: object) -> Truth:
    defaults = {
        "id": "v1", "query": "the man sits down", "fps": 25.0, "num_frames": 500, "width": 64, "height": 48,
        "span_frames": (100, 250), "object_id": 3, "tracks": {3: {0: (0.0, 0.0, 9.0, 9.0)}}, "task": task,
    }  # fmt: skip
    return Truth(**(defaults | fields))


def answer_text(content: str) -> str:
    return f"<think>a man</think><answer>{content}</answer>"


@st.composite
def truths(draw: st.DrawFn) -> Truth:
    fps = draw(st.floats(1, 60))
    num_frames = draw(st.integers(2, 100_000))
    start = draw(st.integers(0, num_frames - 1))
    end = draw(st.integers(start + 1, num_frames))
    task = draw(st.sampled_from(id_span.TASKS))
    object_id = draw(st.integers(1, 700))
    return truth_of(task, fps=fps, num_frames=num_frames, span_frames=(start, end), object_id=object_id)


tagless = st.text(max_size=60).filter(lambda text: not re.search("</?(think|answer)>", text, re.IGNORECASE))


@given(truths(), tagless, st.sampled_from(MARKER_KINDS))
@settings(deadline=None)
def test_what_is_written_is_read_back(truth: Truth, thought: str, kind: str) -> None:
    text = id_span.write(truth, thought, View(kind))
    answer = id_span.read(text, View(kind))
    assert answer.problems == () and answer.well_formed and answer.text == text
    assert answer.object_ids == (() if truth.task == "temporal" else (truth.object_id,))
    if truth.task == "spatial":
        assert answer.span_seconds is None
    else:
        assert max(abs(a - b) for a, b in zip(answer.span_seconds, truth.span_seconds, strict=True)) <= 0.005 + 1e-9


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("stvg", "Target ID: 3, Time range: 4.00 to 10.00"),
        ("spatial", "Target ID: 3"),
        ("temporal", "Time range: 4.00 to 10.00"),
    ],
)
def test_the_written_format_is_the_papers(task: str, expected: str) -> None:
    assert id_span.write(truth_of(task), "So.") == f"<think>So.</think><answer>{expected}</answer>"


def test_the_thought_names_the_target_by_its_label() -> None:
    text = id_span.write(truth_of(), "It is {target}, {brace}: {target}.", View("upper"))
    assert text == "<think>It is C, {brace}: C.</think><answer>Target ID: C, Time range: 4.00 to 10.00</answer>"
    assert "object 3" in id_span.read(id_span.write(truth_of())).thought
    assert "3" not in id_span.read(id_span.write(truth_of("temporal"))).thought


@pytest.mark.parametrize("missing", [{"object_id": None}, {"span_frames": None}, {"task": "choice"}])
def test_an_incomplete_truth_is_refused_by_name(missing: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="'v1'"):
        id_span.write(truth_of(**missing))


def test_a_thought_with_tags_and_an_unknown_marker_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="tag"):
        id_span.write(truth_of(), "so </think> then")
    for function in (id_span.write, id_span.instruction):
        # Under test beartype refuses it first, with an error of its own.
        with pytest.raises((ValueError, TypeError), match=r"number.*upper.*lower.*mix"):
            function(truth_of(), view=View("roman"))  # type: ignore[arg-type]


@pytest.mark.parametrize("task", id_span.TASKS)
@pytest.mark.parametrize("kind", MARKER_KINDS)
def test_the_instruction_is_short_and_tells_nothing(task: str, kind: str) -> None:
    text = id_span.instruction(truth_of(task), View(kind))
    assert len(text.split()) <= 70
    assert '"the man sits down"' in text
    assert not re.search("[0-9]", text), "a digit could be copied as an answer"
    assert ("Target ID:" in text) == (task != "temporal")
    assert ("Time range:" in text) == (task != "spatial")
    assert "<think></think>" in text and "<answer></answer>" in text


def test_a_video_without_objects_is_not_said_to_have_markers() -> None:
    assert "marked" in id_span.instruction(truth_of("temporal"))
    assert "marked" not in id_span.instruction(truth_of("temporal", tracks={}))
    assert "marked" in id_span.instruction(truth_of("stvg", tracks={}))


def test_without_labels_a_time_can_be_asked_for_and_no_object() -> None:
    clean = View(is_labelled=False)
    assert "marked" not in id_span.instruction(truth_of("temporal"), clean)
    for task in ("stvg", "spatial"):
        with pytest.raises(ValueError, match=rf"task '{task}'.*by its number, and none is drawn.*task temporal"):
            id_span.instruction(truth_of(task), clean)


@pytest.mark.parametrize(
    ("content", "object_ids", "span"),
    [
        ("Target ID: 3, Time range: 4.50 to 9.22", (3,), (4.5, 9.22)),
        ("target id:3,time range:4.5 and 9", (3,), (4.5, 9.0)),
        ("TARGET ID : 3 ; TIME RANGE : 4.5 - 9.2", (3,), (4.5, 9.2)),
        ("Target ID: 3\nTime range: 4.5-9.2.", (3,), (4.5, 9.2)),
        ("Target ID: [3], Time range: [4.5 to 9.2]", (3,), (4.5, 9.2)),
        ("Target ID: [3], Time range: [4.5] to [9.2]", (3,), (4.5, 9.2)),
        ("**Target ID:** 3, **Time range:** 4.5s to 9.2 seconds", (3,), (4.5, 9.2)),
        ("Target ID: 3, Time range: 4.5 \u2013 9.2", (3,), (4.5, 9.2)),
        ("  Target\tID:\n 3 ,  Time \n range:  4.  to  9. ", (3,), (4.0, 9.0)),
        ("Time range: 0 to 1, Target ID: 12", (12,), (0.0, 1.0)),
        ("Target ID: 3. Time range: 9.2 to 4.5", (3,), (9.2, 4.5)),
        ("Target IDs: 1, 3, 4", (1, 3, 4), None),
        ("Target ID: 1, 3 and 4, Time range: 1 to 2", (1, 3, 4), (1.0, 2.0)),
        ("Target ID: [1, 3, and 3]", (1, 3), None),
        ("Target ID: 007", (7,), None),
        ("Target ID: 3, then Target ID: 4", (3,), None),
    ],
)
def test_answers_as_models_write_them(content: str, object_ids: tuple[int, ...], span: object) -> None:
    answer = id_span.read(answer_text(content))
    assert (answer.object_ids, answer.span_seconds, answer.problems) == (object_ids, span, ())


@pytest.mark.parametrize(
    ("content", "kind", "object_ids"),
    [
        ("Target ID: c", "upper", (3,)),
        ("Target ID: AA, B", "lower", (27, 2)),
        ("Target ID: A, Time range: 1.00 to 2.00", "mix", (10,)),
        ("Target ID: A and Time range: 1.00 to 2.00", "upper", (1,)),
        ("Target ID: B, and C", "upper", (2, 3)),
    ],
)
def test_letters(content: str, kind: str, object_ids: tuple[int, ...]) -> None:
    assert id_span.read(answer_text(content), View(kind)).object_ids == object_ids


@pytest.mark.parametrize(
    ("content", "num_problems"),
    [
        ("Target ID: three, Time range: 1 to 2", 1),
        ("Target ID: 0, Time range: 1 to 2", 1),
        ("Target ID: -3, Time range: 1 to 2", 1),
        ("Target ID: 3.5, Time range: 1 to 2", 1),
        ("Target ID: A, Time range: 1 to 2", 1),
        ("Target ID: \u0663, Time range: \u0661 to \u0662", 2),
        ("Target ID: , Time range: nan to inf", 2),
        ("Time range: 1e5 to 2e5", 1),
        ("Time range: 0:04 to 1:12", 1),
        ("Time range: 4 to 1:12", 1),
        ("Time range: 4.5", 1),
        ("Time range: -4 to 9", 1),
        ("Time range: " + "9" * 400 + " to 9", 1),
        ("Time range: 1 to 2.5.6", 1),
        ("the man", 1),
        ("", 1),
    ],
)
def test_what_cannot_be_read_is_listed(content: str, num_problems: int) -> None:
    answer = id_span.read(answer_text(content))
    assert len(answer.problems) == num_problems
    assert answer.well_formed


def test_a_list_of_ids_without_end_is_cut() -> None:
    assert id_span.read(answer_text("Target ID: " + ", ".join(map(str, range(1, 5000))))).object_ids[-1] == 1000


def test_the_last_closed_answer_counts() -> None:
    two = "<answer>Target ID: 1</answer> no, <ANSWER>Target ID: 2</ANSWER> <answer>Target ID: 3"
    assert id_span.read(two).object_ids == (2,)
    assert id_span.read("<answer>Target ID: 1 <answer>Target ID: 2</answer></answer>").object_ids == (2,)
    nothing = id_span.read("Target ID: 3, Time range: 1.00 to 2.00")
    assert nothing == Answer(nothing.text, problems=("no <answer>...</answer>",))


@pytest.mark.parametrize(
    ("text", "well_formed"),
    [
        ("<think>a</think><answer>b</answer>", True),
        (" \n<think>a</think>\n <answer>b</answer>\n", True),
        ("<think></think><answer></answer>", True),
        ("x<think>a</think><answer>b</answer>", False),
        ("<think>a</think><answer>b</answer>x", False),
        ("<think>a</think>x<answer>b</answer>", False),
        ("<think>a</think><answer>b</answer><answer>b</answer>", False),
        ("<think>a<think>a</think><answer>b</answer>", False),
        ("<answer>b</answer><think>a</think>", False),
        ("<think>a<answer>b</think></answer>", False),
        ("<answer>b</answer>", False),
        ("<Think>a</Think><answer>b</answer>", False),
        ("", False),
    ],
)
def test_well_formed(text: str, well_formed: bool) -> None:
    assert id_span.read(text).well_formed is well_formed
    if well_formed:
        assert re.fullmatch(r"<think>.*?</think>\s*<answer>.*?</answer>", text.strip(), re.DOTALL)


def test_the_thought_is_read_without_its_tags() -> None:
    assert id_span.read("<think> so\nit is </think><answer>b</answer>").thought == "so\nit is"
    assert id_span.read("<think> so").thought is None


PIECES = [
    "<answer>", "</answer>", "<think>", "</think>", "Target ID:", "Time range:", " ", "\n", "3", "4.5", "9" * 30, ".",
    ",", "to", "and", "-", "[", "]", "nan", "\u0663", "\x00", "e5", "s", ":", "{target}", "A", "\ud800",
]  # fmt: skip


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=60).map("".join)), st.sampled_from(MARKER_KINDS))
@settings(max_examples=300, deadline=None)
def test_no_text_makes_reading_raise(text: str, kind: str) -> None:
    answer = id_span.read(text, View(kind))
    assert answer.text == text
    assert all(object_id >= 1 for object_id in answer.object_ids)
    if answer.span_seconds is not None:
        assert all(0 <= seconds < 1e32 for seconds in answer.span_seconds)


LONG = 200_000


@pytest.mark.parametrize(
    "unit",
    [
        " ", "a", "9", "9 ", "9.", "1,", "A_", ",", "[", "<answer>", "</answer>", "<answer></answer>", "<think>",
        "Target ID:", "Target ID: 3 ", "Time range: 4", "Time range: 4.5 to ", "target ", "time range", "\n",
        "\u00a0", "<", "\u0130",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "opening", ["", "<answer>", "<answer>Target ID: ", "<answer>Time range: ", "<answer>Time range: 4"]
)
def test_long_hostile_texts_are_read_in_time(unit: str, opening: str) -> None:
    text = opening + unit * (LONG // len(unit))
    text = text + ("!</answer>" if opening else "")
    started = time.perf_counter()
    id_span.read(text, View("mix"))
    assert time.perf_counter() - started < 1.0


def test_times_keep_two_decimals() -> None:
    text = id_span.write(truth_of(fps=30.0, span_frames=(1, 200)))
    assert "Time range: 0.03 to 6.67" in text
