"""Prompts that were read once, and what their completions take from them while they are written, in few shapes.

A GPU that replays a recorded step reads and writes the same places of memory at every token, so tables are laid out
once, for every completion at its longest. Of them a step uses the front: places for so many prompts, so many
completions of each, and so many written tokens, each a power of two or all there are. As completions end, those that go
on move to the front once fewer places do for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stvg_lightning.models.decoding_attention import PlacesByPrompt, Tables, attend_one_token
from stvg_lightning.models.decoding_prompts import DecodingPrompts
from stvg_lightning.models.fused_layers import runs_triton
from stvg_lightning.models.group_prompts import KeysAndValues
from stvg_lightning.models.group_rows import RowLayout

LEAST_WRITTEN_TOKENS = 64
MOST_CHANNELS = 128


@dataclass(frozen=True)
class FixedShape:
    """What of the tables a step uses: prompts, places for completions of each, and tokens written by each."""

    num_prompts: int
    places_each: int
    written_tokens: int

    @property
    def num_places(self) -> int:
        return self.num_prompts * self.places_each


@dataclass
class FixedPrompts:
    """Tables of fixed size; see `DecodingPrompts` for those that grow.

    Attributes:
        prompts: keys and values of each layer, (prompts, heads, tokens, channels), padded on the right.
        own: keys and values that completions have written in each layer, (places, heads, most tokens, channels).
        bias: what is added to the scores of a prompt's tokens: 0, and minus infinity for padding.
        own_bias: likewise of completions' own: 0 up to the one that the next step reads, and minus infinity beyond.
        last_positions: of the last token of each place's prompt.
        read: tokens of each completion that were read before, where the device can see it.
        shape: what the next step uses.
    """

    prompts: dict[int, KeysAndValues]
    own: dict[int, KeysAndValues]
    bias: Float[Tensor, "prompts tokens"]
    own_bias: Float[Tensor, " most_tokens"]
    last_positions: Int[Tensor, "3 places"]
    read: Int[Tensor, " 1"]
    shape: FixedShape

    @classmethod
    def of(cls, grown: DecodingPrompts, last_positions: Int[Tensor, "3 rows"], most_tokens: int) -> FixedPrompts:
        """From prompts whose completions have written nothing yet; their keys and values are taken over.

        Args:
            grown: prompts with as many completions each.
            last_positions: of the last token of each completion's prompt.
            most_tokens: that are read of any completion.
        """
        assert grown.step == 0 and len(set(grown.rows)) == 1, (grown.step, grown.rows)
        num_places = sum(grown.rows)

        def room(states: Tensor) -> Tensor:
            # Zeros, since what is masked still takes part with a share of zero.
            return states.new_zeros(num_places, states.shape[1], most_tokens, states.shape[3])

        own = {layer: (room(keys), room(values)) for layer, (keys, values) in grown.prompts.items()}
        shape = FixedShape(len(grown.rows), grown.rows[0], min(LEAST_WRITTEN_TOKENS, most_tokens))
        read = torch.zeros(1, dtype=torch.long, device=last_positions.device)
        ahead = grown.bias.new_full((most_tokens,), float("-inf"))
        return cls(grown.prompts, own, grown.bias, ahead, last_positions.clone(), read, shape)

    @property
    def most_tokens(self) -> int:
        return next(iter(self.own.values()))[0].shape[2]

    @property
    def has_kernels(self) -> bool:
        """Attention by `decoding_kernels`, which themselves see how much is written: one shape does for all lengths.

        In half precision and of 128 channels at most: of more, a block needs more memory than some GPUs have for one.
        """
        keys, _ = next(iter(self.prompts.values()))
        fits = keys.dtype.itemsize == 2 and keys.shape[-1] <= MOST_CHANNELS
        return fits and runs_triton(keys.device)

    def written_tokens(self, needed: int) -> int:
        """Of the smallest shape that has room for as many tokens of each completion as needed."""
        return self.most_tokens if self.has_kernels else bucket(needed, self.most_tokens, LEAST_WRITTEN_TOKENS)

    def positions(self) -> Int[Tensor, "3 places"]:
        """Of the token that the next step reads."""
        return self.last_positions[:, : self.shape.num_places] + 1 + self.read

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, layout: RowLayout
    ) -> Tensor:
        """One new token of each place: (1, heads, places, channels)."""
        shape = self.shape
        own_keys, own_values = (table[: shape.num_places] for table in self.own[layer])
        keys, values = (table[: shape.num_prompts] for table in self.prompts[layer])
        if self.has_kernels:
            from stvg_lightning.models.decoding_kernels import attend_one_token_at_all_places

            query, key, value = (states.to(keys.dtype) for states in (query, key, value))
            prompt, own, bias = (keys, values), (own_keys, own_values), self.bias[: shape.num_prompts]
            return attend_one_token_at_all_places(query, scaling, prompt, own, (key, value), bias, self.read)
        for table, states in ((own_keys, key), (own_values, value)):
            table.index_copy_(2, self.read, states[0].transpose(0, 1)[:, :, None].to(table.dtype))
        own = own_keys[:, :, : shape.written_tokens], own_values[:, :, : shape.written_tokens]
        places = PlacesByPrompt(shape.num_prompts, shape.places_each)
        biases = self.bias[: shape.num_prompts], self.own_bias[: shape.written_tokens]
        tables = Tables((keys, values), own, places, *biases)
        return attend_one_token(query[0].transpose(0, 1), scaling, tables).transpose(0, 1)[None]

    def move(self, prompts: Sequence[int], places: Sequence[int], shape: FixedShape, written: int) -> None:
        """Bring to the front what goes on.

        Args:
            prompts: for each prompt of the new shape, where it was.
            places: for each place of the new shape, where it was.
            shape: the new one, not larger than the old one.
            written: tokens that each completion has written so far.
        """
        from_prompts = torch.tensor(prompts, device=self.bias.device)
        from_places = torch.tensor(places, device=self.bias.device)
        moves_prompts = list(prompts) != list(range(len(prompts)))
        for layer, tables in self.own.items():
            for table in tables:
                table[: len(places), :, :written] = table[:, :, :written].index_select(0, from_places)
            for table in self.prompts[layer] if moves_prompts else ():
                table[: len(prompts)] = table.index_select(0, from_prompts)
        self.bias[: len(prompts)] = self.bias.index_select(0, from_prompts)
        self.last_positions[:, : len(places)] = self.last_positions.index_select(1, from_places)
        self.shape = shape


def bucket(needed: int, most: int, least: int = 1) -> int:
    """The smallest power of two that is enough, or all there are.

    Example:
        >>> [bucket(needed, most=12) for needed in (1, 3, 8, 9, 12)]
        [1, 4, 8, 12, 12]
    """
    enough = least
    while enough < needed:
        enough *= 2
    return min(enough, most)
