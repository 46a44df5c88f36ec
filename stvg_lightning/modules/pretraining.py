"""How the tiny model learns to see: first its vision tower alone, then the whole model on questions.

Drawn numbers are not learned from answers within any patience: the gradient through a language model
that cannot speak yet is too faint. A tower that must first name, patch by patch, what lies there
learns them in minutes, in the language model's own words.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from lightning import LightningModule
from torch import Tensor, nn

from stvg_lightning.models.forward import completion_log_probs, encode_videos
from stvg_lightning.models.loading import Network
from stvg_lightning.modules.lessons import UNNAMED, LessonBatch
from stvg_lightning.modules.optimization import check_finite

SHARPNESS = 20.0
"""Largest score of a word: scores are cosines times this."""

TOWER_RATE_SHARE = 0.1
"""The tower's share of the learning rate while the whole model learns to read."""


@dataclass(frozen=True)
class Rates:
    """Largest learning rates: Muon's for matrices, AdamW's for embeddings, norms, biases and heads."""

    matrices: float = 6e-3
    others: float = 2e-3


class PatchNaming(nn.Module):
    """Names what lies under a token of the tower, in the language model's own words: number, colour, shape, deed.

    A token and a word are compared by the angle between the token's features and the word's embedding. So
    the two models share a space before they meet: a tower that is taught through heads of its own leaves
    the language model to find out what goes with which word, which it did not in a thousand steps.

    Args:
        word_ids: of each kind of word, the tokens, in the order of the classes; see `lessons.word_ids`.
        width: of features and embeddings.
    """

    def __init__(self, word_ids: Mapping[str, Sequence[int]], width: int) -> None:
        super().__init__()
        self.word_ids = {name: torch.tensor(ids) for name, ids in word_ids.items()}
        self.doing_nothing = nn.Parameter(0.1 * torch.randn(1, width))

    def forward(
        self, features: Float[Tensor, "tokens width"], embeddings: Float[Tensor, "vocabulary width"], batch: LessonBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of naming a batch's things, and how many are named rightly."""
        shown = F.normalize(features[batch.patch_index], dim=-1)
        loss, accuracies = torch.zeros((), device=features.device), {}
        for (name, ids), classes in zip(self.word_ids.items(), batch.classes.T, strict=True):
            words = embeddings[ids.to(embeddings.device)]
            if name == "deed":
                words = torch.cat([words, self.doing_nothing])
            scores = SHARPNESS * shown @ F.normalize(words, dim=-1).T
            named = classes != UNNAMED
            loss = loss + F.cross_entropy(scores, classes, ignore_index=UNNAMED)
            accuracies[f"tower/{name}_accuracy"] = (scores.argmax(-1) == classes)[named].float().mean()
        return loss, accuracies


class Pretraining(LightningModule, ABC):
    """One training from random weights: Muon for matrices, AdamW for the rest, one schedule for both.

    After 120 steps of warm-up Muon at 6e-3 named 71 % of the numbers, AdamW alone at 2e-3 36 % (LOG.md).

    Args:
        network: the tiny model.
        naming: the heads that name patches.
        rates: learning rates.
        max_steps: steps in all, over which the rates fall.
    """

    def __init__(self, network: Network, naming: PatchNaming, rates: Rates, max_steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network, self.naming, self.rates, self.max_steps = network, naming, rates, max_steps

    @abstractmethod
    def loss_of(self, batch: LessonBatch) -> Tensor:
        """The loss of a batch, its parts logged."""

    @abstractmethod
    def trained_parameters(self) -> Iterator[tuple[nn.Parameter, bool, float]]:
        """Every parameter to be trained, whether it is a matrix for Muon, and its share of the learning rate."""

    def training_step(self, batch: LessonBatch, batch_idx: int) -> None:
        loss = self.loss_of(batch)
        check_finite(loss, self.global_step)
        self.manual_backward(loss)
        matrices, others = self.optimizers()
        torch.nn.utils.clip_grad_norm_([parameter for parameter, _, _ in self.trained_parameters()], 1.0)
        matrices.step()
        others.optimizer.step()  # past Lightning, which would count a second step
        for optimizer, schedule in zip((matrices, others), self.lr_schedulers()):
            optimizer.zero_grad()
            schedule.step()

    def configure_optimizers(self) -> tuple[list, list]:
        groups: dict[bool, dict[float, list[nn.Parameter]]] = {True: {}, False: {}}
        for parameter, is_matrix, rate_share in self.trained_parameters():
            groups[is_matrix].setdefault(rate_share, []).append(parameter)
        of_matrices, of_others = (
            [{"params": parameters, "lr": rate * share} for share, parameters in groups[is_matrix].items()]
            for is_matrix, rate in ((True, self.rates.matrices), (False, self.rates.others))
        )
        optimizers = [
            torch.optim.Muon(of_matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(of_others, betas=(0.9, 0.98), weight_decay=0.01),
        ]
        schedule = partial(warm_cosine_factor, max_steps=self.max_steps)
        return optimizers, [torch.optim.lr_scheduler.LambdaLR(optimizer, schedule) for optimizer in optimizers]


class TowerWarmUp(Pretraining):
    """Train the vision tower, and the embeddings of words, to name what lies under each of the tower's tokens."""

    def loss_of(self, batch: LessonBatch) -> Tensor:
        features = torch.cat(encode_videos(self.network, batch.prompts).tokens)
        loss, measures = self.naming(features, self.network.get_input_embeddings().weight, batch)
        self.log_dict(measures, prog_bar=True)
        return loss

    def trained_parameters(self) -> Iterator[tuple[nn.Parameter, bool, float]]:
        yield from tower_parameters(self.network, rate_share=1.0)
        yield self.network.get_input_embeddings().weight, False, 1.0
        yield from ((parameter, False, 1.0) for parameter in self.naming.parameters())


class WorldReading(Pretraining):
    """Train the whole tiny model on conversations about scenes; the tower goes on naming its patches.

    The tower, which reads already, learns at a fraction of the rate: at the full rate the first steps of
    a language model that knows no word yet undo a third of what it can name.
    """

    def __init__(
        self, network: Network, naming: PatchNaming, naming_weight: float, rates: Rates, max_steps: int
    ) -> None:
        super().__init__(network, naming, rates, max_steps)
        self.naming_weight = naming_weight

    def loss_of(self, batch: LessonBatch) -> Tensor:
        features = encode_videos(self.network, batch.prompts)
        log_probs = completion_log_probs(self.network, batch.prompts, batch.conversation, features)
        reading_loss = -log_probs.sum() / batch.conversation.mask.sum()
        embeddings = self.network.get_input_embeddings().weight
        naming_loss, measures = self.naming(torch.cat(features.tokens), embeddings, batch)
        self.log_dict({"reading/loss": reading_loss.detach(), **measures}, prog_bar=True)
        return reading_loss + self.naming_weight * naming_loss

    def trained_parameters(self) -> Iterator[tuple[nn.Parameter, bool, float]]:
        yield from tower_parameters(self.network, TOWER_RATE_SHARE)
        for name, parameter in self.network.model.language_model.named_parameters():
            yield parameter, parameter.ndim == 2 and "embed" not in name, 1.0
        yield from ((parameter, False, 1.0) for parameter in self.naming.parameters())


def tower_parameters(network: Network, rate_share: float) -> Iterator[tuple[nn.Parameter, bool, float]]:
    """The vision tower's parameters as `Pretraining.trained_parameters` gives them."""
    for name, parameter in network.model.visual.named_parameters():
        yield parameter, parameter.ndim == 2 and "embed" not in name, rate_share


def warm_cosine_factor(step: int, max_steps: int) -> float:
    """Share of the learning rate: a linear warm-up over a twentieth of the steps, then a cosine down to a tenth."""
    warm_up = max(max_steps // 20, 1)
    if step < warm_up:
        return (step + 1) / warm_up
    progress = min((step - warm_up) / max(max_steps - warm_up, 1), 1.0)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))
