"""Fused norms against transformers' own."""

from __future__ import annotations

import copy
import pickle
import sys
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRMSNorm

from stvg_lightning.models import fused_layers
from stvg_lightning.models.fused_layers import fuse_layers, plain_kind
from stvg_lightning.models.loading import VideoLanguageModel
from tests.helpers import needs_gpu
from tests.rollouts.recordings import autocast_on_an_imagined_gpu


def fused(norm: torch.nn.Module) -> torch.nn.Module:
    made = copy.deepcopy(norm)
    fuse_layers(made)
    return made


def test_every_norm_of_a_language_model_is_fused(model: VideoLanguageModel) -> None:
    norms = [part for part in model.network.model.language_model.modules() if hasattr(part, "variance_epsilon")]
    assert norms and all(plain_kind(norm) is not type(norm) for norm in norms)


def test_elsewhere_than_on_a_gpu_nothing_changes() -> None:
    norm = Qwen2_5_VLRMSNorm(16)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 16)
    assert torch.equal(fused(norm)(x), norm(x)) and type(norm) is Qwen2_5_VLRMSNorm


def test_a_fused_norm_can_be_pickled() -> None:
    norm = fused(Qwen2_5_VLRMSNorm(16))
    torch.nn.init.normal_(norm.weight)
    again = pickle.loads(pickle.dumps(norm))
    assert type(again) is type(norm) and torch.equal(again.weight, norm.weight)
    assert torch.equal(again(torch.ones(16)), norm(torch.ones(16)))


def test_a_lack_of_memory_is_no_lack_of_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(fused_layers, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(1, 1, 1, 2))
    monkeypatch.setitem(sys.modules, "stvg_lightning.models.rotary_kernel", SimpleNamespace(rotate=full))
    with pytest.raises(torch.OutOfMemoryError):
        fused_layers.runs_triton.__wrapped__(torch.device("cuda"))


def test_autocast_leaves_half_precision_as_it_is() -> None:
    norm = fused(Qwen2_5_VLRMSNorm(16))
    with FakeTensorMode(), torch.device("cuda:0"), autocast_on_an_imagined_gpu(torch.bfloat16):
        norm.weight = torch.nn.Parameter(torch.empty(16, dtype=torch.bfloat16))
        assert norm(torch.empty(3, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16


@needs_gpu
def test_on_a_gpu_values_and_gradients_are_those_of_float32() -> None:
    norm = Qwen2_5_VLRMSNorm(256)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(30, 256).bfloat16()
    found = []
    for layer in (norm.to(torch.bfloat16).float(), fused(norm).to("cuda", torch.bfloat16)):
        given = x.to(layer.weight).requires_grad_()
        output = layer(given)
        output.float().square().sum().backward()
        found.append([each.detach().float().cpu() for each in (output, given.grad, layer.weight.grad)])
    with torch.no_grad():  # by another kernel
        found[0].append(found[0][0])
        found[1].append(layer(given).float().cpu())
    for exact, rounded in zip(*found, strict=True):
        assert float((rounded - exact).norm() / exact.norm()) < 5e-3, "half precision is 3e-3 off at the most"
