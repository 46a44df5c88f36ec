"""Per-token estimates of KL(policy || reference) from tokens the policy sampled (Schulman 2020, "Approximating KL").

All take `(log_probs, reference_log_probs)` in nats.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def k1(
    log_probs: Float[Tensor, "sequences tokens"], reference_log_probs: Float[Tensor, "sequences tokens"]
) -> Float[Tensor, "sequences tokens"]:
    """`log pi - log ref`: unbiased, of either sign; as a loss its expected gradient is 0."""
    return log_probs - reference_log_probs


def k2(
    log_probs: Float[Tensor, "sequences tokens"], reference_log_probs: Float[Tensor, "sequences tokens"]
) -> Float[Tensor, "sequences tokens"]:
    """`(log pi - log ref)^2 / 2`: biased, never negative; its expected gradient is that of the KL."""
    return (log_probs - reference_log_probs).square() / 2


def k3(
    log_probs: Float[Tensor, "sequences tokens"], reference_log_probs: Float[Tensor, "sequences tokens"]
) -> Float[Tensor, "sequences tokens"]:
    """`exp(log ref - log pi) - (log ref - log pi) - 1`: unbiased, never negative (GRPO, equation 4).

    Example:
        >>> k3(torch.tensor([[0.0, -1.0]]), torch.tensor([[0.0, -2.0]]))
        tensor([[0.0000, 0.3679]])
    """
    difference = reference_log_probs - log_probs
    return torch.expm1(difference) - difference


DIVERGENCES = {"k1": k1, "k2": k2, "k3": k3}
