"""The next token of completions: as probable as the model says, and each group's noise its own."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from stvg_lightning.models.head import banned_token_ids, next_token_log_probs
from stvg_lightning.models.loading import VideoLanguageModel, load_model
from stvg_lightning.rollouts.choosing import Groups, KernelChooser, TorchChooser, chooser_of
from tests.helpers import assert_close, needs_gpu
from tests.models.interpreting import interpreted, needs_triton

SIZE = 9000  # more than one stretch of the kernel, and the last one not full


def by_kernel(logits: Tensor, temperature: float, rows: Tensor, seeds: Tensor, group_size: int, step: int) -> tuple:
    from stvg_lightning.models.choosing_kernel import choose

    bias = torch.zeros(logits.shape[1], device=logits.device)
    bias[3] = float("-inf")
    return choose(logits, bias, temperature, rows, seeds, group_size, step)


def error_of_log_probs(device: str, dtype: torch.dtype, temperature: float) -> float:
    """Of the chosen tokens, against torch's logarithm of softmax; greedy tokens must be the highest."""
    torch.manual_seed(0)
    logits = torch.randn(6, SIZE).to(device, dtype)
    logits[:, 3] = 100.0
    rows, seeds = torch.arange(6, device=device), torch.tensor([5, 2**62], device=device)
    chosen, log_probs = by_kernel(logits, temperature, rows, seeds, 3, 1)
    banned = logits.float().index_fill(1, torch.tensor([3], device=device), float("-inf"))
    expected = (banned / (temperature or 1.0)).log_softmax(-1)
    assert temperature > 0 or torch.equal(chosen, banned.argmax(-1))
    assert len(set(chosen.tolist())) == 6 and 3 not in chosen
    return float((log_probs - expected.gather(1, chosen[:, None])[:, 0]).abs().max())


