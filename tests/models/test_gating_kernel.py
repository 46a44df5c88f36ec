"""What passes a gate by one kernel, by Triton's interpreter without a GPU and compiled on one."""

from __future__ import annotations

import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP

from stvg_lightning.models.fused_layers import fuse_layers, plain_kind
from stvg_lightning.models.loading import VideoLanguageModel
from tests.helpers import needs_gpu
from tests.models.interpreting import interpreted, needs_triton

SHAPES = [(5,), (3, 7, 1000), (0, 8)]


def largest_difference(shape: tuple[int, ...], device: str, dtype: torch.dtype) -> float:
    """Between the kernel and torch's operations in float32: the result and both gradients."""
    from stvg_lightning.models.gating_kernel import gated

    torch.manual_seed(0)
    # Not one number after the other, as parts of a wider product are not.
    gate, up, wanted = (torch.randn(*shape, 2)[..., 0] for _ in range(3))

    def results(function: object, *tensors: Tensor) -> list[Tensor]:
        given = [each.detach().to(device, dtype).requires_grad_() for each in tensors]
        output = function(*given)
        return [output, *torch.autograd.grad(output, given, wanted.to(device, output.dtype))]

    rounded = [each.to(dtype).float() for each in (gate, up)]
    found = results(gated, gate, up)
    dtype = torch.float32
    expected = results(lambda gate, up: F.silu(gate) * up, *rounded)
    pairs = zip(found, expected, strict=True)
    off = [(one.cpu().float() - other.cpu()).abs().flatten() for one, other in pairs]
    return float(torch.cat([torch.zeros(1), *off]).max())  # NaN where one of them is


@needs_triton
@pytest.mark.parametrize("shape", SHAPES)
def test_interpreted_it_gives_what_torch_s_operations_give(shape: tuple[int, ...]) -> None:
    assert interpreted(f"from {__name__} import *; largest_difference({shape}, 'cpu', torch.float32)") < 1e-5


@needs_gpu
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype, most", [(torch.float32, 1e-5), (torch.bfloat16, 1e-1)])
def test_compiled_it_gives_what_torch_s_operations_give(
    shape: tuple[int, ...], dtype: torch.dtype, most: float
) -> None:
    assert largest_difference(shape, "cuda", dtype) < most


def gated_layer(activation: str = "silu") -> Qwen2MLP:
    torch.manual_seed(0)
    return Qwen2MLP(Qwen2Config(hidden_size=8, intermediate_size=24, hidden_act=activation))


def test_every_gated_layer_of_a_language_model_is_fused(model: VideoLanguageModel) -> None:
    layers = [part for part in model.network.model.language_model.modules() if hasattr(part, "gate_proj")]
    assert layers and all(plain_kind(layer) is not type(layer) for layer in layers)


def test_elsewhere_than_on_a_gpu_nothing_changes() -> None:
    fused, plain = gated_layer(), gated_layer()
    fuse_layers(fused)
    kind = type(fused)
    fuse_layers(fused)
    x = torch.randn(3, 8)
    assert type(fused) is kind is not type(plain) and torch.equal(fused(x), plain(x))


def test_a_gate_that_opens_otherwise_stays_what_it_is() -> None:
    layer = gated_layer("gelu")
    fuse_layers(layer)
    assert type(layer) is Qwen2MLP


def test_a_fused_layer_can_be_pickled() -> None:
    layer = gated_layer()
    fuse_layers(layer)
    again = pickle.loads(pickle.dumps(layer))
    assert type(again) is type(layer) and torch.equal(again(torch.ones(8)), layer(torch.ones(8)))


@needs_gpu
def test_on_a_gpu_values_and_gradients_are_those_of_float32() -> None:
    found = []
    x = torch.randn(30, 8).bfloat16()
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        layer = gated_layer().to(torch.bfloat16).to(device, dtype)
        fuse_layers(layer)
        given = x.to(device, dtype).requires_grad_()
        output = layer(given)
        output.float().square().sum().backward()
        found.append([each.detach().float().cpu() for each in (output, given.grad, layer.gate_proj.weight.grad)])
    for exact, rounded in zip(*found, strict=True):
        assert float((rounded - exact).norm() / exact.norm()) < 1e-2, "half precision is 3e-3 off with each product"
