"""What a frozen tower made of videos, kept for the next time they are seen."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from hashlib import blake2b

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers import PreTrainedModel

from stvg_lightning.models.families import tower_modules
from stvg_lightning.models.forward import VideoFeatures, encode_videos
from stvg_lightning.models.prompts import PromptBatch

Key = tuple[bytes, tuple[Hashable, ...]]


@dataclass
class FeatureCache:
    """Features of the latest videos, as many as fit.

    A video is known by its patches, which are decided by sample, sampling settings and markers; the tower by its
    parameters, by how often each was written to, and by which of its adapters take part. So what a tower made that was
    since written to is not taken for its own, unless that went past torch's count, as through `.data`; a tower that is
    trained is refused.

    Attributes:
        max_mib: what all of them may hold together, in memory of the CPU; 0 keeps none.
    """

    max_mib: float | int
    _kept: OrderedDict[Key, VideoFeatures] = field(default_factory=OrderedDict)
    _held_bytes: int = 0

    @torch.no_grad()
    def encode(self, model: PreTrainedModel, batch: PromptBatch) -> VideoFeatures:
        """The features of a batch's videos, by a pass of the tower over those that are not known; one video a prompt.

        Raises:
            ValueError: a tower that is trained, where features are kept; and see `encode_videos`.
        """
        if self.max_mib == 0:
            return encode_videos(model, batch)
        tower = _state_of_tower(model)
        found = []
        for place in range(batch.num_prompts):
            prompt = batch.select(slice(place, place + 1))
            key = (_digest(prompt), tower)
            features = self._kept.pop(key, None)
            if features is None:
                features = encode_videos(model, prompt)
                self._held_bytes += _size(features)
            self._kept[key] = _on(features, "cpu")
            found.append(_on(features, batch.input_ids.device))
        while self._held_bytes > self.max_mib * 2**20:
            self._held_bytes -= _size(self._kept.popitem(last=False)[1])
        deepstack = zip(*(each.deepstack for each in found), strict=True)
        return VideoFeatures(
            tuple(each.tokens[0] for each in found), tuple(tuple(level[0] for level in levels) for levels in deepstack)
        )


def _state_of_tower(model: PreTrainedModel) -> tuple[Hashable, ...]:
    """What changes when the tower does."""
    parts = tower_modules(model)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    if any(parameter.requires_grad for parameter in parameters):
        raise ValueError("features of a tower that is trained cannot be kept: features_kept_mib must be 0")
    layers = [layer for part in parts for layer in part.modules() if isinstance(layer, BaseTunerLayer)]
    taking_part = tuple((tuple(layer.active_adapters), layer.disable_adapters, layer.merged) for layer in layers)
    return (*((id(parameter), parameter._version) for parameter in parameters), taking_part)


def _digest(prompt: PromptBatch) -> bytes:
    digest = blake2b(digest_size=16)
    for tensor in (prompt.grid_thw, prompt.patches):
        digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.digest()


def _tensors(features: VideoFeatures) -> list[Tensor]:
    return [*features.tokens, *(each for level in features.deepstack for each in level)]


def _size(features: VideoFeatures) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(features))


def _on(features: VideoFeatures, device: torch.device | str) -> VideoFeatures:
    return VideoFeatures(
        tuple(tokens.to(device) for tokens in features.tokens),
        tuple(tuple(tokens.to(device) for tokens in level) for level in features.deepstack),
    )
