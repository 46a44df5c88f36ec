"""Supervised fine-tuning: a LoRA cold start on gold answers, with the loss on the answers' tokens only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from lightning import LightningModule

from stvg_lightning.models.adapters import AdaptedModel
from stvg_lightning.models.forward import completion_log_probs, encode_videos
from stvg_lightning.modules.batches import GroundingBatch
from stvg_lightning.modules.optimization import (
    Optimization,
    backward,
    check_at_least_one,
    check_finite,
    guarded_step,
    make_optimizer,
    mean_over_processes,
    trainable_state,
)


@dataclass(frozen=True)
class SFTSettings:
    """How long to train and in what portions.

    Attributes:
        max_steps: optimiser steps.
        micro_batch_size: questions that go through the model together; their gradients are summed, so
            the result does not depend on it. None: the whole batch at once.
    """

    max_steps: int
    micro_batch_size: int | None = None

    def __post_init__(self) -> None:
        check_at_least_one(self, "max_steps", "micro_batch_size")


class SFT(LightningModule):
    """Raise the likelihood of gold answers: minus their mean log-probability per token of the batch."""

    def __init__(self, adapted: AdaptedModel, settings: SFTSettings, optimization: Optimization) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False
        self.adapted, self.settings, self.optimization = adapted, settings, optimization
        self.policy = adapted.adapter

    def training_step(self, batch: GroundingBatch, batch_idx: int) -> None:
        (num_tokens,) = mean_over_processes(self, batch.gold_answers.mask.sum())
        total = torch.zeros((), device=self.device)
        for questions in batch.micro_batches(self.settings.micro_batch_size):
            loss = self.negative_log_likelihood(batch.select(questions)) / num_tokens
            check_finite(loss.detach(), self.global_step)
            backward(self, loss, last=questions.stop == len(batch))
            total += loss.detach()
        gradient_norm = guarded_step(self, self.optimization)
        self.trainer.datamodule.note_done(batch)
        self.log("sft/loss", total, prog_bar=True, sync_dist=True)
        self.log("sft/gradient_norm", gradient_norm)
        self.log("sft/learning_rate", self.lr_schedulers().get_last_lr()[0])

    def negative_log_likelihood(self, batch: GroundingBatch) -> torch.Tensor:
        """Summed over the gold answers' tokens, end tokens included."""
        network = self.adapted.model.network
        with torch.set_grad_enabled(not self.adapted.tower_is_frozen):
            features = encode_videos(network, batch.prompts)
        return -completion_log_probs(network, batch.prompts, batch.gold_answers, features).sum()

    def configure_optimizers(self) -> dict:
        return make_optimizer(self.parameters(), self.optimization, self.settings.max_steps)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["state_dict"] = trainable_state(self)
