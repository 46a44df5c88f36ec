"""The next token of every completion: that with the highest logit and Gumbel noise, which is a sample.

Each prompt has noise of its own, from its seed: its group is the same in whatever batch and on whatever process it is
written. Numbers differ between the ways below, as torch's own do between devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stvg_lightning.models.fused_layers import runs_triton
from stvg_lightning.models.head import banned_bias, next_token_log_probs
from stvg_lightning.models.loading import Network

Chosen = tuple[Int[Tensor, " rows"], Float[Tensor, " rows"]]
"""Tokens and their log-probabilities at the sampling temperature."""


@dataclass(frozen=True)
class Groups:
    """Completions that are being written.

    Attributes:
        network: whose head gives the logits; tokens of vision are banned.
        temperature: 0 chooses the most probable token.
        prompt_seeds: one of each prompt.
        group_size: completions of each.
    """

    network: Network
    temperature: float
    prompt_seeds: Sequence[int]
    group_size: int


@runtime_checkable
class Chooser(Protocol):
    """Chooses tokens for some groups."""

    def choose(self, hidden: Float[Tensor, "rows width"], rows: Int[Tensor, " rows"], step: int) -> Chosen:
        """The next tokens of some completions.

        Args:
            hidden: what predicts them.
            rows: which completions these are, of all those of the first prompt, then of the second, and so on.
            step: tokens that each of them has.
        """
        ...


def chooser_of(groups: Groups, device: torch.device) -> Chooser:
    """Where Triton runs, by its kernel; elsewhere by torch's operations."""
    return KernelChooser(groups, device) if runs_triton(device) else TorchChooser(groups, device)


class TorchChooser:
    """By operations of torch, a generator for each prompt."""

    def __init__(self, groups: Groups, device: torch.device) -> None:
        self.groups = groups
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in groups.prompt_seeds]

    def choose(self, hidden: Float[Tensor, "rows width"], rows: Int[Tensor, " rows"], step: int) -> Chosen:
        """The next tokens of some completions; generators go on from step to step by themselves."""
        temperature = self.groups.temperature
        log_probs = next_token_log_probs(self.groups.network, hidden, temperature or 1.0)
        scores = log_probs + self._noise(log_probs.shape[-1], rows) if temperature > 0 else log_probs
        chosen = scores.argmax(dim=-1)
        return chosen, log_probs.gather(-1, chosen[:, None])[:, 0]

    def _noise(self, vocabulary_size: int, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows vocabulary"]:
        """Of some rows; a prompt's generator draws for its whole group as long as one of them is asked for."""
        group_size, device = self.groups.group_size, rows.device
        uniform = []
        for number, within in _within_groups(rows, group_size):
            drawn = torch.rand(group_size, vocabulary_size, generator=self.generators[number], device=device)
            uniform.append(drawn if len(within) == group_size else drawn[within])
        # In place: of a large vocabulary these are a quarter of a gigabyte for every 400 completions.
        exponential = torch.cat(uniform).clamp_(min=1e-20).log_().neg_()
        return exponential.clamp_(min=1e-20).log_().neg_()


class KernelChooser:
    """By one pass over the logits, which draws the noise itself."""

    def __init__(self, groups: Groups, device: torch.device) -> None:
        self.groups = groups
        self.prompt_seeds = torch.tensor([seed % 2**63 for seed in groups.prompt_seeds], device=device)
        self.bias = banned_bias(groups.network, device)

    def choose(self, hidden: Float[Tensor, "rows width"], rows: Int[Tensor, " rows"], step: int) -> Chosen:
        """The next tokens of some completions."""
        from stvg_lightning.models.choosing_kernel import choose

        groups = self.groups
        logits = groups.network.lm_head(hidden)
        return choose(logits, self.bias, groups.temperature, rows, self.prompt_seeds, groups.group_size, step)


def _within_groups(rows: Int[Tensor, " rows"], group_size: int) -> list[tuple[int, list[int]]]:
    """Each group that has rows, and their places in it."""
    found: dict[int, list[int]] = {}
    for row in rows.tolist():
        found.setdefault(row // group_size, []).append(row % group_size)
    return list(found.items())
