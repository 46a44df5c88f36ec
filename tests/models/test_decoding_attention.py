"""Attention of one new token, against a softmax over what each completion sees, written down row by row."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from stvg_lightning.models.decoding_attention import PlacesByPrompt, Tables, attend_one_token
from tests.helpers import assert_close

PROMPT_TOKENS, OWNERS = (9, 5, 7), (0, 0, 1, 2, 2, 2)
KEY_HEADS, QUERIES, WRITTEN, WIDTH, SCALE = 2, 3, 4, 16, 0.3
PLACES = PlacesByPrompt(3, 3, torch.tensor([0, 1, 3, 6, 7, 8]))


def drawn(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tables]:
    """Queries, and tables with padding behind the shorter prompts, whose completions are not equally many."""
    torch.manual_seed(0)
    query = 2 * torch.randn(len(OWNERS), KEY_HEADS * QUERIES, WIDTH)
    prompt = [torch.randn(len(PROMPT_TOKENS), KEY_HEADS, max(PROMPT_TOKENS), WIDTH) for _ in range(2)]
    own = [torch.randn(len(OWNERS), KEY_HEADS, WRITTEN, WIDTH) for _ in range(2)]
    is_padding = torch.arange(max(PROMPT_TOKENS)) >= torch.tensor(PROMPT_TOKENS)[:, None]
    bias = torch.zeros(is_padding.shape).masked_fill(is_padding, float("-inf"))
    keys_and_values = (tuple(each.to(dtype) for each in pair) for pair in (prompt, own))
    return query.to(dtype), Tables(*keys_and_values, PLACES, bias)


def row_by_row(query: Tensor, tables: Tables, scale: float = SCALE) -> Tensor:
    """In double precision."""
    output = torch.empty(query.shape, dtype=torch.float64)
    for row, owner in enumerate(OWNERS):
        for head in range(KEY_HEADS * QUERIES):
            seen = slice(PROMPT_TOKENS[owner])
            keys, values = (
                torch.cat([prompt[owner, head // QUERIES, seen], own[row, head // QUERIES]]).double()
                for prompt, own in zip(tables.prompt, tables.own, strict=True)
            )
            output[row, head] = (scale * keys @ query[row, head].double()).softmax(dim=0) @ values
    return output


@pytest.mark.parametrize("is_fixed", [False, True], ids=["in two parts", "by scores"])
@pytest.mark.parametrize("scaling", [SCALE, None])
def test_each_completion_sees_its_prompt_and_itself(is_fixed: bool, scaling: float | None) -> None:
    query, tables = drawn()
    if is_fixed:
        tables = replace(tables, own_bias=torch.zeros(WRITTEN))
    expected = row_by_row(query, tables, scaling or WIDTH**-0.5)
    assert_close(attend_one_token(query, scaling, tables), expected)


@pytest.mark.parametrize("is_cast", [False, True], ids=["half precision", "autocast"])
def test_half_precision_rounds_and_no_more(is_cast: bool) -> None:
    query, tables = drawn(torch.bfloat16)
    expected = row_by_row(query, tables)
    asked = query.float() if is_cast else query
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_cast):
        found = attend_one_token(asked, SCALE, tables)
    assert found.dtype == torch.bfloat16
    assert (found - expected).abs().max() < 0.02 < expected.std() / 20
