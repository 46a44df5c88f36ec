"""What SARL-STG inserts into Grounding DINO: the whole video before its encoder, time after its decoder.

The paper gives no sizes: width and heads are the detector's, one block each. Every block adds to what it is given, and
its last layer starts at zero, so that before any training nothing has changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

MAX_GLOBAL_TOKENS = 512
"""Tokens of the whole video that are attended to; a longer video's are averaged, neighbours with neighbours."""

TIME_STEP_SECONDS = 0.1
"""Unit of the time embedding."""


class GlobalLocalFusion(nn.Module):
    """The GLFFM: each position of each frame asks the whole video, then coarse levels are added to finer ones.

    Args:
        width: of the detector's features.
        num_levels: of the detector's pyramid.
        num_heads: of the attention.
        global_width: of the language model's video tokens.
    """

    def __init__(self, width: int, num_levels: int, num_heads: int, global_width: int) -> None:
        super().__init__()
        self.projection = nn.Sequential(nn.Linear(global_width, width), nn.LayerNorm(width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(num_levels))
        attentions = [nn.MultiheadAttention(width, num_heads, batch_first=True) for _ in range(num_levels)]
        downward = [nn.Conv2d(width, width, kernel_size=1) for _ in range(num_levels - 1)]
        for attention in attentions:
            _zero(attention.out_proj)
        for convolution in downward:
            _zero(convolution)
        self.attentions, self.downward = nn.ModuleList(attentions), nn.ModuleList(downward)

    def forward(
        self,
        features: Float[Tensor, "frames positions width"],
        positions: Float[Tensor, "frames positions width"],
        level_shapes: Sequence[tuple[int, int]],
        video_tokens: Float[Tensor, "tokens global_width"],
    ) -> Float[Tensor, "frames positions width"]:
        """Fuse.

        Args:
            features: the pyramid's levels one after another, each row by row.
            positions: the detector's own embedding of each feature's level and place, which asks along with it.
            level_shapes: height and width of each level, the largest map first.
            video_tokens: what the language model's vision projector makes of the whole video.
        """
        video = self.projection(_at_most(video_tokens, MAX_GLOBAL_TOKENS)).expand(len(features), -1, -1)
        sizes = [height * width for height, width in level_shapes]
        levels = zip(features.split(sizes, dim=1), positions.split(sizes, dim=1), strict=True)
        fused = [
            level + attention(norm(level) + place, video, video, need_weights=False)[0]
            for (level, place), norm, attention in zip(levels, self.norms, self.attentions, strict=True)
        ]
        for index in reversed(range(len(fused) - 1)):
            coarser = _as_map(fused[index + 1], level_shapes[index + 1])
            enlarged = F.interpolate(coarser, size=level_shapes[index], mode="nearest")
            fused[index] = fused[index] + self.downward[index](enlarged).flatten(2).transpose(1, 2)
        return torch.cat(fused, dim=1)


class TemporalEnhancement(nn.Module):
    """The TEM: every candidate looks along time, then candidates of a frame look at one another.

    Args:
        width: of the decoder's states.
        num_heads: of the attention.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.width = width
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.along_time = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.among_candidates = nn.MultiheadAttention(width, num_heads, batch_first=True)
        narrowing = nn.Linear(4 * width, width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), narrowing)
        for last in (self.along_time.out_proj, self.among_candidates.out_proj, narrowing):
            _zero(last)

    def forward(
        self,
        states: Float[Tensor, "clips frames candidates width"],
        seconds: Float[Tensor, "clips frames"],
        is_frame: Bool[Tensor, "clips frames"],
    ) -> Float[Tensor, "clips frames candidates width"]:
        """Enhance.

        Args:
            states: the decoder's last states; clips are padded to the longest.
            seconds: when each frame is, from the beginning of its clip.
            is_frame: False for padding, which nothing looks at.
        """
        clips, frames, candidates, width = states.shape
        by_candidate = states.transpose(1, 2).reshape(clips * candidates, frames, width)
        normed = self.norms[0](by_candidate)
        timed = normed + time_embedding(seconds, width).to(normed).repeat_interleave(candidates, dim=0)
        is_padding = ~is_frame.repeat_interleave(candidates, dim=0)
        seen, _ = self.along_time(timed, timed, normed, key_padding_mask=is_padding, need_weights=False)
        by_frame = (by_candidate + seen).view(clips, candidates, frames, width).transpose(1, 2)
        by_frame = by_frame.reshape(clips * frames, candidates, width)
        normed = self.norms[1](by_frame)
        by_frame = by_frame + self.among_candidates(normed, normed, normed, need_weights=False)[0]
        by_frame = by_frame + self.feed_forward(self.norms[2](by_frame))
        return by_frame.view(clips, frames, candidates, width)


def time_embedding(seconds: Float[Tensor, "clips frames"], width: int) -> Float[Tensor, "clips frames width"]:
    """Sines and cosines of a time, in tenths of a second, at wavelengths from 2 pi to 20,000 pi."""
    rates = torch.exp(torch.arange(0, width, 2, device=seconds.device) * (-math.log(10_000.0) / width))
    angles = seconds[..., None] / TIME_STEP_SECONDS * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _at_most(tokens: Float[Tensor, "tokens width"], count: int) -> Float[Tensor, "pooled width"]:
    return tokens if len(tokens) <= count else F.adaptive_avg_pool1d(tokens.T[None], count)[0].T


def _as_map(level: Float[Tensor, "frames positions width"], shape: tuple[int, int]) -> Tensor:
    return level.transpose(1, 2).unflatten(2, shape)


def _zero(layer: nn.Linear | nn.Conv2d) -> None:
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
