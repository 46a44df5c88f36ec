"""The head on scored tokens: values and gradients of a frozen one and of one that learns, and the kernels."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from stvg_lightning.models import head
from stvg_lightning.models.head import chosen_statistics
from tests.helpers import assert_close, needs_gpu
from tests.models.interpreting import interpreted, needs_triton

WIDTH, VOCABULARY, TOKENS, BANNED = 16, 50, 7, (3, 49)


class HeadAlone(PreTrainedModel):
    """What `chosen_statistics` uses of a model: its head, and which tokens are banned."""

    def __init__(self, has_bias: bool) -> None:
        super().__init__(PreTrainedConfig(vocab_size=VOCABULARY, image_token_id=BANNED[0], video_token_id=BANNED[1]))
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=has_bias)
        nn.init.normal_(self.lm_head.weight, std=0.4)


def model_with_head(device: str = "cpu", dtype: torch.dtype = torch.float32, has_bias: bool = False) -> HeadAlone:
    torch.manual_seed(0)
    return HeadAlone(has_bias).to(device, dtype)


def given(device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """States, tokens that may be chosen, and what each log-probability's gradient is multiplied by."""
    torch.manual_seed(1)
    hidden, token_ids = torch.randn(TOKENS, WIDTH), torch.randint(4, VOCABULARY - 1, (TOKENS,))
    return hidden.to(device, dtype).requires_grad_(), token_ids.to(device), torch.randn(TOKENS, device=device)


