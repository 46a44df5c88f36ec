"""How the tiny detector learns looks: still frames of the synthetic world, with phrases for the things in them.

It learns no deeds and no times: a phrase may name a deed, and fits all the same. So it is to the spatial grounding
module what Grounding DINO is: it finds what a sentence names, and knows nothing of what happens when.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from lightning import LightningDataModule, LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from stvg_lightning.data.synthetic.drawing import draw_scene
from stvg_lightning.data.synthetic.samples import split_seeds
from stvg_lightning.data.synthetic.scene import ACTIONS, COLORS, SHAPES, Scene, Thing, box_of, make_scene
from stvg_lightning.models.detection_loss import Detector, PhraseTargets, all_detections, detection_loss
from stvg_lightning.models.spatial_tracks import corners
from stvg_lightning.modules.optimization import check_at_least_one, check_finite
from stvg_lightning.modules.pretraining import warm_cosine_factor
from stvg_lightning.tubes.boxes import paired_box_iou

FRAMES_A_SCENE = 4
NUM_SCENES = 100_000
DEED_SHARE = 0.4
"""Share of phrases that name a deed."""

ALONE_SHARE = 0.4
"""Share of frames with one phrase, as for a sentence."""


@dataclass(frozen=True)
class DetectionBatch:
    """Frames, the text of each, and what it describes."""

    pixels: Float[Tensor, "frames 3 height width"]
    input_ids: Int[Tensor, "frames tokens"]
    is_text: Bool[Tensor, "frames tokens"]
    targets: tuple[PhraseTargets, ...]

    def to(self, device: torch.device | str) -> DetectionBatch:
        """The same batch on a device."""
        return DetectionBatch(
            self.pixels.to(device),
            self.input_ids.to(device),
            self.is_text.to(device),
            tuple(each.to(device) for each in self.targets),
        )


@dataclass(frozen=True)
class DetectorCourse:
    """How long the detector learns.

    Attributes:
        num_batches: batches in all.
        scenes_per_batch: scenes in a batch; each gives four frames.
        learning_rate: AdamW's largest.
    """

    num_batches: int
    scenes_per_batch: int = 8
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        check_at_least_one(self, "num_batches", "scenes_per_batch")


@dataclass(frozen=True)
class NamedPhrase:
    """A phrase and the things that it fits; what it says of a deed does not count."""

    text: str
    fits: tuple[Thing, ...]


def phrases_of(scene: Scene, rng: np.random.Generator) -> list[NamedPhrase]:
    """Phrases for a frame of a scene: one of some thing, or one for each thing and perhaps one that fits none."""
    named = [_phrase(thing.color, thing.shape, scene, rng) for thing in scene.things]
    if rng.random() < ALONE_SHARE:
        return [named[int(rng.integers(len(named)))]]
    if rng.random() < 0.5:
        named.append(_phrase(str(rng.choice(list(COLORS))), str(rng.choice(SHAPES)), scene, rng))
    distinct = list({phrase.text: phrase for phrase in named}.values())
    return [distinct[index] for index in rng.permutation(len(distinct))]


def _phrase(color: str, shape: str, scene: Scene, rng: np.random.Generator) -> NamedPhrase:
    chance = rng.random()
    knows_color, knows_shape = chance < 0.8, not 0.6 <= chance < 0.8
    fits = tuple(
        thing
        for thing in scene.things
        if (not knows_color or thing.color == color) and (not knows_shape or thing.shape == shape)
    )
    words = ["the", *([color] if knows_color else []), shape if knows_shape else "thing"]
    if rng.random() < DEED_SHARE:
        words += [str(rng.choice(ACTIONS)), *rng.choice(["", "first", "last"], size=1)]
    return NamedPhrase(" ".join(word for word in words if word), fits)


class DetectionStream(IterableDataset):
    """Batches without end, from any number on.

    Args:
        tokenizer: the detector's.
        image_processor: the detector's.
        scenes_per_batch: see `DetectorCourse`.
        split: which scenes.
        first_batch: how many batches a training has had before.
    """

    def __init__(
        self, tokenizer, image_processor, scenes_per_batch: int, split: str = "pretrain", first_batch: int = 0
    ) -> None:
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self.scenes_per_batch, self.split, self.first_batch = scenes_per_batch, split, first_batch

    def __iter__(self) -> Iterator[DetectionBatch]:
        number = self.first_batch
        while True:
            rng = np.random.default_rng([29, number])
            number += 1
            yield self._batch(rng)

    def _batch(self, rng: np.random.Generator) -> DetectionBatch:
        pictures, ids, targets = [], [], []
        first_seed = next(split_seeds(self.split, 1))
        for _ in range(self.scenes_per_batch):
            scene = make_scene(first_seed + int(rng.integers(NUM_SCENES)))
            chosen = rng.choice(scene.num_frames, FRAMES_A_SCENE, replace=False)
            pictures.append(draw_scene(scene, chosen)[0])
            for frame in chosen:
                token_ids, target = self._described(scene, int(frame), phrases_of(scene, rng))
                ids.append(token_ids)
                targets.append(target)
        longest = max(map(len, ids))
        pad = self.tokenizer.pad_token_id
        input_ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in ids])
        is_text = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in ids])
        padded = [
            PhraseTargets(t.boxes_xyxy, torch.nn.functional.pad(t.is_phrase, (0, longest - t.is_phrase.shape[1])))
            for t in targets
        ]
        frames = torch.from_numpy(np.concatenate(pictures)).permute(0, 3, 1, 2)
        pixels = self.image_processor(frames, return_tensors="pt")["pixel_values"]
        return DetectionBatch(pixels, input_ids, is_text, tuple(padded))

    def _described(self, scene: Scene, frame: int, phrases: list[NamedPhrase]) -> tuple[list[int], PhraseTargets]:
        """The text of some phrases, and the things that they fit."""
        token_ids, owner = [self.tokenizer.cls_token_id], [-1]
        for index, phrase in enumerate(phrases):
            words = self.tokenizer(f"{phrase.text}.", add_special_tokens=False)["input_ids"]
            token_ids += words
            owner += [index] * (len(words) - 1) + [-1]
        things = [thing for thing in scene.things if any(thing in phrase.fits for phrase in phrases)]
        size = scene.settings.frame_size
        boxes = torch.tensor([box_of(thing, frame) for thing in things]).view(-1, 4) / size
        is_phrase = torch.tensor(
            [[place >= 0 and thing in phrases[place].fits for place in [*owner, -1]] for thing in things],
            dtype=torch.bool,
        ).view(-1, len(token_ids) + 1)
        return [*token_ids, self.tokenizer.sep_token_id], PhraseTargets(boxes, is_phrase)


class DetectorFrames(LightningDataModule):
    """The detector's lessons; after a restart they go on with the batch that comes next."""

    def __init__(self, tokenizer, image_processor, course: DetectorCourse) -> None:
        super().__init__()
        self.stream = DetectionStream(tokenizer, image_processor, course.scenes_per_batch)

    def train_dataloader(self) -> DataLoader:
        """Batches from the training's next step on."""
        assert self.trainer is not None
        self.stream.first_batch = self.trainer.global_step
        return DataLoader(self.stream, batch_size=None, num_workers=1, prefetch_factor=3)


