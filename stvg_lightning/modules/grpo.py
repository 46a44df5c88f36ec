"""Group relative policy optimisation for grounding (STVG-R1, section 3.4), one step from top to bottom.

How a step differs from textbook GRPO:
- the reference policy is the model without this stage's adapter, so no second copy is held;
- the vision tower runs once a video, and each prompt is read once for its whole group, in the rollout
  and in each pass of the update;
- log-probabilities of the rollout are those that sampling computed; the policy's own, computed anew in
  the first update, must agree with them, and how far they do not is logged at every step;
- advantages divide by the group's deviation plus an explicit epsilon;
- a spatial discriminator (SARL-STG) tells the rewards where the described thing is at the answered times.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import torch
from jaxtyping import Float
from lightning import LightningModule
from torch import Tensor

from stvg_lightning.answers import Answer
from stvg_lightning.evaluation import missing_parts
from stvg_lightning.models.adapters import AdaptedModel
from stvg_lightning.models.forward import VideoFeatures, encode_videos
from stvg_lightning.models.group_forward import group_log_probs
from stvg_lightning.modules.batches import GroundingBatch
from stvg_lightning.modules.grpo_settings import GRPOSettings
from stvg_lightning.modules.optimization import (
    Optimization,
    backward,
    check_finite,
    guarded_step,
    make_optimizer,
    trainable_state,
)
from stvg_lightning.modules.reward_statistics import reward_values
from stvg_lightning.objectives import BatchTotals, Objective, ObjectiveStatistics
from stvg_lightning.rewards import RewardContext, RewardedAnswer, WeightedSum
from stvg_lightning.rollouts.discriminator import SpatialDiscriminator
from stvg_lightning.rollouts.in_process import InProcessSampler
from stvg_lightning.rollouts.preparation import Preparation
from stvg_lightning.rollouts.rollouts import Rollouts, Sampling
from stvg_lightning.tubes import Tube


@dataclass(frozen=True)
class ScoredRollouts:
    """Everything a step knows of its batch before the first update."""

    rollouts: Rollouts
    num_unreadable: int
    rewarded: list[RewardedAnswer]
    rewards: Float[Tensor, "prompts group"]
    advantages: Float[Tensor, " rows"]
    seconds: dict[str, float]


class GRPO(LightningModule):
    """Roll out, score, advantages, log-probabilities, objective, step, log."""

    def __init__(
        self,
        adapted: AdaptedModel,
        preparation: Preparation,
        rewards: WeightedSum,
        objective: Objective,
        sampling: Sampling,
        settings: GRPOSettings,
        optimization: Optimization,
        discriminator: SpatialDiscriminator | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False
        self.adapted, self.preparation, self.rewards = adapted, preparation, rewards
        self.objective, self.sampling, self.settings = objective, sampling, settings
        self.optimization, self.discriminator = optimization, discriminator
        self.sampler = InProcessSampler(adapted.model)
        self.policy = adapted.adapter
        self.last_scored: ScoredRollouts | None = None
        self.rewarded_epoch: int | None = None

    def training_step(self, batch: GroundingBatch, batch_idx: int) -> None:
        if batch.epoch != self.rewarded_epoch:
            self.rewarded_epoch = batch.epoch
            self.rewards.on_epoch_start(batch.epoch)
        started = perf_counter()
        features = self.encode(batch)
        vision_seconds = perf_counter() - started
        scored = self.score(batch, self.roll_out(batch, features), features)
        started = perf_counter()
        for update in range(self.settings.updates_per_rollout):
            statistics, log_prob_gap = self.accumulate_gradients(batch, scored, features)
            gradient_norm = guarded_step(self, self.optimization)
            if update == 0:
                # Later updates differ from the rollout because the policy has moved: that is no error.
                self.log("rollout/log_prob_gap", log_prob_gap, sync_dist=True, reduce_fx="max")
        before = {"decode": batch.decode_seconds, "vision": vision_seconds}
        seconds = {**before, **scored.seconds, "update": perf_counter() - started}
        self.last_scored = scored
        self.trainer.datamodule.note_done(batch)
        self.log_step(scored, statistics, gradient_norm, seconds)

    def encode(self, batch: GroundingBatch) -> VideoFeatures:
        """Run the tower once; rollout, reference and policy share what it gives while it is frozen."""
        with torch.no_grad():
            return encode_videos(self.adapted.model.network, batch.prompts)

    def roll_out(self, batch: GroundingBatch, features: VideoFeatures) -> Rollouts:
        """Sample a group for every prompt; its noise depends on sample, epoch and seed, not on the batch or process."""
        seeds = batch.sampling_seeds(self.settings.seed or 0)
        return self.sampler.sample(batch.prompts, features, self.settings.group_size, self.sampling, seeds)

    def score(self, batch: GroundingBatch, rollouts: Rollouts, features: VideoFeatures) -> ScoredRollouts:
        """Read and reward every completion, and turn rewards into advantages (STVG-R1, equations 6 and 7)."""
        started = perf_counter()
        rewarded: list[RewardedAnswer] = []
        num_unreadable = 0
        size = self.settings.group_size
        lengths = rollouts.lengths_tokens.tolist()
        for question, (truth, marked) in enumerate(zip(batch.truths, batch.marked_seconds, strict=True)):
            group = slice(question * size, (question + 1) * size)
            progress = min(batch.number / self.settings.max_rollouts, 1.0)
            answers = [self.preparation.read(text, truth) for text in rollouts.texts[group]]
            tubes = self.locate(batch, question, answers, features)
            context = RewardContext(self.global_step, progress, tuple(lengths[group]), marked, tubes)
            rewarded += self.rewards.score(answers, truth, context)
            num_unreadable += sum(bool(missing_parts(answer, truth)) for answer in answers)
        totals = torch.tensor([answer.total for answer in rewarded], device=self.device).view(-1, size)
        advantages = self.objective.advantages(totals).flatten()
        seconds = {**rollouts.seconds, "reward": perf_counter() - started}
        if self.discriminator is not None:
            cost = self.discriminator.take_cost()
            seconds |= {"discriminator": cost.seconds, "reward": seconds["reward"] - cost.seconds}
            self.log_dict(cost.per_rollout(len(rewarded)), sync_dist=True)
        return ScoredRollouts(rollouts, num_unreadable, rewarded, totals, advantages, seconds)

    def locate(
        self, batch: GroundingBatch, question: int, answers: list[Answer], features: VideoFeatures
    ) -> list[Tube | None] | None:
        """Where the discriminator finds the described thing at each answered time; None without a discriminator."""
        if self.discriminator is None or not batch.truths[question].boxes_xyxy:
            return None
        video, tokens = batch.videos[question], features.tokens[question]
        return self.discriminator.tubes(answers, batch.truths[question], video, tokens)

    def accumulate_gradients(
        self, batch: GroundingBatch, scored: ScoredRollouts, features: VideoFeatures
    ) -> tuple[list[ObjectiveStatistics], float]:
        """Gradients of equation 8 over the whole batch, in portions that add up exactly.

        Returns:
            What each portion's loss is made of, and the largest difference between the policy's
            log-probabilities and those of the rollout.
        """
        rollouts, size = scored.rollouts, self.settings.group_size
        totals = self._totals(rollouts)
        statistics, gap = [], 0.0
        for prompts in batch.micro_batches(self.settings.micro_batch_prompts):
            rows = slice(prompts.start * size, prompts.stop * size)
            part, part_batch = rollouts.select(rows), batch.select(prompts)
            part_features = features.select(prompts)
            reference = self.reference_log_probs(part_batch, part, part_features)
            log_probs = self.policy_log_probs(part_batch, part, part_features)
            loss, made_of = self.objective.loss(
                log_probs, part.log_probs, reference, scored.advantages[rows], part.mask, totals
            )
            check_finite(loss.detach(), self.global_step)
            backward(self, loss, last=prompts.stop == len(batch))
            statistics.append(made_of)
            gap = max(gap, float((log_probs.detach() - part.log_probs).abs().max()))
        return statistics, gap

    def policy_log_probs(self, batch: GroundingBatch, rollouts: Rollouts, features: VideoFeatures) -> Tensor:
        """Log-probabilities under the policy; through the tower too, where it is adapted."""
        network = self.adapted.model.network
        if not self.adapted.tower_is_frozen:
            features = encode_videos(network, batch.prompts)
        return self._log_probs(batch, rollouts, features)

    @torch.no_grad()
    def reference_log_probs(self, batch: GroundingBatch, rollouts: Rollouts, features: VideoFeatures) -> Tensor | None:
        """Log-probabilities under the reference policy, or None where the objective does not ask for them."""
        if self.objective.beta == 0:
            return None
        with self.adapted.without_adapter():
            if not self.adapted.tower_is_frozen:
                features = encode_videos(self.adapted.model.network, batch.prompts)
            return self._log_probs(batch, rollouts, features)

    def _log_probs(self, batch: GroundingBatch, rollouts: Rollouts, features: VideoFeatures) -> Tensor:
        network, temperature = self.adapted.model.network, self.sampling.temperature
        return group_log_probs(network, batch.prompts, rollouts.completions, features, temperature)

    def _totals(self, rollouts: Rollouts) -> BatchTotals:
        """Sequences and tokens over all processes, divided by their number: gradients are averaged over processes."""
        counts = torch.tensor([len(rollouts.texts), rollouts.mask.sum()], dtype=torch.float32, device=self.device)
        sequences, tokens = self.all_gather(counts).float().reshape(-1, 2).mean(dim=0).tolist()
        return BatchTotals(sequences, tokens, self.sampling.max_new_tokens)

    def log_step(
        self,
        scored: ScoredRollouts,
        statistics: list[ObjectiveStatistics],
        gradient_norm: float,
        seconds: dict[str, float],
    ) -> None:
        """Write down what happened: rewards, groups, lengths, the objective, and where the time went."""
        rollouts, rewards = scored.rollouts, scored.rewards
        values = {
            "reward/total": rewards.mean(),
            "reward/total_spread": rewards.std(dim=1).mean(),
            "rollout/equal_groups": (rewards == rewards[:, :1]).all(dim=1).float().mean(),
            "rollout/parse_failures": scored.num_unreadable / len(scored.rewarded),
            "rollout/length_tokens": rollouts.lengths_tokens.float().mean(),
            "rollout/truncated": rollouts.truncated.float().mean(),
            "grpo/gradient_norm": gradient_norm,
            "grpo/learning_rate": self.lr_schedulers().get_last_lr()[0],
            **{f"seconds/{phase}": spent for phase, spent in seconds.items()},
            **reward_values(scored.rewarded, self.all_gather, self.device),
        }
        for name in ("loss", "policy_loss", "kl", "clip_fraction", "ratio_mean"):
            values[f"grpo/{name}"] = torch.stack([getattr(part, name) for part in statistics]).sum()
        self.log_dict({name: float(value) for name, value in values.items()}, sync_dist=True)
        shown = {"reward": values["reward/total"], "kl": values["grpo/kl"]}
        self.log_dict({name: float(value) for name, value in shown.items()}, prog_bar=True, logger=False)

    def setup(self, stage: str) -> None:  # before a checkpoint gives the rewards their state back
        self.objective.check_num_processes(self.trainer.world_size)
        self.rewards.setup()

    def configure_optimizers(self) -> dict:
        max_steps = self.settings.max_rollouts * self.settings.updates_per_rollout
        return make_optimizer(self.parameters(), self.optimization, max_steps)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["state_dict"] = trainable_state(self)
        checkpoint["rewards"] = self.rewards.state_dict()
        checkpoint["rewarded_epoch"] = self.rewarded_epoch

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.rewards.load_state_dict(checkpoint["rewards"])
        self.rewarded_epoch = checkpoint["rewarded_epoch"]
