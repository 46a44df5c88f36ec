"""Choices between lettered candidates, which the query lists one a line: the answer is a letter (STI-Bench)."""

from __future__ import annotations

from stvg_lightning.answers.answer import Answer
from stvg_lightning.answers.questions import chosen_letter
from stvg_lightning.answers.reading import plain_reply
from stvg_lightning.answers.view import View
from stvg_lightning.tubes import Truth

ONLY_THE_LETTER = "Please output only the option letter!"
"""STI-Bench's own last line (github.com/MINT-SJTU/STI-Bench, opensource_test.py)."""

NUMBERED = View()


def instruction(truth: Truth, view: View = NUMBERED) -> str:
    """The question put to the model: the query with its candidates, and how to answer.

    Raises:
        ValueError: another task than `choice`.
    """
    _check_task(truth)
    return f"{truth.query}\n{ONLY_THE_LETTER}"


def holds_answer(truth: Truth) -> bool:
    """Whether a truth knows the right letter."""
    return isinstance(truth.answer, str)


def write(truth: Truth, thought: str = "", view: View = NUMBERED) -> str:
    """The right letter in brackets; a thought is not told.

    Raises:
        ValueError: another task than `choice`, or a truth without its letter.
    """
    _check_task(truth)
    if not holds_answer(truth):
        raise ValueError(f"truth {truth.id!r} has no answer to write")
    return f"({truth.answer})"


def read(text: str, view: View = NUMBERED) -> Answer:
    """Read a completion; whatever it holds, nothing is raised. Where it holds no `<answer>`, all of it is the reply.

    Example:
        >>> read("(B) 3 m").problems, read("three metres").problems
        ((), ('no letter was chosen',))
    """
    reply = plain_reply(text)
    letter = chosen_letter(reply)
    problems = () if letter else ("no letter was chosen",)
    return Answer(text, well_formed=letter is not None, problems=problems, reply=reply)


def _check_task(truth: Truth) -> None:
    if truth.task != "choice":
        raise ValueError(f"truth {truth.id!r}: letters answer the task choice, not {truth.task!r}")
