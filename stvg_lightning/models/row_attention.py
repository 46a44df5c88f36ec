"""Attention of language models over rows of groups; every other row attends as transformers does by itself.

What runs where, while a model learns:

- on an NVIDIA GPU in half precision: `flash_attention`, for whole rows and for parts of a group alike;
- on one in float32: a whole row by FlexAttention, which skips the blocks that no query sees;
- a whole row elsewhere: each group's prompt causally, without any mask, then its completions by `prefix_attention`: on
  the CPU as two unmasked parts, to their prompt and to themselves; on other devices under a mask over both;
- a part of a group whose prompt was read before, elsewhere than in the first case: the completions alone, by
  `prefix_attention`, likewise; on a GPU under the mask.

While completions are written, `DecodingPrompts` or `FixedPrompts` attends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from stvg_lightning.models.flash_attention import attend_segments, has_flash
from stvg_lightning.models.group_rows import RowLayout
from stvg_lightning.models.prefix_attention import attend_completions, in_one_precision

NAME = "group_rows"
MOST_COMPILED = 64
"""How often attention may be compiled: for gradients and without, of each precision, and each kind of shape."""


def row_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | BlockMask | None,
    scaling: float | None = None,
    row_layout: RowLayout | None = None,
    **more: object,
) -> tuple[Tensor, None]:
    """Attention of one layer, as transformers calls it.

    Args:
        module: the attention layer.
        query: (batch, heads, tokens, channels); `key` and `value` likewise, perhaps with fewer heads.
        attention_mask: transformers' own, or FlexAttention's blocks of a row.
        scaling: factor of the dot products.
        row_layout: the groups of a row; without it nothing is changed.

    Returns:
        (batch, tokens, heads, channels), and None for the attention weights.
    """
    if row_layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)
    layer: int = module.layer_idx
    if row_layout.recorded is not None:
        row_layout.recorded.setdefault(layer, (key, value))  # a pass that is computed again changes nothing
    if row_layout.before is not None:
        output = row_layout.before.attend(layer, query, key, value, scaling, row_layout)
    elif has_flash(query.device, query.dtype):
        output = attend_by_flash(query, key, value, scaling, row_layout)
    elif isinstance(attention_mask, BlockMask):
        given = in_one_precision(query, key, value)
        grouped = query.shape[1] != key.shape[1]
        # The kernel that FlexAttention has for short rows cannot be compiled where their tokens, times the heads that
        # share a key, are more than 128.
        how = {"enable_gqa": grouped, "kernel_options": {"FORCE_USE_FLEX_ATTENTION": True}}
        output = _compiled_flex_attention()(*given, block_mask=attention_mask, scale=scaling, **how)
    else:
        output = attend_by_parts(query, key, value, scaling, row_layout)
    return output.transpose(1, 2), None


def attend_by_parts(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, layout: RowLayout) -> Tensor:
    """Attention of a row, group by group; arguments and result are (1, heads, tokens, channels)."""
    grouped = query.shape[1] != key.shape[1]
    sizes = [size for span in layout.spans for size in (span.prompt_tokens, sum(span.completion_tokens))]
    # Cut once: the way back through each slice of its own would fill a whole row.
    pieces = list(zip(*(each.split(sizes, dim=2) for each in (query, key, value)), strict=True))
    outputs = []
    for span, prompt, own in zip(layout.spans, pieces[::2], pieces[1::2], strict=True):
        asked, keys, values = prompt
        outputs.append(
            F.scaled_dot_product_attention(asked, keys, values, is_causal=True, scale=scaling, enable_gqa=grouped)
        )
        if sum(span.completion_tokens):
            mask, lengths = layout.mask_of(span, query.device), span.completion_tokens
            outputs.append(attend_completions(own[0], (keys, values), own[1:], scaling, lengths, mask))
    return torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]


def attend_by_flash(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, layout: RowLayout) -> Tensor:
    """The same on an NVIDIA GPU, all groups at once."""
    prefixes = [(span.completions, span.prompt) for span in layout.spans if sum(span.completion_tokens)]
    return attend_segments(query, (key, value), layout.segments(query.device), prefixes, scaling)


def blocks_of(layout: RowLayout, device: torch.device | str, compiled: bool = True) -> BlockMask:
    """Which blocks of a row attention has to look at, for FlexAttention."""
    groups, parts = (owner.to(device) for owner in layout.owners)

    size = layout.num_tokens
    return create_block_mask(
        lambda _batch, _head, query, key: (
            (query >= key) & (groups[query] == groups[key]) & ((parts[key] == 0) | (parts[key] == parts[query]))
        ),
        B=None,
        H=None,
        Q_LEN=size,
        KV_LEN=size,
        device=str(device),
        _compile=compiled,
    )


def row_mask(layout: RowLayout, device: torch.device, dtype: torch.dtype) -> BlockMask | Tensor:
    """What stands for a row's attention mask: its blocks for FlexAttention; elsewhere nothing that is looked at.

    `dtype` is that of the model's weights.
    """
    if device.type == "cuda" and layout.before is None and not has_flash(device, dtype):
        return blocks_of(layout, device)
    # transformers makes no mask of its own where it is given one of four dimensions.
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)


def use_row_attention(model: PreTrainedModel) -> None:
    """Let a model's language layers attend to rows of groups where a pass is given their layout.

    Raises:
        ValueError: a layer attends within a sliding window, which would be passed over.
    """
    windows = (getattr(module, "sliding_window", None) for module in model.model.language_model.modules())
    if window := next(filter(None, windows), None):
        raise ValueError(f"layers that see {window} tokens alone (use_sliding_window) are not supported")
    AttentionInterface.register(NAME, row_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.model.language_model.config._attn_implementation = NAME


def compiled_for_many_shapes(function: Callable[..., Any], **how: Any) -> Callable[..., Any]:
    """A function compiled for shapes that are never the same, as often as `MOST_COMPILED` times.

    By itself torch would give up after 8 times without a word, and attention would write down every score.

    Args:
        function: to compile.
        how: further arguments of `torch.compile`.

    Raises:
        torch._dynamo.exc.FailOnRecompileLimitHit: when what it makes is called, where that is not enough.
    """
    # Every row has a length of its own: shapes that are not dynamic would be compiled again for each.
    compiled = torch.compile(function, dynamic=True, **how)
    limits = torch._dynamo.config.patch(recompile_limit=MOST_COMPILED, fail_on_recompile_limit_hit=True)
    return limits(compiled)


@cache
def _compiled_flex_attention() -> Callable[..., Any]:
    return compiled_for_many_shapes(flex_attention)
