"""A model as a predictor: samples in, texts out, one greedy completion each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from stvg_lightning.models.forward import encode_videos
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.models.prompts import collate_prompts
from stvg_lightning.rollouts.in_process import InProcessSampler
from stvg_lightning.rollouts.preparation import Example, Preparation
from stvg_lightning.rollouts.rollouts import GREEDY, Rollouts, Sampling
from stvg_lightning.tubes import Sample


@dataclass(frozen=True)
class ModelPredictor:
    """Answers questions with a model's likeliest completion."""

    model: VideoLanguageModel
    preparation: Preparation
    sampling: Sampling = GREEDY

    def __call__(self, samples: Sequence[Sample]) -> list[str]:
        """The model's text for each sample, in one batch.

        Raises:
            UnreadableVideo: a video cannot be decoded.
        """
        return self.complete([self.preparation(sample) for sample in samples]).texts

    @torch.no_grad()
    def complete(self, examples: Sequence[Example]) -> Rollouts:
        """The model's completions of prepared examples, in one batch, one of each."""
        device = next(self.model.network.parameters()).device
        batch = collate_prompts([example.prompt for example in examples], self.model.pad_token_id).to(device)
        features = encode_videos(self.model.network, batch)
        sampler = InProcessSampler(self.model)
        return sampler.sample(batch, features, 1, self.sampling, [0] * len(examples))
