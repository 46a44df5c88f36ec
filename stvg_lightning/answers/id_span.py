"""Object-ID answers, `Target ID: 3, Time range: 4.50 to 9.22` (STVG-R1, section 3.3 and appendix A.1).

Objects are answered by the label drawn on them, times in seconds. Three tasks: `stvg` asks for both,
`spatial` for the object, `temporal` for the time.
"""

from __future__ import annotations

import re

from stvg_lightning.answers.answer import Answer
from stvg_lightning.answers.labels import MARKER_KINDS, MarkerKind, label_of, object_id_of
from stvg_lightning.answers.reading import CLOSING, OPENING, between, is_row_of_tags, last_answer, read_span
from stvg_lightning.answers.view import View
from stvg_lightning.tubes import Span, Truth
from stvg_lightning.tubes.choices import check_choice

TASKS = ("stvg", "spatial", "temporal")

NUMBERED = View()
"""Objects labelled with numbers, as in the paper."""

MARKER_NOUNS = {"number": "number", "upper": "capital letter", "lower": "small letter", "mix": "number or letter"}

QUESTIONS = {
    "stvg": "Find the object that this sentence describes, and the time during which it happens:",
    "spatial": "Find the object that this sentence describes:",
    "temporal": "Find the time during which this happens:",
}

MOST_IDS = 1000
"""Object ids read from one answer; no video holds more, and a text that repeats itself may list more."""

_ID_FIELD = re.compile(r"target ?ids? ?[:=]", re.IGNORECASE | re.ASCII)
_TIME_FIELD = re.compile(r"time ?range ?[:=]", re.IGNORECASE | re.ASCII)
_ID = re.compile(
    rf"{OPENING}([a-z0-9]+)(?![a-z0-9_]|\.[0-9]){CLOSING}([,;&] ?(?:and\b)?|and\b)?", re.IGNORECASE | re.ASCII
)


def instruction(truth: Truth, view: View = NUMBERED) -> str:
    """The question put to the model: what to look for, and how to answer.

    Args:
        truth: gives the query and the task (`stvg`, `spatial` or `temporal`); nothing else of it is told.
        view: tells how objects are labelled in the video.

    Returns:
        A few sentences; the line that shows the format holds no digits that a model could copy.

    Raises:
        ValueError: a task or a marker kind that this language does not know, or an object to be named by its label in a
            video without labels.

    Example:
        >>> print(instruction(Truth("a", "a man sits down", 30.0, 60, 64, 48, task="temporal")))
        Find the time during which this happens: "a man sits down"
        Think inside <think></think>, then answer inside <answer></answer> in this format:
        Time range: [start] to [end]
        Give times in seconds with two decimals.
    """
    _check_task(truth)
    marker_kind = _marker_kind(view)
    noun = MARKER_NOUNS[marker_kind]
    if truth.task != "temporal" and not view.is_labelled:
        raise ValueError(
            f"truth {truth.id!r} of task {truth.task!r} asks for an object by its {noun}, and none is drawn: draw them "
            "(markers: {draw: true}) or ask for the time alone (shards of the task temporal)"
        )
    fields = {"stvg": f"Target ID: [{noun}], Time range: [start] to [end]", "spatial": f"Target ID: [{noun}]"}
    lines = [
        f'{QUESTIONS[truth.task]} "{truth.query}"',
        "Think inside <think></think>, then answer inside <answer></answer> in this format:",
        fields.get(truth.task, "Time range: [start] to [end]"),
    ]
    # A video for a purely temporal question need not hold markers (Charades-STA has no boxes at all).
    if view.is_labelled and (truth.task != "temporal" or truth.tracks):
        lines.insert(0, f"Each object in the video is marked with a {noun} at its centre.")
    if truth.task != "spatial":
        lines.append("Give times in seconds with two decimals.")
    return "\n".join(lines)


def holds_answer(truth: Truth) -> bool:
    """Whether a truth knows all that its task asks for, so that `write` can write it."""
    has_time = truth.task == "spatial" or truth.span_frames is not None
    has_object = truth.task == "temporal" or truth.object_id is not None
    return has_time and has_object


