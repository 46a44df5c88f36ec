"""Answers of time with a thought (SARL-STG, supplement, Figure 3): `<think>...</think><answer>4.50 to 9.22</answer>`.

Between the two may stand `<timestep>...</timestep>`, a list of the moments thought of. Where the thing is, another
model tells: the answer holds the time alone. The template is the figure's, the words of the question are ours.
"""

from __future__ import annotations

import re

from stvg_lightning.answers.answer import Answer
from stvg_lightning.answers.reading import between, is_row_of_tags, last_answer, read_span
from stvg_lightning.answers.view import View
from stvg_lightning.tubes import Truth

TASKS = ("stvg", "temporal")

_TEMPLATE = re.compile(r"[0-9]+(?:\.[0-9]+)? to [0-9]+(?:\.[0-9]+)?", re.ASCII)
_SENTENCE_END = re.compile(r"(?<=[.!?]) +")
_ANY_TAG = re.compile(r"</?(?:think|timestep|answer)>", re.IGNORECASE)


def instruction(truth: Truth, view: View | None = None) -> str:
    """The question put to the model; the line that shows the format holds no digits that a model could copy.

    Args:
        truth: gives the query; nothing else of it is told.
        view: not needed: times are seconds of the video, whatever frames are shown.

    Raises:
        ValueError: a task other than `stvg` and `temporal`.
    """
    _check_task(truth)
    return "\n".join(
        [
            f'Find the time during which this happens: "{truth.query}"',
            "Think inside <think></think>, list the times that matter inside <timestep></timestep>, then answer in "
            "this format:",
            "<answer>[start] to [end]</answer>",
            "Give times in seconds with two decimals.",
        ]
    )


def holds_answer(truth: Truth) -> bool:
    """Whether a truth knows its span, so that `write` can write it."""
    return truth.span_frames is not None


def write(truth: Truth, thought: str = "", view: View | None = None) -> str:
    """A gold answer.

    Args:
        truth: holds a span.
        thought: the reasoning; a sentence of it that speaks of a label is left out, for nothing is labelled here.
            Where nothing is left, a short neutral sentence that names the times.
        view: not needed.

    Raises:
        ValueError: another task, a truth without a span, or a thought that holds a tag.
    """
    _check_task(truth)
    if truth.span_seconds is None:
        raise ValueError(f"truth {truth.id!r} of task {truth.task!r} has no span_frames to write")
    if _ANY_TAG.search(thought):
        raise ValueError(f"the thought of truth {truth.id!r} holds a tag: {thought!r}")
    thought = " ".join(sentence for sentence in _SENTENCE_END.split(thought) if "{target}" not in sentence)
    times = "{:.2f} to {:.2f}".format(*truth.span_seconds)
    return f"<think>{thought or f'It happens from {times} seconds.'}</think><answer>{times}</answer>"


def read(text: str, view: View | None = None) -> Answer:
    """Read a completion; whatever it holds, nothing is raised, in time proportional to its length.

    The last `<answer>...</answer>` counts. The template is kept where the text is one `<think>`, perhaps one
    `<timestep>`, and one `<answer>`, and the answer `[start] to [end]`, the first before the second. A time that is
    written otherwise is read all the same, but the template is not kept.

    Returns:
        The answer; its thought is what stands in `<think>` and `<timestep>`, on lines of their own.

    Example:
        >>> answer = read("<think>from 4.5 on</think><answer>4.50 to 9.22</answer>")
        >>> answer.span_seconds, answer.thought, answer.well_formed
        ((4.5, 9.22), 'from 4.5 on', True)
    """
    thoughts = [content for tag in ("think", "timestep") if (content := between(text, tag)) is not None]
    thought = "\n".join(thoughts) if thoughts else None
    content = last_answer(text)
    if content is None:
        return Answer(text, thought=thought, problems=("no <answer>...</answer>",), names_objects=False)
    span = read_span(" ".join(content.split()), 0, to_the_end=True)
    problems = () if span else (f"{content[:40]!r} is not two times in seconds",)
    in_template = _TEMPLATE.fullmatch(content.strip()) is not None
    in_order = is_row_of_tags(text, "think", "answer") or is_row_of_tags(text, "think", "timestep", "answer")
    return Answer(
        text,
        span_seconds=span,
        thought=thought,
        well_formed=in_order and in_template and span is not None and span[0] < span[1],
        problems=problems,
        names_objects=False,
    )


def _check_task(truth: Truth) -> None:
    if truth.task not in TASKS:
        raise ValueError(f"truth {truth.id!r}: answers of time know the tasks {', '.join(TASKS)}, not {truth.task!r}")
