"""Attention of completions to their prompt and to themselves, as two unmasked parts that are put together.

The parts are what torch's own kernel gives, each with the logarithm of its sum of exponentials; their mean,
weighted by those sums, is attention over both (as in ring attention, Liu et al. 2023, section 3). Going backward, the
kernel is given the whole's output and sum in place of the part's own, and gives the part's share of each gradient.
Nothing is computed for what a completion does not see. Where keys have fewer heads than queries they are repeated.

The kernel is torch's private `aten._scaled_dot_product_flash_attention_for_cpu`, which alone gives that logarithm: a
new torch may change it without notice (`tests/models/test_prefix_attention.py` would tell). First derivatives only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

attend_with_logsum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
Prefix = tuple[Float[Tensor, "1 key_heads keys width"], Float[Tensor, "1 key_heads keys width"]]
Own = tuple[Float[Tensor, "1 key_heads queries width"], Float[Tensor, "1 key_heads queries width"]]
"""Keys and values; fewer heads than the queries have, perhaps."""
Queries = Float[Tensor, "1 heads queries width"]


def attend_to_prefix(query: Queries, prefix: Prefix, own: Own, lengths: Sequence[int], scale: float) -> Queries:
    """Completions side by side, each of which sees a prompt and, causally, itself.

    Args:
        query: of the completions' tokens, on the CPU.
        prefix: keys and values of the prompt, perhaps with fewer heads.
        own: keys and values of the completions, likewise.
        lengths: tokens of each completion.
        scale: factor of the dot products.
    """
    cast = in_one_precision(query, *_repeated_heads(query, *prefix, *own))
    return _PrefixAttention.apply(*cast, tuple(length for length in lengths if length), scale)


def in_one_precision(*tensors: Tensor) -> list[Tensor]:
    """Tensors in autocast's precision, as torch casts them for its own operations, or else in that of the first."""
    kind = tensors[0].device.type
    is_cast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if is_cast else tensors[0].dtype
    return [tensor.to(dtype) for tensor in tensors]


def attend_completions(
    query: Queries,
    prefix: Prefix,
    own: Own,
    scale: float | None,
    lengths: Sequence[int],
    mask: Bool[Tensor, "queries all_keys"] | None = None,
) -> Queries:
    """The same on any device: elsewhere than on the CPU by one masked attention; see `attend_to_prefix`.

    `mask` is `completion_mask` of these completions, where it was made before; the CPU needs none.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if query.device.type == "cpu":
        return attend_to_prefix(query, prefix, own, lengths, scale)
    if mask is None:
        mask = completion_mask(prefix[0].shape[2], lengths, query.device)
    return attend_under_mask(query, prefix, own, scale, mask)


def attend_under_mask(
    query: Queries, prefix: Prefix, own: Own, scale: float, mask: Bool[Tensor, "queries all_keys"]
) -> Queries:
    """The same as one attention under a mask.

    Key heads are repeated: with fewer of them than queries have, no kernel that takes a mask is left to CUDA but the
    one that writes down every score.
    """
    keys, values = (torch.cat(pair, dim=2) for pair in zip(prefix, own, strict=True))
    asked, keys, values = in_one_precision(query, *_repeated_heads(query, keys, values))
    return F.scaled_dot_product_attention(asked, keys, values, attn_mask=mask, scale=scale)


def _repeated_heads(query: Tensor, *keys: Tensor) -> list[Tensor]:
    """Keys or values with as many heads as the queries have."""
    return [
        each if each.shape[1] == query.shape[1] else each.repeat_interleave(query.shape[1] // each.shape[1], dim=1)
        for each in keys
    ]


def completion_mask(
    prompt_tokens: int, lengths: Sequence[int], device: torch.device | str = "cpu"
) -> Bool[Tensor, "queries keys"]:
    """Which tokens of their prompt and of themselves completions see.

    Example:
        >>> completion_mask(2, [2, 1]).int().tolist()
        [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    """
    repeats = torch.tensor(lengths, device=device)
    owner = torch.arange(len(lengths), device=device).repeat_interleave(repeats, output_size=sum(lengths))
    own = (owner[:, None] == owner).tril()
    return torch.cat([own.new_ones(len(owner), prompt_tokens), own], dim=1)


class _PrefixAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, keys: Tensor, values: Tensor, own_keys: Tensor, own_values: Tensor, *how: Any
    ) -> Tensor:
        lengths, scale = how
        output, logsum = attend_with_logsum(query, keys, values, scale=scale)
        pieces = zip(*(each.split(lengths, dim=2) for each in (query, own_keys, own_values)), strict=True)
        found = [attend_with_logsum(*piece, is_causal=True, scale=scale) for piece in pieces]
        own_output = torch.cat([each[0] for each in found], dim=2)
        own_logsum = torch.cat([each[1] for each in found], dim=-1)
        whole = torch.logaddexp(logsum, own_logsum)
        weights = [(each - whole).exp()[..., None].to(query.dtype) for each in (logsum, own_logsum)]
        merged = output * weights[0] + own_output * weights[1]
        ctx.save_for_backward(query, keys, values, own_keys, own_values, merged, whole)
        ctx.how = how
        return merged

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, keys, values, own_keys, own_values, output, logsum = ctx.saved_tensors
        lengths, scale = ctx.how
        (gradient,) = gradients
        of_query, of_keys, of_values = _backward(gradient, query, keys, values, output, logsum, 0.0, False, scale=scale)
        cut = [each.split(lengths, dim=2) for each in (gradient, query, own_keys, own_values, output, logsum)]
        pieces = [_backward(*piece, 0.0, True, scale=scale) for piece in zip(*cut, strict=True)]
        own = [torch.cat(parts, dim=2) for parts in zip(*pieces, strict=True)]
        return of_query + own[0], of_keys, of_values, own[1], own[2], None, None
