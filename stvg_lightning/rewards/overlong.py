"""The soft penalty on long completions (DAPO, arXiv 2503.14476, equation 13)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import RewardContext
from stvg_lightning.tubes import Truth


@dataclass(frozen=True)
class OverlongPenalty:
    """0 for a completion of up to `max_tokens - buffer_tokens`, falling to -1 at `max_tokens`, on a straight line.

    Attributes:
        max_tokens: the longest completion that sampling allows.
        buffer_tokens: over how many tokens before that the penalty grows.

    Raises:
        ValueError: a buffer that is not in 1 to max_tokens.
    """

    max_tokens: int
    buffer_tokens: int
    low: ClassVar[float] = -1.0
    high: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.buffer_tokens <= self.max_tokens:
            raise ValueError(f"buffer_tokens {self.buffer_tokens} must lie in 1 to max_tokens {self.max_tokens}")

    def __call__(self, answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float | None]:
        """The penalty of each answer; None where the lengths are not known, as in `stvg reward`."""
        if context.completion_tokens is None:
            return [None] * len(answers)
        free = self.max_tokens - self.buffer_tokens
        return [min(0.0, max(-1.0, (free - length) / self.buffer_tokens)) for length in context.completion_tokens]
