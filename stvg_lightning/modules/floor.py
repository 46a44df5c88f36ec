"""What a step of GRPO would cost at the least, and how near it came: logged at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from stvg_lightning.models.flops import (
    ModelShape,
    Work,
    measured_flops_per_second,
    prefill_work,
    repeated_work,
    shared_work,
    total,
)
from stvg_lightning.modules.collecting import Collected, Portion
from stvg_lightning.objectives import Objective


@dataclass(frozen=True)
class StepWork:
    """What a step has put through the language model, and what the tower has read.

    Attributes:
        rolled_out: `(prompt tokens, lengths of its completions)` of each group that was rolled out, those about
            shuffled steps of time among them (T-GRPO).
        learned: likewise of each that an update learned from.
        patches: that the tower read for the rollout.
        learned_patches: those of the groups that an update learned from, read again by a tower that is trained.
        updates: optimiser steps.
        has_reference: a pass of the reference policy stands beside each of the policy's.
        has_critic: one more pass finds the values before the first update (PPO).
    """

    rolled_out: list[tuple[int, list[int]]]
    learned: list[tuple[int, list[int]]]
    patches: int
    learned_patches: int
    updates: int
    has_reference: bool
    has_critic: bool = False

    @classmethod
    def of(
        cls, collected: Sequence[Collected], portions: Sequence[Portion], updates: int, objective: Objective
    ) -> StepWork:
        """Of a step that was taken."""
        whole = [(each, slice(0, len(each.batch))) for each in collected]
        learned = [(portion.collected, portion.questions) for portion in portions]
        return cls(
            rolled_out=[
                *(group for each in whole for group in groups_of(*each)),
                *(group for each in collected for group in shuffled_groups_of(each)),
            ],
            learned=[group for each in learned for group in groups_of(*each)],
            patches=sum(patches_of(*each) for each in whole),
            learned_patches=sum(patches_of(*each) for each in learned),
            updates=updates,
            has_reference=objective.beta > 0,
            has_critic=objective.critic is not None,
        )

    def tokens(self, repeated: bool = False) -> int:
        """Tokens through the language model, in all passes; `repeated`: by a trainer that repeats prompts."""
        passes = self.updates * (1 + self.has_reference) + self.has_critic
        return self._rollout(repeated).tokens + passes * self._pass(repeated).tokens

    def update_flops(self, shape: ModelShape, repeated: bool = False) -> float:
        """Arithmetic of the updates: the passes of reference and critic, the policy's, and the way back.

        A tower that is trained goes along in each; it counts once a video, whoever repeats. The critic's pass asks
        for values alone, so nothing goes through the head that makes logits.
        """
        work = self._pass(repeated) + Work(patches=self.learned_patches if shape.tower.is_trained else 0)
        reference = self.updates * self.has_reference * work.forward_flops(shape)
        critic = self.has_critic * replace(work, scored=0).forward_flops(shape)
        return reference + critic + self.updates * work.training_flops(shape)

    def flops(self, shape: ModelShape, repeated: bool = False) -> float:
        """Arithmetic of the whole step."""
        rollout = self._rollout(repeated) + Work(patches=self.patches)
        return rollout.forward_flops(shape) + self.update_flops(shape, repeated)

    def prefill_flops(self, shape: ModelShape) -> float:
        """Arithmetic of reading videos and prompts before the first tokens are chosen."""
        return (
            total(prefill_work(prompt) for prompt, _ in self.rolled_out) + Work(patches=self.patches)
        ).forward_flops(shape)

    def _pass(self, repeated: bool) -> Work:
        return total((repeated_work if repeated else shared_work)(*group) for group in self.learned)

    def _rollout(self, repeated: bool) -> Work:
        """Each prompt is read once, or once for each completion; what is written is the same."""
        once = total(shared_work(*group) for group in self.rolled_out)
        if not repeated:
            return once
        again = (prefill_work(prompt) for prompt, lengths in self.rolled_out for _ in lengths[1:])
        return once + total(again)


def groups_of(collected: Collected, questions: slice) -> list[tuple[int, list[int]]]:
    """Tokens of the prompt and of each completion, for some neighbouring questions."""
    prompts = collected.batch.prompts.attention_mask.sum(dim=1).tolist()[questions]
    size = collected.rollouts.group_size
    lengths = collected.rollouts.lengths_tokens[collected.rows(questions)].tolist()
    return [(prompt, lengths[place * size : (place + 1) * size]) for place, prompt in enumerate(prompts)]


def shuffled_groups_of(collected: Collected) -> list[tuple[int, list[int]]]:
    """Likewise of the answers about shuffled steps of time, for questions that were asked about them."""
    prompts = collected.batch.prompts.attention_mask.sum(dim=1).tolist()
    return [(prompt, list(lengths)) for prompt, lengths in zip(prompts, collected.shuffled_tokens) if lengths]


def patches_of(collected: Collected, questions: slice) -> int:
    """Patches of the videos of some neighbouring questions."""
    return int(collected.batch.prompts.grid_thw[questions].prod(dim=1).sum())


def floor_values(
    work: StepWork, shape: ModelShape, flops_per_second: float, step_seconds: float, update_seconds: float
) -> dict[str, float]:
    """What is logged: tokens, arithmetic, and the share of the device's arithmetic that was useful.

    Args:
        work: of the step.
        shape: of the model.
        flops_per_second: what the device could do.
        step_seconds: of the whole step.
        update_seconds: of its updates.
    """
    found: dict[str, float] = {}
    for name, repeated in (("", False), ("_repeated", True)):
        found[f"floor/tokens{name}"] = float(work.tokens(repeated))
        found[f"floor/tflops{name}"] = work.flops(shape, repeated) / 1e12
        found[f"floor/utilisation{name}"] = work.flops(shape, repeated) / (step_seconds * flops_per_second)
        of_update = work.update_flops(shape, repeated) / (update_seconds * flops_per_second)
        found[f"floor/update_utilisation{name}"] = of_update
    return found


def device_flops_per_second(peak_tflops: float | int | None, device: torch.device, dtype: torch.dtype) -> float:
    """As a recipe tells it, or as one large product of matrices shows it."""
    if peak_tflops is not None:
        return peak_tflops * 1e12
    working = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else dtype
    return measured_flops_per_second(str(device), working)
