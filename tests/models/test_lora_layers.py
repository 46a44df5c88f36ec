"""Adapted linear layers in few operations, against peft's own and against the formula."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor, nn

from stvg_lightning.models.lora_layers import LeanLoraLinear, Update, lora_linear, make_lora_lean
from tests.helpers import assert_close

INPUTS, OUTPUTS, RANK = 7, 5, 3


def adapted_layer(dropout: float = 0.0, adapters: int = 1, bias: bool = True) -> nn.Module:
    """A linear layer with peft's adapters, all active, whose updates are not zero."""
    torch.manual_seed(0)
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, lora_dropout=dropout, target_modules=["linear"])
    network = get_peft_model(nn.ModuleDict({"linear": nn.Linear(INPUTS, OUTPUTS, bias=bias)}), config)
    for number in range(1, adapters):
        network.add_adapter(f"stage_{number}", config)
    network.base_model.set_adapter(list(network.peft_config))
    layer = network.base_model.model["linear"]
    for weights in layer.lora_B.values():
        nn.init.normal_(weights.weight)
    return layer


def with_gradients(layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """A layer's output, and the gradients of a weighted sum of it."""
    layer.zero_grad()
    x = x.clone().requires_grad_()
    output = layer(x)
    (output.float() * torch.arange(1.0, OUTPUTS + 1)).square().sum().backward()
    found = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    return {"output": output.detach(), "x": x.grad, **found}


@pytest.mark.parametrize("adapters", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_peft_s(adapters: int, bias: bool) -> None:
    theirs = adapted_layer(adapters=adapters, bias=bias)
    ours = copy.deepcopy(theirs)
    make_lora_lean(ours)
    assert type(theirs) is Linear and type(ours) is LeanLoraLinear
    x = torch.randn(2, 4, INPUTS)
    expected, found = with_gradients(theirs, x), with_gradients(ours, x)
    assert found.keys() == expected.keys() and len(found) == 2 + 2 * adapters
    for name, value in expected.items():
        assert_close(found[name], value, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found["output"], ours.base_layer(x)), "the updates count"


def test_gradients_are_those_of_the_formula() -> None:
    given = [torch.randn(shape, dtype=torch.double) for shape in [(2, 4, INPUTS), (RANK, INPUTS), (OUTPUTS, RANK)]]
    x, down, up = (each.requires_grad_() for each in given)
    weight, bias = torch.randn(OUTPUTS, INPUTS, dtype=torch.double), torch.randn(OUTPUTS, dtype=torch.double)

    def layer(x: Tensor, down: Tensor, up: Tensor) -> Tensor:
        return lora_linear(x, weight, bias, [Update(down, up, 2.5)])

    assert_close(layer(x, down, up), x @ weight.T + bias + 2.5 * (x @ down.T) @ up.T, atol=1e-12)
    assert torch.autograd.gradcheck(layer, (x, down, up))
    assert torch.autograd.gradcheck(lambda down: layer(x.detach(), down, up.detach()), (down,))


def test_under_autocast_all_is_in_its_precision_and_gradients_in_the_adapters_own() -> None:
    layer = adapted_layer()
    make_lora_lean(layer)
    exact = with_gradients(layer, torch.full((3, INPUTS), 0.5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = with_gradients(layer, torch.full((3, INPUTS), 0.5))
    assert found["output"].dtype == torch.bfloat16 and found["lora_A.default.weight"].dtype == torch.float32
    for name, value in exact.items():
        assert (found[name] - value).norm() < 0.02 * value.norm(), name


def kept_sizes(layer: nn.Module, x: Tensor) -> list[int]:
    """Numbers in each tensor that is kept for the way back."""
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda kept: (sizes.append(kept.numel()), kept)[1], lambda kept: kept
    ):
        layer(x.requires_grad_()).sum()
    return sizes


def test_the_input_is_kept_once() -> None:
    layer, x = adapted_layer(adapters=2), torch.randn(64, INPUTS)
    assert kept_sizes(layer, x).count(x.numel()) == 2
    make_lora_lean(layer)
    assert kept_sizes(layer, x).count(x.numel()) == 1


@pytest.mark.parametrize("what", ["dropout", "merged", "without", "merged without", "bias"])
def test_what_is_not_plain_is_left_to_peft(what: str) -> None:
    theirs = adapted_layer(dropout=0.5 if what == "dropout" else 0.0)
    ours, x = copy.deepcopy(theirs), torch.randn(4, INPUTS)
    make_lora_lean(ours)
    for layer in (theirs, ours):
        if "merged" in what:
            layer.merge()
        if "without" in what:
            layer.enable_adapters(False)
        layer.base_layer.bias.requires_grad_(what == "bias")
    outputs = []
    for layer in (theirs, ours):
        torch.manual_seed(3)
        outputs.append(layer(x))
    assert torch.equal(*outputs)
    if what == "bias":
        ours(x).sum().backward()
        assert torch.equal(ours.base_layer.bias.grad, torch.full((OUTPUTS,), float(len(x))))
    if what == "dropout":
        assert_close(ours.eval()(x), theirs.eval()(x), atol=1e-6)
