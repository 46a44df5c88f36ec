"""Attention of one new token of each completion, to its prompt and to what the completion has written.

The prompt is read in place: completions of one prompt ask it together. On a CPU, with tables that grow, prompt and own
tokens are two parts, put together by the logarithms that torch's kernel gives with each (as in `prefix_attention`);
otherwise the scores of both are written down. On an NVIDIA GPU in half precision `decoding_kernels` does the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stvg_lightning.models.group_prompts import KeysAndValues
from stvg_lightning.models.prefix_attention import attend_with_logsum, in_one_precision


@dataclass(frozen=True)
class PlacesByPrompt:
    """Where each completion stands in a table of as many places for each prompt.

    Attributes:
        num_prompts: that have completions.
        most: places of each.
        places: of each completion; None where every place is taken, in order.
    """

    num_prompts: int
    most: int
    places: Int[Tensor, " rows"] | None = None

    def gathered(self, rows: Float[Tensor, "rows heads queries n"]) -> Float[Tensor, "prompts heads asked n"]:
        """Rows gathered for each prompt, those of its completions one after the other."""
        _, heads, queries, n = rows.shape
        if self.places is not None:
            rows = rows.new_zeros(self.num_prompts * self.most, heads, queries, n).index_copy(0, self.places, rows)
        by_place = rows.reshape(self.num_prompts, self.most, heads, queries, n)
        return by_place.transpose(1, 2).reshape(self.num_prompts, heads, self.most * queries, n)

    def rows_of(
        self, asked: Float[Tensor, "prompts heads asked n"], num_queries: int
    ) -> Float[Tensor, "rows heads queries n"]:
        """The way back from `gathered`."""
        _, heads, _, n = asked.shape
        by_head = asked.reshape(self.num_prompts, heads, self.most, num_queries, n)
        rows = by_head.transpose(1, 2).reshape(self.num_prompts * self.most, heads, num_queries, n)
        return rows if self.places is None else rows[self.places]


@dataclass(frozen=True)
class Tables:
    """Keys and values that the new tokens of completions attend to.

    Attributes:
        prompt: (prompts, heads of keys, tokens, channels).
        own: of what completions have written, (rows, heads of keys, written tokens, channels).
        places: which prompt is whose.
        prompt_bias: what is added to the scores of the prompts' tokens.
        own_bias: to those of written ones; None: all are seen.
    """

    prompt: KeysAndValues
    own: KeysAndValues
    places: PlacesByPrompt
    prompt_bias: Float[Tensor, "prompts tokens"]
    own_bias: Float[Tensor, " written"] | None = None


def attend_one_token(
    query: Float[Tensor, "rows heads width"], scaling: float | None, tables: Tables
) -> Float[Tensor, "rows heads width"]:
    """Attention of one token of each completion.

    Args:
        query: of the tokens.
        scaling: factor of the dot products; None: one over the root of the channels.
        tables: what they attend to; of each prompt and completion some token is seen.
    """
    num_rows, heads, _, width = tables.own[0].shape
    scale = width**-0.5 if scaling is None else scaling
    queries = query.reshape(num_rows, heads, -1, width)
    # What records the operations of a step (`fixed` tables) has to see through each of them.
    attend = _in_two_parts if query.device.type == "cpu" and tables.own_bias is None else _by_scores
    return attend(queries, scale, tables).reshape(num_rows, -1, width)


def _in_two_parts(
    queries: Float[Tensor, "rows heads queries width"], scale: float, tables: Tables
) -> Float[Tensor, "rows heads queries width"]:
    num_queries, places = queries.shape[2], tables.places
    queries, keys, values, own_keys, own_values = in_one_precision(queries, *tables.prompt, *tables.own)
    mask = tables.prompt_bias[:, None, None].to(queries.dtype)
    of_prompt, prompt_logsum = attend_with_logsum(places.gathered(queries), keys, values, attn_mask=mask, scale=scale)
    of_own, own_logsum = attend_with_logsum(queries, own_keys, own_values, scale=scale)
    # The sigmoid of the difference of two sums' logarithms is the share of the first.
    share_of_own = torch.sigmoid(own_logsum[..., None] - places.rows_of(prompt_logsum[..., None], num_queries))
    return torch.lerp(places.rows_of(of_prompt, num_queries), of_own, share_of_own.to(of_own.dtype))


def _by_scores(
    queries: Float[Tensor, "rows heads queries width"], scale: float, tables: Tables
) -> Float[Tensor, "rows heads queries width"]:
    (keys, values), (own_keys, own_values), places = tables.prompt, tables.own, tables.places
    own_scores = _scores(queries, own_keys, scale)
    if tables.own_bias is not None:
        own_scores = own_scores + tables.own_bias
    scores = _scores(places.gathered(queries), keys, scale) + tables.prompt_bias[:, None, None]
    both = torch.cat([places.rows_of(scores, queries.shape[2]), own_scores], dim=-1)
    shares = both.softmax(dim=-1).to(own_values.dtype)
    of_prompt, of_own = shares.split([keys.shape[2], own_keys.shape[2]], dim=-1)
    taken = places.rows_of(places.gathered(of_prompt) @ values, queries.shape[2])
    return taken + of_own @ own_values


def _scores(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """Dot products, scaled, in float32: in bfloat16 a score of 10 would be off by 0.03.

    Keys of less precision are read as they are, or, with torch before 2.8, copied first.
    """
    with torch.autocast(queries.device.type, enabled=False):
        is_half = keys.dtype in (torch.bfloat16, torch.float16) and queries.dtype == keys.dtype
        if is_half and keys.device.type == "cuda" and "dtype" in torch.ops.aten.bmm.overloads():
            flat = torch.bmm(queries.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2), out_dtype=torch.float32)
            return flat.mul_(scale).unflatten(0, keys.shape[:2])
        return (queries.float() * scale) @ keys.float().transpose(-1, -2)
