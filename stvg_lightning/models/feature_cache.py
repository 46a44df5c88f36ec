"""What a frozen tower made of videos, kept for the next time they are seen."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import blake2b

import torch
from torch import Tensor
from transformers import PreTrainedModel

from stvg_lightning.models.families import tower_modules
from stvg_lightning.models.forward import VideoFeatures, encode_videos
from stvg_lightning.models.prompts import PromptBatch

Key = tuple[bytes, tuple[tuple[int, int], ...]]


@dataclass
class FeatureCache:
    """Features of the latest videos, as many as fit.

    A video is known by its patches, which are decided by sample, sampling settings and markers; the tower by its
    parameters and by how often each was written to. So features of another tower are never taken for its own.

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
            ValueError: see `encode_videos`.
        """
        if self.max_mib == 0:
            return encode_videos(model, batch)
        tower = tuple((id(p), p._version) for part in tower_modules(model) for p in part.parameters())
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
