"""Surrogates, to be maximised. All take `(ratios, advantages, clip_low, clip_high)`, return values and what clipped."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def clipped(
    ratios: Float[Tensor, "sequences tokens"],
    advantages: Float[
        Tensor,
        (
            sequences  # tokens
        ),
    ],
    clip_low: float,
    clip_high: float,
) -> tuple[Float[Tensor, "sequences tokens"], Bool[Tensor, "sequences tokens"]]:
    """`min(w A, clip(w, 1 - clip_low, 1 + clip_high) A)` (PPO, equation 7; STVG-R1, equation 8).

    Args:
        ratios: policy over sampling policy, above 0.
        advantages: one for each sequence, or for each token.
        clip_low: how far below 1 a ratio counts.
        clip_high: how far above 1 a ratio counts.

    Returns:
        The surrogate of each token, and whether clipping cut its gradient: a ratio above the range with
        a positive advantage, or below it with a negative one.

    Example:
        >>> clipped(torch.tensor([[0.5, 1.0, 1.5]]), torch.tensor([[2.0]]), 0.2, 0.2)
        (tensor([[1.0000, 2.0000, 2.4000]]), tensor([[False, False,  True]]))
    """
    surrogate = torch.minimum(ratios * advantages, ratios.clamp(1 - clip_low, 1 + clip_high) * advantages)
    above = (ratios > 1 + clip_high) & (advantages > 0)
    below = (ratios < 1 - clip_low) & (advantages < 0)
    return surrogate, above | below


def unclipped(
    ratios: Float[Tensor, "sequences tokens"],
    advantages: Float[
        Tensor,
        (
            sequences  # tokens
        ),
    ],
    clip_low: float,
    clip_high: float,
) -> tuple[Float[Tensor, "sequences tokens"], Bool[Tensor, "sequences tokens"]]:
    """`w A`, the importance-weighted policy gradient; the released STVG-R1 code comes to this.

    Args:
        ratios: policy over sampling policy, above 0.
        advantages: one for each sequence, or for each token.
        clip_low: not used; here so that all surrogates take the same arguments.
        clip_high: not used.

    Returns:
        The surrogate of each token, and False for each.
    """
    return ratios * advantages, torch.zeros_like(ratios, dtype=torch.bool)
