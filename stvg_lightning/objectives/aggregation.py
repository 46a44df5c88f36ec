"""From a value per token to one loss. All take `(values, mask, totals)`.

What to divide by is passed in, counted over the whole batch of one optimiser step: then the losses of
micro-batches add up to the loss of the whole, and so do their gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class BatchTotals:
    """What a batch is normalised by.

    Under gradient averaging over processes (DDP), pass the totals over all processes divided by the
    number of processes; hence totals may be fractions.

    Attributes:
        num_sequences: answers in the whole batch.
        num_tokens: answer tokens in the whole batch.
        max_tokens: the longest answer that sampling allows (Dr. GRPO's constant).

    Raises:
        ValueError: a total that is not above 0.
    """

    num_sequences: float | int
    num_tokens: float | int
    max_tokens: int

    def __post_init__(self) -> None:
        for name in ("num_sequences", "num_tokens", "max_tokens"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be above 0, not {value}")

    @classmethod
    def of(cls, mask: Bool[Tensor, "sequences tokens"], max_tokens: int | None = None) -> BatchTotals:
        """The totals of a whole batch.

        Args:
            mask: True for the tokens of each answer.
            max_tokens: the longest answer that sampling allows; the width of the mask if None.
        """
        return cls(mask.shape[0], int(mask.sum()), mask.shape[1] if max_tokens is None else max_tokens)


def sequence_mean_token_mean(
    values: Float[Tensor, "sequences tokens"], mask: Bool[Tensor, "sequences tokens"], totals: BatchTotals
) -> Float[Tensor, ""]:
    """Mean over each sequence's tokens, then over sequences (GRPO): every answer counts the same.

    A sequence without tokens counts as 0.
    """
    lengths = mask.sum(dim=1).clamp(min=1)
    return (_masked_sum(values, mask, dim=1) / lengths).sum() / totals.num_sequences


def token_mean(
    values: Float[Tensor, "sequences tokens"], mask: Bool[Tensor, "sequences tokens"], totals: BatchTotals
) -> Float[Tensor, ""]:
    """Mean over all tokens of the batch (DAPO): every token counts the same, so long answers count more."""
    return _masked_sum(values, mask, dim=None) / totals.num_tokens


def fixed_length_sum(
    values: Float[Tensor, "sequences tokens"], mask: Bool[Tensor, "sequences tokens"], totals: BatchTotals
) -> Float[Tensor, ""]:
    """Sum over tokens, divided by sequences times the longest allowed length (Dr. GRPO): a constant, no mean."""
    return _masked_sum(values, mask, dim=None) / (totals.num_sequences * totals.max_tokens)


def _masked_sum(values: Tensor, mask: Tensor, dim: int | None) -> Tensor:
    # Filled rather than multiplied: what stands outside the mask may be infinite.
    return values.masked_fill(~mask, 0.0).sum(dim=dim)
