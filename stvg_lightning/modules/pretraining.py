"""How the tiny model learns to see: words first, then sight, then both together, then more words.

The language model reads scenes that are told to it in its own words: in place of a video's features it gets, for each
token, the embeddings of the words for what lies there. So it learns to speak, and to look things up, from clean input.
The vision tower then learns to make just these features of pixels, and the two go on as one. From then on what is told
reads like what is seen, and the language model goes on with told scenes alone, which cost less. A model whose tower
was warmed up first, and that then learned all from answers, read numbers and looks, and after 950 steps still found
the one by the other at chance (LOG.md).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from lightning import LightningModule
from torch import Tensor, nn

from stvg_lightning.models.box_words import CODE_SIZE, fixed_directions, place_code
from stvg_lightning.models.forward import VideoFeatures, conversation_log_probs, encode_videos
from stvg_lightning.models.loading import Network
from stvg_lightning.modules.lessons import UNNAMED, LessonBatch
from stvg_lightning.modules.optimization import check_finite

SHARPNESS = 20.0
"""Largest score of a word: scores are cosines times this."""

CHOICE_WEIGHT = 3.0
"""Weight of choosing the right words, beside the squared distance to them.

At 0.3 a tower named 26 % of numbers after 275 steps; then, with 3.0 and a new schedule, 81 % after 150 more (LOG.md).
"""

PLACE_WEIGHT = 10.0
"""Weight of the squared error of what tells a thing's place, beside its part in the distance to the words."""

NUM_EDGES = 4

NAMING_WEIGHT = 0.3
"""Weight of the tower's naming while the whole model reads."""

TOWER_RATE_SHARE = 0.5
"""The tower's share of the learning rates while the whole model reads: it knows its work already."""

COLUMNS = (
    ("number", "number", 1.0),
    ("color", "color", 1.0),
    ("shape", "shape", 1.0),
    ("first_deed", "deed", 0.5),
    ("last_deed", "deed", 0.5),
)
"""The columns of a lesson's classes: name, kind of word, share of a word in what is told."""


@dataclass(frozen=True)
class Rates:
    """Largest learning rates: Muon's for matrices, AdamW's for embeddings, norms and biases."""

    matrices: float = 6e-3
    others: float = 2e-3


