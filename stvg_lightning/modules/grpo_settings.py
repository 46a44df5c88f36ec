"""How GRPO makes and uses its rollouts."""

from __future__ import annotations

from dataclasses import dataclass

from stvg_lightning.modules.optimization import check_at_least_one


@dataclass(frozen=True)
class GRPOSettings:
    """How rollouts are made and used.

    Attributes:
        max_rollouts: how many batches of prompts to learn from, not prompts or completions: with `loading.batch_size` B
            on N processes, B * N * `max_rollouts` prompts; each batch gives `updates_per_rollout` optimiser steps.
        group_size: completions a prompt.
        updates_per_rollout: optimiser steps on each batch of rollouts; with 1, clipping never acts.
        micro_batch_prompts: prompts whose groups go through the model together; gradients are summed,
            so the result does not depend on it. None: all at once.
        tokens_per_pass: at most so many tokens go through the model together, each prompt counted once for its group;
            a group that is larger goes through in parts, its prompt still once. The result does not depend on it.
            None: as many as `micro_batch_prompts` says.
        tokens_per_rollout: at most so many tokens, of prompts, each as long as the longest beside it, and of
            completions at their longest, are held at once while completions are written; at least one group. None: the
            whole batch.
        features_kept_mib: memory for what a frozen tower made of videos, kept until they are seen again.
        peak_tflops: arithmetic of the device in 10^12 operations a second, against which utilisation is logged; None:
            as one large product of matrices shows it.
        drops_equal_groups: a group of equal rewards, which teaches nothing, is left out and replaced by one of
            a further batch (DAPO's dynamic sampling).
        max_refill_batches: at most so many further batches are rolled out for one update.
        seed: seed of the sampling; the recipe's where None.
    """

    max_rollouts: int
    group_size: int = 8
    updates_per_rollout: int = 1
    micro_batch_prompts: int | None = None
    tokens_per_pass: int | None = None
    tokens_per_rollout: int | None = None
    features_kept_mib: float | int = 0
    peak_tflops: float | int | None = None
    drops_equal_groups: bool = False
    max_refill_batches: int = 9
    seed: int | None = None

    def __post_init__(self) -> None:
        counts = ("max_rollouts", "group_size", "updates_per_rollout", "micro_batch_prompts")
        check_at_least_one(self, *counts, "tokens_per_pass", "tokens_per_rollout")
        if self.features_kept_mib < 0:
            raise ValueError(f"features_kept_mib must be at least 0, not {self.features_kept_mib}")
        if self.peak_tflops is not None and not self.peak_tflops > 0:
            raise ValueError(f"peak_tflops must be above 0, not {self.peak_tflops}")
