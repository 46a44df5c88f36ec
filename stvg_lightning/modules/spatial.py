"""SARL-STG's first stage: the language model learns when, the spatial grounding module where, together.

The loss is `5 * L_ce + 2 * (L_1 + L_giou) + 1 * L_cls`; the spatial part is summed over the layers of the detector's
decoder, as Grounding DINO's own is: trained at its end alone, its boxes got worse on the synthetic world (LOG.md). The
module is not fed what the language model answers but the true time, moved at random by 0 to 64 frames of the original
video (supplement, section 5.3).
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
    mean_over_processes,
    trainable_state,
)
from stvg_lightning.rollouts.in_process import InProcessSampler
from stvg_lightning.rollouts.preparation import Preparation
from stvg_lightning.rollouts.rollouts import Sampling
from stvg_lightning.tubes import Truth, span_seconds_to_frames
from stvg_lightning.tubes.choices import check_choice

ClipSource = Literal["shifted", "exact", "predicted"]


@dataclass(frozen=True)
class JointSettings:
    """How long to train, in what portions, and what the spatial module sees.

    Attributes:
        max_steps: optimiser steps.
        micro_batch_size: questions that go through the models together; their gradients are summed, so the result
            does not depend on it. None: the whole batch at once.
        clip_source: what the spatial module is fed: the true time `shifted` at random, the true time `exact`, or the
            time `predicted` by the language model as it is; the last two are the paper's ablations (supplement, table
            8).
        largest_shift_frames: of the original video, to either side.
        every_layer: the spatial losses are summed over all layers of the detector's decoder, as those are with which
            Grounding DINO is trained; otherwise the last one's boxes alone are trained, and those that they start
            from drift.
        text_weight, box_weight, class_weight: of the three losses.
        spatial_learning_rate: the spatial module's, where it is another than the language model's.
        max_new_tokens: of a predicted time's answer.
        seed: of the shifts; the recipe's where None.
    """

    max_steps: int
    micro_batch_size: int | None = None
    clip_source: ClipSource = "shifted"
    largest_shift_frames: int = 64
    every_layer: bool = True
    text_weight: float = 5.0
    box_weight: float = 2.0
    class_weight: float = 1.0
    spatial_learning_rate: float | None = None
    max_new_tokens: int = 256
    seed: int | None = None

    def __post_init__(self) -> None:
        check_at_least_one(self, "max_steps", "micro_batch_size", "max_new_tokens")
        check_choice("clip_source", self.clip_source, get_args(ClipSource))
        if self.largest_shift_frames < 0:
            raise ValueError(f"largest_shift_frames must be at least 0, not {self.largest_shift_frames}")
        if self.spatial_learning_rate is not None and not self.spatial_learning_rate > 0:
            raise ValueError(f"spatial_learning_rate must be above 0, not {self.spatial_learning_rate}")


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
        # The detector has dropout: a step that is done again after a kill must draw what it drew before.
        torch.manual_seed(zlib.crc32(f"{self.settings.seed or 0}:{self.global_rank}:{self.global_step}".encode()))
        num_tokens, num_questions = mean_over_processes(self, batch.gold_answers.mask.sum(), len(batch))
        totals: dict[str, Tensor] = {}
        for questions in batch.micro_batches(self.settings.micro_batch_size):
            losses = self.losses(batch.select(questions), num_tokens, num_questions)
            check_finite(losses["loss"].detach(), self.global_step)
            backward(self, losses["loss"], last=questions.stop == len(batch))
            totals = {name: loss.detach() + totals.get(name, 0.0) for name, loss in losses.items()}
        gradient_norm = guarded_step(self, self.optimization)
        self.trainer.datamodule.note_done(batch)
        self.log_dict({f"joint/{name}": total for name, total in totals.items()}, sync_dist=True)
        self.log("loss", totals["loss"], prog_bar=True, logger=False)
        self.log("joint/gradient_norm", gradient_norm)
        self.log("joint/learning_rate", self.lr_schedulers().get_last_lr()[0])

    def losses(self, batch: GroundingBatch, num_tokens: float, num_questions: float) -> dict[str, Tensor]:
        """The part of a portion of the batch in its losses.

        `loss` is the weighted sum of `text`, of the last layer's `l1`, `giou` and `focal`, and of `earlier_layers`;
        `questions_with_clip` is the share of questions that taught the spatial module anything.

        Args:
            batch: the portion.
            num_tokens: gold answers' tokens in the whole batch, by which `text` is divided.
            num_questions: questions in the whole batch, by which the spatial losses are divided.
        """
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
            torch.stack([nothing, *(getattr(last, name) for last, *_ in place)]).sum() / num_questions
            for name in ("l1", "giou", "focal")
        )
        earlier = [self._weighted(each) for _, *layers in place for each in layers]
        earlier_layers = torch.stack([nothing, *earlier]).sum() / num_questions
        loss = self.settings.text_weight * text + self._weighted(SpatialLoss(l1, giou, focal)) + earlier_layers
        with_clip = torch.tensor(len(place) / num_questions, device=self.device)
        return {
            "loss": loss,
            "text": text,
            "l1": l1,
            "giou": giou,
            "focal": focal,
            "earlier_layers": earlier_layers,
            "questions_with_clip": with_clip,
        }

    def _weighted(self, loss: SpatialLoss) -> Tensor:
        return self.settings.box_weight * (loss.l1 + loss.giou) + self.settings.class_weight * loss.focal

    def negative_log_likelihood(self, batch: GroundingBatch, features: VideoFeatures) -> Tensor:
        """Summed over the gold answers' tokens, end tokens included."""
        return -completion_log_probs(self.adapted.model.network, batch.prompts, batch.gold_answers, features).sum()

    def place_losses(
        self,
        batch: GroundingBatch,
        features: VideoFeatures,
        clips: dict[int, TrueClip],
        pictures: Sequence[Future[UInt8[Tensor, "frames height width 3"]]],
    ) -> list[list[SpatialLoss]]:
        """The spatial module's losses for each question with a true box in its sub-clip: layers, the last one first."""
        num_layers = self.spatial.detector.config.decoder_layers if self.settings.every_layer else 1
        losses = []
        for (index, clip), decoded in zip(clips.items(), pictures, strict=True):
            truth = batch.truths[index]
            last, *earlier = self.grounder.read(decoded.result(), truth.query, features.tokens[index], num_layers)
            seconds = [frame / truth.fps for frame in clip.frames]
            found = self.spatial.candidates(last, [range(len(clip.frames))], seconds)
            found += [self.spatial.plain_candidates(self.spatial.in_tracks(states)) for states in earlier]
            true, has_box = clip.boxes_xyxy.to(self.device), clip.has_box.to(self.device)
            losses.append([spatial_loss(candidates, true, has_box) for candidates in found])
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

    def configure_optimizers(self) -> dict:
        steps, rate = self.settings.max_steps, self.settings.spatial_learning_rate
        return make_optimizer(self.policy.parameters(), self.optimization, steps, self.spatial.parameters(), rate)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["state_dict"] = trainable_state(self)
