"""What an answer language is: a module or an object with these functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from stvg_lightning.answers.answer import Answer


@runtime_checkable
class AnswerLanguage(Protocol):
    """How a model is asked, and how its answers are written and read.

    A language is a module such as `id_span`, or an object such as `BoxChain()` where it has keys of its own. `View`
    tells what a model is shown of a truth's video.

    Attributes:
        instruction: `(truth, view) -> text`: the question put to the model.
        holds_answer: `(truth) -> bool`: whether the truth knows what `write` writes.
        write: `(truth, thought, view) -> text`: a gold answer.
        read: `(text, view) -> Answer`: what a completion says; it lists what it cannot read and raises nothing.
    """

    instruction: Callable[..., str]
    holds_answer: Callable[..., bool]
    write: Callable[..., str]
    read: Callable[..., Answer]
