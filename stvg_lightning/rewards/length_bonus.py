"""A bonus for right answers of a wished length (Video-R1; SpaceR; Video-STR's length term)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.answer_by_kind import answer_accuracy
from stvg_lightning.rewards.base import RewardContext
from stvg_lightning.tubes import Truth


@dataclass(frozen=True)
class LengthBonus:
    """1 for a completion of a wished length whose answer is right, where the group has more than one such answer.

    The papers add 0.2 (`weight: 0.2`) to completions of 320 to 512 tokens whose accuracy is above 0.1.

    Attributes:
        least_tokens: the shortest wished length.
        most_tokens: the longest.
        accuracy_above: how right an answer must be; see `answer_accuracy`.

    Raises:
        ValueError: lengths that are reversed or below 1.
    """

    least_tokens: int = 320
    most_tokens: int = 512
    accuracy_above: float = 0.1
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.least_tokens <= self.most_tokens:
            raise ValueError(f"least_tokens {self.least_tokens} must lie in 1 to most_tokens {self.most_tokens}")

    def __call__(self, answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float | None]:
        """The bonus of each answer; None where the lengths are not known, as in `stvg reward`."""
        if context.completion_tokens is None:
            return [None] * len(answers)
        right = [answer_accuracy(answer, truth) > self.accuracy_above for answer in answers]
        several = sum(right) > 1
        return [
            float(several and is_right and self.least_tokens <= length <= self.most_tokens)
            for is_right, length in zip(right, context.completion_tokens, strict=True)
        ]
