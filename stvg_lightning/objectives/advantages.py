"""Advantages: how much better than expected each answer of a group is. All take `(rewards, epsilon)`."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def group_normalized(
    rewards: Float[Tensor, "groups group_size"], epsilon: float = 1e-4, unbiased: bool = True
) -> Float[Tensor, "groups group_size"]:
    """Reward minus the group's mean, over the group's standard deviation (GRPO; STVG-R1, equation 7).

    `A_i = (R_i - mean(R)) / (std(R) + epsilon)`

    Args:
        rewards: one group of answers to the same question a row.
        epsilon: added to the standard deviation; the released code has 1e-4, equation 7 none.
        unbiased: divide the sum of squares by `group_size - 1`, as the released code does; otherwise
            by `group_size`.

    Returns:
        Advantages; exactly 0 in a group whose rewards are all equal.

    Raises:
        ValueError: groups of fewer than two answers.

    Example:
        >>> import torch
        >>> group_normalized(torch.tensor([[0.0, 2.0], [1.0, 1.0]]), epsilon=0.0, unbiased=False)
        tensor([[-1.,  1.],
                [ 0.,  0.]])
    """
    _check_group_size(rewards)
    scale = rewards.std(dim=1, keepdim=True, unbiased=unbiased) + epsilon
    return _centered(rewards, dim=1) / scale.where(scale > 0, 1.0)


def group_centered(
    rewards: Float[Tensor, "groups group_size"], epsilon: float = 1e-4
) -> Float[Tensor, "groups group_size"]:
    """Reward minus the group's mean (Dr. GRPO): `A_i = R_i - mean(R)`.

    Args:
        rewards: one group of answers to the same question a row.
        epsilon: not used; here so that all advantages take the same arguments.

    Returns:
        Advantages; exactly 0 in a group whose rewards are all equal.

    Raises:
        ValueError: groups of fewer than two answers.
    """
    _check_group_size(rewards)
    return _centered(rewards, dim=1)


def _centered(rewards: Tensor, dim: int) -> Tensor:
    """Rewards minus their mean; 0 and not a rounding error where all are equal."""
    all_equal = rewards.amax(dim, keepdim=True) == rewards.amin(dim, keepdim=True)
    return (rewards - rewards.mean(dim, keepdim=True)).masked_fill(all_equal, 0.0)


def _check_group_size(rewards: Tensor) -> None:
    if rewards.shape[1] < 2:
        raise ValueError(f"an advantage within a group needs at least two answers a group, not {rewards.shape[1]}")
