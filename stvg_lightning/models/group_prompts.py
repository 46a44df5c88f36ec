"""Prompts that were read once: what completions take from them while they are learned from.

What they take while they are written is in `decoding_prompts` and `fixed_prompts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stvg_lightning.models.flash_attention import attend_segments, has_flash
from stvg_lightning.models.group_rows import RowLayout
from stvg_lightning.models.prefix_attention import attend_completions

KeysAndValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class LearningPrompt:
    """One prompt whose completions are learned from in several passes, each adding to the gradient of its keys.

    Attributes:
        read: keys and values of each layer, (1, heads, tokens, channels), with the pass that made them behind them.
        held: the same, cut off from that pass.
    """

    read: dict[int, KeysAndValues]
    held: dict[int, KeysAndValues]

    @classmethod
    def of(cls, recorded: Mapping[int, KeysAndValues]) -> LearningPrompt:
        """From the keys and values that a pass over the prompt recorded."""
        held = {layer: (_cut_off(keys), _cut_off(values)) for layer, (keys, values) in recorded.items()}
        return cls(dict(recorded), held)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, layout: RowLayout
    ) -> Tensor:
        """Completions of the prompt, whole and side by side: (1, heads, tokens, channels)."""
        (keys, values), (span,) = self.held[layer], layout.spans
        if has_flash(query.device, query.dtype):
            all_see_all = [(slice(None), slice(None))]
            return attend_segments(
                query, (key, value), layout.segments(query.device), all_see_all, scaling, (keys, values)
            )
        mask = layout.mask_of(span, query.device)
        return attend_completions(query, (keys, values), (key, value), scaling, span.completion_tokens, mask)

    def owed(self) -> Tensor:
        """A sum whose gradient is what the passes over completions have left at the prompt's keys and values."""
        pairs = ((made, held) for layer in self.read for made, held in zip(self.read[layer], self.held[layer]))
        return owed_by(pairs)


def owed_by(pairs) -> Tensor:
    """The sum over pairs of a tensor and its cut-off copy of the tensor times the copy's gradient."""
    terms = [(made * held.grad.to(made.dtype)).sum().float() for made, held in pairs if held.grad is not None]
    return torch.stack(terms).sum()


def _cut_off(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tensor.requires_grad)
