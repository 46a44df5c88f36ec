"""SARL-STG's first stage: the language model learns when, the spatial grounding module where, together.

The loss is `5 * L_ce + 2 * (L_1 + L_giou) + 1 * L_cls`. The module is not fed what the language model answers but the
true time, moved at random by 0 to 64 frames of the original video (supplement, section 5.3).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from lightning import LightningModule
from torch import Tensor

from stvg_lightning.data.clips import ClipSampling, shifted_span
from stvg_lightning.data.video import decode_frames
from stvg_lightning.models.adapters import AdaptedModel
from stvg_lightning.models.forward import VideoFeatures, completion_log_probs, encode_videos
from stvg_lightning.models.spatial_grounding import SpatialGrounder
from stvg_lightning.models.spatial_loss import SpatialLoss, spatial_loss
from stvg_lightning.modules.batches import GroundingBatch
from stvg_lightning.modules.optimization import (
    Optimization,
    backward,
    check_at_least_one,
    check_finite,
    guarded_step,
    make_optimizer,
    trainable_state,
)
from stvg_lightning.rollouts.in_process import InProcessSampler
from stvg_lightning.rollouts.preparation import Preparation
from stvg_lightning.rollouts.rollouts import Sampling
from stvg_lightning.tubes import Truth, span_seconds_to_frames
from stvg_lightning.tubes.choices import check_choice

ClipSource = Literal["shifted", "true", "predicted"]


@dataclass(frozen=True)
class JointSettings:
    """How long to train, in what portions, and what the spatial module sees.

    Attributes:
        max_steps: optimiser steps.
        micro_batch_size: questions that go through the models together; their gradients are summed, so the result
            does not depend on it. None: the whole batch at once.
        clip_source: what the spatial module is fed: the true time `shifted` at random, the `true` time, or the time
            `predicted` by the language model as it is; the last two are the paper's ablations (supplement, table 8).
        largest_shift_frames: of the original video, to either side.
        text_weight, box_weight, class_weight: of the three losses.
        max_new_tokens: of a predicted time's answer.
        seed: of the shifts; the recipe's where None.
    """

    max_steps: int
    micro_batch_size: int | None = None
    clip_source: ClipSource = "shifted"
    largest_shift_frames: int = 64
    text_weight: float = 5.0
    box_weight: float = 2.0
    class_weight: float = 1.0
    max_new_tokens: int = 256
    seed: int | None = None

    def __post_init__(self) -> None:
        check_at_least_one(self, "max_steps", "micro_batch_size", "max_new_tokens")
        check_choice("clip_source", self.clip_source, get_args(ClipSource))
        if self.largest_shift_frames < 0:
            raise ValueError(f"largest_shift_frames must be at least 0, not {self.largest_shift_frames}")


@dataclass(frozen=True)
class TrueClip:
    """The frames of a sub-clip, and the true boxes in them as shares of their sides; anything where there is none."""

    frames: tuple[int, ...]
    boxes_xyxy: Float[Tensor, "frames 4"]
    has_box: Bool[Tensor, " frames"]

    @classmethod
    def of(cls, truth: Truth, frames: tuple[int, ...]) -> TrueClip:
        """What a truth tells of some frames; its boxes outside its span do not count."""
        span = range(*truth.span_frames) if truth.span_frames else range(0)
        known = [truth.boxes_xyxy.get(frame) if frame in span else None for frame in frames]
        boxes = torch.tensor([box or (0.0, 0.0, 0.0, 0.0) for box in known], dtype=torch.float32)
        sides = torch.tensor([truth.width, truth.height] * 2)
        return cls(frames, boxes / sides, torch.tensor([box is not None for box in known]))


class JointGrounding(LightningModule):
    """Train the language model's adapter, the detector's, and all that is new in the spatial grounding module."""

    def __init__(
        self,
        adapted: AdaptedModel,
        grounder: SpatialGrounder,
        clips: ClipSampling,
        preparation: Preparation,
        settings: JointSettings,
        optimization: Optimization,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False
        self.adapted, self.grounder, self.clips, self.preparation = adapted, grounder, clips, preparation
        self.settings, self.optimization = settings, optimization
        self.policy, self.spatial = adapted.adapter, grounder.module
        self.decoders = ThreadPoolExecutor(4)

    def training_step(self, batch: GroundingBatch, batch_idx: int) -> None:
        num_tokens, num_questions = self._per_process(batch)
        totals: dict[str, Tensor] = {}
        for questions in batch.micro_batches(self.settings.micro_batch_size):
            losses = self.losses(batch.select(questions), num_tokens, num_questions)
            check_finite(losses["loss"].detach(), self.global_step)
            backward(self, losses["loss"], last=questions.stop == len(batch))
            totals = {name: loss.detach() + totals.get(name, 0.0) for name, loss in losses.items()}
        gradient_norm = guarded_step(self, self.optimization)
        self.trainer.datamodule.note_done(batch)
        self.log_dict({f"joint/{name}": total for name, total in totals.items()}, prog_bar=True, sync_dist=True)
        self.log("joint/gradient_norm", gradient_norm)
        self.log("joint/learning_rate", self.lr_schedulers().get_last_lr()[0])

    def losses(self, batch: GroundingBatch, num_tokens: float, num_questions: float) -> dict[str, Tensor]:
        """The part of a portion of the batch in its losses: `loss` is the weighted sum of the others.

        Args:
            batch: the portion.
            num_tokens: gold answers' tokens in the whole batch, by which `text` is divided.
            num_questions: questions in the whole batch, by which the spatial losses are divided.
        """
        settings = self.settings
        with torch.set_grad_enabled(not self.adapted.tower_is_frozen):
            features = encode_videos(self.adapted.model.network, batch.prompts)
        clips = self.true_clips(batch, features)
        pictures = [self._decode(batch, index, clip) for index, clip in clips.items()]
        text = self.negative_log_likelihood(batch, features) / num_tokens
        place = self.place_losses(batch, features, clips, pictures)
        # Where no question has a clip the parameters take part all the same: other processes wait for their gradients.
        trained = [parameter for parameter in self.spatial.parameters() if parameter.requires_grad]
        nothing = torch.stack([parameter.sum() for parameter in trained]).sum() * 0.0
        l1, giou, focal = (
            torch.stack([nothing, *(getattr(loss, name) for loss in place)]).sum() / num_questions
            for name in ("l1", "giou", "focal")
        )
        loss = settings.text_weight * text + settings.box_weight * (l1 + giou) + settings.class_weight * focal
        return {"loss": loss, "text": text, "l1": l1, "giou": giou, "focal": focal}

    def negative_log_likelihood(self, batch: GroundingBatch, features: VideoFeatures) -> Tensor:
        """Summed over the gold answers' tokens, end tokens included."""
        return -completion_log_probs(self.adapted.model.network, batch.prompts, batch.gold_answers, features).sum()

    def place_losses(
        self,
        batch: GroundingBatch,
        features: VideoFeatures,
        clips: dict[int, TrueClip],
        pictures: Sequence[Future[UInt8[Tensor, "frames height width 3"]]],
    ) -> list[SpatialLoss]:
        """The spatial module's losses, one for each question that has a sub-clip with a true box."""
        losses = []
        for (index, clip), decoded in zip(clips.items(), pictures, strict=True):
            truth = batch.truths[index]
            pixels = self.grounder.pixels(decoded.result().to(self.device))
            phrase = self.grounder.phrase(truth.query).to(self.device)
            states = self.spatial.frame_states(pixels, phrase, features.tokens[index])
            seconds = [frame / truth.fps for frame in clip.frames]
            candidates = self.spatial.candidates(states, [range(len(clip.frames))], seconds)[0]
            losses.append(spatial_loss(candidates, clip.boxes_xyxy.to(self.device), clip.has_box.to(self.device)))
        return losses

    def true_clips(self, batch: GroundingBatch, features: VideoFeatures) -> dict[int, TrueClip]:
        """Question -> the sub-clip that the spatial module is fed; one without a true box in it is left out."""
        found = {}
        for index, (truth, span) in enumerate(zip(batch.truths, self._spans(batch, features), strict=True)):
            if span[0] < span[1]:
                clip = TrueClip.of(truth, self.clips.frames_of(span, truth.fps, truth.num_frames))
                if bool(clip.has_box.any()):
                    found[index] = clip
        return found

    def _spans(self, batch: GroundingBatch, features: VideoFeatures) -> Iterator[tuple[int, int]]:
        """The frames of each question's sub-clip; an empty span where none is known."""
        source, largest = self.settings.clip_source, self.settings.largest_shift_frames
        if source == "predicted":
            yield from self._predicted_spans(batch, features)
            return
        for truth in batch.truths:
            span = truth.span_frames or (0, 0)
            if source == "shifted" and span[0] < span[1]:
                key = f"{self.settings.seed or 0}:{batch.epoch}:{truth.id}:shift"
                rng = np.random.default_rng(zlib.crc32(key.encode()))
                span = shifted_span(span, int(rng.integers(-largest, largest + 1)), truth.num_frames)
            yield span

    def _predicted_spans(self, batch: GroundingBatch, features: VideoFeatures) -> Iterator[tuple[int, int]]:
        sampling = Sampling(self.settings.max_new_tokens, temperature=0.0)
        sampler = InProcessSampler(self.adapted.model)
        texts = sampler.sample(batch.prompts, features, 1, sampling, [0] * len(batch)).texts
        for text, truth in zip(texts, batch.truths, strict=True):
            seconds = self.preparation.read(text, truth).span_seconds
            yield (0, 0) if seconds is None else span_seconds_to_frames(seconds, truth.fps, truth.num_frames)

    def _decode(
        self, batch: GroundingBatch, index: int, clip: TrueClip
    ) -> Future[UInt8[Tensor, "frames height width 3"]]:
        """Decode a sub-clip's frames beside the language model's pass."""
        video, fps = batch.videos[index], batch.truths[index].fps
        return self.decoders.submit(lambda: torch.from_numpy(decode_frames(video, clip.frames, fps).frames))

    def _per_process(self, batch: GroundingBatch) -> tuple[float, float]:
        """Tokens and questions over all processes, divided by their number: gradients are averaged over processes."""
        counts = torch.tensor([batch.gold_answers.mask.sum(), len(batch)], dtype=torch.float32, device=self.device)
        tokens, questions = self.all_gather(counts).float().reshape(-1, 2).mean(dim=0).tolist()
        return tokens, questions

    def configure_optimizers(self) -> dict:
        return make_optimizer(self.parameters(), self.optimization, self.settings.max_steps)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["state_dict"] = trainable_state(self)
