"""Group relative policy optimisation for grounding (STVG-R1, section 3.4), one step from top to bottom.

How a step differs from textbook GRPO:
- the reference policy is the model without this stage's adapter, so no second copy is held;
- the tower runs once a video while it is frozen; a prompt is read once for its whole group, in rollout and update;
- log-probabilities of the rollout are those that sampling computed; the policy's own, computed anew in
  the first update, must agree with them, and how far they do not is logged at every step;
- advantages divide by the group's deviation plus an explicit epsilon;
- groups of equal rewards, which teach nothing, may be replaced by those of further questions (DAPO);
- with a critic (PPO) a value head on the policy's last states gives each token its advantage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter

import torch
from jaxtyping import Bool, Float
from lightning import LightningModule
from torch import Tensor

from stvg_lightning.models.adapters import AdaptedModel
from stvg_lightning.models.flops import shape_of
from stvg_lightning.models.forward import Completions
from stvg_lightning.models.group_forward import GroupPart, PromptPart, group_states_in_parts, statistics_of_states
from stvg_lightning.modules.batches import GroundingBatch
from stvg_lightning.modules.collecting import Collected, Collector, Portion, portions_of
from stvg_lightning.modules.credit import Credit, credits_of_critic, value_head
from stvg_lightning.modules.floor import StepWork, device_flops_per_second, floor_values
from stvg_lightning.modules.grpo_settings import GRPOSettings
from stvg_lightning.modules.optimization import (
    Optimization,
    backward,
    check_finite,
    guarded_step,
    make_optimizer,
    mean_over_processes,
    trainable_state,
)
from stvg_lightning.modules.reward_statistics import reward_values
from stvg_lightning.objectives import BatchTotals, Objective, ObjectiveStatistics
from stvg_lightning.rollouts.rollouts import Rollouts


class GRPO(LightningModule):
    """Roll out, score, advantages, log-probabilities, objective, step, log."""

    def __init__(
        self, adapted: AdaptedModel, collector: Collector, objective: Objective, settings: GRPOSettings,
        optimization: Optimization,
    ) -> None:  # fmt: skip
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False
        self.adapted, self.collector, self.objective = adapted, collector, objective
        self.settings, self.optimization = settings, optimization
        self.policy = adapted.adapter
        self.value_head = None if objective.critic is None else value_head(adapted.model.width)
        self.pending: list[Collected] = []
        self.last_collected: list[Collected] = []
        self.last_credited: list[tuple[Portion, Credit]] = []
        self.rewarded_epoch: int | None = None

    def training_step(self, batch: GroundingBatch, batch_idx: int) -> None:
        self._begin_epoch(batch)
        self.pending.append(self.collector.collect(batch, self.global_step, self._progress()))
        self.log_rollouts(self.pending[-1])
        if self.needs_more(len(batch)):
            return
        collected, self.pending = self.pending, []
        portions = self.portions(collected)
        started = perf_counter()
        credits = self.credits(portions)
        for update in range(self.settings.updates_per_rollout):
            statistics, seen = self.accumulate_gradients(portions, credits)
            gradient_norm = guarded_step(self, self.optimization)
            if update == 0:
                # Later updates differ from the rollout because the policy has moved: that is no error.
                self.log("rollout/log_prob_gap", seen["log_prob_gap"], sync_dist=True, reduce_fx="max")
        self.last_collected, self.last_credited = collected, list(zip(portions, credits, strict=True))
        self.trainer.datamodule.note_done(batch)
        seconds = perf_counter() - started
        self.log_update(statistics, seen["entropy"], gradient_norm, seconds)
        self.log_floor(collected, portions, seconds)

    def needs_more(self, wanted: int) -> bool:
        """Whether too many of the groups held teach nothing, and others shall replace them (DAPO, equation 11)."""
        if not self.settings.drops_equal_groups or len(self.pending) > self.settings.max_refill_batches:
            return False
        differ = sum(int((each.rewards != each.rewards[:, :1]).any(dim=1).sum()) for each in self.pending)
        # Each process learns from questions of its own: what one has too many does not fill the gaps of another.
        missing = torch.tensor([max(wanted - differ, 0)], device=self.device)
        return bool(self.all_gather(missing).sum() > 0)

    def portions(self, collected: Sequence[Collected]) -> list[Portion]:
        """What an update learns from; a stand-in where that is nothing: every process takes part in every update."""
        size = self.settings.micro_batch_prompts
        settings, most = self.settings, len(collected[0].batch)
        found = portions_of(collected, size, settings.drops_equal_groups, most, settings.tokens_per_pass)
        return found or [Portion(collected[0], slice(0, 1), teaches=False)]

    def credits(self, portions: Sequence[Portion]) -> list[Credit]:
        """What each completion, or each of its tokens, is credited with (STVG-R1, equation 7; or the critic's)."""
        critic = self.objective.critic
        if critic is None:
            of_group = [self.objective.advantages(portion.collected.rewards) for portion in portions]
            return [Credit(each[portion.questions].flatten()) for each, portion in zip(of_group, portions)]
        with torch.no_grad():
            values = [self.values(self.policy_states(portion), portion.rollouts.mask) for portion in portions]
        return credits_of_critic(critic, portions, values, self.all_gather)

    def accumulate_gradients(
        self, portions: Sequence[Portion], credits: Sequence[Credit]
    ) -> tuple[list[ObjectiveStatistics], dict[str, float]]:
        """Gradients of equation 8 over the whole batch, in portions, and parts of a portion, that add up exactly.

        Returns:
            What the parts of the loss are made of; the policy's mean entropy, and the largest difference between its
            log-probabilities and those of the rollout.
        """
        totals = self._totals(portions)
        statistics, seen = [], {"entropy": 0.0, "log_prob_gap": 0.0}
        for portion, credit in zip(portions, credits, strict=True):
            reference = self.reference_log_probs(portion)
            for part in self.policy_parts(portion):
                if isinstance(part, GroupPart):
                    loss, of_part = self.part_loss(portion, credit, reference, part, totals, seen)
                    statistics += [of_part] if portion.teaches else []
                else:
                    loss = part.owed
                check_finite(loss.detach(), self.global_step)
                backward(self, loss * float(portion.teaches), last=portion is portions[-1] and part.is_last)
        return statistics, seen

    def part_loss(
        self, portion: Portion, credit: Credit, reference: Tensor | None, part: GroupPart, totals: BatchTotals,
        seen: dict[str, float],
    ) -> tuple[Float[Tensor, ""], ObjectiveStatistics]:  # fmt: skip
        """The loss of some completions of a portion; adds to what was seen of the policy."""
        rows, rollouts = part.rows, portion.rollouts
        mask, old = rollouts.mask[rows], rollouts.log_probs[rows]
        log_probs, entropies = self._statistics(part.states, rollouts, rows)
        of_reference = None if reference is None else reference[rows]
        loss, made_of = self.objective.loss(log_probs, old, of_reference, credit.advantages[rows], mask, totals)
        if credit.value_target is not None:
            values = self.values(part.states, mask)
            loss = loss + credit.value_target.select(rows).loss(values, mask, totals)
        seen["entropy"] += portion.teaches * float(entropies.sum()) / totals.num_tokens
        seen["log_prob_gap"] = max(seen["log_prob_gap"], float((log_probs.detach() - old).abs().max()))
        return loss, made_of

    def policy_parts(self, portion: Portion) -> Iterator[GroupPart | PromptPart]:
        """The policy's last states, a group in parts where it is larger than a pass may be."""
        most = portion.completion_tokens_in(self.settings.tokens_per_pass)
        return group_states_in_parts(*portion.given(self.adapted), most)

    @torch.no_grad()
    def policy_states(self, portion: Portion) -> Float[Tensor, "rows tokens width"]:
        """The same states all together, without a gradient."""
        return torch.cat([part.states for part in self.policy_parts(portion) if isinstance(part, GroupPart)])

    @torch.no_grad()
    def reference_log_probs(self, portion: Portion) -> Float[Tensor, "rows tokens"] | None:
        """Log-probabilities under the reference policy, or None where the objective does not ask for them."""
        if self.objective.beta == 0:
            return None
        with self.adapted.without_adapter():
            parts = (part for part in self.policy_parts(portion) if isinstance(part, GroupPart))
            return torch.cat([self._statistics(part.states, portion.rollouts, part.rows)[0] for part in parts])

    def values(
        self, states: Float[Tensor, "rows tokens width"], mask: Bool[Tensor, "rows tokens"]
    ) -> Float[Tensor, "rows tokens"]:
        """What the value head expects before each token."""
        assert self.value_head is not None
        # In bfloat16 values and returns of neighbouring rewards would be the same numbers.
        with torch.autocast(states.device.type, enabled=False):
            return self.value_head(states.float())[..., 0].masked_fill(~mask, 0.0)

    def _statistics(
        self, states: Float[Tensor, "rows tokens width"], rollouts: Rollouts, rows: slice
    ) -> tuple[Float[Tensor, "rows tokens"], Float[Tensor, "rows tokens"]]:
        """Log-probabilities and entropies."""
        network, temperature = self.adapted.model.network, self.collector.sampling.temperature
        completions = Completions(rollouts.token_ids[rows], rollouts.mask[rows])
        return statistics_of_states(network, states, completions, temperature)

    def _totals(self, portions: Sequence[Portion]) -> BatchTotals:
        """Sequences and tokens over all processes, divided by their number."""
        masks = [portion.rollouts.mask for portion in portions if portion.teaches]
        counts = sum(len(mask) for mask in masks), sum(int(mask.sum()) for mask in masks)
        sequences, tokens = mean_over_processes(self, *counts)
        # Where no process has anything to learn from, whatever is divided by them is 0 all the same.
        return BatchTotals(sequences or 1.0, tokens or 1.0, self.collector.sampling.max_new_tokens)

    def log_rollouts(self, collected: Collected) -> None:
        """Write down what a batch's rollouts were: rewards, groups, lengths, and where the time went."""
        values = {**collected.values(), **reward_values(collected.rewarded, self.all_gather, self.device)}
        self.log_dict({name: float(value) for name, value in values.items()}, sync_dist=True)
        self.log("reward", float(values["reward/total"]), prog_bar=True, logger=False)

    def log_floor(self, collected: Sequence[Collected], portions: Sequence[Portion], seconds: float) -> None:
        """Write down what the step was at the least, and how near it came."""
        updates, network = self.settings.updates_per_rollout, self.adapted.model.network
        work = StepWork.of(collected, portions, updates, self.objective)
        speed = device_flops_per_second(self.settings.peak_tflops, self.device, network.dtype)
        spent = seconds + sum(sum(each.seconds.values()) for each in collected)
        self.log_dict(floor_values(work, shape_of(network), speed, spent, seconds), sync_dist=True)

    def log_update(
        self, statistics: list[ObjectiveStatistics], entropy: float, gradient_norm: float, seconds: float
    ) -> None:
        """Write down what an update was made of."""
        rate = self.lr_schedulers().get_last_lr()[0]
        values = {"gradient_norm": gradient_norm, "learning_rate": rate, "entropy": entropy}
        for name in ("loss", "policy_loss", "kl", "clip_fraction", "ratio_mean"):
            values[name] = float(sum(getattr(part, name) for part in statistics))
        self.log_dict({f"grpo/{name}": value for name, value in values.items()}, sync_dist=True)
        self.log("seconds/update", seconds, sync_dist=True)
        self.log("kl", values["kl"], prog_bar=True, logger=False)

    def _progress(self) -> float:
        """Share of the training done."""
        return min(self.global_step / (self.settings.max_rollouts * self.settings.updates_per_rollout), 1.0)

    def _begin_epoch(self, batch: GroundingBatch) -> None:
        if batch.epoch != self.rewarded_epoch:
            self.rewarded_epoch = batch.epoch
            self.collector.rewards.on_epoch_start(batch.epoch)

    def setup(self, stage: str) -> None:  # before a checkpoint gives the rewards their state back
        self.collector.rewards.setup()

    def configure_optimizers(self) -> dict:
        max_steps = self.settings.max_rollouts * self.settings.updates_per_rollout
        return make_optimizer(self.parameters(), self.optimization, max_steps)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["state_dict"] = trainable_state(self)
        checkpoint["rewards"] = self.collector.rewards.state_dict()
        checkpoint["rewarded_epoch"] = self.rewarded_epoch

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.collector.rewards.load_state_dict(checkpoint["rewards"])
        self.rewarded_epoch = checkpoint["rewarded_epoch"]
