"""The cache with room ahead holds what transformers' own holds, and copies less."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache, Qwen2Config

from stvg_lightning.models.growing_cache import LEAST_ROOM_TOKENS, GrowingLayer, growing_cache

LENGTHS_TOKENS = (5, 1, 3, LEAST_ROOM_TOKENS, 1, 700, 2)


def test_it_holds_what_the_cache_of_transformers_holds() -> None:
    config = Qwen2Config(num_hidden_layers=2)
    ours, theirs = growing_cache(config), DynamicCache(config=config)
    generator = torch.Generator().manual_seed(0)
    given = []
    for length in LENGTHS_TOKENS:
        keys, values = torch.randn(2, 3, 4, length, 8, generator=generator)
        for layer in range(2):
            mine, other = (cache.update(keys + layer, values - layer, layer) for cache in (ours, theirs))
            assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))
            given.append((mine, [held.clone() for held in mine]))
        assert ours.get_seq_length() == theirs.get_seq_length()
    # What was given out before is not overwritten by what came after.
    assert all(torch.equal(a, b) for held, copies in given for a, b in zip(held, copies, strict=True))


def test_a_token_is_written_without_copying_those_before() -> None:
    layer = GrowingLayer()
    prompt, token = torch.zeros(1, 2, 100, 4), torch.ones(1, 2, 1, 4)
    first = layer.update(prompt, prompt)[0]
    places = {layer.update(token, token)[0].data_ptr() for _ in range(LEAST_ROOM_TOKENS)}
    assert places == {first.data_ptr()}
    assert layer.update(token, token)[0].data_ptr() not in places


@pytest.mark.parametrize("rows", [[0, 2], [2, 0, 1], [1]])
def test_rows_may_leave_or_change_places(rows: list[int]) -> None:
    layer = GrowingLayer()
    states = torch.arange(24.0).view(3, 1, 4, 2)
    layer.update(states, -states)
    layer.batch_select_indices(torch.tensor(rows))
    for length in (5, 6):
        new = states[rows, :, :1]
        keys, values = layer.update(new, new)
        expected = torch.cat([states[rows], *[new] * (length - 4)], dim=2)
        assert torch.equal(keys, expected) and keys.shape[2] == length
        assert torch.equal(values[:, :, :4], -states[rows]) and torch.equal(values[:, :, 4:], expected[:, :, 4:])
