"""What passes the gate of a gated layer, `silu(gate) * up`, as one Triton kernel each way, for NVIDIA GPUs."""

from __future__ import annotations

from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

NUMBERS_AT_ONCE, WARPS = 4096, 8


def gated(gate: Float[Tensor, "*batch width"], up: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
    """`silu(gate) * up`, computed in float32 and rounded once, with gradients for both; first derivatives only."""
    return _Gated.apply(gate, up)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        output = torch.empty_like(gate)
        _launch(_forward, gate, up, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        found = torch.empty_like(gate), torch.empty_like(up)
        _launch(_backward, gate, up, gradients[0].contiguous(), *found)
        return found


def _launch(kernel: Any, *tensors: Tensor) -> None:
    count = tensors[0].numel()
    assert all(each.numel() == count for each in tensors), [each.shape for each in tensors]
    if count:
        with torch.cuda.device_of(tensors[0]):  # Triton launches on the current device
            grid = (triton.cdiv(count, NUMBERS_AT_ONCE),)
            kernel[grid](*tensors, count, NUMBERS_AT_ONCE=NUMBERS_AT_ONCE, num_warps=WARPS)


@triton.jit
@no_type_check  # Triton compiles the source: nothing may be wrapped around it
def _forward(gates, ups, outputs, count, NUMBERS_AT_ONCE: tl.constexpr):
    """Some numbers, wherever they stand."""
    place = tl.program_id(0).to(tl.int64) * NUMBERS_AT_ONCE + tl.arange(0, NUMBERS_AT_ONCE)
    there = place < count
    gate = tl.load(gates + place, mask=there, other=0.0).to(tl.float32)
    up = tl.load(ups + place, mask=there, other=0.0).to(tl.float32)
    tl.store(outputs + place, (gate * tl.sigmoid(gate) * up).to(outputs.dtype.element_ty), mask=there)


@triton.jit
@no_type_check  # Triton compiles the source: nothing may be wrapped around it
def _backward(gates, ups, gradients, of_gates, of_ups, count, NUMBERS_AT_ONCE: tl.constexpr):
    """The slope of silu is `sigmoid(gate) * (1 + gate * (1 - sigmoid(gate)))`."""
    place = tl.program_id(0).to(tl.int64) * NUMBERS_AT_ONCE + tl.arange(0, NUMBERS_AT_ONCE)
    there = place < count
    gate = tl.load(gates + place, mask=there, other=0.0).to(tl.float32)
    up = tl.load(ups + place, mask=there, other=0.0).to(tl.float32)
    gradient = tl.load(gradients + place, mask=there, other=0.0).to(tl.float32)
    opened = tl.sigmoid(gate)
    slope = opened * (1.0 + gate * (1.0 - opened))
    tl.store(of_gates + place, (gradient * up * slope).to(of_gates.dtype.element_ty), mask=there)
    tl.store(of_ups + place, (gradient * gate * opened).to(of_ups.dtype.element_ty), mask=there)
