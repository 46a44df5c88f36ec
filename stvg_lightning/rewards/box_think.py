"""The thinking reward of STVG-o1 (equation 9): what the answered boxes gain over those thought of."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import RewardContext, RewardTerm
from stvg_lightning.rewards.box_lists import BoxAgreement, lists_of
from stvg_lightning.rewards.box_spatial import BoxSpatial
from stvg_lightning.tubes import Truth

LOGGER = logging.getLogger("stvg_lightning.rewards")


@dataclass(frozen=True)
class BoxThink:
    """`R_k = max(R_spa^p - R_spa^t, 0)`, with a weight (lambda_k) of 0.5 in the paper.

    With the same weight as `BoxSpatial`, what a worse thought loses there comes back here, so it costs nothing; with a
    larger weight it pays.
    """

    agreement: BoxAgreement = field(default_factory=BoxAgreement)
    needs: ClassVar[tuple[str, ...]] = ("box_lists", "box_lists.think")

    @property
    def low(self) -> float:
        return 0.0

    @property
    def high(self) -> float:
        return self.agreement.best - self.agreement.least

    def check_weights(self, terms: Mapping[str, tuple[RewardTerm, float]]) -> None:
        """Refuse another `R_spa` than the spatial reward's; warn of weights with which thinking badly is free, or pays.

        Raises:
            ValueError: `agreement` is not that of the spatial reward.
        """
        for term, _ in terms.values():
            if isinstance(term, BoxSpatial) and term.agreement != self.agreement:
                raise ValueError(
                    f"the think reward compares boxes by {self.agreement}, the spatial reward by {term.agreement}: "
                    "they must agree (equation 9)"
                )
        own = sum(weight for term, weight in terms.values() if isinstance(term, BoxThink))
        spatial = sum(weight for term, weight in terms.values() if isinstance(term, BoxSpatial))
        if own >= spatial:
            LOGGER.warning(
                "the think reward's weight %g is not below the spatial reward's, %g: worse boxes in the thought "
                "cost nothing, or pay", own, spatial,
            )  # fmt: skip

    def __call__(self, answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float | None]:
        """The reward of each answer.

        Raises:
            ValueError: a language without a list to think with.
        """
        return [self._gain(answer, truth) for answer in answers]

    def _gain(self, answer: Answer, truth: Truth) -> float:
        lists, agreement = lists_of(answer), self.agreement
        if lists.think is None:
            raise ValueError("without a list of boxes to think with there is no think reward: leave the term out")
        return max(agreement.of(lists.predicted, lists, truth) - agreement.of(lists.think, lists, truth), 0.0)
