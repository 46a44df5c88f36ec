"""Prompts that were read once: what completions take from them while they are written or learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stvg_lightning.models.group_rows import RowLayout
from stvg_lightning.models.prefix_attention import attend_completions

LEAST_ROOM_TOKENS = 64
ROOM_SHARE = 0.5
KeysAndValues = tuple[Tensor, Tensor]


@dataclass
class OwnTokens:
    """Keys and values that completions have written in one layer, (rows, heads, room, channels), with room ahead."""

    keys: Tensor
    values: Tensor

    def write(self, step: int, keys: Float[Tensor, "rows heads width"], values: Float[Tensor, "rows heads width"]):
        """One more token of each completion; nothing written before is copied while there is room."""
        if step == self.keys.shape[2]:
            room = (*self.keys.shape[:2], max(LEAST_ROOM_TOKENS, int(ROOM_SHARE * step)), self.keys.shape[3])
            self.keys = torch.cat([self.keys, self.keys.new_empty(room)], dim=2)
            self.values = torch.cat([self.values, self.values.new_empty(room)], dim=2)
        self.keys[:, :, step], self.values[:, :, step] = keys, values


@dataclass
class DecodingPrompts:
    """Prompts whose completions are being written, token after token, all of the same length so far.

    Attributes:
        prompts: for each layer, keys and values of each prompt: (heads, tokens, channels).
        rows: completions of each prompt that are still being written.
        step: tokens of each completion that were read before.
    """

    prompts: dict[int, list[KeysAndValues]]
    rows: list[int]
    step: int = 0
    _own: dict[int, OwnTokens] = field(default_factory=dict)

    @classmethod
    def of(cls, recorded: Mapping[int, KeysAndValues], layout: RowLayout, group_size: int) -> DecodingPrompts:
        """From the keys and values that a pass over prompts recorded; they are cut up, not copied."""
        prompts = {
            layer: [(keys[0, :, span.prompt], values[0, :, span.prompt]) for span in layout.spans]
            for layer, (keys, values) in recorded.items()
        }
        return cls(prompts, [group_size] * len(layout.spans))

    def keep(self, kept: Bool[Tensor, " rows"]) -> None:
        """Let completions leave that have ended, and prompts that have none left."""
        self.rows = [int(group.sum()) for group in kept.split(self.rows)]
        for own in self._own.values():
            own.keys, own.values = own.keys[kept], own.values[kept]
        for prompts in self.prompts.values():
            prompts[:] = [each for each, rows in zip(prompts, self.rows, strict=True) if rows]
        self.rows = [rows for rows in self.rows if rows]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, layout: RowLayout
    ) -> Tensor:
        """One new token of each completion: (1, heads, rows, channels)."""
        heads, num_rows, width = key.shape[1:]
        scale = width**-0.5 if scaling is None else scaling
        if layer not in self._own:
            self._own[layer] = OwnTokens(*(each.new_empty(num_rows, heads, 0, width) for each in (key, value)))
        own = self._own[layer]
        own.write(self.step, key[0].transpose(0, 1), value[0].transpose(0, 1))
        own_values = own.values[:, :, : self.step + 1]
        # (rows, heads of keys, queries for each, channels)
        queries = (query[0].transpose(0, 1) * scale).view(num_rows, heads, -1, width)
        own_scores = _scores(queries, own.keys[:, :, : self.step + 1])
        outputs, first = [], 0
        for (keys, values), rows in zip(self.prompts[layer], self.rows, strict=True):
            group = slice(first, first + rows)
            asked = queries[group].transpose(0, 1).reshape(heads, -1, width)
            scores = _scores(asked, keys).view(heads, rows, -1, keys.shape[1]).transpose(0, 1)
            shares = torch.cat([scores, own_scores[group]], dim=-1).softmax(dim=-1).to(own_values.dtype)
            of_prompt, of_own = shares.split([keys.shape[1], self.step + 1], dim=-1)
            taken = of_prompt.transpose(0, 1).reshape(heads, -1, keys.shape[1]) @ values
            outputs.append(taken.view(heads, rows, -1, width).transpose(0, 1) + of_own @ own_values[group])
            first += rows
        return torch.cat(outputs).reshape(1, num_rows, -1, width).transpose(1, 2)


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
        keys, values = self.held[layer]
        (span,) = layout.spans
        return attend_completions(query, (keys, values), (key, value), scaling, span.completion_tokens)

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


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    """Dot products in float32: in bfloat16 a score of 10 would be off by 0.03."""
    with torch.autocast(queries.device.type, enabled=False):
        return queries.float() @ keys.float().transpose(-1, -2)
