"""From states to log-probabilities: the language model's head, on the places that are scored alone, and in chunks.

The logits of a long answer over a large vocabulary weigh more than a layer's activations, so they are never held
together: not in float32, and where the head learns, not for the way back either. A frozen head needs no logits there
at all: how a token's log-probability changes with its state is found on the way forth, a vector for each token.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from stvg_lightning.models.fused_layers import runs_triton

HEAD_CHUNK_LOGITS = 2**25
"""Logits that are held at once in float32: 128 MiB, whatever the vocabulary."""
HALF_CHUNK_LOGITS = 2**27
"""Logits that are held at once in half precision, where no others are: 256 MiB."""
Statistics = tuple[Float[Tensor, " tokens"], Float[Tensor, " tokens"]]
"""Log-probabilities of tokens, and entropies of the distributions they were chosen from."""


def banned_token_ids(model: PreTrainedModel) -> list[int]:
    """Tokens that no completion may hold: placeholders and markers of vision. A sampled one breaks the next pass."""
    config = model.config
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return [token for name in names if (token := getattr(config, name, None)) is not None]


def banned_bias(model: PreTrainedModel, device: torch.device) -> Float[Tensor, " vocabulary"]:
    """What bans them when it is added to logits: minus infinity, and 0 for every other token."""
    bias = torch.zeros(model.config.get_text_config().vocab_size, device=device)
    for token in banned_token_ids(model):  # bringing a list of them to a GPU would wait for it
        bias[token] = float("-inf")
    return bias


def next_token_log_probs(
    model: PreTrainedModel, hidden: Float[Tensor, "*batch width"], temperature: float = 1.0
) -> Float[Tensor, "*batch vocabulary"]:
    """Log-probabilities in float32 over the tokens that may follow; banned tokens have -inf."""
    logits = model.lm_head(hidden).float() / temperature
    banned = torch.tensor(banned_token_ids(model), device=logits.device)
    return logits.index_fill(-1, banned, float("-inf")).log_softmax(dim=-1)


def chosen_log_probs(
    model: PreTrainedModel, hidden: Float[Tensor, "tokens width"], token_ids: Int[Tensor, " tokens"], temperature: float
) -> Float[Tensor, " tokens"]:
    """Log-probabilities of chosen tokens; see `chosen_statistics`."""
    return chosen_statistics(model, hidden, token_ids, temperature)[0]


def chosen_statistics(
    model: PreTrainedModel, hidden: Float[Tensor, "tokens width"], token_ids: Int[Tensor, " tokens"], temperature: float
) -> Statistics:
    """Log-probabilities of chosen tokens, and the entropies of the distributions they were chosen from.

    At most `HEAD_CHUNK_LOGITS` logits are held in float32, forward and backward. Entropies have no gradient.

    Args:
        model: the vision-language model.
        hidden: what predicts the tokens.
        token_ids: the tokens.
        temperature: divides the logits, as it did in sampling.
    """
    scorer = _Scorer(model, hidden.device, temperature)
    if _is_frozen_matrix(model.lm_head):
        return _FrozenHead.apply(hidden, token_ids, scorer, torch.is_grad_enabled() and hidden.requires_grad)
    chunks = zip(hidden.split(scorer.chunk_tokens), token_ids.split(scorer.chunk_tokens), strict=True)
    if torch.is_grad_enabled():
        found = [checkpoint(scorer.statistics, *chunk, use_reentrant=False)[:2] for chunk in chunks]
    else:
        found = [scorer.statistics(*chunk)[:2] for chunk in chunks]
    log_probs, entropies = (torch.cat(values) for values in zip(*found, strict=True))
    return log_probs, entropies


class _Scorer:
    """A model's head at a temperature."""

    def __init__(self, model: PreTrainedModel, device: torch.device, temperature: float) -> None:
        self.head, self.temperature = model.lm_head, temperature
        self.bias = banned_bias(model, device)
        self.chunk_tokens = max(1, HEAD_CHUNK_LOGITS // len(self.bias))
        self.half_chunk_tokens = max(1, HALF_CHUNK_LOGITS // len(self.bias))

    def statistics(
        self, hidden: Float[Tensor, "tokens width"], token_ids: Int[Tensor, " tokens"]
    ) -> tuple[Tensor, Tensor, Float[Tensor, "tokens vocabulary"]]:
        """Of a chunk, and the probabilities of all tokens; log-probabilities alone have a gradient."""
        unbanned = self.head(hidden).float() / self.temperature
        logits = unbanned + self.bias
        logsums = logits.logsumexp(dim=-1)
        chosen = logits.gather(-1, token_ids[:, None])[:, 0] - logsums
        with torch.no_grad():
            shares = (logits - logsums[:, None]).exp()
            # Banned tokens have shares of 0; minus infinity times that would be no number.
            entropies = logsums - (shares * unbanned).sum(dim=-1)
        return chosen, entropies, shares

    def statistics_and_slopes(
        self, hidden: Float[Tensor, "tokens width"], token_ids: Int[Tensor, " tokens"], wants_slopes: bool
    ) -> tuple[Tensor, Tensor, Float[Tensor, "tokens width"] | None]:
        """Of a chunk, without a graph; slopes are how each log-probability changes with its state."""
        chosen, entropies, shares = self.statistics(hidden, token_ids)
        if not wants_slopes:
            return chosen, entropies, None
        slopes = shares.neg_().scatter_add_(1, token_ids[:, None], torch.ones_like(chosen)[:, None])
        weight = self.head.weight
        return chosen, entropies, (slopes / self.temperature).to(weight.dtype) @ weight

    def statistics_and_slopes_by_kernels(
        self, hidden: Float[Tensor, "tokens width"], token_ids: Int[Tensor, " tokens"], wants_slopes: bool
    ) -> tuple[Tensor, Tensor, Float[Tensor, "tokens width"] | None]:
        """The same where Triton runs."""
        from stvg_lightning.models.head_kernel import statistics_of_logits, turn_into_slopes

        logits = self.head(hidden)
        given = token_ids, self.bias, self.temperature
        log_probs, entropies, logsums = statistics_of_logits(logits, *given)
        if not wants_slopes:
            return log_probs, entropies, None
        return log_probs, entropies, turn_into_slopes(logits, *given, logsums) @ self.head.weight.to(logits.dtype)


class _FrozenHead(torch.autograd.Function):
    """Statistics of all tokens in chunks; of each token the slope of its log-probability is kept, and no logits.

    First derivatives only.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, token_ids: Tensor, scorer: _Scorer, wants_slopes: bool) -> Statistics:
        size, of_chunk = scorer.chunk_tokens, scorer.statistics_and_slopes
        if runs_triton(hidden.device):
            is_cast = torch.is_autocast_enabled("cuda")
            dtype = torch.get_autocast_dtype("cuda") if is_cast else scorer.head.weight.dtype
            size = scorer.half_chunk_tokens if dtype.itemsize == 2 else size
            of_chunk = scorer.statistics_and_slopes_by_kernels
        # What watches modules expects a graph of an input that learns, and there is none in here.
        chunks = zip(hidden.detach().split(size), token_ids.split(size), strict=True)
        found = list(zip(*(of_chunk(*chunk, wants_slopes) for chunk in chunks), strict=True))
        log_probs, entropies = torch.cat(found[0]), torch.cat(found[1])
        if wants_slopes:
            ctx.save_for_backward(torch.cat(found[2]))
            ctx.dtype = hidden.dtype
        ctx.mark_non_differentiable(entropies)
        return log_probs, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return (slopes * gradients[0][:, None]).to(ctx.dtype), None, None, None


def _is_frozen_matrix(head: nn.Module) -> bool:
    """Whether a head is a linear layer that does not learn, and nothing else happens when it is called."""
    hooks = head._forward_hooks, head._forward_pre_hooks, head._backward_hooks, head._backward_pre_hooks
    is_watched = any(hooks) or "forward" in vars(head)
    learns = any(parameter.requires_grad for parameter in head.parameters())
    return type(head) is nn.Linear and not learns and not is_watched
