"""Prompts that were read once, and what their completions take from them while they are written, in tables that grow.

Tables hold what is needed and no more: completions that have ended leave them at once. `fixed_prompts` does the same
in tables of few shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from stvg_lightning.models.decoding_attention import PlacesByPrompt, Tables, attend_one_token
from stvg_lightning.models.group_prompts import KeysAndValues
from stvg_lightning.models.group_rows import RowLayout

LEAST_ROOM_TOKENS = 64
ROOM_SHARE = 0.5


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
    def of(cls, recorded: dict[int, KeysAndValues], layout: RowLayout, group_size: int) -> DecodingPrompts:
        """From the keys and values that a pass over prompts recorded; they are taken out: none is held twice."""
        sizes = [span.prompt_tokens for span in layout.spans]
        prompts: dict[int, KeysAndValues] = {}
        for layer in list(recorded):
            keys, values = recorded.pop(layer)
            prompts[layer] = _padded(keys, sizes), _padded(values, sizes)
        bias = torch.zeros(len(sizes), max(sizes), device=next(iter(prompts.values()))[0].device)
        for row, size in zip(bias, sizes, strict=True):  # bringing the sizes to a GPU would wait for it
            row[size:] = float("-inf")
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
        most = max(self.rows, default=0)
        places = [number * most + place for number, rows in enumerate(self.rows) for place in range(rows)]
        self._places = torch.tensor(places, device=kept.device) if len(places) < most * len(self.rows) else None

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, layout: RowLayout
    ) -> Tensor:
        """One new token of each completion: (1, heads, rows, channels)."""
        query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
        return self.attend_rows(layer, query, key, value, scaling).transpose(0, 1)[None]

    def attend_rows(
        self,
        layer: int,
        query: Float[Tensor, "rows heads width"],
        key: Float[Tensor, "rows key_heads width"],
        value: Float[Tensor, "rows key_heads width"],
        scaling: float | None,
    ) -> Float[Tensor, "rows heads width"]:
        """The same, in the order in which a layer computes them."""
        if layer not in self._own:
            room = (len(key), key.shape[1], 0, key.shape[2])
            self._own[layer] = OwnTokens(key.new_empty(room), value.new_empty(room))
        own, steps = self._own[layer], self.step + 1
        own.write(self.step, key, value)
        written = own.keys[:, :, :steps], own.values[:, :, :steps]
        places = PlacesByPrompt(len(self.rows), max(self.rows), self._places)
        return attend_one_token(query, scaling, Tables(self.prompts[layer], written, places, self.bias))


def tokens_in_tables(prompt_tokens: Sequence[int], written_tokens: Sequence[int]) -> int:
    """How many tokens have room in the tables of prompts that are decoded together, each as long as the longest.

    Args:
        prompt_tokens: of each prompt, at least one.
        written_tokens: of all completions of each, at their longest.
    """
    return len(prompt_tokens) * max(prompt_tokens) + sum(written_tokens)


def prompts_in_tables(
    prompt_tokens: Sequence[int], written_tokens: Sequence[int], most_tokens: int | None
) -> list[slice]:
    """Neighbouring prompts whose tables have room for at most so many tokens, at least one prompt; None: no limit.

    Example:
        >>> prompts_in_tables([50, 10, 10, 10], [5, 5, 5, 5], 60)
        [slice(0, 1, None), slice(1, 4, None)]
    """
    bounds = [0]
    for place in range(1, len(prompt_tokens)):
        held = slice(bounds[-1], place + 1)
        if most_tokens is not None and tokens_in_tables(prompt_tokens[held], written_tokens[held]) > most_tokens:
            bounds.append(place)
    return [slice(start, end) for start, end in zip(bounds, [*bounds[1:], len(prompt_tokens)], strict=True)]


def _padded(
    states: Float[Tensor, "1 heads row width"], sizes: list[int]
) -> Float[Tensor, "prompts heads tokens width"]:
    """Prompts that stood one behind the other, one beside the other."""
    pieces = states[0].transpose(0, 1).split(sizes)
    return pad_sequence(list(pieces), batch_first=True).transpose(1, 2).contiguous()
