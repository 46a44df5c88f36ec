"""FlashAttention over rows of groups: how its calls are put together, and on a GPU the calls themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stvg_lightning.models import flash_attention
from stvg_lightning.models.flash_attention import Segments, attend_segments
from tests.helpers import assert_close, needs_gpu

SCALE = 0.3
LENGTHS = [9, 4, 1, 6, 5, 3, 2]
"""A prompt and three completions, a prompt and two."""
PREFIXES = [(slice(9, 20), slice(0, 9)), (slice(25, 30), slice(20, 25))]


def may_see(lengths: list[int], prefixes: list[tuple[slice, slice]], elsewhere: int = 0) -> Tensor:
    """Which keys each query of a row sees; keys that lie elsewhere come behind the row's own."""
    owner = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    seen = torch.cat([(owner[:, None] == owner).tril(), torch.zeros(len(owner), elsewhere, dtype=torch.bool)], dim=1)
    first = len(owner) if elsewhere else 0
    for asking, keys in prefixes:
        seen[asking, first + keys.start : first + keys.stop] = True
    return seen


def plain(query: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Attention under a mask, every score written down, and each query's logsum."""
    repeats = query.shape[1] // keys.shape[1]
    keys, values = (each.repeat_interleave(repeats, dim=1) for each in (keys, values))
    scores = torch.einsum("qhw,khw->hqk", query, keys) * SCALE
    scores = scores.masked_fill(~seen, float("-inf"))
    return torch.einsum("hqk,khw->qhw", scores.softmax(-1), values), scores.logsumexp(-1)


def by_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two kernels as the FlashAttention papers write them, in place of those of a GPU."""

    def mask(query: Tensor, keys: Tensor, segments: Segments | None) -> Tensor:
        if segments is None:
            return torch.ones(len(query), len(keys), dtype=torch.bool)
        return may_see(segments.bounds.diff().tolist(), [])

    def attended(query, keys, values, segments, scale):
        return *plain(query, keys, values, mask(query, keys, segments)), ()

    def way_back(asked, seen, segments, scale, state):
        (gradient, query, output, logsum), (keys, values) = asked, seen
        repeats = query.shape[1] // keys.shape[1]
        wide_keys, wide_values = (each.repeat_interleave(repeats, dim=1) for each in (keys, values))
        scores = torch.einsum("qhw,khw->hqk", query, wide_keys) * scale
        shares = (scores - logsum[..., None]).exp() * mask(query, keys, segments)
        of_shares = torch.einsum("qhw,khw->hqk", gradient, wide_values)
        of_scores = shares * (of_shares - (gradient * output).sum(-1).t()[..., None]) * scale
        of_keys = torch.einsum("hqk,qhw->khw", of_scores, query).unflatten(1, (-1, repeats)).sum(2)
        of_values = torch.einsum("hqk,qhw->khw", shares, gradient).unflatten(1, (-1, repeats)).sum(2)
        return torch.einsum("hqk,khw->qhw", of_scores, wide_keys), of_keys, of_values

    monkeypatch.setattr(flash_attention, "_attended", attended)
    monkeypatch.setattr(flash_attention, "_way_back", way_back)


def with_gradients(output: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weights = torch.arange(output.numel(), device=output.device, dtype=torch.float32).sin().view_as(output)
    gradients = torch.autograd.grad((output.float() * weights).sum(), inputs)
    return [output.detach(), *gradients]


def drawn(heads_of_keys: int, width: int, is_elsewhere: bool, dtype: torch.dtype) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(30, 4, width), (30, heads_of_keys, width), (30, heads_of_keys, width)]
    shapes += [(7, heads_of_keys, width)] * 2 if is_elsewhere else []
    return [torch.randn(shape).to(dtype) for shape in shapes]


def both(inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Output and gradients of `attend_segments`, and of attention under a mask in the precision of a double."""
    is_elsewhere = len(inputs) == 5
    prefixes = [(slice(None), slice(None))] if is_elsewhere else PREFIXES
    given = [each.clone().requires_grad_() for each in inputs]
    segments = Segments.of([*LENGTHS, 0], inputs[0].device)
    query, *own = (each.transpose(0, 1)[None] for each in given)  # heads before tokens, as layers have them
    output = attend_segments(query, (own[0], own[1]), segments, prefixes, SCALE, tuple(own[2:]) or None)
    found = with_gradients(output[0].transpose(0, 1), given)
    exact = [each.detach().cpu().double().requires_grad_() for each in inputs]
    seen = may_see(LENGTHS, [(slice(0, 30), slice(0, 7))] if is_elsewhere else PREFIXES, 7 if is_elsewhere else 0)
    keys, values = (torch.cat(exact[place::2]) if is_elsewhere else exact[place] for place in (1, 2))
    return found, with_gradients(plain(exact[0], keys, values, seen)[0], exact)


@pytest.mark.parametrize("is_elsewhere", [False, True])
@pytest.mark.parametrize("heads_of_keys", [4, 2])
def test_parts_put_together_are_attention_under_a_mask(
    monkeypatch: pytest.MonkeyPatch, heads_of_keys: int, is_elsewhere: bool
) -> None:
    by_formula(monkeypatch)
    found, expected = both(drawn(heads_of_keys, 8, is_elsewhere, torch.double))
    assert len(found) == (6 if is_elsewhere else 4)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, atol=1e-6)


@needs_gpu
@pytest.mark.parametrize("is_elsewhere", [False, True])
@pytest.mark.parametrize("heads_of_keys", [4, 2])
@pytest.mark.parametrize("width", [64, 128])
def test_on_a_gpu_it_is_attention_under_a_mask(heads_of_keys: int, is_elsewhere: bool, width: int) -> None:
    inputs = [each.cuda() for each in drawn(heads_of_keys, width, is_elsewhere, torch.bfloat16)]
    for one, other in zip(*both(inputs), strict=True):
        assert (one.cpu().double() - other).norm() < 0.01 * other.norm()
