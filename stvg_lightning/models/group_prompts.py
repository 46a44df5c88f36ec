"""Prompts that were read once: what completions take from them while they are written or learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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
        prompts: keys and values of each layer, (prompts, heads, tokens, channels), padded on the right.
        bias: what is added to the scores of a prompt's tokens: 0, and minus infinity for padding.
        rows: completions of each prompt that are still being written.
        step: tokens of each completion that were read before.
    """

    prompts: dict[int, KeysAndValues]
    bias: Float[Tensor, "prompts tokens"]
    rows: list[int]
    step: int = 0
    _own: dict[int, OwnTokens] = field(default_factory=dict)
    _places: Int[Tensor, " rows"] | None = None

    @classmethod
    def of(cls, recorded: Mapping[int, KeysAndValues], layout: RowLayout, group_size: int) -> DecodingPrompts:
        """From the keys and values that a pass over prompts recorded."""
        sizes = [span.prompt_tokens for span in layout.spans]
        prompts = {layer: (_padded(keys, sizes), _padded(values, sizes)) for layer, (keys, values) in recorded.items()}
        device = next(iter(prompts.values()))[0].device
        is_padding = torch.arange(max(sizes), device=device) >= torch.tensor(sizes, device=device)[:, None]
        bias = torch.zeros(is_padding.shape, device=device).masked_fill(is_padding, float("-inf"))
        return cls(prompts, bias, [group_size] * len(sizes))

    def keep(self, kept: Bool[Tensor, " rows"]) -> None:
        """Let completions leave that have ended, and prompts that have none left."""
        left = [int(group.sum()) for group in kept.split(self.rows)]
        for own in self._own.values():
            own.keys, own.values = own.keys[kept], own.values[kept]
        if 0 in left:
            still = torch.tensor([rows > 0 for rows in left], device=kept.device)
            self.prompts = {layer: (keys[still], values[still]) for layer, (keys, values) in self.prompts.items()}
            self.bias = self.bias[still]
        self.rows = [rows for rows in left if rows]
        # Where each completion stands in a table of as many places for each prompt.
        most = max(self.rows, default=0)
        places = [number * most + place for number, rows in enumerate(self.rows) for place in range(rows)]
        self._places = torch.tensor(places, device=kept.device) if len(places) < most * len(self.rows) else None

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, layout: RowLayout
    ) -> Tensor:
        """One new token of each completion: (1, heads, rows, channels)."""
        heads, num_rows, width = key.shape[1:]
        scale = width**-0.5 if scaling is None else scaling
        if layer not in self._own:
            self._own[layer] = OwnTokens(*(each.new_empty(num_rows, heads, 0, width) for each in (key, value)))
        own, steps = self._own[layer], self.step + 1
        own.write(self.step, key[0].transpose(0, 1), value[0].transpose(0, 1))
        # (rows, heads of keys, queries for each, channels)
        queries = (query[0].transpose(0, 1) * scale).reshape(num_rows, heads, -1, width)
        own_scores = _scores(queries, own.keys[:, :, :steps])
        keys, values = self.prompts[layer]
        scores = self._rows_of(_scores(self._by_prompt(queries), keys) + self.bias[:, None, None], queries.shape[2])
        shares = torch.cat([scores, own_scores], dim=-1).softmax(dim=-1).to(own.values.dtype)
        of_prompt, of_own = shares.split([keys.shape[2], steps], dim=-1)
        taken = self._rows_of(self._by_prompt(of_prompt) @ values, queries.shape[2])
        output = taken + of_own @ own.values[:, :, :steps]
        return output.reshape(1, num_rows, -1, width).transpose(1, 2)

    def _by_prompt(self, rows: Float[Tensor, "rows heads queries n"]) -> Float[Tensor, "prompts heads asked n"]:
        """Rows gathered for each prompt, those of its completions one after the other."""
        num_prompts, most = len(self.rows), max(self.rows)
        if self._places is not None:
            rows = rows.new_zeros(num_prompts * most, *rows.shape[1:]).index_copy(0, self._places, rows)
        return rows.unflatten(0, (num_prompts, most)).transpose(1, 2).flatten(2, 3)

    def _rows_of(
        self, asked: Float[Tensor, "prompts heads asked n"], num_queries: int
    ) -> Float[Tensor, "rows heads queries n"]:
        """The way back from `_by_prompt`."""
        rows = asked.unflatten(2, (-1, num_queries)).transpose(1, 2).flatten(0, 1)
        return rows if self._places is None else rows[self._places]


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


def _padded(
    states: Float[Tensor, "1 heads row width"], sizes: list[int]
) -> Float[Tensor, "prompts heads tokens width"]:
    """Prompts that stood one behind the other, one beside the other."""
    pieces = states[0].transpose(0, 1).split(sizes)
    return pad_sequence(list(pieces), batch_first=True).transpose(1, 2).contiguous()


def _scores(queries: Tensor, keys: Tensor) -> Tensor:
    """Dot products in float32: in bfloat16 a score of 10 would be off by 0.03."""
    with torch.autocast(queries.device.type, enabled=False):
        return queries.float() @ keys.float().transpose(-1, -2)
