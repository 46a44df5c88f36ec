"""Rollouts made and scored: everything that a step of reinforcement learning knows before its first update.

What a step is cut into:
- batch: the questions of one process that are rolled out together, each with its group of completions;
- portion: neighbouring questions of a batch that go through the model together (`micro_batch_prompts`);
- part: some completions of a portion's only group, where prompt and group are more tokens than one pass may hold;
- pass: the model read forward, and backward where it learns, over one portion or one part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import perf_counter

import torch
from jaxtyping import Float
from torch import Tensor

from stvg_lightning.answers import Answer
from stvg_lightning.evaluation import missing_parts
from stvg_lightning.models.adapters import AdaptedModel
from stvg_lightning.models.decoding import WAYS
from stvg_lightning.models.feature_cache import FeatureCache
from stvg_lightning.models.forward import Completions, VideoFeatures, encode_videos
from stvg_lightning.models.group_forward import parts_of
from stvg_lightning.models.loading import Network
from stvg_lightning.models.prompts import PromptBatch
from stvg_lightning.modules.batches import GroundingBatch
from stvg_lightning.modules.shuffled import ShuffledAnswers, ShuffledRollout
from stvg_lightning.rewards import RewardContext, RewardedAnswer, WeightedSum
from stvg_lightning.rollouts.cost import clock_seconds
from stvg_lightning.rollouts.discriminator import SpatialDiscriminator
from stvg_lightning.rollouts.in_process import InProcessSampler
from stvg_lightning.rollouts.preparation import Preparation
from stvg_lightning.rollouts.rollouts import Rollouts, Sampling
from stvg_lightning.tubes import Tube


@dataclass(frozen=True)
class Collected:
    """A batch with its rollouts and their rewards; rows of a question stand together.

    `shuffled_tokens` are the lengths of each question's answers about shuffled steps of time, where any were asked for.
    """

    batch: GroundingBatch
    features: VideoFeatures
    rollouts: Rollouts
    rewarded: list[RewardedAnswer]
    rewards: Float[Tensor, "prompts group"]
    num_unreadable: int
    seconds: dict[str, float]
    cost: dict[str, float]
    shuffled_tokens: tuple[tuple[int, ...], ...] = ()

    def values(self) -> dict[str, Tensor | float]:
        """What is logged of a batch's rollouts, but for each reward of its own."""
        rewards, rollouts = self.rewards, self.rollouts
        return {
            "reward/total": rewards.mean(),
            "reward/total_spread": rewards.std(dim=1, correction=0).mean(),
            "rollout/equal_groups": (rewards == rewards[:, :1]).all(dim=1).float().mean(),
            "rollout/parse_failures": self.num_unreadable / len(self.rewarded),
            "rollout/length_tokens": rollouts.lengths_tokens.float().mean(),
            "rollout/truncated": rollouts.truncated.float().mean(),
            **{f"rollout/decoding_{way}": float(way in rollouts.decoding) for way in WAYS},
            **{f"seconds/{phase}": spent for phase, spent in self.seconds.items()},
            **self.cost,
        }

    def tokens_of(self, question: int) -> int:
        """Tokens of a question's group with its prompt read once."""
        lengths = self.rollouts.lengths_tokens[self.rows(slice(question, question + 1))]
        return int(self.batch.prompts.attention_mask[question].sum() + (lengths - 1).clamp(min=0).sum())

    def rows(self, questions: slice) -> slice:
        """The rows of some neighbouring questions."""
        size = self.rollouts.group_size
        return slice(questions.start * size, questions.stop * size)


