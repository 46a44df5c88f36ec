"""Log-probabilities of given tokens, and what changes them, from logits in half precision, for NVIDIA GPUs.

By torch's operations logits of a large vocabulary are copied to float32 and gone over a dozen times; by these two
Triton kernels once each. Everything is computed in float32.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

LOGITS_AT_ONCE = 4096


def statistics_of_logits(
    logits: Float[Tensor, "tokens vocabulary"],
    token_ids: Int[Tensor, " tokens"],
    bias: Float[Tensor, " vocabulary"],
    temperature: float,
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"], Float[Tensor, " tokens"]]:
    """Log-probabilities of tokens, entropies of what they were chosen from, and the logits' logsums; in float32.

    Args:
        logits: in any precision; before they are divided by the temperature.
        token_ids: one for each row of logits.
        bias: what is added after that: 0, and minus infinity for a token that may not be chosen.
        temperature: above 0.
    """
    num_tokens, size = logits.shape
    log_probs, entropies, logsums = logits.new_empty(3, num_tokens, dtype=torch.float32)
    _check(logits, token_ids, bias)
    if num_tokens:
        with torch.cuda.device_of(logits):  # Triton launches on the current device
            _statistics[(num_tokens,)](
                logits, token_ids, bias, log_probs, entropies, logsums,
                1.0 / temperature, size, logits.stride(0), LOGITS_AT_ONCE=LOGITS_AT_ONCE, num_warps=8,
            )  # fmt: skip
    return log_probs, entropies, logsums


def turn_into_slopes(
    logits: Float[Tensor, "tokens vocabulary"],
    token_ids: Int[Tensor, " tokens"],
    bias: Float[Tensor, " vocabulary"],
    temperature: float,
    logsums: Float[Tensor, " tokens"],
) -> Float[Tensor, "tokens vocabulary"]:
    """How each token's log-probability changes with each logit, in the logits' place and precision.

    Arguments as in `statistics_of_logits`, which gives `logsums`.
    """
    num_tokens, size = logits.shape
    _check(logits, token_ids, bias)
    if num_tokens:
        with torch.cuda.device_of(logits):  # Triton launches on the current device
            _slopes[(num_tokens, triton.cdiv(size, LOGITS_AT_ONCE))](
                logits, token_ids, bias, logsums,
                1.0 / temperature, size, logits.stride(0), LOGITS_AT_ONCE=LOGITS_AT_ONCE, num_warps=8,
            )  # fmt: skip
    return logits


def _check(logits: Tensor, token_ids: Tensor, bias: Tensor) -> None:
    fits = logits.stride(1) == 1 and len(token_ids) == len(logits) and len(bias) == logits.shape[1]
    assert fits, (logits.shape, logits.stride(), token_ids.shape, bias.shape)


@triton.jit
@no_type_check  # Triton compiles the source: nothing may be wrapped around it
def _statistics(
    logits, token_ids, bias, log_probs, entropies, logsums,
    factor, size, of_row,
    LOGITS_AT_ONCE: tl.constexpr,
):  # fmt: skip
    """One row. Each lane keeps its highest logit, and of what it saw the sums of shares and of shares times logits."""
    place, lane = tl.program_id(0).to(tl.int64), tl.arange(0, LOGITS_AT_ONCE)
    first = logits + place * of_row
    most = tl.full([LOGITS_AT_ONCE], float("-inf"), tl.float32)
    total, weighted = tl.zeros([LOGITS_AT_ONCE], tl.float32), tl.zeros([LOGITS_AT_ONCE], tl.float32)
    for start in range(0, size, LOGITS_AT_ONCE):
        token = start + lane
        logit = tl.load(first + token, mask=token < size, other=float("-inf")).to(tl.float32) * factor
        logit += tl.load(bias + token, mask=token < size, other=0.0)
        higher = tl.maximum(most, logit)
        base = tl.where(higher == float("-inf"), 0.0, higher)  # nothing but banned tokens so far
        shrunk, share = tl.exp(most - base), tl.exp(logit - base)
        total = total * shrunk + share
        weighted = weighted * shrunk + tl.where(share > 0.0, share * logit, 0.0)
        most = higher
    highest = tl.max(most, 0)
    shares = tl.exp(most - highest)
    sum_of_all = tl.sum(total * shares, 0)
    logsum = highest + tl.log(sum_of_all)
    token_id = tl.load(token_ids + place)
    chosen = tl.load(first + token_id).to(tl.float32) * factor + tl.load(bias + token_id)
    tl.store(log_probs + place, chosen - logsum)
    tl.store(entropies + place, logsum - tl.sum(weighted * shares, 0) / sum_of_all)
    tl.store(logsums + place, logsum)


@triton.jit
@no_type_check  # Triton compiles the source: nothing may be wrapped around it
def _slopes(
    logits, token_ids, bias, logsums,
    factor, size, of_row,
    LOGITS_AT_ONCE: tl.constexpr,
):  # fmt: skip
    """Some logits of a row: one at the token less its probability, by the factor of the logits."""
    place = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * LOGITS_AT_ONCE + tl.arange(0, LOGITS_AT_ONCE)
    there, found = token < size, logits + place * of_row + token
    logit = tl.load(found, mask=there, other=float("-inf")).to(tl.float32) * factor
    logit += tl.load(bias + token, mask=there, other=0.0)
    share = tl.exp(logit - tl.load(logsums + place))
    slope = (tl.where(token == tl.load(token_ids + place), 1.0, 0.0) - share) * factor
    tl.store(found, slope.to(logits.dtype.element_ty), mask=there)
