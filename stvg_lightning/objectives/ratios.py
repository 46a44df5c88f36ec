"""Log-ratios of the policy to the one that sampled. All take `(log_probs, old_log_probs, mask)`."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor


def token_log_ratios(
    log_probs: Float[Tensor, "sequences tokens"],
    old_log_probs: Float[Tensor, "sequences tokens"],
    mask: Bool[Tensor, "sequences tokens"],
) -> Float[Tensor, "sequences tokens"]:
    """`log w_t = log pi(o_t) - log pi_old(o_t)` for each token (PPO, GRPO).

    Args:
        log_probs: of the policy that is trained, in nats.
        old_log_probs: of the policy that sampled the tokens.
        mask: True for the tokens of the answer.

    Returns:
        Log-ratios; 0 outside the mask.
    """
    return (log_probs - old_log_probs).masked_fill(~mask, 0.0)


def sequence_log_ratios(
    log_probs: Float[Tensor, "sequences tokens"],
    old_log_probs: Float[Tensor, "sequences tokens"],
    mask: Bool[Tensor, "sequences tokens"],
) -> Float[Tensor, "sequences tokens"]:
    """`log s = mean_t(log pi(o_t) - log pi_old(o_t))`, the same for every token of a sequence (GSPO, equation 7).

    The gradient flows through the mean to every token of the sequence.

    Args:
        log_probs: of the policy that is trained, in nats.
        old_log_probs: of the policy that sampled the tokens.
        mask: True for the tokens of the answer.

    Returns:
        Log-ratios; 0 outside the mask.
    """
    log_ratios = token_log_ratios(log_probs, old_log_probs, mask)
    means = log_ratios.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return means.expand_as(log_ratios).masked_fill(~mask, 0.0)
