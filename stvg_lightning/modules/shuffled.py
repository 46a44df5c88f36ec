"""Answers to questions about videos whose steps of time are shuffled, which T-GRPO's bonus compares with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from stvg_lightning.answers import Answer
from stvg_lightning.models.forward import VideoFeatures
from stvg_lightning.modules.batches import GroundingBatch
from stvg_lightning.rewards import WeightedSum
from stvg_lightning.rollouts.in_process import InProcessSampler
from stvg_lightning.rollouts.preparation import Preparation
from stvg_lightning.rollouts.rollouts import Sampling

SHUFFLED_SEED = 500_000_000
"""Added to the seed where shuffled frames are asked about, so that those answers have a noise of their own."""


@dataclass(frozen=True)
class ShuffledAnswers:
    """What was answered about shuffled steps of time.

    Attributes:
        answers: to each question of a batch; None where nobody asked.
        lengths_tokens: of each question's answers, none where nobody asked.
    """

    answers: tuple[tuple[Answer, ...] | None, ...]
    lengths_tokens: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ShuffledRollout:
    """Asks about shuffled steps of time, half a group of answers to each question, where a reward compares with them.

    Video-R1 shuffles single frames before they are merged into steps; here those of a step stay together, which
    costs no further pass through the tower.

    Attributes:
        sampler: writes the answers.
        preparation: reads them.
        rewards: tell which questions they matter to.
        sampling: length and temperature.
        group_size: of the usual answers.
        seed: of theirs.
    """

    sampler: InProcessSampler
    preparation: Preparation
    rewards: WeightedSum
    sampling: Sampling
    group_size: int
    seed: int

    def answer(self, batch: GroundingBatch, features: VideoFeatures) -> ShuffledAnswers:
        """Answers to a batch's questions; those whose video is one step of time, which has no order, are left out."""
        seeds = batch.sampling_seeds(self.seed + SHUFFLED_SEED)
        steps = batch.prompts.grid_thw[:, 0].tolist()
        orders = {
            place: shuffled_order(steps[place], seeds[place])
            for place, truth in enumerate(batch.truths)
            if steps[place] > 1 and self.rewards.needs_shuffled_of(truth)
        }
        answers: list[tuple[Answer, ...] | None] = [None] * len(batch)
        lengths: list[tuple[int, ...]] = [()] * len(batch)
        if not orders:
            return ShuffledAnswers(tuple(answers), tuple(lengths))
        asked, size = list(orders), shuffled_group_size(self.group_size)
        reordered = features.pick(asked).reordered(
            [order.to(batch.prompts.input_ids.device) for order in orders.values()]
        )
        chosen = [seeds[place] for place in asked]
        found = self.sampler.sample(batch.prompts.pick(asked), reordered, size, self.sampling, chosen)
        for place, first in zip(asked, range(0, len(found.texts), size), strict=True):
            texts = found.texts[first : first + size]
            answers[place] = tuple(self.preparation.read(text, batch.truths[place]) for text in texts)
            lengths[place] = tuple(found.lengths_tokens[first : first + size].tolist())
        return ShuffledAnswers(tuple(answers), tuple(lengths))


def shuffled_group_size(group_size: int) -> int:
    """How many answers about shuffled steps stand beside a group of usual ones."""
    return max(group_size // 2, 1)


def shuffled_order(num_steps: int, seed: int) -> Int[Tensor, " steps"]:
    """A random order of at least two steps of time that is not their own.

    Example:
        >>> shuffled_order(2, seed=3).tolist()
        [1, 0]
    """
    assert num_steps > 1, "one step of time has no order"
    generator, own = torch.Generator().manual_seed(seed), torch.arange(num_steps)
    order = own
    while torch.equal(order, own):
        order = torch.randperm(num_steps, generator=generator)
    return order
