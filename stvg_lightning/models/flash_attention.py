"""Attention of rows of groups on NVIDIA GPUs in half precision, by torch's FlashAttention.

One call attends causally within every segment of a row, prompts and completions alike; one more for each group lets
its completions see their prompt, without a mask. The two are put together, forward and backward, as in
`prefix_attention`, where this is told. Nothing is compiled, whatever the lengths, and nothing is computed twice.

The kernels are torch's private `aten._flash_attention_forward` and its way back, which alone give the logarithm of each
query's sum of exponentials and take another: a new torch may change them without notice
(`tests/models/test_flash_attention.py` would tell on a GPU). First derivatives only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stvg_lightning.models.prefix_attention import in_one_precision

Own = tuple[Float[Tensor, "1 key_heads queries width"], Float[Tensor, "1 key_heads queries width"]]
Elsewhere = tuple[Float[Tensor, "1 key_heads keys width"], Float[Tensor, "1 key_heads keys width"]]
Queries = Float[Tensor, "queries heads width"]
Seen = Float[Tensor, "keys key_heads width"]
"""As the kernels take them: tokens before heads."""


@dataclass(frozen=True)
class Segments:
    """Where the segments of a row begin, and where the last one ends; the longest; all have a token at least."""

    bounds: Int[Tensor, " ends"]
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Segments:
        """Of segments one behind the other; empty ones are left out."""
        kept = [length for length in lengths if length]
        bounds = torch.tensor([0, *kept]).cumsum(0).to(device, torch.int32)
        return cls(bounds, max(kept))


def has_flash(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether FlashAttention takes queries of this precision, or of autocast's, on a device."""
    if device.type != "cuda":
        return False
    used = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else dtype
    return used in (torch.bfloat16, torch.float16) and _is_new_enough(device)


@cache
def _is_new_enough(device: torch.device) -> bool:
    return torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability(device) >= (8, 0)


def attend_segments(
    query: Float[Tensor, "1 heads queries width"],
    own: Own,
    segments: Segments,
    prefixes: Sequence[tuple[slice, slice]],
    scaling: float | None,
    elsewhere: Elsewhere | None = None,
) -> Float[Tensor, "1 heads queries width"]:
    """Segments that see themselves, causally; some of them a prefix as well, wholly.

    Args:
        query: of all tokens of a row.
        own: their keys and values, perhaps with fewer heads, and perhaps of another precision.
        segments: of the row.
        prefixes: for neighbouring segments, the tokens that ask, and which keys and values they see besides their own.
        scaling: factor of the dot products; None: one over the root of the width.
        elsewhere: keys and values of the prefixes; None: they are among the row's own.
    """
    given = in_one_precision(query, *own, *(elsewhere or ()))
    asked, keys, values, *others = (each[0].transpose(0, 1) for each in given)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    found = _SegmentAttention.apply(asked, keys, values, *(others or (None, None)), segments, tuple(prefixes), scale)
    return found.transpose(0, 1)[None]


class _SegmentAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, values: Tensor, *more: Any) -> Tensor:
        other_keys, other_values, segments, prefixes, scale = more
        seen_keys, seen_values = (keys, values) if other_keys is None else (other_keys, other_values)
        output, logsum, state = _attended(query, keys, values, segments, scale)
        states = [state]
        for asking, seen in prefixes:
            of_prefix, its_logsum, state = _attended(query[asking], seen_keys[seen], seen_values[seen], None, scale)
            states.append(state)
            share = torch.sigmoid(its_logsum - logsum[:, asking]).t()[..., None]
            output[asking] = torch.lerp(output[asking], of_prefix, share.to(output.dtype))
            logsum[:, asking] = torch.logaddexp(its_logsum, logsum[:, asking])
        ctx.save_for_backward(query, keys, values, other_keys, other_values, output, logsum)
        ctx.how = segments, prefixes, scale, states
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, keys, values, other_keys, other_values, output, logsum = ctx.saved_tensors
        segments, prefixes, scale, states = ctx.how
        (gradient,) = gradients
        asked = gradient, query, output, logsum
        of_query, of_keys, of_values = _way_back(asked, (keys, values), segments, scale, states[0])
        if other_keys is None:
            seen_keys, seen_values, of_seen = keys, values, (of_keys, of_values)
        else:
            seen_keys, seen_values = other_keys, other_values
            of_seen = torch.zeros_like(other_keys), torch.zeros_like(other_values)
        for (asking, seen), state in zip(prefixes, states[1:], strict=True):
            asked = gradient[asking], query[asking], output[asking], logsum[:, asking].contiguous()
            found = _way_back(asked, (seen_keys[seen], seen_values[seen]), None, scale, state)
            of_query[asking] += found[0]
            of_seen[0][seen] += found[1]
            of_seen[1][seen] += found[2]
        return of_query, of_keys, of_values, *((None, None) if other_keys is None else of_seen), None, None, None


def _attended(
    query: Queries, keys: Seen, values: Seen, segments: Segments | None, scale: float
) -> tuple[Queries, Float[Tensor, "heads queries"], tuple[Tensor, ...]]:
    """Causal attention within segments, or of all queries to all keys; each query's logsum; what the way back needs."""
    forward = torch.ops.aten._flash_attention_forward
    if segments is not None:
        sizes = segments.bounds, segments.bounds, segments.longest, segments.longest
        output, logsum, *state = forward(query, keys, values, *sizes, 0.0, True, False, scale=scale)[:4]
        return output, logsum, tuple(state)
    whole = None, None, len(query), len(keys)
    output, logsum, *state = forward(query[None], keys[None], values[None], *whole, 0.0, False, False, scale=scale)[:4]
    return output[0], logsum[0], tuple(state)


def _way_back(
    asked: tuple[Queries, Queries, Queries, Float[Tensor, "heads queries"]],
    seen: tuple[Seen, Seen],
    segments: Segments | None,
    scale: float,
    state: tuple[Tensor, ...],
) -> tuple[Queries, Seen, Seen]:
    """Gradients of queries, keys and values.

    Args:
        asked: the output's gradient, queries, and output and logsum of all that they see.
        seen: keys and values of which the gradients are.
        segments: as in `_attended`; likewise `scale`, and `state`, which it gave.
    """
    (gradient, query, output, logsum), (keys, values) = asked, seen
    backward = torch.ops.aten._flash_attention_backward
    if segments is not None:
        sizes = segments.bounds, segments.bounds, segments.longest, segments.longest
        return backward(gradient, query, keys, values, output, logsum, *sizes, 0.0, True, *state, scale=scale)
    given = [each[None] for each in (gradient, query, keys, values, output, logsum)]
    whole = None, None, len(query), len(keys)
    found = backward(*given, *whole, 0.0, False, *state, scale=scale)
    return found[0][0], found[1][0], found[2][0]