@dataclass(frozen=True)
class Portion:
    """Some neighbouring questions of a collected batch: what goes through the model together.

    One that does not teach goes through with a weight of 0: it keeps a process in step that has nothing to learn from.
    """

    collected: Collected
    questions: slice
    teaches: bool = True

    @cached_property
    def rollouts(self) -> Rollouts:
        return self.collected.rollouts.select(self.collected.rows(self.questions))

    @cached_property
    def batch(self) -> GroundingBatch:
        return self.collected.batch.select(self.questions)

    @cached_property
    def features(self) -> VideoFeatures:
        return self.collected.features.select(self.questions)

    @property
    def rewards(self) -> Float[Tensor, "prompts group"]:
        return self.collected.rewards[self.questions]

    def given(self, adapted: AdaptedModel) -> tuple[Network, PromptBatch, Completions, VideoFeatures]:
        """What a pass reads; where the tower is adapted, features come by a pass through it, not from the rollout."""
        prompts, features = self.batch.prompts, self.features
        if not adapted.tower_is_frozen:
            features = encode_videos(adapted.model.network, prompts)
        return adapted.model.network, prompts, self.rollouts.completions, features

    def completion_tokens_in(self, tokens_per_pass: int | None) -> int | None:
        """How many tokens of completions fit in a pass beside the prompt; None where all do, as several groups must."""
        if tokens_per_pass is None or len(self.batch) > 1:
            return None
        return max(tokens_per_pass - int(self.batch.prompts.attention_mask.sum()), 1)


@dataclass(frozen=True)
class Collector:
    """Rolls out and scores.

    Attributes:
        adapted: the policy.
        preparation: how completions are read.
        rewards: how they are rewarded.
        sampling: length and temperature of completions.
        group_size: completions a prompt.
        seed: of the sampling.
        discriminator: tells the rewards where the described thing is at the answered times (SARL-STG).
        features: what a frozen tower made of videos that were seen before.
        tokens_per_rollout: see `GRPOSettings`.
    """

    adapted: AdaptedModel
    preparation: Preparation
    rewards: WeightedSum
    sampling: Sampling
    group_size: int
    seed: int = 0
    discriminator: SpatialDiscriminator | None = None
    features: FeatureCache = field(default_factory=lambda: FeatureCache(0))
    tokens_per_rollout: int | None = None

    def collect(self, batch: GroundingBatch, step: int, progress: float) -> Collected:
        """Everything known of a batch before the first update.

        Args:
            batch: questions.
            step: optimiser steps taken so far.
            progress: share of the training done.
        """
        device = batch.prompts.input_ids.device
        started = clock_seconds(device)
        features = self.encode(batch)
        before = {"decode": batch.decode_seconds, "vision": clock_seconds(device) - started}
        rollouts = self.roll_out(batch, features)
        started = clock_seconds(device)
        shuffled = self.answer_shuffled(batch, features) if self.rewards.needs_shuffled else None
        if shuffled is not None:
            before["shuffled"] = clock_seconds(device) - started
        started = perf_counter()
        answers = [
            [self.preparation.read(text, truth) for text in rollouts.texts[first : first + self.group_size]]
            for first, truth in zip(range(0, len(rollouts.texts), self.group_size), batch.truths, strict=True)
        ]
        tubes = self.locate(batch, answers, features)
        rewarded = self.reward(batch, rollouts, answers, tubes, shuffled, RewardContext(step, progress))
        spent = {"reward": perf_counter() - started}
        cost: dict[str, float] = {}
        if self.discriminator is not None:
            taken = self.discriminator.take_cost()
            spent = {"discriminator": taken.seconds, "reward": spent["reward"] - taken.seconds}
            cost = taken.per_rollout(len(rewarded))
        totals = torch.tensor([answer.total for answer in rewarded], device=rollouts.mask.device)
        return Collected(
            batch=batch,
            features=features,
            rollouts=rollouts,
            rewarded=rewarded,
            rewards=totals.view(-1, self.group_size),
            num_unreadable=sum(
                bool(missing_parts(answer, truth))
                for group, truth in zip(answers, batch.truths, strict=True)
                for answer in group
            ),
            seconds={**before, **rollouts.seconds, **spent},
            cost=cost,
            shuffled_tokens=() if shuffled is None else shuffled.lengths_tokens,
        )

    def encode(self, batch: GroundingBatch) -> VideoFeatures:
        """Run the tower once; rollout, reference and policy share what it gives while it is frozen."""
        return self.features.encode(self.adapted.model.network, batch.prompts)

    def roll_out(self, batch: GroundingBatch, features: VideoFeatures) -> Rollouts:
        """Sample a group for every prompt; its noise depends on sample, epoch and seed, not on the batch or process."""
        sampler = InProcessSampler(self.adapted.model, self.tokens_per_rollout)
        return sampler.sample(batch.prompts, features, self.group_size, self.sampling, batch.sampling_seeds(self.seed))

    def answer_shuffled(self, batch: GroundingBatch, features: VideoFeatures) -> ShuffledAnswers:
        """Answers to shuffled steps of time, for rewards that compare with them (T-GRPO)."""
        sampler = InProcessSampler(self.adapted.model, self.tokens_per_rollout)
        rollout = ShuffledRollout(
            sampler, self.preparation, self.rewards, self.sampling, group_size=self.group_size, seed=self.seed
        )
        return rollout.answer(batch, features)

    def locate(
        self, batch: GroundingBatch, answers: Sequence[list[Answer]], features: VideoFeatures
    ) -> list[list[Tube | None] | None]:
        """Where the discriminator finds the described thing at each answered time; None where nobody asks for it."""
        if self.discriminator is None:
            return [None] * len(batch)
        return [
            self.discriminator.tubes(group, truth, video, tokens) if truth.has_place else None
            for group, truth, video, tokens in zip(answers, batch.truths, batch.videos, features.tokens, strict=True)
        ]

    def reward(
        self,
        batch: GroundingBatch,
        rollouts: Rollouts,
        answers: Sequence[list[Answer]],
        tubes: Sequence[list[Tube | None] | None],
        shuffled: ShuffledAnswers | None,
        context: RewardContext,
    ) -> list[RewardedAnswer]:
        """The rewards of all completions, group by group (STVG-R1, equation 6); `context` tells how far training is."""
        lengths = rollouts.lengths_tokens.tolist()
        rewarded: list[RewardedAnswer] = []
        for question, (group, truth) in enumerate(zip(answers, batch.truths, strict=True)):
            known = replace(
                context,
                completion_tokens=tuple(lengths[question * self.group_size : (question + 1) * self.group_size]),
                marked_seconds=batch.marked_seconds[question],
                discriminator_boxes=tubes[question],
                shuffled_answers=None if shuffled is None else shuffled.answers[question],
            )
            rewarded += self.rewards.score(group, truth, known)
        return rewarded


