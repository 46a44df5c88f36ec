"""Adapted layers that run together while nothing learns, against each by itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from stvg_lightning.models import lora_siblings
from stvg_lightning.models.lora_layers import LeanLoraLinear, make_lora_lean
from stvg_lightning.models.lora_siblings import adapters_held
from tests.helpers import assert_close, needs_gpu

WIDTH = 48
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj")


class Layer(nn.Module):
    """Layers that read one input and layers that read another, as a language model has them."""

    def __init__(self) -> None:
        super().__init__()
        for name, outputs in zip(ALL, (32, 16, 16, WIDTH, 64, 64), strict=True):
            setattr(
                self, name, nn.Linear(32 if name == "o_proj" else WIDTH, outputs, bias=name in ("q_proj", "v_proj"))
            )

    def forward(self, x: Tensor) -> Tensor:
        taken = self.o_proj(self.q_proj(x) * torch.cat([self.k_proj(x), self.v_proj(x)], dim=-1))
        return torch.cat([taken, F.silu(self.gate_proj(taken)) * self.up_proj(taken)], dim=-1)


def adapted(targets: tuple[str, ...] = ALL, adapters: int = 1) -> nn.Module:
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=list(targets))
    network = get_peft_model(Layer(), config)
    for number in range(1, adapters):
        network.add_adapter(f"stage_{number}", config)
    network.base_model.set_adapter(list(network.peft_config))
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    make_lora_lean(network)
    return network


@pytest.mark.parametrize("targets", [ALL, ("q_proj", "v_proj", "up_proj")], ids=["all", "some"])
@pytest.mark.parametrize("adapters", [1, 2])
def test_together_layers_give_what_each_gives(targets: tuple[str, ...], adapters: int) -> None:
    network, inputs = adapted(targets, adapters).double(), torch.randn(2, 2, 3, WIDTH, dtype=torch.double)
    expected = [network(x).detach() for x in inputs]
    with torch.no_grad(), adapters_held(network):
        for x, output in zip(inputs, expected, strict=True):
            assert_close(network(x), output, rtol=1e-12, atol=1e-12)
            assert_close(network(x), output, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(expected[0], network.base_model.model(torch.zeros_like(inputs[0])))


def test_without_adapters_none_counts() -> None:
    network, x = adapted(), torch.randn(2, WIDTH)
    with torch.no_grad(), network.disable_adapter():
        expected = network(x)
        with adapters_held(network):
            assert torch.equal(network(x), expected)


def test_a_layer_that_is_not_plain_computes_by_itself() -> None:
    network, x = adapted(), torch.randn(2, WIDTH)
    layer = network.base_model.model
    layer.k_proj.base_layer.weight.requires_grad_()
    expected = network(x)
    with torch.no_grad(), adapters_held(network):
        assert layer.k_proj.shortcut is None and layer.q_proj.shortcut is layer.v_proj.shortcut is not None
        assert_close(network(x) / expected.norm(), expected / expected.norm())


def test_other_adapters_and_gradients_are_not_those_of_the_beginning() -> None:
    network, x = adapted(adapters=2), torch.randn(2, WIDTH)
    with adapters_held(network):
        assert network(x).requires_grad
        with torch.no_grad():
            both = network(x)
            network.base_model.set_adapter("default")
            one = network(x)
    network.base_model.set_adapter("default")
    assert_close(one, network(x).detach(), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(one, both)
    network.base_model.set_adapter([])
    with torch.no_grad(), adapters_held(network):
        assert torch.equal(network(x), network.base_model.model(x))


def test_a_cast_belongs_to_the_branch_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where weights are cast, a product on a stream of its own must not read what another stream still writes."""
    network, x, branches = adapted(), torch.randn(2, WIDTH), list[int]()
    at = [0]

    @contextmanager
    def branch(self: object, place: int) -> Iterator[None]:
        at.append(place)
        yield
        at.pop()

    cast = Tensor.to
    monkeypatch.setattr(lora_siblings._Beside, "branch", branch)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), adapters_held(network):
        network(x)
        monkeypatch.setattr(
            Tensor,
            "to",
            lambda given, *how: (branches.append(at[-1]) if given.dim() == 2 else None, cast(given, *how))[1],
        )
        layer = network.base_model.model
        layer.q_proj(x.bfloat16())
        monkeypatch.undo()
    assert [place for place in branches if place > 0] == [1, 2], "k's and v's weights, each in its own"


def test_layers_that_read_the_same_run_once_and_in_their_order() -> None:
    layer = adapted().base_model.model
    x, other = torch.randn(2, WIDTH), torch.randn(2, WIDTH)
    with torch.no_grad(), adapters_held(layer):
        assert layer.q_proj.shortcut is layer.v_proj.shortcut is not layer.gate_proj.shortcut
        products: list[tuple[int, ...]] = []
        count(layer.q_proj.shortcut, products)
        first = layer.q_proj(x), layer.k_proj(x)
        assert len(products) == 1
        # Another input in between, and the same again: what was computed of the first is of no use any more.
        changed = layer.k_proj(other)
        assert_close(layer.k_proj(x), first[1], atol=0.0)
        assert len(products) == 3 and not torch.equal(changed, first[1])
        x.add_(1.0)
        assert_close(layer.k_proj(x), F.linear(x, weight_of(layer.k_proj)), rtol=1e-4, atol=1e-4)
    assert all(part.shortcut is None for part in layer.modules() if isinstance(part, LeanLoraLinear))


def count(siblings: object, products: list[tuple[int, ...]]) -> None:
    computed = siblings._outputs_of_all
    siblings._outputs_of_all = lambda x: (products.append(tuple(x.shape)), computed(x))[1]


def weight_of(layer: LeanLoraLinear) -> Tensor:
    """With its adapters added."""
    updates = [scale * up @ down for down, up, scale in layer.updates]
    return layer.base_layer.weight + sum(updates)


def test_adapters_are_cast_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = adapted(), torch.randn(2, WIDTH)
    casts: list[torch.Size] = []
    cast = Tensor.to
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        expected = network(x)
        with adapters_held(network):
            network(x)
            monkeypatch.setattr(Tensor, "to", lambda given, *how: (casts.append(given.shape), cast(given, *how))[1])
            assert network(x).dtype == expected.dtype
            monkeypatch.undo()
        assert casts and not any(4 in shape for shape in casts), "no matrix of rank 4 is cast again"
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
        assert torch.equal(network(x), network.base_model.model(x)), "nothing is kept afterwards"


@needs_gpu
def test_on_a_gpu_layers_beside_each_other_give_the_same_eager_and_recorded() -> None:
    network = adapted().double()
    with torch.no_grad():
        x = torch.randn(128, WIDTH, dtype=torch.double)
        expected = network(x)
        ours, given = copy.deepcopy(network).to("cuda"), x.to("cuda")
        with adapters_held(ours):
            for _ in range(3):
                assert_close(ours(given).cpu(), expected, rtol=1e-9, atol=1e-9)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                output = ours(given)
            given.copy_(2.0 * given)
            graph.replay()
            assert_close(output.cpu(), network(2.0 * x), rtol=1e-9, atol=1e-9)
