"""Groups of sampled answers to every question of shards: what stages that judge a model's rollouts go through."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from stvg_lightning.answers import Answer
from stvg_lightning.cli.stages.rows import prepared_batches
from stvg_lightning.cli.stages.stage import Run
from stvg_lightning.cli.stages.training import preparation_of
from stvg_lightning.data.shards import ShardFolder
from stvg_lightning.models.adapters import load_trained
from stvg_lightning.models.forward import encode_videos
from stvg_lightning.models.prompts import collate_prompts
from stvg_lightning.rollouts.in_process import InProcessSampler
from stvg_lightning.rollouts.preparation import Example
from stvg_lightning.rollouts.rollouts import Sampling


@dataclass(frozen=True)
class AnsweredGroups:
    """A model's sampled answers, a group for each question.

    Attributes:
        start: `base`, or the stage whose model answers.
        group_size: answers to each question.
        sampling: their length and temperature.
        batch_size: questions answered together.
        num_workers: processes that decode and prepare ahead.
    """

    start: str
    group_size: int
    sampling: Sampling
    batch_size: int
    num_workers: int

    def of(self, run: Run, samples: ShardFolder, first: int) -> Iterator[tuple[Example | str, list[Answer]]]:
        """Each question from a number on with its answers; of a bad sample what is wrong, and none."""
        model = load_trained(run.model(self.start), run.recipe.model.dtype)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model.network.to(device)
        preparation, sampler = preparation_of(run, model), InProcessSampler(model)
        for examples in prepared_batches(samples, preparation, first, self.batch_size, self.num_workers, self.start):
            good = [example for example in examples if isinstance(example, Example)]
            texts: list[str] = []
            if good:
                with torch.no_grad():
                    prompts = collate_prompts([example.prompt for example in good], model.pad_token_id).to(device)
                    features = encode_videos(model.network, prompts)
                    seeds = [zlib.crc32(f"{run.recipe.seed}:{example.truth.id}".encode()) for example in good]
                    texts = sampler.sample(prompts, features, self.group_size, self.sampling, seeds).texts
            groups = (texts[place : place + self.group_size] for place in range(0, len(texts), self.group_size))
            for example in examples:
                if isinstance(example, Example):
                    yield example, [preparation.read(text, example.truth) for text in next(groups)]
                else:
                    yield example, []
