"""How GRPO makes and uses its rollouts."""

from __future__ import annotations

from dataclasses import dataclass

from stvg_lightning.modules.optimization import check_at_least_one


@dataclass(frozen=True)
class GRPOSettings:
    """How rollouts are made and used.

    Attributes:
        max_rollouts: batches of prompts to learn from; each gives `updates_per_rollout` optimiser steps.
        group_size: completions a prompt.
        updates_per_rollout: optimiser steps on each batch of rollouts; with 1, clipping never acts.
        micro_batch_prompts: prompts whose groups go through the model together; gradients are summed,
            so the result does not depend on it. None: all at once.
        drops_equal_groups: a group of equal rewards, which teaches nothing, is left out and replaced by one of
            a further batch (DAPO's dynamic sampling).
        max_refill_batches: at most so many further batches are rolled out for one update.
        seed: seed of the sampling; the recipe's where None.
    """

    max_rollouts: int
    group_size: int = 8
    updates_per_rollout: int = 1
    micro_batch_prompts: int | None = None
    drops_equal_groups: bool = False
    max_refill_batches: int = 9
    seed: int | None = None

    def __post_init__(self) -> None:
        check_at_least_one(self, "max_rollouts", "group_size", "updates_per_rollout", "micro_batch_prompts")
