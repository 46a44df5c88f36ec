"""Tell a difficulty sampler what each batch's rollouts earned."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Callback, Trainer

from stvg_lightning.data.difficulty import Difficulty
from stvg_lightning.modules.batches import GroundingBatch
from stvg_lightning.modules.difficulty import DifficultySampler, group_difficulties
from stvg_lightning.modules.grpo import GRPO


class DifficultyRefresh(Callback):
    """After each batch: the difficulty of its questions, of all processes, by the rollouts already made.

    Args:
        sampler: is told.
        term: see `group_difficulties`.
    """

    def __init__(self, sampler: DifficultySampler, term: str | None = None) -> None:
        self.sampler, self.term = sampler, term

    def on_train_batch_end(
        self, trainer: Trainer, module: GRPO, outputs: Any, batch: GroundingBatch, batch_idx: int
    ) -> None:
        if module.pending:
            return
        own: dict[str, Difficulty] = {}
        for collected in module.last_collected:
            ids = [truth.id for truth in collected.batch.truths]
            own |= group_difficulties(ids, collected.rewarded, module.collector.rewards, self.term)
        found = own
        if trainer.world_size > 1:
            gathered: list[dict[str, Difficulty]] = [{} for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(gathered, own)
            found = {id_: difficulty for each in gathered for id_, difficulty in each.items()}
        self.sampler.note(batch.number, found)
        means = [difficulty.mean for difficulty in found.values()]
        alike = [difficulty.spread == 0 for difficulty in found.values()]
        module.log_dict(
            {"difficulty/mean": sum(means) / len(means), "difficulty/equal_groups": sum(alike) / len(alike)}
        )
