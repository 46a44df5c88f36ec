"""The rotation of queries and keys by one kernel, by Triton's interpreter without a GPU and compiled on one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers.models.llama import modeling_llama
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
from transformers.models.qwen3 import modeling_qwen3
from transformers.models.qwen3_vl import modeling_qwen3_vl

from stvg_lightning.models.fused_layers import fuse_layers
from stvg_lightning.models.loading import VideoLanguageModel
from tests.helpers import needs_gpu
from tests.models.interpreting import interpreted, needs_triton

pytestmark = needs_triton
MODULES = {
    "qwen2_5_vl": modeling_qwen2_5_vl,
    "qwen3_vl": modeling_qwen3_vl,
    "qwen2": modeling_qwen2,
    "qwen3": modeling_qwen3,
    "llama": modeling_llama,
}
# batch, heads, heads of keys, tokens, channels
SHAPES = [(1, 28, 4, 5, 128), (2, 3, 3, 7, 24)]


def largest_difference(family: str, shape: tuple[int, ...], device: str, dtype: torch.dtype) -> float:
    """Between the kernel and transformers' operations in float32: both results and both gradients."""
    from stvg_lightning.models.rotary_kernel import rotate

    batch, heads, key_heads, tokens, width = shape
    torch.manual_seed(0)
    # As layers give them: the channels of all heads of a token one after the other.
    states = [torch.randn(batch, tokens, count, width).transpose(1, 2) for count in (heads, key_heads)]
    angles = [torch.randn(1, tokens, width) for _ in range(2)]
    wanted = [torch.randn(each.shape) for each in states]
    given = [each.to(device, dtype) for each in (*states, *angles, *wanted)]

    def results(rotation: object, *tensors: Tensor) -> list[Tensor]:
        turned, (cosine, sine), gradients = tensors[:2], tensors[2:4], tensors[4:]
        turned = [each.detach().requires_grad_() for each in turned]
        output = rotation(*turned, cosine, sine)
        return [*output, *torch.autograd.grad(output, turned, gradients)]

    theirs = MODULES[family].apply_rotary_pos_emb
    theirs = getattr(theirs, "__wrapped__", theirs)
    pairs = zip(results(rotate, *given), results(theirs, *(each.float() for each in given)), strict=True)
    return float(torch.stack([(found.float() - expected).abs().max() for found, expected in pairs]).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_interpreted_it_gives_what_transformers_operations_give(shape: tuple[int, ...]) -> None:
    of_all = f"max(largest_difference(family, {shape}, 'cpu', torch.float32) for family in MODULES)"
    assert interpreted(f"from {__name__} import *; {of_all}") < 1e-5


@needs_gpu
@pytest.mark.parametrize("family", MODULES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype, most", [(torch.float32, 1e-5), (torch.bfloat16, 5e-2)])
def test_compiled_it_gives_what_transformers_operations_give(
    family: str, shape: tuple[int, ...], dtype: torch.dtype, most: float
) -> None:
    assert largest_difference(family, shape, "cuda", dtype) < most


def test_models_of_a_kind_have_it_once(model: VideoLanguageModel) -> None:
    rotation = modeling_qwen2_5_vl.apply_rotary_pos_emb
    assert rotation.is_fused
    fuse_layers(model.network)
    assert modeling_qwen2_5_vl.apply_rotary_pos_emb is rotation
    states = torch.randn(1, 4, 3, 8)
    angles = torch.randn(2, 1, 3, 8)
    expected = rotation.__wrapped__(states, states[:, :2], *angles)
    assert all(torch.equal(*pair) for pair in zip(rotation(states, states[:, :2], *angles), expected, strict=True))
