"""Norms by one kernel, by Triton's interpreter without a GPU and compiled on one."""

from __future__ import annotations

import pytest
import torch

from tests.helpers import needs_gpu
from tests.models.interpreting import interpreted, needs_triton

# Rows of queries of several heads, too, of which each is a part of a wider one.
SHAPES = [(3, 3584), (1, 4, 6, 128), (2, 40), (0, 16)]


def largest_difference(shape: tuple[int, ...], device: str, dtype: torch.dtype) -> float:
    """Between the kernel and the formula in double precision."""
    from stvg_lightning.models.norm_kernel import normed

    torch.manual_seed(0)
    *batch, width = shape
    states = torch.randn(*batch, 2 * width).to(device, dtype)[..., :width]
    weight = torch.randn(width).to(device, dtype)
    exact = weight.double() * states.double() / (states.double().square().mean(-1, keepdim=True) + 0.1).sqrt()
    found = normed(states, weight, 0.1)
    assert found.dtype == dtype and found.shape == exact.shape
    return float((found.double() - exact).abs().max()) if found.numel() else 0.0


@needs_triton
@pytest.mark.parametrize("shape", SHAPES)
def test_interpreted_it_gives_what_the_formula_gives(shape: tuple[int, ...]) -> None:
    assert interpreted(f"from {__name__} import *; largest_difference({shape}, 'cpu', torch.float32)") < 1e-5


@needs_gpu
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype, most", [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_compiled_it_gives_what_the_formula_gives(shape: tuple[int, ...], dtype: torch.dtype, most: float) -> None:
    assert largest_difference(shape, "cuda", dtype) < most
