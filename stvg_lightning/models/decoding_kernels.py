"""Attention of one token of every completion as two Triton kernels, for NVIDIA GPUs.

The first reads each prompt's keys and values once for all the completions of its group, in several stretches at a time,
so that a few long prompts occupy the whole GPU too. The second reads what each completion has written, writes the new
token beside it, and puts all together with the stretches by the logarithms of their sums of exponentials. No score is
written down: beside a prompt of 8,000 tokens those of `attend_one_token` weigh as much as its keys.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from stvg_lightning.models.group_prompts import KeysAndValues

TOKENS_AT_ONCE = 64
MOST_ASKED_AT_ONCE = 64
LEAST_TOKENS_OF_A_STRETCH = 256
BLOCKS_PER_PROCESSOR = 2
WARPS, STAGES = 4, 2
"""With these an H200 took least time of 36 ways, for prompts of 2,021 and of 8,165 tokens alike."""


def attend_one_token_at_all_places(
    query: Float[Tensor, "1 heads rows width"],
    scaling: float | None,
    prompt: KeysAndValues,
    own: KeysAndValues,
    new: KeysAndValues,
    prompt_bias: Float[Tensor, "prompts tokens"],
    read: Int[Tensor, " 1"],
) -> Float[Tensor, "1 heads rows width"]:
    """`decoding_attention.attend_one_token` where every prompt has as many rows, in order.

    Args:
        query: of the tokens; of one precision with keys and values.
        scaling: factor of the dot products; None: one over the root of the width.
        prompt: keys and values, (prompts, heads of keys, tokens, channels).
        own: keys and values that were written before, (rows, heads of keys, most tokens, channels); what is new is
            written into it.
        new: keys and values of the tokens themselves, (1, heads of keys, rows, channels).
        prompt_bias: what is added to the scores of the prompts' tokens.
        read: tokens of each completion before this one; where they end, this one is written.
    """
    (keys, values), (own_keys, own_values), (new_keys, new_values) = prompt, own, new
    (num_prompts, key_heads, num_tokens, width), (_, heads, num_rows, _) = keys.shape, query.shape
    scale = width**-0.5 if scaling is None else scaling
    each, queries = num_rows // num_prompts, heads // key_heads
    asked_at_once = min(MOST_ASKED_AT_ONCE, max(16, triton.next_power_of_2(each * queries)))
    pieces = triton.cdiv(each * queries, asked_at_once)
    stretch = tokens_of_a_stretch(num_tokens, num_prompts * key_heads * pieces, query.device)
    stretches = triton.cdiv(num_tokens, stretch)
    parts = query.new_empty((stretches, num_rows, heads, width), dtype=torch.float32)
    logsums = query.new_empty((stretches, num_rows, heads), dtype=torch.float32)
    output = query.new_empty((num_rows, heads, width))
    common = {
        "QUERIES": queries,
        "WIDTH": width,
        "PADDED_WIDTH": triton.next_power_of_2(width),
        "TOKENS_AT_ONCE": TOKENS_AT_ONCE,
        "PRECISION": "ieee" if query.dtype == torch.float32 else "tf32",
        "num_warps": WARPS,
        "num_stages": STAGES,
    }
    assert all(each.stride(-1) == 1 for each in (query, *prompt, *own, *new))
    assert keys.stride() == values.stride() and own_keys.stride() == own_values.stride()
    with torch.cuda.device_of(query):  # Triton launches on the current device
        _of_prompts[(num_prompts * pieces, key_heads, stretches)](
            query, keys, values, prompt_bias, parts, logsums,
            scale, num_tokens, stretch, num_rows, each, pieces,
            query.stride(1), query.stride(2), *keys.stride()[:3], prompt_bias.stride(0),
            ASKED_AT_ONCE=asked_at_once, **common,
        )  # fmt: skip
        _of_own_and_all[(num_rows, key_heads)](
            query, own_keys, own_values, new_keys, new_values, read, parts, logsums, output,
            scale, num_rows,
            query.stride(1), query.stride(2), *own_keys.stride()[:3],
            *new_keys.stride()[1:3], *new_values.stride()[1:3],
            STRETCHES=stretches, PADDED_QUERIES=max(16, triton.next_power_of_2(queries)), **common,
        )  # fmt: skip
    return output.transpose(0, 1)[None]


def tokens_of_a_stretch(num_tokens: int, num_blocks: int, device: torch.device) -> int:
    """How many tokens of a prompt are read by one block, so that all processors of a GPU have some."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 8
    wanted = max(1, BLOCKS_PER_PROCESSOR * processors // num_blocks)
    stretch = max(LEAST_TOKENS_OF_A_STRETCH, triton.cdiv(num_tokens, wanted))
    return triton.cdiv(stretch, TOKENS_AT_ONCE) * TOKENS_AT_ONCE


@triton.jit
@no_type_check  # Triton compiles the source: nothing may be wrapped around it
def _of_prompts(
    query, keys, values, bias, parts, logsums,
    scale, num_tokens, stretch, num_rows, each, pieces,
    query_head, query_row, of_prompt, of_head, of_token, bias_prompt,
    ASKED_AT_ONCE: tl.constexpr, QUERIES: tl.constexpr, WIDTH: tl.constexpr, PADDED_WIDTH: tl.constexpr,
    TOKENS_AT_ONCE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One stretch of one prompt, for some of its rows' queries of one head of keys."""
    prompt, piece = (tl.program_id(0) // pieces).to(tl.int64), tl.program_id(0) % pieces
    key_head, part = tl.program_id(1), tl.program_id(2)
    asked = piece * ASKED_AT_ONCE + tl.arange(0, ASKED_AT_ONCE)
    row, head = prompt * each + asked // QUERIES, key_head * QUERIES + asked % QUERIES
    channel = tl.arange(0, PADDED_WIDTH)
    is_asked = (asked < each * QUERIES)[:, None] & (channel < WIDTH)[None]
    queries = tl.load(
        query + head[:, None] * query_head + row[:, None] * query_row + channel[None], mask=is_asked, other=0.0
    )
    first, end = prompt * of_prompt + key_head * of_head, tl.minimum(num_tokens, (part + 1) * stretch)
    none = tl.full([ASKED_AT_ONCE], float("-inf"), tl.float32)
    most, total, taken = _over_tokens(
        none, tl.zeros([ASKED_AT_ONCE], tl.float32), tl.zeros([ASKED_AT_ONCE, PADDED_WIDTH], tl.float32),
        queries, keys + first, values + first, bias + prompt * bias_prompt, scale, part * stretch, end, of_token,
        True, WIDTH, PADDED_WIDTH, TOKENS_AT_ONCE, PRECISION,
    )  # fmt: skip
    place = part.to(tl.int64) * num_rows * tl.num_programs(1) * QUERIES + row * tl.num_programs(1) * QUERIES + head
    taken = taken / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(parts + place[:, None] * WIDTH + channel[None], taken, mask=is_asked)
    tl.store(logsums + place, most + tl.log(total), mask=asked < each * QUERIES)


@triton.jit
@no_type_check  # Triton compiles the source: nothing may be wrapped around it
def _of_own_and_all(
    query, keys, values, new_keys, new_values, read, parts, logsums, output,
    scale, num_rows,
    query_head, query_row, of_row, of_head, of_token, new_key_head, new_key_row, new_value_head, new_value_row,
    STRETCHES: tl.constexpr, PADDED_QUERIES: tl.constexpr, QUERIES: tl.constexpr, WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr, TOKENS_AT_ONCE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A row's new token, what it has written, and its prompt's stretches, for the queries of one head of keys."""
    row, key_head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    asked, channel = tl.arange(0, PADDED_QUERIES), tl.arange(0, PADDED_WIDTH)
    head, heads = key_head * QUERIES + asked, tl.num_programs(1) * QUERIES
    is_asked = (asked < QUERIES)[:, None] & (channel < WIDTH)[None]
    queries = tl.load(query + head[:, None] * query_head + row * query_row + channel[None], mask=is_asked, other=0.0)
    key = tl.load(new_keys + key_head * new_key_head + row * new_key_row + channel, mask=channel < WIDTH, other=0.0)
    value = tl.load(
        new_values + key_head * new_value_head + row * new_value_row + channel, mask=channel < WIDTH, other=0.0
    )
    first, before = row * of_row + key_head * of_head, tl.load(read)
    tl.store(keys + first + before * of_token + channel, key, mask=channel < WIDTH)
    tl.store(values + first + before * of_token + channel, value, mask=channel < WIDTH)
    score = tl.sum(queries.to(tl.float32) * key.to(tl.float32)[None], 1) * scale
    alone = tl.zeros([PADDED_QUERIES, PADDED_WIDTH], tl.float32) + value.to(tl.float32)[None]
    most, total, taken = _over_tokens(
        score, tl.full([PADDED_QUERIES], 1.0, tl.float32), alone,
        queries, keys + first, values + first, keys, scale, 0, before.to(tl.int32), of_token,
        False, WIDTH, PADDED_WIDTH, TOKENS_AT_ONCE, PRECISION,
    )  # fmt: skip
    for part in range(STRETCHES):
        place = part * num_rows * heads + row * heads + head
        logsum = tl.load(logsums + place, mask=asked < QUERIES, other=float("-inf"))
        piece = tl.load(parts + place[:, None] * WIDTH + channel[None], mask=is_asked, other=0.0)
        higher = tl.maximum(most, logsum)
        base = tl.where(higher == float("-inf"), 0.0, higher)
        shrunk, share = tl.exp(most - base), tl.exp(logsum - base)
        total = total * shrunk + share
        taken = taken * shrunk[:, None] + piece * share[:, None]
        most = higher
    taken = taken / total[:, None]
    place = (row * heads + head)[:, None] * WIDTH + channel[None]
    tl.store(output + place, taken.to(output.dtype.element_ty), mask=is_asked)


@triton.jit
@no_type_check  # Triton compiles the source: nothing may be wrapped around it
def _over_tokens(
    most, total, taken, queries, keys, values, bias, scale, start, end, of_token,
    HAS_BIAS: tl.constexpr, WIDTH: tl.constexpr, PADDED_WIDTH: tl.constexpr,
    TOKENS_AT_ONCE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """For each query the highest score, the sum of exponentials below it, and values by them, with more tokens."""
    channel, token = tl.arange(0, PADDED_WIDTH), tl.arange(0, TOKENS_AT_ONCE)
    for first in range(start, end, TOKENS_AT_ONCE):
        there = first + token
        places = there.to(tl.int64)[:, None] * of_token + channel[None]
        is_read = (there < end)[:, None] & (channel < WIDTH)[None]
        if HAS_BIAS:
            added = tl.load(bias + there, mask=there < end, other=float("-inf"))
        else:
            added = tl.where(there < end, 0.0, float("-inf"))
        key = tl.load(keys + places, mask=is_read, other=0.0)
        scores = tl.dot(queries, tl.trans(key), input_precision=PRECISION) * scale + added[None]
        value = tl.load(values + places, mask=is_read, other=0.0)
        higher = tl.maximum(most, tl.max(scores, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)  # nothing but padding so far
        shrunk, shares = tl.exp(most - base), tl.exp(scores - base[:, None])
        total = total * shrunk + tl.sum(shares, 1)
        taken = taken * shrunk[:, None] + tl.dot(shares.to(value.dtype), value, input_precision=PRECISION)
        most = higher
    return most, total, taken
