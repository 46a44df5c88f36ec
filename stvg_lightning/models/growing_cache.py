"""A cache of keys and values with room ahead: a new token is written into it, and nothing held before is copied."""

from __future__ import annotations

from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

LEAST_ROOM_TOKENS = 256
ROOM_SHARE = 0.25
"""Room ahead as a share of what is held: copies stay rare, and little memory lies idle beside a long prompt."""


def growing_cache(config: PretrainedConfig) -> DynamicCache:
    """An empty cache for a language model; layers that see a window only stay as transformers makes them."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer, as views of tensors that are longer than what was written."""

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Write new tokens behind the others.

        Args:
            key_states: `[batch, heads, tokens, width]`.
            value_states: likewise.

        Returns:
            All keys and all values so far; both are overwritten by nothing that comes later.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[..., :0, :], value_states[..., :0, :]
            self.key_room, self.value_room = self.keys, self.values
        self.keys, self.key_room = _appended(self.keys, self.key_room, key_states)
        self.values, self.value_room = _appended(self.values, self.value_room, value_states)
        return self.keys, self.values


def _appended(held: Tensor, room: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """What is held with the new tokens behind it, and the room in which both lie."""
    num_held = held.shape[-2]
    num_tokens = num_held + new.shape[-2]
    # What is held may have been replaced, when rows left or changed places.
    if num_tokens > room.shape[-2] or held.data_ptr() != room.data_ptr():
        ahead = max(LEAST_ROOM_TOKENS, int(ROOM_SHARE * num_tokens))
        room = new.new_empty(*new.shape[:-2], num_tokens + ahead, new.shape[-1])
        room[..., :num_held, :] = held
    room[..., num_held:num_tokens, :] = new
    return room[..., :num_tokens, :], room