class DetectorPretraining(LightningModule):
    """Train the tiny detector from random weights, proposals and every decoder layer alike."""

    def __init__(self, detector: Detector, course: DetectorCourse) -> None:
        super().__init__()
        self.detector, self.course = detector, course

    def training_step(self, batch: DetectionBatch, batch_idx: int) -> Tensor:
        found = all_detections(self.detector, batch.pixels, batch.input_ids, batch.is_text)
        losses = [detection_loss(each, list(batch.targets), batch.is_text) for each in found]
        loss = torch.stack(losses).sum()
        check_finite(loss.detach(), self.global_step)
        best = _iou_of_the_first(found[-1].logits, found[-1].boxes_cxcywh, batch)
        values = {
            "loss": loss.detach(),
            "proposals": losses[0].detach(),
            "last_layer": losses[-1].detach(),
            "iou": best,
        }
        self.log_dict({f"detector/{name}": value for name, value in values.items()}, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.AdamW(self.detector.parameters(), self.course.learning_rate, weight_decay=1e-4)
        schedule = partial(warm_cosine_factor, max_steps=self.course.num_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        torch.nn.utils.clip_grad_norm_(self.detector.parameters(), 1.0)


@torch.no_grad()
def _iou_of_the_first(
    logits: Float[Tensor, "frames candidates tokens"],
    boxes_cxcywh: Float[Tensor, "frames candidates 4"],
    batch: DetectionBatch,
) -> Float[Tensor, ""]:
    """Mean IoU of each frame's highest score with the nearest described thing."""
    best = logits.masked_fill(~batch.is_text[:, None], -torch.inf).max(dim=-1).values.argmax(dim=1)
    ious = [
        paired_box_iou(corners(boxes[index]).expand(len(target.boxes_xyxy), 4), target.boxes_xyxy).max()
        for boxes, index, target in zip(boxes_cxcywh, best.tolist(), batch.targets, strict=True)
        if len(target.boxes_xyxy)
    ]
    return torch.stack(ious).mean()
