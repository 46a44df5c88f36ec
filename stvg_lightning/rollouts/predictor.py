"""A model as a predictor: samples in, answers out, one greedy completion each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from stvg_lightning.answers import Answer
from stvg_lightning.models.forward import VideoFeatures, encode_videos
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.models.prompts import EncodedPrompt, collate_prompts
from stvg_lightning.rollouts.discriminator import SpatialDiscriminator, located
from stvg_lightning.rollouts.in_process import InProcessSampler
from stvg_lightning.rollouts.preparation import Example, Preparation
from stvg_lightning.rollouts.rollouts import GREEDY, Rollouts, Sampling
from stvg_lightning.tubes import Sample, Tube


@dataclass(frozen=True)
class Prediction:
    """A completion as it is read.

    Where a discriminator looked for the thing, `was_located`, and `tube` is what it found, frame -> box; it finds
    nothing for an answer without a time.
    """

    answer: Answer
    num_tokens: int
    was_located: bool = False
    tube: Tube | None = None


@dataclass(frozen=True)
class ModelPredictor:
    """Answers questions with a model's likeliest completion.

    Attributes:
        model: tells object and time, or time alone.
        preparation: how samples are shown; it must keep their videos where there is a discriminator.
        sampling: how completions are made.
        discriminator: gives each answered time its boxes (SARL-STG).
    """

    model: VideoLanguageModel
    preparation: Preparation
    sampling: Sampling = GREEDY
    discriminator: SpatialDiscriminator | None = None

    def __call__(self, samples: Sequence[Sample]) -> list[str]:
        """The model's text for each sample, in one batch.

        Raises:
            UnreadableVideo: a video cannot be decoded.
        """
        return [found.answer.text for found in self.complete([self.preparation(sample) for sample in samples])]

    def prepare(self, sample: Sample) -> Example:
        """A sample as the model reads it; see `Preparation`."""
        return self.preparation(sample)

    def answer(self, prepared: Sequence[Example]) -> list[Answer]:
        """The model's answers to prepared examples, in one batch."""
        return [found.answer for found in self.complete(prepared)]

    @torch.no_grad()
    def texts(self, prompts: Sequence[EncodedPrompt]) -> list[str]:
        """The likeliest completion of each prompt, in one batch."""
        return self._sample(prompts)[0].texts

    @torch.no_grad()
    def complete(self, examples: Sequence[Example]) -> list[Prediction]:
        """The model's answers to prepared examples, in one batch, one of each.

        Raises:
            UnreadableVideo: a video cannot be decoded by the discriminator.
        """
        written, features = self._sample([example.prompt for example in examples])
        found = []
        for index, (example, text) in enumerate(zip(examples, written.texts, strict=True)):
            prediction = Prediction(self.preparation.read(text, example.truth), int(written.lengths_tokens[index]))
            found.append(self._located(prediction, example, features.tokens[index]))
        return found

    def _sample(self, prompts: Sequence[EncodedPrompt]) -> tuple[Rollouts, VideoFeatures]:
        batch = collate_prompts(prompts, self.model.pad_token_id).to(self.model.device)
        features = encode_videos(self.model.network, batch)
        sampler = InProcessSampler(self.model)
        return sampler.sample(batch, features, 1, self.sampling, [0] * len(prompts)), features

    def _located(self, prediction: Prediction, example: Example, video_tokens: Tensor) -> Prediction:
        if self.discriminator is None or example.truth.task == "temporal":
            return prediction
        assert example.video is not None, "the preparation must keep videos"
        truth, answer = example.truth, prediction.answer
        tube = self.discriminator.tubes([answer], truth, example.video, video_tokens)[0]
        return replace(prediction, answer=located(answer, truth, tube), was_located=True, tube=tube)
