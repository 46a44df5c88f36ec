"""The spatial reward of STVG-o1 (equations 7 and 8): how well both lists of boxes fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import RewardContext
from stvg_lightning.rewards.box_lists import BoxAgreement, lists_of, shared_truth
from stvg_lightning.tubes import Truth


@dataclass(frozen=True)
class BoxSpatial:
    """`R_s = R_spa^t + R_spa^p`: the agreement of both lists with the truth, added (equation 8).

    It is 0 where the answered and the true time share nothing, and may be negative where they do: with bad boxes an
    answer earns more by missing the time. The formula is the paper's; trainings log how often either happens.
    """

    agreement: BoxAgreement = field(default_factory=BoxAgreement)
    needs: ClassVar[tuple[str, ...]] = ("box_lists",)

    @property
    def low(self) -> float:
        return 2 * self.agreement.least

    @property
    def high(self) -> float:
        return 2 * self.agreement.best

    def __call__(self, answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float | None]:
        """The reward of each answer; of a language without thinking, the predicted list's alone."""
        return [self._of_both(answer, truth) for answer in answers]

    def notes(self, answer: Answer, truth: Truth) -> dict[str, float]:
        """Whether the times share nothing (`empty`), and whether the reward is below what that earns (`negative`)."""
        empty = not shared_truth(lists_of(answer), truth)
        return {"empty": float(empty), "negative": float(self._of_both(answer, truth) < 0)}

    def _of_both(self, answer: Answer, truth: Truth) -> float:
        lists = lists_of(answer)
        return sum(self.agreement.of(boxes, lists, truth) for boxes in lists.written)
