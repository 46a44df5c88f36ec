"""Rotations of queries and keys by their positions as one Triton kernel, for NVIDIA GPUs."""

from __future__ import annotations

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor


def rotate(
    query: Float[Tensor, "batch heads tokens width"],
    key: Float[Tensor, "batch key_heads tokens width"],
    cosine: Float[Tensor, "#batch tokens width"],
    sine: Float[Tensor, "#batch tokens width"],
) -> tuple[Float[Tensor, "batch heads tokens width"], Float[Tensor, "batch key_heads tokens width"]]:
    """Queries and keys turned: `x * cosine + (-x's second half, x's first half) * sine`, with gradients for both.

    Everything is computed in float32 and rounded once. `cosine` and `sine` get no gradient.
    """
    return _Rotation.apply(query, key, cosine, sine)


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(cosine, sine)
        return _rotated((query, key), cosine, sine, is_back=False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        cosine, sine = ctx.saved_tensors
        return (*_rotated(gradients, cosine, sine, is_back=True), None, None)


def _rotated(states: tuple[Tensor, ...], cosine: Tensor, sine: Tensor, is_back: bool) -> tuple[Tensor, Tensor]:
    """Queries and keys turned forward or, as their gradients are, back; token by token, as layers give them."""
    query, key = (each if each.stride(-1) == 1 else each.contiguous() for each in states)
    batch, _, tokens, width = query.shape
    cosine, sine = (each.contiguous().expand(batch, -1, -1) for each in (cosine, sine))
    assert width % 2 == 0, width
    outputs = [each.new_empty(batch, tokens, each.shape[1], width) for each in (query, key)]
    with torch.cuda.device_of(query):  # Triton launches on the current device
        _turn_both[(tokens, batch)](
            query, key, cosine, sine, *outputs,
            tokens, *query.stride()[:3], *key.stride()[:3], *cosine.stride()[:2],
            HEADS=query.shape[1], KEY_HEADS=key.shape[1], PADDED_HEADS=triton.next_power_of_2(query.shape[1]),
            PADDED_KEY_HEADS=triton.next_power_of_2(key.shape[1]), HALF=width // 2,
            PADDED_HALF=triton.next_power_of_2(width // 2), IS_BACK=is_back,
        )  # fmt: skip
    return outputs[0].transpose(1, 2), outputs[1].transpose(1, 2)


@triton.jit
@no_type_check  # Triton compiles the source: nothing may be wrapped around it
def _turn_both(
    query, key, cosine, sine, query_output, key_output,
    num_tokens, query_row, query_head, query_token, key_row, key_head, key_token, angle_row, angle_token,
    HEADS: tl.constexpr, KEY_HEADS: tl.constexpr, PADDED_HEADS: tl.constexpr, PADDED_KEY_HEADS: tl.constexpr,
    HALF: tl.constexpr, PADDED_HALF: tl.constexpr, IS_BACK: tl.constexpr,
):  # fmt: skip
    """All heads of one token."""
    token, row = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    channel, place = tl.arange(0, PADDED_HALF), row * num_tokens + token
    angle, there = row * angle_row + token * angle_token + channel, channel < HALF
    low_cosine = tl.load(cosine + angle, mask=there, other=0.0).to(tl.float32)[None]
    high_cosine = tl.load(cosine + angle + HALF, mask=there, other=0.0).to(tl.float32)[None]
    low_sine = tl.load(sine + angle, mask=there, other=0.0).to(tl.float32)[None]
    high_sine = tl.load(sine + angle + HALF, mask=there, other=0.0).to(tl.float32)[None]
    angles = low_cosine, high_cosine, low_sine, high_sine
    _turn(
        query + row * query_row + token * query_token, query_head, query_output + place * HEADS * 2 * HALF, angles,
        HEADS, PADDED_HEADS, HALF, PADDED_HALF, IS_BACK,
    )  # fmt: skip
    _turn(
        key + row * key_row + token * key_token, key_head, key_output + place * KEY_HEADS * 2 * HALF, angles,
        KEY_HEADS, PADDED_KEY_HEADS, HALF, PADDED_HALF, IS_BACK,
    )  # fmt: skip


@triton.jit
@no_type_check  # Triton compiles the source: nothing may be wrapped around it
def _turn(
    states, of_head, output, angles,
    HEADS: tl.constexpr, PADDED_HEADS: tl.constexpr, HALF: tl.constexpr, PADDED_HALF: tl.constexpr,
    IS_BACK: tl.constexpr,
):  # fmt: skip
    """The heads of one token, each channel of the first half with its counterpart of the second."""
    low_cosine, high_cosine, low_sine, high_sine = angles
    head, channel = tl.arange(0, PADDED_HEADS)[:, None], tl.arange(0, PADDED_HALF)[None]
    there = (head < HEADS) & (channel < HALF)
    low = tl.load(states + head * of_head + channel, mask=there, other=0.0).to(tl.float32)
    high = tl.load(states + head * of_head + HALF + channel, mask=there, other=0.0).to(tl.float32)
    if IS_BACK:  # the transposed matrix: each sine stands at the other half, with the other sign
        new_low, new_high = low * low_cosine + high * high_sine, high * high_cosine - low * low_sine
    else:
        new_low, new_high = low * low_cosine - high * low_sine, high * high_cosine + low * high_sine
    place = output + head * 2 * HALF + channel
    tl.store(place, new_low.to(output.dtype.element_ty), mask=there)
    tl.store(place + HALF, new_high.to(output.dtype.element_ty), mask=there)