def naive(model: HeadAlone, hidden: Tensor, token_ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Token by token over the tokens that are left when banned ones are taken away, in double precision."""
    allowed = [token for token in range(VOCABULARY) if token not in BANNED]
    weight = model.lm_head.weight.double()[allowed]
    bias = 0.0 if model.lm_head.bias is None else model.lm_head.bias.double()[allowed]
    log_probs, entropies = [], []
    for state, token in zip(hidden.double(), token_ids.tolist(), strict=True):
        found = torch.log_softmax((weight @ state + bias) / temperature, dim=0)
        log_probs.append(found[allowed.index(token)])
        entropies.append(-(found.exp() * found).sum())
    return torch.stack(log_probs), torch.stack(entropies)


@pytest.mark.parametrize("learns, has_bias", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("chunk_tokens", [1024, 3])
def test_values_and_gradients_are_those_of_a_naive_softmax(
    learns: bool, has_bias: bool, temperature: float, chunk_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "HEAD_CHUNK_LOGITS", chunk_tokens * VOCABULARY)
    model, (hidden, token_ids, wanted) = model_with_head(has_bias=has_bias), given()
    model.lm_head.requires_grad_(learns)
    asked = [hidden, model.lm_head.weight] if learns else [hidden]
    log_probs, entropies = chosen_statistics(model, hidden, token_ids, temperature)
    expected, expected_entropies = naive(model, hidden, token_ids, temperature)
    assert_close(log_probs, expected.float(), atol=1e-5)
    assert_close(entropies, expected_entropies.float(), atol=1e-5)
    assert log_probs.dtype == torch.float32 and not entropies.requires_grad
    gradients = torch.autograd.grad(log_probs, asked, wanted)
    of_naive = torch.autograd.grad(expected, asked, wanted.double())
    for found, exact in zip(gradients, of_naive, strict=True):
        assert_close(found / exact.norm(), exact / exact.norm(), atol=1e-6)


def test_without_gradients_values_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (hidden, token_ids, _) = model_with_head(), given()
    found = []
    for learns in (False, True):
        model.lm_head.requires_grad_(learns)
        with torch.no_grad():
            found += chosen_statistics(model, hidden, token_ids, 1.0)
        found += chosen_statistics(model, hidden, token_ids, 1.0)
    for one, other in zip(found, found[2:], strict=False):
        assert_close(one, other, atol=1e-6)


@pytest.mark.parametrize("learns", [False, True])
def test_under_autocast_products_alone_are_rounded(learns: bool) -> None:
    model, (hidden, token_ids, wanted) = model_with_head(), given()
    model.lm_head.requires_grad_(learns)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_probs, entropies = chosen_statistics(model, hidden, token_ids, 1.0)
    expected = naive(model, hidden, token_ids, 1.0)
    (gradient,), (exact,) = (torch.autograd.grad(each, hidden, wanted.to(each)) for each in (log_probs, expected[0]))
    assert log_probs.dtype == entropies.dtype == gradient.dtype == torch.float32
    pairs = (log_probs, expected[0]), (entropies, expected[1]), (gradient, exact)
    off = [float((found - value).detach().norm() / value.detach().norm()) for found, value in pairs]
    assert max(off) < 1e-2, "of 8 bits"


def test_no_tokens_have_no_statistics() -> None:
    model, (hidden, token_ids, _) = model_with_head(), given()
    model.lm_head.requires_grad_(False)
    log_probs, entropies = chosen_statistics(model, hidden[:0], token_ids[:0], 1.0)
    assert log_probs.shape == entropies.shape == (0,)
    log_probs.sum().backward()
    assert not hidden.grad.any()


def test_a_frozen_head_has_first_derivatives_alone() -> None:
    model, (hidden, token_ids, _) = model_with_head(), given()
    model.lm_head.requires_grad_(False)
    log_probs, _ = chosen_statistics(model, hidden, token_ids, 1.0)
    (gradient,) = torch.autograd.grad(log_probs.square().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_a_frozen_head_keeps_a_vector_for_each_token() -> None:
    model, (hidden, token_ids, _) = model_with_head(), given()
    model.lm_head.requires_grad_(False)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: (kept.append(each), each)[1], lambda each: each):
        chosen_statistics(model, hidden, token_ids, 1.0)
    assert [each.shape for each in kept] == [(TOKENS, WIDTH)]


def test_a_head_that_is_watched_is_called_as_it_is() -> None:
    model, (hidden, token_ids, wanted) = model_with_head(), given()
    model.lm_head.requires_grad_(False)
    doubled = copy.deepcopy(model)
    doubled.lm_head.weight.data *= 2.0
    model.lm_head.register_forward_hook(lambda _layer, _given, logits: 2.0 * logits)
    found = [chosen_statistics(each, hidden, token_ids, 1.0)[0] for each in (model, doubled)]
    assert_close(found[0], found[1], atol=1e-6)
    gradients = [torch.autograd.grad(each, hidden, wanted)[0] for each in found]
    assert_close(gradients[0], gradients[1], atol=1e-5)


def kernels_off(size: int, device: str, dtype: torch.dtype, temperature: float = 0.6) -> float:
    """How far the kernels are off torch's operations in double precision: all statistics, and the slopes."""
    from stvg_lightning.models.head_kernel import statistics_of_logits, turn_into_slopes

    torch.manual_seed(0)
    logits = (4.0 * torch.randn(5, 2 * size)).to(device, dtype)[:, :size]  # rows that do not follow one another
    token_ids = torch.tensor([size - 1, 2, 2, size // 2, 7]).to(device)
    bias = torch.zeros(size, device=device)
    bias[[0, 5, size - 3]] = float("-inf")
    exact = (logits.double() / temperature + bias).requires_grad_()
    log_shares = exact.log_softmax(-1)
    log_probs = log_shares.gather(1, token_ids[:, None])[:, 0]
    entropies = -(log_shares.exp() * log_shares.nan_to_num(neginf=0.0)).sum(-1)
    (slopes,) = torch.autograd.grad(log_probs.sum(), exact)
    *found, logsums = statistics_of_logits(logits, token_ids, bias, temperature)
    found += [logsums, turn_into_slopes(logits, token_ids, bias, temperature, logsums)]
    expected = log_probs, entropies, exact.logsumexp(-1), slopes / temperature
    return float(torch.stack([(one - other).abs().max() for one, other in zip(found, expected, strict=True)]).max())


SIZES = [9, 4096, 10_001]


@needs_triton
@pytest.mark.parametrize("size", SIZES)
def test_interpreted_kernels_give_what_torch_s_operations_give(size: int) -> None:
    assert interpreted(f"from {__name__} import *; kernels_off({size}, 'cpu', torch.float32)") < 1e-5


@needs_gpu
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype, most", [(torch.float32, 1e-5), (torch.bfloat16, 5e-3)])
def test_compiled_kernels_give_what_torch_s_operations_give(size: int, dtype: torch.dtype, most: float) -> None:
    assert kernels_off(size, "cuda", dtype) < most, "slopes alone are rounded to half precision"


@needs_gpu
@pytest.mark.parametrize("dtype, most", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("chunk_tokens", [1024, 3])
def test_on_a_gpu_values_and_gradients_are_those_of_a_naive_softmax(
    dtype: torch.dtype, most: float, chunk_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "HALF_CHUNK_LOGITS", chunk_tokens * VOCABULARY)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    model, (hidden, token_ids, wanted) = model_with_head("cuda", dtype), given("cuda", dtype)
    model.lm_head.requires_grad_(False)
    found = chosen_statistics(model, hidden, token_ids, 0.6)
    expected = naive(model, hidden, token_ids, 0.6)
    for one, exact in zip(found, expected, strict=True):
        assert float((one - exact).norm() / exact.norm()) < most
    gradient, exact = (torch.autograd.grad(each[0], hidden, wanted.to(each[0]))[0] for each in (found, expected))
    assert float((gradient - exact).norm() / exact.norm()) < most
