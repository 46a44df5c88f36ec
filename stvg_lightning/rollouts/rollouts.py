"""Rollouts: groups of completions sampled for prompts, and how they are sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stvg_lightning.models.decoding import DECODINGS, Decoding
from stvg_lightning.models.forward import Completions
from stvg_lightning.tubes.choices import check_choice


@dataclass(frozen=True)
class Sampling:
    """How completions are sampled.

    Attributes:
        max_new_tokens: a completion that has not ended by then is cut off and counted as truncated.
        temperature: divides the logits; 0 takes the likeliest token.
        decoding: how tokens are written one after the other; in float32 the results are the same to rounding.
            `graphs`: each step is recorded and replayed as a CUDA graph, in tables of a few fixed shapes; `fixed`:
            those shapes without a recording; `plain`: shapes that follow what is left; `lean`: likewise, of a small
            model that a CPU holds in float32, its layers taken apart; `auto`: `graphs` on one NVIDIA GPU, with a
            warning and without recordings where a step cannot be recorded, else `lean` where that can be, else
            `plain`.
    """

    max_new_tokens: int = 1024
    temperature: float = 1.0
    decoding: Decoding = "auto"

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, not {self.temperature}")
        check_choice("decoding", self.decoding, DECODINGS)


GREEDY = Sampling(max_new_tokens=1024, temperature=0.0)


@dataclass(frozen=True)
class Rollouts:
    """Groups of completions: rows of one prompt stand together, in the order of the prompts.

    `log_probs` are those of the policy that sampled, at the sampling temperature (1 where it is 0).
    `seconds` is the time spent in `prefill`, reading the prompts, and in `generate`, writing the completions.
    `decoding` tells how they were written: `plain`, `lean`, `fixed` or `graphs`, or several, where parts were written
    in other ways, as `graphs, fixed`.
    """

    token_ids: Int[Tensor, "rows tokens"]
    mask: Bool[Tensor, "rows tokens"]
    log_probs: Float[Tensor, "rows tokens"]
    texts: list[str]
    truncated: Bool[Tensor, " rows"]
    group_size: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    decoding: str = "plain"

    @property
    def completions(self) -> Completions:
        return Completions(self.token_ids, self.mask)

    @property
    def lengths_tokens(self) -> Int[Tensor, " rows"]:
        return self.mask.sum(dim=1)

    def select(self, rows: slice) -> Rollouts:
        """Some neighbouring rows, cut to their longest completion."""
        longest = max(int(self.lengths_tokens[rows].max()), 1)
        return Rollouts(
            self.token_ids[rows, :longest],
            self.mask[rows, :longest],
            self.log_probs[rows, :longest],
            self.texts[rows],
            self.truncated[rows],
            self.group_size,
            self.seconds,
            self.decoding,
        )


def joined(parts: Sequence[Rollouts], pad_token_id: int) -> Rollouts:
    """Rollouts of prompts after prompts, padded to the longest completion; seconds add up."""
    if len(parts) == 1:
        return parts[0]
    longest = max(part.token_ids.shape[1] for part in parts)

    def padded(name: str, value: float | int) -> Tensor:
        tensors = [getattr(part, name) for part in parts]
        return torch.cat([F.pad(tensor, (0, longest - tensor.shape[1]), value=value) for tensor in tensors])

    return Rollouts(
        padded("token_ids", pad_token_id),
        padded("mask", False),
        padded("log_probs", 0.0),
        [text for part in parts for text in part.texts],
        torch.cat([part.truncated for part in parts]),
        parts[0].group_size,
        {phase: sum(part.seconds[phase] for part in parts) for phase in parts[0].seconds},
        ", ".join(dict.fromkeys(part.decoding for part in parts)),
    )


def is_end(token_ids: Int[Tensor, "*shape"], end_token_ids: Sequence[int]) -> Bool[Tensor, "*shape"]:
    """Which tokens are one of those that end a completion."""
    found = torch.zeros_like(token_ids, dtype=torch.bool)
    for end in end_token_ids:  # one by one: a tensor of them would have to be brought to a GPU, which waits for it
        found |= token_ids == end
    return found


def written_mask(token_ids: Int[Tensor, "rows tokens"], end_token_ids: Sequence[int]) -> Bool[Tensor, "rows tokens"]:
    """Which tokens belong to a completion: all up to the first end token, and that one too."""
    ended = is_end(token_ids, end_token_ids).cumsum(dim=1)
    before = torch.cat([torch.zeros_like(ended[:, :1]), ended[:, :-1]], dim=1)
    return before == 0
