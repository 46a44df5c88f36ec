r"""Answers of time as a pair, `<think>...</think> <time>[5.2, 10.4]</time>`, with a boxed letter where that is asked.

The template is TVG-R1's (arXiv 2507.18100; github.com/zjuruizhechen/TVG-R1, EasyR1/verl/utils/reward_score): trailing
text is allowed, and the pair is JSON. A grounded question of choice asks for the time that shows it, and for
`\boxed{LETTER}`. The words of the question are ours.
"""

from __future__ import annotations

import math
import re

from stvg_lightning.answers.answer import Answer
from stvg_lightning.answers.reading import LONGEST_NUMBER, between
from stvg_lightning.answers.view import View
from stvg_lightning.tubes import Span, Truth

TASKS = ("stvg", "temporal", "choice")

_NUMBER = rf"\s{{0,9}}([0-9]{{1,{LONGEST_NUMBER}}}(?:\.[0-9]{{1,{LONGEST_NUMBER}}})?)\s{{0,9}}"
_PAIR = re.compile(rf"\s{{0,9}}\[{_NUMBER},{_NUMBER}\]\s{{0,9}}", re.ASCII)
_TAG = re.compile(r"</?(?:think|time)>", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\{([^{}]{0,1000})\}")


def instruction(truth: Truth, view: View | None = None) -> str:
    """The question put to the model; the line that shows the format holds no digits that a model could copy.

    Args:
        truth: gives the query and the task; nothing else of it is told.
        view: not needed: times are seconds of the video, whatever frames are shown.

    Raises:
        ValueError: a task other than `stvg`, `temporal` and `choice`.
    """
    _check_task(truth)
    if truth.task == "choice":
        asked = [truth.query, "Find the time that shows the answer, and choose."]
        template = r"<think>...</think> <time>[start, end]</time> \boxed{letter}"
    else:
        asked = [f'Find the time during which this happens: "{truth.query}"']
        template = "<think>...</think> <time>[start, end]</time>"
    return "\n".join([*asked, "Think first, then answer in this format:", template, "Give times in seconds."])


def holds_answer(truth: Truth) -> bool:
    """Whether a truth knows its span, and its letter where it has one."""
    return truth.span_seconds is not None and (truth.task != "choice" or isinstance(truth.answer, str))


def write(truth: Truth, thought: str = "", view: View | None = None) -> str:
    r"""A gold answer.

    Args:
        truth: holds a span, and a letter where one is asked for.
        thought: the reasoning; a short neutral sentence where it is empty, or speaks of a label.
        view: not needed.

    Raises:
        ValueError: another task, a truth without what it asks for, or a thought that holds a tag.

    Example:
        >>> write(Truth("a", "a man sits", 10.0, 100, 64, 48, (52, 80), task="temporal"), "He sits.")
        '<think>He sits.</think> <time>[5.20, 8.00]</time>'
    """
    _check_task(truth)
    if truth.span_seconds is None or not holds_answer(truth):
        raise ValueError(f"truth {truth.id!r} of task {truth.task!r} has no span or no letter to write")
    if _TAG.search(thought):
        raise ValueError(f"the thought of truth {truth.id!r} holds a tag: {thought!r}")
    start, end = truth.span_seconds
    if not thought or "{target}" in thought:
        thought = f"It happens from {start:.2f} to {end:.2f} seconds."
    boxed = rf" \boxed{{{truth.answer}}}" if truth.task == "choice" else ""
    return f"<think>{thought}</think> <time>[{start:.2f}, {end:.2f}]</time>{boxed}"


def read(text: str, view: View | None = None) -> Answer:
    """Read a completion; whatever it holds, nothing is raised, in time proportional to its length.

    The template is kept where the text begins with `<think>`, and `</think>`, `<time>` and `</time>` follow in this
    order; whatever stands behind is allowed. A pair that is reversed is read as it is written. The letter is that of
    the last `\\boxed{...}` behind the thought and the time.

    Example:
        >>> answer = read("<think>he sits</think> <time>[5.2, 10.4]</time>")
        >>> answer.span_seconds, answer.well_formed, answer.problems
        ((5.2, 10.4), True, ())
    """
    stripped = text.strip()
    _, closing, rest = stripped.partition("</think>")
    content = between(rest if closing else stripped, "time")
    span = None if content is None else _span(content)
    problems: tuple[str, ...] = ()
    if content is None:
        problems = ("no <time>...</time>",)
    elif span is None:
        problems = (f"{content[:40]!r} is no pair of times in seconds",)
    return Answer(
        text,
        span_seconds=span,
        thought=between(text, "think"),
        well_formed=stripped.startswith("<think>") and bool(closing) and content is not None,
        problems=problems,
        names_objects=False,
        reply=_last_boxed(rest),
    )


def _last_boxed(rest: str) -> str:
    """What the last box holds of what stands behind a thought, and behind the time where there is one."""
    boxed = _BOXED.findall(rest.rpartition("</time>")[2])
    return str(boxed[-1]) if boxed else ""


def _span(content: str) -> Span | None:
    match = _PAIR.fullmatch(content)
    if match is None:
        return None
    start, end = float(match[1]), float(match[2])
    return (start, end) if math.isfinite(start) and math.isfinite(end) else None


def _check_task(truth: Truth) -> None:
    if truth.task not in TASKS:
        raise ValueError(f"truth {truth.id!r}: pairs of times answer the tasks {', '.join(TASKS)}, not {truth.task!r}")
