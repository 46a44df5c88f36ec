"""A policy-gradient objective, composed of independent choices."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from stvg_lightning.objectives.advantages import group_normalized
from stvg_lightning.objectives.aggregation import BatchTotals, sequence_mean_token_mean, token_mean
from stvg_lightning.objectives.critic import Critic
from stvg_lightning.objectives.divergences import DIVERGENCES
from stvg_lightning.objectives.ratios import token_log_ratios
from stvg_lightning.objectives.surrogates import clipped
from stvg_lightning.tubes.choices import check_choice

Divergence = Literal["k1", "k2", "k3"]


@dataclass(frozen=True)
class ObjectiveStatistics:
    """What a loss is made of; scalars without gradient. Those of micro-batches add up to the whole batch's.

    Attributes:
        loss: `policy_loss + beta * kl`.
        policy_loss: minus the aggregated surrogate.
        kl: the aggregated divergence from the reference; 0 where no reference was given.
        clip_fraction: share of answer tokens whose gradient clipping cut.
        ratio_mean: mean ratio over answer tokens; exactly 1 before the first update after a rollout.
    """

    loss: Float[Tensor, ""]
    policy_loss: Float[Tensor, ""]
    kl: Float[Tensor, ""]
    clip_fraction: Float[Tensor, ""]
    ratio_mean: Float[Tensor, ""]


@dataclass(frozen=True)
class Objective:
    """Four independent choices, a divergence, and their numbers. The defaults are GRPO's.

    Attributes:
        advantage: `(rewards, epsilon) -> advantages`, from `advantages.py`.
        ratio: `(log_probs, old_log_probs, mask) -> log-ratios`, from `ratios.py`.
        surrogate: `(ratios, advantages, clip_low, clip_high) -> (surrogate, clipped)`, from `surrogates.py`.
        aggregation: `(values, mask, totals) -> scalar`, from `aggregation.py`.
        clip_low: how far below 1 a ratio counts, in [0, 1).
        clip_high: how far above 1 a ratio counts, at least 0.
        beta: weight of the divergence from the reference, at least 0.
        divergence: `k1`, `k2` or `k3`, from `divergences.py`.
        advantage_epsilon: passed to `advantage`, at least 0.
        critic: a value head's part (PPO); its advantages stand in for `advantage`.

    Raises:
        ValueError: a number outside its range, or a divergence that does not exist.
    """

    advantage: Callable[..., Tensor] = group_normalized
    ratio: Callable[..., Tensor] = token_log_ratios
    surrogate: Callable[..., tuple[Tensor, Tensor]] = clipped
    aggregation: Callable[..., Tensor] = sequence_mean_token_mean
    clip_low: float | int = 0.2
    clip_high: float | int = 0.2
    beta: float | int = 0.04
    divergence: Divergence = "k3"
    advantage_epsilon: float | int = 1e-4
    critic: Critic | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.clip_low < 1:
            raise ValueError(f"clip_low must lie in [0, 1), not {self.clip_low}")
        for name in ("clip_high", "beta", "advantage_epsilon"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and at least 0, not {value}")
        check_choice("divergence", self.divergence, DIVERGENCES)

    def advantages(self, rewards: Float[Tensor, "groups group_size"]) -> Float[Tensor, "groups group_size"]:
        """The advantage of each answer, groups as rows; flatten it for `loss`."""
        return self.advantage(rewards, float(self.advantage_epsilon))

    def loss(
        self,
        log_probs: Float[Tensor, "sequences tokens"],
        old_log_probs: Float[Tensor, "sequences tokens"],
        reference_log_probs: Float[Tensor, "sequences tokens"] | None,
        advantages: Float[Tensor, " sequences"] | Float[Tensor, "sequences tokens"],
        mask: Bool[Tensor, "sequences tokens"],
        totals: BatchTotals | None = None,
    ) -> tuple[Float[Tensor, ""], ObjectiveStatistics]:
        """The loss to minimise, and what it is made of (STVG-R1, equation 8, with the sign turned).

        Args:
            log_probs: of the answer tokens under the policy that is trained, in nats.
            old_log_probs: under the policy that sampled them; no gradient flows into it.
            reference_log_probs: under the frozen reference; None is allowed where beta is 0.
            advantages: one for each sequence; or one for each token, where there is a critic.
            mask: True for answer tokens; what stands elsewhere has no influence, be it infinite.
            totals: what to normalise by, counted over the whole batch of an optimiser step; those of
                this call's own sequences if None.

        Returns:
            The loss with its gradient, and statistics without.

        Raises:
            ValueError: no reference although beta is above 0.
        """
        if totals is None:
            totals = BatchTotals.of(mask)
        log_probs = log_probs.masked_fill(~mask, 0.0)
        ratios = self.ratio(log_probs, old_log_probs.detach().masked_fill(~mask, 0.0), mask).exp()
        per_token = (advantages if advantages.ndim == 2 else advantages[:, None]).detach()
        surrogate, was_clipped = self.surrogate(ratios, per_token, float(self.clip_low), float(self.clip_high))
        policy_loss = self.aggregation(-surrogate, mask, totals)
        kl = self._kl(log_probs, reference_log_probs, mask, totals)
        loss = policy_loss + self.beta * kl if self.beta > 0 else policy_loss
        statistics = ObjectiveStatistics(
            loss=loss.detach(),
            policy_loss=policy_loss.detach(),
            kl=kl.detach(),
            clip_fraction=token_mean(was_clipped.to(ratios.dtype), mask, totals),
            ratio_mean=token_mean(ratios.detach(), mask, totals),
        )
        return loss, statistics

    def _kl(
        self, log_probs: Tensor, reference_log_probs: Tensor | None, mask: Tensor, totals: BatchTotals
    ) -> Float[Tensor, ""]:
        if reference_log_probs is None:
            if self.beta > 0:
                raise ValueError(f"beta is {self.beta}, so the log-probabilities of the reference are needed")
            return log_probs.new_zeros(())
        if self.beta == 0:
            log_probs = log_probs.detach()
        reference_log_probs = reference_log_probs.detach().masked_fill(~mask, 0.0)
        return self.aggregation(DIVERGENCES[self.divergence](log_probs, reference_log_probs), mask, totals)
