"""The next token of every completion as two Triton kernels, for NVIDIA GPUs.

The first goes over each stretch of a row's logits once, and draws the noise as it goes: by torch's operations logits
of a large vocabulary are written and read a dozen times. The second puts the stretches together.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

TOKENS_AT_ONCE = 4096


def choose(
    logits: Float[Tensor, "rows vocabulary"],
    bias: Float[Tensor, " vocabulary"],
    temperature: float,
    rows: Int[Tensor, " rows"],
    prompt_seeds: Int[Tensor, " prompts"],
    group_size: int,
    step: int,
) -> tuple[Int[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Tokens and their log-probabilities, computed in float32.

    Noise comes from Philox: its key is the prompt's seed, and its counter is the token, the place in the group, and the
    step.

    Args:
        logits: in any precision.
        bias: what is added to them: 0, and minus infinity for a banned token.
        temperature: that logits are divided by; 0 chooses the highest, at a temperature of 1.
        rows: of all completions, groups one after the other, those that `logits` are of.
        prompt_seeds: at least 0.
        group_size: completions of each prompt.
        step: tokens that each of them has.
    """
    num_rows, size = logits.shape
    stretches = triton.cdiv(size, TOKENS_AT_ONCE)
    highest, sums, scores, chosen_logits = logits.new_empty(4, num_rows, stretches, dtype=torch.float32)
    token_ids = rows.new_empty(num_rows, stretches, dtype=torch.int32)
    chosen, log_probs = rows.new_empty(num_rows), logits.new_empty(num_rows, dtype=torch.float32)
    assert logits.stride(1) == 1 and len(bias) == size, (logits.stride(), len(bias), size)
    with torch.cuda.device_of(logits):  # Triton launches on the current device
        _best_of_stretches[(num_rows, stretches)](
            logits, bias, rows, prompt_seeds, highest, sums, scores, chosen_logits, token_ids,
            1.0 / (temperature or 1.0), group_size, step, size, logits.stride(0),
            SAMPLES=temperature > 0, TOKENS_AT_ONCE=TOKENS_AT_ONCE,
        )  # fmt: skip
        _best_of_all[(num_rows,)](
            highest, sums, scores, chosen_logits, token_ids, chosen, log_probs,
            stretches, PADDED_STRETCHES=triton.next_power_of_2(stretches),
        )  # fmt: skip
    return chosen, log_probs


@triton.jit(do_not_specialize=["step"])
@no_type_check  # Triton compiles the source: nothing may be wrapped around it
def _best_of_stretches(
    logits, bias, rows, prompt_seeds, highest, sums, scores, chosen_logits, token_ids,
    factor, group_size, step, size, of_row,
    SAMPLES: tl.constexpr, TOKENS_AT_ONCE: tl.constexpr,
):  # fmt: skip
    """One stretch of a row: its highest logit, the sum of exponentials below it, and which token has the best score."""
    place, stretch = tl.program_id(0).to(tl.int64), tl.program_id(1)
    offset = tl.arange(0, TOKENS_AT_ONCE)
    token = stretch * TOKENS_AT_ONCE + offset
    there = token < size
    logit = tl.load(logits + place * of_row + token, mask=there, other=float("-inf")).to(tl.float32) * factor
    logit += tl.load(bias + token, mask=there, other=0.0)
    most = tl.max(logit, 0)
    base = tl.where(most == float("-inf"), 0.0, most)  # nothing but banned tokens
    score = logit
    if SAMPLES:
        row = tl.load(rows + place)
        seed = tl.load(prompt_seeds + row // group_size).to(tl.uint64)
        counter = token.to(tl.uint32)
        within, step_of_all = counter * 0 + (row % group_size).to(tl.uint32), counter * 0 + step.to(tl.uint32)
        bits, _second, _third, _fourth = tl.philox(seed, counter, within, step_of_all, counter * 0)
        exponential = -tl.log(tl.maximum(tl.uint_to_uniform_float(bits), 1e-20))
        score = logit - tl.log(tl.maximum(exponential, 1e-20))
    score = tl.where(score == score, score, float("-inf"))  # of what is no number some token comes out, as in torch
    best, which = tl.max(score, 0, return_indices=True)
    found = place * tl.num_programs(1) + stretch
    tl.store(highest + found, most)
    tl.store(sums + found, tl.sum(tl.exp(logit - base), 0))
    tl.store(scores + found, best)
    tl.store(chosen_logits + found, tl.sum(tl.where(offset == which, logit, 0.0), 0))
    tl.store(token_ids + found, stretch * TOKENS_AT_ONCE + which)


@triton.jit
@no_type_check  # Triton compiles the source: nothing may be wrapped around it
def _best_of_all(
    highest, sums, scores, chosen_logits, token_ids, chosen, log_probs,
    stretches, PADDED_STRETCHES: tl.constexpr,
):  # fmt: skip
    """One row."""
    place, stretch = tl.program_id(0).to(tl.int64), tl.arange(0, PADDED_STRETCHES)
    first, there = place * stretches, stretch < stretches
    most_of_each = tl.load(highest + first + stretch, mask=there, other=float("-inf"))
    most = tl.max(most_of_each, 0)
    total = tl.sum(tl.load(sums + first + stretch, mask=there, other=0.0) * tl.exp(most_of_each - most), 0)
    score = tl.load(scores + first + stretch, mask=there, other=float("-inf"))
    _best, which = tl.max(score, 0, return_indices=True)
    tl.store(chosen + place, tl.load(token_ids + first + which).to(tl.int64))
    tl.store(log_probs + place, tl.load(chosen_logits + first + which) - most - tl.log(total))
