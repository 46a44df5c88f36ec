"""Completions attending to a prompt in parts: against one masked attention, in every precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from stvg_lightning.models.group_rows import GroupSpan, RowLayout
from stvg_lightning.models.prefix_attention import (
    attend_completions,
    attend_to_prefix,
    attend_under_mask,
    completion_mask,
)
from stvg_lightning.models.row_attention import attend_by_parts
from tests.helpers import assert_close

LENGTHS = (5, 0, 3, 1)
HEADS_AND_TOKENS = ((4, 9), (2, 6), (2, 6), (2, 9), (2, 9))


def tensors(heads_of_keys: int, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    heads = (4, heads_of_keys, heads_of_keys, heads_of_keys, heads_of_keys)
    sizes = (9, 6, 6, 9, 9)
    return [torch.randn(1, h, n, 16, dtype=dtype, requires_grad=True) for h, n in zip(heads, sizes, strict=True)]


def masked(query: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
    keys, values = torch.cat([rest[0], rest[2]], dim=2), torch.cat([rest[1], rest[3]], dim=2)
    return F.scaled_dot_product_attention(
        query, keys, values, attn_mask=completion_mask(6, LENGTHS), scale=0.3, enable_gqa=True
    )


@pytest.mark.parametrize("heads_of_keys", [4, 2, 1])
def test_values_and_gradients_equal_masked_attention(heads_of_keys: int) -> None:
    given = tensors(heads_of_keys, torch.float64)
    query, keys, values, own_keys, own_values = given
    found = attend_to_prefix(query, (keys, values), (own_keys, own_values), LENGTHS, 0.3)
    expected = masked(*given)
    assert_close(found, expected, atol=1e-12)
    weights = torch.randn(found.shape, dtype=torch.float64)
    for mine, other in zip(
        torch.autograd.grad((found * weights).sum(), given),
        torch.autograd.grad((expected * weights).sum(), given),
        strict=True,
    ):
        assert_close(mine, other, atol=1e-12)


@pytest.mark.parametrize("heads_of_keys", [4, 2, 1])
def test_one_masked_attention_gives_the_same_elsewhere(heads_of_keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other devices do, and by a kernel that takes a mask: key heads are as many as queries have."""
    given = tensors(heads_of_keys, torch.float64)
    query, keys, values, own_keys, own_values = given
    asked: list[tuple] = []
    attention = F.scaled_dot_product_attention

    def watched(*states: torch.Tensor, **how: object) -> torch.Tensor:
        asked.append(([each.shape[1] for each in states], how.get("enable_gqa", False)))
        return attention(*states, **how)

    expected = masked(*given)
    monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
    found = attend_under_mask(query, (keys, values), (own_keys, own_values), 0.3, completion_mask(6, LENGTHS))
    assert asked == [([4, 4, 4], False)]
    assert_close(found, expected, atol=1e-12)
    for mine, other in zip(
        torch.autograd.grad(found.square().sum(), given),
        torch.autograd.grad(expected.square().sum(), given),
        strict=True,
    ):
        assert_close(mine, other, atol=1e-12)


def test_a_gpu_makes_a_mask_once_for_all_layers() -> None:
    """On a GPU that torch imagines."""
    span = GroupSpan(0, 6, LENGTHS)
    layout, gpu = RowLayout((span,)), torch.device("cuda:0")
    assert layout.mask_of(span, torch.device("cpu")) is None
    with FakeTensorMode():
        mask = layout.mask_of(span, gpu)
        assert mask is layout.mask_of(span, gpu) and mask.shape == (9, 15)
        query, *rest = (torch.empty(1, heads, tokens, 16, device=gpu) for heads, tokens in HEADS_AND_TOKENS)
        found = attend_completions(query, (rest[0], rest[1]), (rest[2], rest[3]), None, LENGTHS, mask)
        assert found.shape == query.shape and found.device == gpu
        row = torch.empty(1, 4, 15, 16, device=gpu)
        assert attend_by_parts(row, row[:, :2], row[:, :2], None, layout).shape == row.shape
    assert layout.mask_of(span, gpu) is mask


def test_mixed_precision_is_taken_as_torch_takes_it() -> None:
    query, keys, values, own_keys, own_values = tensors(2, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attend_completions(query, (keys, values.bfloat16()), (own_keys, own_values.bfloat16()), 0.3, LENGTHS)
        expected = masked(query, keys, values.bfloat16(), own_keys, own_values.bfloat16())
    assert found.dtype == expected.dtype == torch.bfloat16
    assert float((found - expected).detach().abs().max()) < 0.02
    found.float().sum().backward()
    assert query.grad is not None and query.grad.dtype == torch.float32 and query.grad.abs().max() > 0
