"""Several groups of completions in one row of tokens, without padding: each prompt once, then its completions.

    prompt 1, completion 1.1, ..., completion 1.G, prompt 2, completion 2.1, ...

A completion sees its prompt and itself, and its positions go on where its prompt ends: each token sees
exactly what it would see in a row of its own. The last token of a completion predicts nothing that is
scored, so it is not read at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from stvg_lightning.models.flash_attention import Segments
from stvg_lightning.models.forward import Completions
from stvg_lightning.models.positions import continued_position_ids
from stvg_lightning.models.prefix_attention import completion_mask
from stvg_lightning.models.prompts import PromptBatch


@dataclass(frozen=True)
class GroupSpan:
    """Where a group lies in a row.

    Attributes:
        start: its first token.
        prompt_tokens: length of its prompt.
        completion_tokens: tokens read of each of its completions.
    """

    start: int
    prompt_tokens: int
    completion_tokens: tuple[int, ...] = ()

    @property
    def prompt(self) -> slice:
        return slice(self.start, self.start + self.prompt_tokens)

    @property
    def completions(self) -> slice:
        return slice(self.prompt.stop, self.prompt.stop + sum(self.completion_tokens))

    @property
    def whole(self) -> slice:
        return slice(self.start, self.completions.stop)


@runtime_checkable
class PromptsBefore(Protocol):
    """Keys and values of prompts that were read before."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, layout: RowLayout
    ) -> Tensor:
        """What new tokens, (1, heads, tokens, channels), take from prompts and from each other."""
        ...


@dataclass(frozen=True)
class RowLayout:
    """Which tokens of a row belong together: all that attention needs to know.

    Attributes:
        spans: the groups.
        before: prompts that were read before this row and are not in it; they say how its tokens attend.
        recorded: where keys and values of each layer are written down, if they are wanted.
    """

    spans: tuple[GroupSpan, ...]
    before: PromptsBefore | None = None
    recorded: dict[int, tuple[Tensor, Tensor]] | None = None
    _masks: dict[GroupSpan, Tensor] = field(default_factory=dict, compare=False, repr=False)
    _segments: list[Segments] = field(default_factory=list, compare=False, repr=False)

    def mask_of(self, span: GroupSpan, device: torch.device) -> Bool[Tensor, "queries keys"] | None:
        """What a group's completions see of their prompt and themselves, made once for all layers of a pass.

        None on the CPU, where their attention goes without.
        """
        if device.type == "cpu":
            return None
        if span not in self._masks:
            self._masks[span] = completion_mask(span.prompt_tokens, span.completion_tokens, device)
        return self._masks[span]

    def segments(self, device: torch.device) -> Segments:
        """Prompts and completions one after the other, for FlashAttention; made once for all layers of a pass.

        Where prompts were read before, completions alone.
        """
        if not self._segments:
            prompts = [[] if self.before is not None else [span.prompt_tokens] for span in self.spans]
            lengths = [[*prompt, *span.completion_tokens] for prompt, span in zip(prompts, self.spans, strict=True)]
            self._segments.append(Segments.of([length for each in lengths for length in each], device))
        return self._segments[0]

    @property
    def num_tokens(self) -> int:
        return self.spans[-1].whole.stop

    @cached_property
    def owners(self) -> tuple[Int[Tensor, " tokens"], Int[Tensor, " tokens"]]:
        """Group of each token, and its completion in the group: 0 for the prompt, then from 1."""
        groups, parts = [], []
        for number, span in enumerate(self.spans):
            lengths = torch.tensor([span.prompt_tokens, *span.completion_tokens])
            parts.append(torch.arange(len(lengths)).repeat_interleave(lengths))
            groups.append(torch.full_like(parts[-1], number))
        return torch.cat(groups), torch.cat(parts)


@dataclass(frozen=True)
class GroupRow:
    """A row of groups with all that a pass needs.

    `predicting` tells where in the row the state stands that predicts each completion token; for
    padding it is the prompt's last token.
    """

    token_ids: Int[Tensor, "1 row_tokens"]
    position_ids: Int[Tensor, "3 1 row_tokens"]
    layout: RowLayout
    predicting: Int[Tensor, "rows tokens"]


def tokens_read(completions: Completions) -> list[int]:
    """How many tokens of each completion are read: all before the last one that is scored."""
    places = torch.arange(completions.mask.shape[1], device=completions.mask.device)
    return (completions.mask * places).amax(dim=1).tolist()


def prompt_row(batch: PromptBatch) -> GroupRow:
    """Prompts alone, one behind the other; `predicting` holds the last token of each."""
    lengths = batch.attention_mask.sum(dim=1).tolist()
    starts = [sum(lengths[:place]) for place in range(len(lengths))]
    layout = RowLayout(tuple(GroupSpan(start, length) for start, length in zip(starts, lengths, strict=True)))
    last = torch.tensor([span.prompt.stop - 1 for span in layout.spans], device=batch.input_ids.device)
    mask = batch.attention_mask
    return GroupRow(batch.input_ids[mask][None], batch.position_ids[:, mask][:, None], layout, last[:, None])


def group_row(batch: PromptBatch, completions: Completions) -> GroupRow:
    """Prompts, each with its completions behind it.

    Args:
        batch: prompts, padded on the left.
        completions: rows in the order of the prompts, the same number for each.
    """
    group_size = len(completions.token_ids) // batch.num_prompts
    assert group_size * batch.num_prompts == len(completions.token_ids), (group_size, batch.num_prompts)
    lengths = tokens_read(completions)
    continued = continued_position_ids(batch.position_ids, completions.token_ids.shape[1])
    token_ids: list[Tensor] = []
    positions: list[Tensor] = []
    spans: list[GroupSpan] = []
    for number, real in enumerate(batch.attention_mask):
        rows = range(number * group_size, (number + 1) * group_size)
        token_ids += [batch.input_ids[number, real], *(completions.token_ids[row, : lengths[row]] for row in rows)]
        positions += [
            batch.position_ids[:, number, real],
            *(continued[:, number, : lengths[row]] for row in rows),
        ]
        start = spans[-1].whole.stop if spans else 0
        spans.append(GroupSpan(start, int(real.sum()), tuple(lengths[row] for row in rows)))
    predicting = predicting_places(spans, completions)
    return GroupRow(
        torch.cat(token_ids)[None], torch.cat(positions, dim=1)[:, None], RowLayout(tuple(spans)), predicting
    )


def predicting_places(spans: Sequence[GroupSpan], completions: Completions) -> Int[Tensor, "rows tokens"]:
    """Where in a row the state stands that predicts each token: the prompt's last one, then the completion's own."""
    num_tokens = completions.token_ids.shape[1]
    places = []
    for span in spans:
        first = span.prompt.stop
        for length in span.completion_tokens:
            own = torch.arange(num_tokens - 1)
            own = torch.where(own < length, first + own, span.prompt.stop - 1)
            places.append(torch.cat([torch.tensor([span.prompt.stop - 1]), own]))
            first += length
    return torch.stack(places).to(completions.token_ids.device)