def portions_of(
    collected: Sequence[Collected],
    size: int | None,
    drop_equal: bool = False,
    most: int | None = None,
    most_tokens: int | None = None,
) -> list[Portion]:
    """What an update goes through the model with, portion by portion.

    Args:
        collected: batches, one after another.
        size: questions in a portion, at most; None: as many as are neighbours.
        drop_equal: leave out questions whose completions have all earned the same (DAPO, equation 11).
        most: questions in all, the first ones.
        most_tokens: tokens in a portion, at least one question; see `Collected.tokens_of`.
    """
    portions: list[Portion] = []
    left = sum(len(each.batch) for each in collected) if most is None else most
    for each in collected:
        differs = (each.rewards != each.rewards[:, :1]).any(dim=1) | (not drop_equal)
        kept = differs.nonzero()[:, 0].tolist()[:left]
        left -= len(kept)
        for start, stop in _neighbours(kept):
            tokens = [each.tokens_of(question) for question in range(start, stop)]
            parts = parts_of(tokens, most_tokens, size)
            portions += [Portion(each, slice(start + part.start, start + part.stop)) for part in parts]
    return portions


def _neighbours(questions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Rising numbers as `(first, last + 1)` of each run without a gap."""
    starts = [question for question in questions if question - 1 not in questions]
    stops = [question + 1 for question in questions if question + 1 not in questions]
    return zip(starts, stops, strict=True)