class SceneWords:
    """What is to be seen, in the language model's own words.

    A token of a video that shows a thing stands for the sum of the directions of four word embeddings: the thing's
    number, colour and shape, and its deed, half a word for each of the token's two frames. Any other token has the
    direction of the video placeholder's embedding. Where the edges of the thing are is told by directions
    that stand for no word: `place_code`.

    Args:
        word_ids: of each kind of word, the tokens, in the order of the classes; see `lessons.word_ids`.
        background_id: the video placeholder.
    """

    def __init__(self, word_ids: Mapping[str, Sequence[int]], background_id: int) -> None:
        self.columns = [(name, torch.tensor(word_ids[kind]), share) for name, kind, share in COLUMNS]
        self.background_id = background_id

    def told(
        self, embeddings: Float[Tensor, "vocabulary width"], batch: LessonBatch, num_tokens: int
    ) -> Float[Tensor, "tokens width"]:
        """The features of a batch's videos as words tell them."""
        directions = F.normalize(embeddings, dim=-1)
        things = directions.new_zeros(len(batch.patch_index), directions.shape[1])
        for (_, ids, share), classes in zip(self.columns, batch.classes.T, strict=True):
            known = (classes != UNNAMED)[:, None]
            things = things + share * known * directions[ids.to(classes.device)[classes.clamp(min=0)]]
        codes = place_code(batch.places).flatten(1)
        things = things + codes @ place_directions(directions.shape[1]).to(directions)
        background = directions[self.background_id].repeat(num_tokens, 1)
        return background.index_copy(0, batch.patch_index, things)

    def naming_loss(
        self, features: Float[Tensor, "tokens width"], embeddings: Float[Tensor, "vocabulary width"], batch: LessonBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """How far a tower's features are from the words, and how many words are nearest where they should be.

        The distance alone learns slowly: the mean of all numbers is a fair guess at any. So each word must also be
        nearer, by angle, than the others of its kind. The words themselves do not move.
        """
        embeddings = embeddings.detach()
        told = self.told(embeddings, batch, len(features))
        loss = (features - told).square().sum(-1).mean()
        shown, directions = (F.normalize(each, dim=-1) for each in (features[batch.patch_index], embeddings))
        measures = {"tower/distance": loss.detach()}
        found = (features - told)[batch.patch_index] @ place_directions(features.shape[1]).to(features).T
        place_error = found.square().sum(-1).mean()
        loss = loss + PLACE_WEIGHT * place_error
        measures["tower/place_error"] = place_error.detach()
        for (name, ids, _), classes in zip(self.columns, batch.classes.T, strict=True):
            scores = SHARPNESS * shown @ directions[ids.to(classes.device)].T
            known = classes != UNNAMED
            if known.any():
                loss = loss + CHOICE_WEIGHT * F.cross_entropy(scores[known], classes[known])
                measures[f"tower/{name}_accuracy"] = (scores.argmax(-1) == classes)[known].float().mean()
        return loss, measures


def place_directions(width: int) -> Float[Tensor, "directions width"]:
    """Directions at right angles to each other, `CODE_SIZE` for each edge of a box."""
    return fixed_directions(width, NUM_EDGES * CODE_SIZE, seed=23)


class Pretraining(LightningModule, ABC):
    """One training from random weights: Muon for matrices, AdamW for the rest, one schedule for both.

    After 120 steps of warm-up Muon at 6e-3 named 71 % of the numbers, AdamW alone at 2e-3 36 % (LOG.md).

    Args:
        network: the tiny model.
        words: what its tower should make of a scene.
        rates: learning rates.
        max_steps: steps in all, over which the rates fall.
    """

    sees: ClassVar[bool] = True
    """Whether lessons must be drawn; else words tell them."""

    def __init__(self, network: Network, words: SceneWords, rates: Rates, max_steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network, self.words, self.rates, self.max_steps = network, words, rates, max_steps

    @abstractmethod
    def loss_of(self, batch: LessonBatch) -> Tensor:
        """The loss of a batch, its parts logged."""

    @abstractmethod
    def trained_parts(self) -> dict[nn.Module, float]:
        """What is trained, each part with its share of the learning rates."""

    def embeddings(self) -> Float[Tensor, "vocabulary width"]:
        """The language model's words."""
        return self.network.get_input_embeddings().weight

    def reading_loss(self, batch: LessonBatch, features: VideoFeatures) -> Tensor:
        """Nats per token of the answers in a batch's conversations."""
        loss = -conversation_log_probs(self.network, batch.prompts, batch.conversation, features).mean()
        self.log("reading/loss", loss.detach(), prog_bar=True)
        return loss

    def naming_loss(self, batch: LessonBatch, features: VideoFeatures) -> Tensor:
        """See `SceneWords.naming_loss`."""
        loss, measures = self.words.naming_loss(torch.cat(features.tokens), self.embeddings(), batch)
        self.log_dict(measures, prog_bar=True)
        return loss

    def training_step(self, batch: LessonBatch, batch_idx: int) -> None:
        loss = self.loss_of(batch)
        check_finite(loss, self.global_step)
        self.manual_backward(loss)
        matrices, others = self.optimizers()
        torch.nn.utils.clip_grad_norm_([p for part in self.trained_parts() for p in part.parameters()], 1.0)
        matrices.step()
        others.optimizer.step()  # past Lightning, which would count a second step
        for optimizer, schedule in zip((matrices, others), self.lr_schedulers()):
            optimizer.zero_grad()
            schedule.step()

    def configure_optimizers(self) -> tuple[list, list]:
        of_matrices, of_others = [], []
        for part, share in self.trained_parts().items():
            matrices = [p for name, p in part.named_parameters() if p.ndim == 2 and "embed" not in name]
            others = [p for name, p in part.named_parameters() if p.ndim != 2 or "embed" in name]
            of_matrices.append({"params": matrices, "lr": share * self.rates.matrices})
            of_others.append({"params": others, "lr": share * self.rates.others})
        optimizers = [
            torch.optim.Muon(of_matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(of_others, betas=(0.9, 0.98), weight_decay=0.01),
        ]
        schedule = partial(warm_cosine_factor, max_steps=self.max_steps)
        return optimizers, [torch.optim.lr_scheduler.LambdaLR(optimizer, schedule) for optimizer in optimizers]


class LanguageReading(Pretraining):
    """Train the language model alone, on conversations about scenes that words tell.

    Args:
        network, words, rates, max_steps: as `Pretraining`.
        learns_words: whether the word embeddings learn too. After a tower has learned to make them, they stay.
    """

    sees: ClassVar[bool] = False

    def __init__(
        self, network: Network, words: SceneWords, rates: Rates, max_steps: int, learns_words: bool = True
    ) -> None:
        super().__init__(network, words, rates, max_steps)
        self.learns_words = learns_words

    def configure_optimizers(self) -> tuple[list, list]:
        self.embeddings().requires_grad_(self.learns_words)
        return super().configure_optimizers()

    def on_fit_end(self) -> None:
        self.embeddings().requires_grad_(True)

    def loss_of(self, batch: LessonBatch) -> Tensor:
        num_tokens = (batch.prompts.input_ids == self.network.config.video_token_id).sum(dim=1).tolist()
        told = self.words.told(self.embeddings(), batch, sum(num_tokens)).split(num_tokens)
        num_levels = len(self.network.config.vision_config.deepstack_visual_indexes)
        nothing = tuple(torch.zeros_like(tokens) for tokens in told)
        return self.reading_loss(batch, VideoFeatures(told, (nothing,) * num_levels))

    def trained_parts(self) -> dict[nn.Module, float]:
        return {self.network.model.language_model: 1.0}


class TowerNaming(Pretraining):
    """Train the vision tower alone, to make of pixels what words would tell."""

    def loss_of(self, batch: LessonBatch) -> Tensor:
        return self.naming_loss(batch, encode_videos(self.network, batch.prompts))

    def trained_parts(self) -> dict[nn.Module, float]:
        return {self.network.model.visual: 1.0}


class WorldReading(Pretraining):
    """Train the whole model on conversations about scenes that it sees; the tower goes on naming."""

    def loss_of(self, batch: LessonBatch) -> Tensor:
        features = encode_videos(self.network, batch.prompts)
        return self.reading_loss(batch, features) + NAMING_WEIGHT * self.naming_loss(batch, features)

    def trained_parts(self) -> dict[nn.Module, float]:
        return {self.network.model.language_model: 1.0, self.network.model.visual: TOWER_RATE_SHARE}


def warm_cosine_factor(step: int, max_steps: int) -> float:
    """Share of the learning rate: a linear warm-up over a twentieth of the steps, then a cosine down to a tenth."""
    warm_up = max(max_steps // 20, 1)
    if step < warm_up:
        return (step + 1) / warm_up
    progress = min((step - warm_up) / max(max_steps - warm_up, 1), 1.0)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))