def largest_share_error(device: str) -> float:
    """In standard deviations of its count: how often each of five tokens is chosen, against its probability."""
    num_rows = 4096 if device == "cuda" else 512
    probabilities = torch.tensor([0.4, 0.3, 0.15, 0.0, 0.1, 0.05], device=device)
    logits = probabilities.log().expand(num_rows, -1).contiguous()
    rows, seeds = torch.arange(num_rows, device=device), torch.arange(num_rows // 8, device=device)
    steps = 16 if device == "cuda" else 2
    found = torch.cat([by_kernel(logits, 1.0, rows, seeds, 8, step)[0] for step in range(steps)])
    counts, total = torch.bincount(found, minlength=6), len(found)
    spread = (total * probabilities * (1 - probabilities)).sqrt().clamp(min=1e-9)
    return max(float(((counts - total * probabilities).abs() / spread).max()), stretch_error(device, rows, seeds))


def stretch_error(device: str, rows: Tensor, seeds: Tensor) -> float:
    """The same of the parts of a large vocabulary in which all tokens are alike: noise must not repeat itself."""
    found, _ = by_kernel(torch.zeros(len(rows), SIZE, device=device), 1.0, rows, seeds, 8, 0)
    edges = torch.tensor([0, 2048, 4096, 6144, 8192, SIZE], device=device)
    counts = torch.stack([((found >= low) & (found < high)).sum() for low, high in pairwise(edges)])
    shares = edges.diff() / SIZE
    return float(((counts - len(rows) * shares).abs() / (len(rows) * shares * (1 - shares)).sqrt()).max())


def same_noise_in_any_batch(device: str) -> bool:
    """A completion's tokens do not depend on what is beside it; other seeds, places and steps have other noise."""
    logits = torch.zeros(8, SIZE, device=device)
    seeds = torch.tensor([7, 8], device=device)
    rows = torch.arange(8, device=device)
    (whole, _), (later, _) = (by_kernel(logits, 1.0, rows, seeds, 4, step) for step in (0, 1))
    some, _ = by_kernel(logits[:2], 1.0, torch.tensor([5, 2], device=device), seeds, 4, 0)
    alone, _ = by_kernel(logits[:4], 1.0, rows[:4], seeds[1:], 4, 0)
    are_same = torch.equal(some, whole[[5, 2]]) and torch.equal(alone, whole[4:])
    return are_same and len(set(whole.tolist()) | set(later.tolist())) == 16


@needs_triton
@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_interpreted_the_kernel_gives_the_tokens_log_probabilities(temperature: float) -> None:
    program = f"from {__name__} import *; error_of_log_probs('cpu', torch.float32, {temperature})"
    assert interpreted(program) < 1e-5


@needs_triton
def test_interpreted_tokens_are_as_probable_as_they_should_be() -> None:
    assert interpreted(f"from {__name__} import *; largest_share_error('cpu')") < 4.0


@needs_triton
def test_interpreted_noise_is_each_completions_own() -> None:
    assert interpreted(f"from {__name__} import *; float(same_noise_in_any_batch('cpu'))") == 1.0


def chooser_error(temperature: float) -> float:
    """Of a chooser by kernel on a whole model: of log-probabilities; no banned token is chosen, and seeds decide."""
    network = load_model("tiny").network
    hidden = 10.0 * torch.randn(6, network.config.get_text_config().hidden_size)
    rows, seeds = torch.arange(6), [2**64 - 1, 4]
    with torch.no_grad():
        chosen, log_probs = KernelChooser(Groups(network, temperature, seeds, 3), rows.device).choose(hidden, rows, 2)
        again, _ = KernelChooser(Groups(network, temperature, seeds[1:], 3), rows.device).choose(
            hidden[4:], rows[1:3], 2
        )
        expected = next_token_log_probs(network, hidden, temperature or 1.0)
    assert torch.equal(again, chosen[4:]) and not set(chosen.tolist()) & set(banned_token_ids(network))
    return float((log_probs - expected.gather(-1, chosen[:, None])[:, 0]).abs().max())


def token_of_nan() -> float:
    """Of logits that are no numbers some token of the vocabulary comes out."""
    logits = torch.randn(3, SIZE)
    logits[1, 17], logits[2, 8999] = float("nan"), float("nan")
    chosen, _ = by_kernel(logits, 1.0, torch.arange(3), torch.tensor([1]), 3, 0)
    return float(chosen.max())


@needs_triton
@pytest.mark.parametrize("temperature", [0.9, 0.0])
def test_interpreted_a_model_s_tokens_are_chosen(temperature: float) -> None:
    assert interpreted(f"from {__name__} import *; chooser_error({temperature})") < 1e-5
    assert 0 <= interpreted(f"from {__name__} import *; token_of_nan()") < SIZE


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_compiled_the_kernel_does_the_same(dtype: torch.dtype, temperature: float) -> None:
    assert error_of_log_probs("cuda", dtype, temperature) < 1e-5
    assert largest_share_error("cuda") < 4.0 and same_noise_in_any_batch("cuda")


def test_without_a_gpu_torch_chooses(model: VideoLanguageModel) -> None:
    chooser = chooser_of(Groups(model.network, 1.0, [1, 2], 3), torch.device("cpu"))
    assert isinstance(chooser, TorchChooser)
    width = model.network.config.get_text_config().hidden_size
    hidden, rows = torch.randn(6, width), torch.arange(6)
    with torch.no_grad():
        chosen, log_probs = chooser.choose(hidden, rows, 0)
        again = chooser_of(Groups(model.network, 1.0, [2], 3), torch.device("cpu")).choose(
            hidden[4:], torch.tensor([1, 2]), 0
        )
        expected = next_token_log_probs(model.network, hidden)
    assert torch.equal(again[0], chosen[4:]), "a prompt's seed alone decides"
    assert_close(log_probs, expected.gather(-1, chosen[:, None])[:, 0], atol=0.0)
    assert not set(chosen.tolist()) & set(banned_token_ids(model.network))


def test_a_temperature_of_zero_takes_the_most_probable(model: VideoLanguageModel) -> None:
    width = model.network.config.get_text_config().hidden_size
    hidden = torch.randn(4, width)
    with torch.no_grad():
        chosen, _ = chooser_of(Groups(model.network, 0.0, [1, 2], 2), hidden.device).choose(hidden, torch.arange(4), 0)
        assert torch.equal(chosen, next_token_log_probs(model.network, hidden).argmax(-1))
