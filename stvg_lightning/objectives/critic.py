"""A critic beside the objective (PPO): what a value head is trained for, and the advantages that it gives each token.

In all equations `V_t` is the value head's estimate before token `t` of an answer of `n` tokens, `R` the reward of the
whole answer, which stands at its last token; beyond the end values are 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stvg_lightning.objectives.aggregation import BatchTotals, token_mean


@dataclass(frozen=True)
class Critic:
    """Generalised advantage estimation, and the clipped value loss.

    Attributes:
        discount: gamma, in (0, 1].
        gae_lambda: lambda, in [0, 1]: 0 trusts the values alone, 1 the reward alone.
        value_clip: how far a value may move from the one at rollout before it teaches no more.
        value_weight: of the value loss, beside the policy's.
        advantage_epsilon: added to the standard deviation when advantages are whitened.

    Raises:
        ValueError: a number outside its range.
    """

    discount: float = 1.0
    gae_lambda: float = 0.95
    value_clip: float = 0.2
    value_weight: float = 0.5
    advantage_epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if not (0 < self.discount <= 1 and 0 <= self.gae_lambda <= 1):
            raise ValueError(f"discount {self.discount} must lie in (0, 1], and gae_lambda {self.gae_lambda} in [0, 1]")
        for name in ("value_clip", "value_weight", "advantage_epsilon"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be finite and at least 0, not {getattr(self, name)}")

    @torch.no_grad()
    def advantages(
        self,
        rewards: Float[Tensor, " sequences"],
        values: Float[Tensor, "sequences tokens"],
        mask: Bool[Tensor, "sequences tokens"],
    ) -> Float[Tensor, "sequences tokens"]:
        """Generalised advantages of each token (GAE, arXiv 1506.02438, equation 16), 0 outside the mask.

        `A_t = d_t + gamma lambda A_(t+1)`, with `d_t = r_t + gamma V_(t+1) - V_t`; `A_t + V_t` is the return that the
        value head learns.

        Args:
            rewards: one for each answer.
            values: at the time of the rollout.
            mask: True for answer tokens, which stand first in their row.
        """
        values = values.masked_fill(~mask, 0.0)
        is_last = mask & ~torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
        following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
        deltas = is_last * rewards[:, None] + self.discount * following - values
        advantages = torch.zeros_like(values)
        carried = torch.zeros_like(values[:, 0])
        for token in reversed(range(values.shape[1])):
            carried = (deltas[:, token] + self.discount * self.gae_lambda * carried) * mask[:, token]
            advantages[:, token] = carried
        return advantages

    def value_loss(
        self,
        values: Float[Tensor, "sequences tokens"],
        old_values: Float[Tensor, "sequences tokens"],
        returns: Float[Tensor, "sequences tokens"],
        mask: Bool[Tensor, "sequences tokens"],
        totals: BatchTotals,
    ) -> Float[Tensor, ""]:
        """The clipped value loss, a mean over the answer tokens of the batch, already weighted.

        `1/2 max[ (V_t - G_t)^2, (clip(V_t, V_t^old - c, V_t^old + c) - G_t)^2 ]`, with `G_t` the returns: the form
        that OpenAI's PPO code introduced.
        """
        near = torch.maximum(torch.minimum(values, old_values + self.value_clip), old_values - self.value_clip)
        worse = torch.maximum((values - returns).square(), (near - returns).square())
        return self.value_weight * token_mean(worse / 2, mask, totals)


def whitened(
    advantages: Float[Tensor, "sequences tokens"],
    moments: Float[Tensor, 3],
    epsilon: float,
) -> Float[Tensor, "sequences tokens"]:
    """Advantages minus their mean, over their standard deviation.

    Args:
        advantages: of some answers.
        moments: count, sum and sum of squares over the tokens of the whole batch, over all processes.
        epsilon: added to the (population's) standard deviation.
    """
    count, total, squares = moments.tolist()
    mean = total / count
    deviation = max(squares / count - mean * mean, 0.0) ** 0.5
    return (advantages - mean) / (deviation + epsilon)


def moments_of(values: Float[Tensor, "sequences tokens"], mask: Bool[Tensor, "sequences tokens"]) -> Float[Tensor, 3]:
    """Count, sum and sum of squares of what the mask holds; those of parts add up."""
    held = values[mask].double()
    return torch.stack(
        [torch.tensor(float(len(held)), dtype=torch.float64), held.sum().cpu(), held.square().sum().cpu()]
    )
