"""A term for some kinds of question alone: how a recipe routes rewards by the sample's task (TVG-R1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import RewardContext, RewardTerm, may_apply
from stvg_lightning.tubes import TASKS, Truth
from stvg_lightning.tubes.choices import check_choice


@dataclass(frozen=True)
class OnTasks:
    """Another term where the question is of one of some tasks, and None elsewhere; a recipe's key `tasks` makes it.

    All else that the term has (`setup`, `needs`, a state, ...) is its own.

    Attributes:
        term: the term.
        tasks: the tasks of the questions that it is for.

    Raises:
        ValueError: no task, or one that does not exist.
    """

    term: RewardTerm
    tasks: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("tasks is empty: the term would never apply")
        for task in self.tasks:
            check_choice("task", task, TASKS)

    @property
    def low(self) -> float:
        return self.term.low

    @property
    def high(self) -> float:
        return self.term.high

    def __call__(self, answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float | None]:
        """The term's values, or None for each answer to a question of another task."""
        if truth.task not in self.tasks:
            return [None] * len(answers)
        return list(self.term(answers, truth, context))

    def applies_to(self, truth: Truth) -> bool:
        """Whether the question is of one of the tasks, and the term itself may apply to it."""
        return truth.task in self.tasks and may_apply(self.term, truth)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "term":
            raise AttributeError(name)
        return getattr(self.term, name)
