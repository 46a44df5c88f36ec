"""What completions are credited with: an advantage each, or, with a critic, one for each of their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from stvg_lightning.modules.collecting import Portion
from stvg_lightning.objectives import BatchTotals, Critic, moments_of, whitened


@dataclass(frozen=True)
class ValueTarget:
    """What a critic's value head learns from a portion: values at the time of the rollout, and returns."""

    critic: Critic
    old_values: Float[Tensor, "rows tokens"]
    returns: Float[Tensor, "rows tokens"]

    def select(self, rows: slice) -> ValueTarget:
        """That of some neighbouring completions."""
        return replace(self, old_values=self.old_values[rows], returns=self.returns[rows])

    def loss(
        self, values: Float[Tensor, "rows tokens"], mask: Bool[Tensor, "rows tokens"], totals: BatchTotals
    ) -> Float[Tensor, ""]:
        """See `Critic.value_loss`."""
        return self.critic.value_loss(values, self.old_values, self.returns, mask, totals)


@dataclass(frozen=True)
class Credit:
    """The advantages of a portion's completions, one for each or, with a critic, one for each token."""

    advantages: Float[Tensor, " rows"] | Float[Tensor, "rows tokens"]
    value_target: ValueTarget | None = None

    def by_completion(self, mask: Bool[Tensor, "rows tokens"]) -> Float[Tensor, " rows"]:
        """One advantage for each completion: the mean over its tokens, where these have their own."""
        if self.advantages.ndim == 1:
            return self.advantages
        return (self.advantages * mask).sum(dim=1) / mask.sum(dim=1)


def credits_of_critic(
    critic: Critic,
    portions: Sequence[Portion],
    values: Sequence[Tensor],
    all_gather: Callable[[Tensor], Tensor],
) -> list[Credit]:
    """Generalised advantages of all portions, whitened over the whole batch of all processes.

    Args:
        critic: its numbers.
        portions: what an update learns from.
        values: of each portion (rows, tokens), at the time of the rollout.
        all_gather: stacks the tensors of all processes.
    """
    masks = [portion.rollouts.mask for portion in portions]
    raw = [
        critic.advantages(portion.rewards.flatten(), value, mask)
        for portion, value, mask in zip(portions, values, masks, strict=True)
    ]
    own = torch.stack([moments_of(each, mask) for each, mask in zip(raw, masks, strict=True)]).sum(dim=0)
    moments = all_gather(own.to(raw[0].device)).reshape(-1, 3).sum(dim=0)
    return [
        Credit(whitened(each, moments, critic.advantage_epsilon), ValueTarget(critic, value, each + value))
        for each, value in zip(raw, values, strict=True)
    ]


def value_head(width: int) -> nn.Linear:
    """A head that expects nothing yet."""
    head = nn.Linear(width, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
