"""A bonus for right answers where the order of the frames helps (T-GRPO of Video-R1, arXiv 2503.21776)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.answer_by_kind import ACCURACY_TASKS, answer_accuracy
from stvg_lightning.rewards.base import RewardContext
from stvg_lightning.tubes import Truth


@dataclass(frozen=True)
class OrderBonus:
    """1 for a right answer where the group is at least about as right as one that saw the frames shuffled.

    The group earns it where its mean accuracy is at least `share` of the shuffled group's: whoever answers as well
    without the order of the frames has not looked at it. Video-R1 adds 0.3 (`weight: 0.3`) to completions whose
    accuracy is above 0.1; its paper calls the share mu and its code sets it to 0.8, so that a tie earns it too
    (github.com/tulerfeng/Video-R1, grpo_trainer.py).

    Attributes:
        share: of the shuffled group's mean accuracy.
        accuracy_above: how right an answer must be; see `answer_accuracy`.

    Raises:
        ValueError: a share below 0.
    """

    share: float | int = 0.8
    accuracy_above: float | int = 0.1
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0
    needs_shuffled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.share < 0:
            raise ValueError(f"share must be at least 0, not {self.share}")

    def applies_to(self, truth: Truth) -> bool:
        """Whether `answer_accuracy` can judge answers to the question."""
        return truth.task in ACCURACY_TASKS

    def __call__(self, answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float | None]:
        """The bonus of each answer; None where nobody was shown shuffled frames, as in `stvg reward`.

        None too for questions that are not of one kind, of which no answer is simply right: those of time and place.
        """
        if context.shuffled_answers is None or not self.applies_to(truth):
            return [None] * len(answers)
        right = [answer_accuracy(answer, truth) for answer in answers]
        shuffled = fmean(answer_accuracy(answer, truth) for answer in context.shuffled_answers)
        order_helps = fmean(right) >= self.share * shuffled
        return [float(order_helps and accuracy > self.accuracy_above) for accuracy in right]
