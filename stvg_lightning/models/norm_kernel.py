"""Norms by the root of the mean square as one Triton kernel, for NVIDIA GPUs and passes without gradients.

With torch's own kernel, made for many rows, an H200 took 2 % longer to write 128 completions of a 7B model.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor


def normed(
    states: Float[Tensor, "*batch channels"], weight: Float[Tensor, " channels"], epsilon: float
) -> Float[Tensor, "*batch channels"]:
    """`weight * states / sqrt(mean(states ** 2) + epsilon)`, in float32, rounded once, without gradients."""
    rows = states.reshape(-1, states.shape[-1])
    if rows.stride(-1) != 1:
        rows = rows.contiguous()
    output = rows.new_empty(rows.shape)
    num_rows, width = rows.shape
    assert weight.shape == (width,) and weight.stride(0) == 1, (weight.shape, weight.stride(), width)
    if num_rows:
        padded = triton.next_power_of_2(width)
        with torch.cuda.device_of(rows):  # Triton launches on the current device
            _normed[(num_rows,)](
                rows, weight, output, epsilon, rows.stride(0),
                WIDTH=width, PADDED_WIDTH=padded, num_warps=min(8, max(1, padded // 512)),
            )  # fmt: skip
    return output.view(states.shape)


@triton.jit
@no_type_check  # Triton compiles the source: nothing may be wrapped around it
def _normed(states, weight, output, epsilon, of_row, WIDTH: tl.constexpr, PADDED_WIDTH: tl.constexpr):
    """One row, by one block."""
    row, channel = tl.program_id(0).to(tl.int64), tl.arange(0, PADDED_WIDTH)
    there = channel < WIDTH
    state = tl.load(states + row * of_row + channel, mask=there, other=0.0).to(tl.float32)
    factor = tl.rsqrt(tl.sum(state * state, 0) / WIDTH + epsilon)
    scaled = state * factor * tl.load(weight + channel, mask=there, other=0.0).to(tl.float32)
    tl.store(output + row * WIDTH + channel, scaled.to(output.dtype.element_ty), mask=there)
