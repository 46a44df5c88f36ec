"""Attention of the Qwen vision towers, for all frames of equal length at once instead of one by one.

Without FlashAttention, transformers runs a tower's attention once for each frame in a Python loop.
Frames of one video have the same number of patches, so they are a batch: the result is the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

# transformers hands the segment boundaries only to implementations with "flash" in their name.
NAME = "flash_batched_segments"


def batched_segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    cu_seq_lens_q: Tensor,
    **_: object,
) -> tuple[Tensor, None]:
    """Full attention within each segment of a packed sequence.

    Args:
        module: the attention layer; unused, part of transformers' interface.
        query: (1, heads, tokens, channels); `key` and `value` likewise.
        attention_mask: always None here.
        scaling: factor of the dot products.
        cu_seq_lens_q: (segments + 1,), first token of each segment and the number of tokens.

    Returns:
        (1, tokens, heads, channels), and None for the attention weights.
    """
    lengths = torch.diff(cu_seq_lens_q).tolist()
    heads, channels = query.shape[1], query.shape[3]
    outputs = []
    for start, length, count in _runs_of_equal_length(lengths):
        tokens = slice(start, start + length * count)
        queries, keys, values = (
            states[0, :, tokens].reshape(heads, count, length, channels).transpose(0, 1)
            for states in (query, key, value)
        )
        attended = F.scaled_dot_product_attention(queries, keys, values, scale=scaling)
        outputs.append(attended.transpose(1, 2).reshape(count * length, heads, channels))
    return torch.cat(outputs)[None], None


def _runs_of_equal_length(lengths: list[int]) -> list[tuple[int, int, int]]:
    """`(first token, length, count)` for each run of neighbouring segments of the same length."""
    runs: list[tuple[int, int, int]] = []
    start = 0
    for length in lengths:
        if runs and runs[-1][1] == length:
            runs[-1] = (runs[-1][0], length, runs[-1][2] + 1)
        else:
            runs.append((start, length, 1))
        start += length
    return runs


def batch_vision_attention(model: PreTrainedModel) -> None:
    """Make a Qwen-VL model's vision tower attend to all frames at once."""
    AttentionInterface.register(NAME, batched_segment_attention)
    model.model.visual.config._attn_implementation = NAME
