"""Triton's kernels for one token of every completion, by Triton's interpreter without a GPU and compiled on one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stvg_lightning.models.decoding_attention import PlacesByPrompt, Tables, attend_one_token
from tests.helpers import needs_gpu
from tests.models.interpreting import interpreted, needs_triton

pytestmark = needs_triton
# prompts, rows of each, heads of keys, queries for each, tokens, written tokens, channels
SHAPES = [(2, 3, 2, 2, 70, 10, 16), (3, 8, 2, 7, 600, 65, 24), (1, 5, 1, 1, 33, 1, 128), (2, 40, 1, 7, 300, 5, 16)]


def largest_difference(shape: tuple[int, ...], device: str, dtype: torch.dtype) -> float:
    """Between the kernels and `attend_one_token` in float32, on the same numbers."""
    from stvg_lightning.models.decoding_kernels import attend_one_token_at_all_places

    num_prompts, each, key_heads, queries, tokens, written, width = shape
    rows = num_prompts * each
    torch.manual_seed(0)

    def drawn(*sizes: int) -> Tensor:
        return torch.randn(sizes).to(device, dtype)

    query = drawn(1, key_heads * queries, rows, width)
    prompt = tuple(drawn(num_prompts, key_heads, tokens, width) for _ in range(2))
    # Of tables with more places and more room than are used.
    own = tuple(drawn(rows + 3, key_heads, written + 7, width)[:rows, :, :written] for _ in range(2))
    bias, own_bias = torch.zeros(num_prompts, tokens), torch.zeros(written)
    read = written - written // 3 - 1
    bias[0, tokens // 2 :] = own_bias[read + 1 :] = float("-inf")
    biases = bias.to(device), own_bias.to(device)
    # As a layer gives them, one row after the other; until then their places in the tables hold what is not to be read.
    new = tuple(each[:, :, read].contiguous().transpose(0, 1)[None] for each in own)
    kept = [each.clone() for each in own]
    for table in own:
        table[:, :, read:] = float("nan")
    arguments = query, 0.3, prompt, own, new, biases[0], torch.tensor([read], device=device)
    found = attend_one_token_at_all_places(*arguments)
    assert found.dtype == dtype and found.shape == query.shape
    assert all(
        torch.equal(each[:, :, : read + 1], before[:, :, : read + 1]) for each, before in zip(own, kept, strict=True)
    )
    own = tuple(kept)
    exact = [tuple(each.float() for each in pair) for pair in (prompt, own)]
    tables = Tables(*exact, PlacesByPrompt(num_prompts, each), *biases)
    expected = attend_one_token(query[0].transpose(0, 1).float(), 0.3, tables)
    return float((found[0].transpose(0, 1).float() - expected).abs().max())


@pytest.mark.parametrize("shape", SHAPES)
def test_interpreted_kernels_give_what_torch_s_operations_give(shape: tuple[int, ...]) -> None:
    assert interpreted(f"from {__name__} import *; largest_difference({shape}, 'cpu', torch.float32)") < 1e-5


@needs_gpu
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype, most", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_compiled_kernels_give_what_torch_s_operations_give(
    shape: tuple[int, ...], dtype: torch.dtype, most: float
) -> None:
    assert largest_difference(shape, "cuda", dtype) < most