def write(truth: Truth, thought: str = "", view: View = NUMBERED) -> str:
    """A gold answer.

    Args:
        truth: holds what its task asks for: `object_id`, `span_frames`, or both.
        thought: the reasoning, in which `{target}` stands for the target's label; a short neutral
            sentence where it is empty.
        view: tells how objects are labelled in the video.

    Returns:
        `<think>...</think><answer>...</answer>`; `read` gives it back to 0.005 seconds.

    Raises:
        ValueError: a truth without what its task asks for, or a thought that holds a tag of the template.

    Example:
        >>> truth = Truth("a", "a man sits down", 10.0, 100, 64, 48, span_frames=(45, 92), object_id=3)
        >>> write(truth, "It is {target}.")
        '<think>It is 3.</think><answer>Target ID: 3, Time range: 4.50 to 9.20</answer>'
    """
    _check_task(truth)
    marker_kind = _marker_kind(view)
    label = "" if truth.task == "temporal" else label_of(_object_id(truth), marker_kind)
    times = "" if truth.task == "spatial" else "{:.2f} to {:.2f}".format(*_span_seconds(truth))
    if re.search(r"</?(?:think|answer)>", thought, re.IGNORECASE):
        raise ValueError(f"the thought of truth {truth.id!r} holds a <think> or <answer> tag: {thought!r}")
    if thought:
        thought = thought.replace("{target}", label or _label_if_known(truth, marker_kind))
    else:
        parts = [f"object {label}"] * bool(label) + [f"{times} seconds"] * bool(times)
        thought = f"The sentence fits {', from '.join(parts)}."
    fields = [f"Target ID: {label}"] * bool(label) + [f"Time range: {times}"] * bool(times)
    return f"<think>{thought}</think><answer>{', '.join(fields)}</answer>"


def read(text: str, view: View = NUMBERED) -> Answer:
    """Read a completion; whatever it holds, nothing is raised, in time proportional to its length.

    The last `<answer>...</answer>` counts, and in it the first `Target ID:` and the first `Time range:`.
    Case and blanks do not matter; ids may be several (`1, 3 and 4`); times are joined by `to`, `and` or
    a dash, in brackets or not, with or without `s`. A field that is there but cannot be read is a problem;
    a field that is not there is none, since the text does not tell which task it answers.

    Args:
        text: the completion.
        view: tells how objects are labelled in the video.

    Returns:
        The answer; `span_seconds` is as written, so perhaps reversed or outside the video.

    Example:
        >>> answer = read("<think>a man</think> <answer>target id: 3, time range: [4.5 and 9.2]</answer>")
        >>> answer.object_ids, answer.span_seconds, answer.well_formed, answer.problems
        ((3,), (4.5, 9.2), True, ())
    """
    marker_kind = _marker_kind(view)
    thought, well_formed = between(text, "think"), is_row_of_tags(text, "think", "answer")
    content = last_answer(text)
    if content is None:
        problems = ("no <answer>...</answer>",)
        return Answer(text, thought=thought, well_formed=well_formed, problems=problems)
    content = " ".join(content.split())
    id_field, time_field = _ID_FIELD.search(content), _TIME_FIELD.search(content)
    object_ids = _read_ids(content, id_field.end(), marker_kind) if id_field else ()
    span_seconds = read_span(content, time_field.end()) if time_field else None
    found = []
    if id_field and not object_ids:
        found.append(f"no {MARKER_NOUNS[marker_kind]} follows {_excerpt(content, id_field.start())}")
    if time_field and span_seconds is None:
        found.append(f"no two times in seconds follow {_excerpt(content, time_field.start())}")
    if not id_field and not time_field:
        found.append(f"neither 'Target ID:' nor 'Time range:' in {_excerpt(content, 0)}")
    return Answer(text, span_seconds, object_ids, None, thought, well_formed, tuple(found))


def _read_ids(content: str, position: int, marker_kind: MarkerKind) -> tuple[int, ...]:
    """Object ids in the order written, each once, up to the first thing that is no label."""
    object_ids: dict[int, None] = {}
    for _ in range(MOST_IDS):
        match = _ID.match(content, position)
        object_id = object_id_of(match[1], marker_kind) if match else None
        if match is None or not object_id:
            break
        object_ids[object_id] = None
        position = match.end()
        if match[2] is None:
            break
    return tuple(object_ids)


def _excerpt(content: str, position: int) -> str:
    return repr(content[position : position + 40])


def _check_task(truth: Truth) -> None:
    if truth.task not in TASKS:
        raise ValueError(f"truth {truth.id!r}: object-ID answers know the tasks {', '.join(TASKS)}, not {truth.task!r}")


def _marker_kind(view: View) -> MarkerKind:
    check_choice("marker kind", view.marker_kind, MARKER_KINDS)
    return view.marker_kind


def _object_id(truth: Truth) -> int:
    if truth.object_id is None:
        raise ValueError(f"truth {truth.id!r} of task {truth.task!r} has no object_id to write")
    return truth.object_id


def _label_if_known(truth: Truth, marker_kind: MarkerKind) -> str:
    return "" if truth.object_id is None else label_of(truth.object_id, marker_kind)


def _span_seconds(truth: Truth) -> Span:
    if truth.span_seconds is None:
        raise ValueError(f"truth {truth.id!r} of task {truth.task!r} has no span_frames to write")
    return truth.span_seconds
