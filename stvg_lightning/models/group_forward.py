"""A whole group in one row, scored or sampled: the prompt once, then its completions side by side.

In video GRPO the prompt is most of what is read, and a group costs little more than one completion. Values and
gradients are those of `completion_log_probs`, which repeats the prompt for each of its completions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from stvg_lightning.models.decoding_prompts import DecodingPrompts
from stvg_lightning.models.forward import Completions, VideoFeatures, language_states
from stvg_lightning.models.group_prompts import LearningPrompt, owed_by
from stvg_lightning.models.group_rows import (
    GroupRow,
    GroupSpan,
    PromptsBefore,
    RowLayout,
    group_row,
    predicting_places,
    prompt_row,
    tokens_read,
)
from stvg_lightning.models.head import chosen_statistics
from stvg_lightning.models.positions import continued_position_ids
from stvg_lightning.models.prompts import PromptBatch
from stvg_lightning.models.row_attention import row_mask


@dataclass(frozen=True)
class GroupPart:
    """Completions of a pass that are gone backward through together, and the states that predict their tokens."""

    rows: slice
    states: Float[Tensor, "rows tokens width"]
    is_last: bool = False


@dataclass(frozen=True)
class PromptPart:
    """What parts of a group have left at their prompt: a sum through which to go backward at the end."""

    owed: Float[Tensor, ""]
    is_last: bool = True


def group_log_probs(
    model: PreTrainedModel,
    batch: PromptBatch,
    completions: Completions,
    features: VideoFeatures,
    temperature: float = 1.0,
) -> Float[Tensor, "rows tokens"]:
    """Log-probability of every completion token, with each prompt read once for its group.

    Args:
        model: the vision-language model.
        batch: prompts, padded on the left.
        completions: rows in the order of the prompts, the same number for each.
        features: the prompts' videos.
        temperature: divides the logits, as it did in sampling.

    Returns:
        Float32; 0 where the mask is False.
    """
    states = group_states(model, batch, completions, features)
    return statistics_of_states(model, states, completions, temperature)[0]


def statistics_of_states(
    model: PreTrainedModel, states: Float[Tensor, "rows tokens width"], completions: Completions, temperature: float
) -> tuple[Float[Tensor, "rows tokens"], Float[Tensor, "rows tokens"]]:
    """Log-probability of every completion token and the entropy where it was chosen, from `group_states`.

    The head reads scored tokens only.
    """
    mask = completions.mask
    values = chosen_statistics(model, states[mask], completions.token_ids[mask], temperature)
    log_probs, entropies = (torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, v) for v in values)
    return log_probs, entropies


def group_states(
    model: PreTrainedModel, batch: PromptBatch, completions: Completions, features: VideoFeatures
) -> Float[Tensor, "rows tokens width"]:
    """The state that predicts each completion token, from one row of all groups; arguments as in `group_log_probs`."""
    row = group_row(batch, completions)
    return _read(model, row, features)[row.predicting]


def group_states_in_parts(
    model: PreTrainedModel,
    batch: PromptBatch,
    completions: Completions,
    features: VideoFeatures,
    most_tokens: int | None,
) -> Iterator[GroupPart | PromptPart]:
    """The states of `group_states` in parts of a group, so that only a part's activations are held at a time.

    The prompt is read once. What backward passes over the parts leave at its keys and values goes through it at the
    end, so the gradients are those of one pass.

    Args:
        model: the vision-language model.
        batch: one prompt, or several that fit together.
        completions: of each prompt, the same number.
        features: the prompts' videos.
        most_tokens: completion tokens read in one part, at least one completion; None: all of them, in one row.

    Yields:
        Parts; the caller goes backward through each before the next.
    """
    lengths = tokens_read(completions)
    if most_tokens is None or sum(lengths) <= most_tokens:
        states = group_states(model, batch, completions, features)
        yield GroupPart(slice(0, len(lengths)), states, is_last=True)
        return
    assert batch.num_prompts == 1, "a pass over several prompts must fit"
    prompt = prompt_row(batch)
    recorded: dict[int, tuple[Tensor, Tensor]] = {}
    last = _read(model, prompt, features, recorded)[-1]
    read = LearningPrompt.of(recorded)
    held_last = last.detach().requires_grad_(last.requires_grad)
    for rows in parts_of(lengths, most_tokens):
        part = Completions(completions.token_ids[rows], completions.mask[rows])
        yield GroupPart(rows, _part_states(model, batch, part, read, held_last))
    if last.requires_grad:
        yield PromptPart(read.owed() + owed_by([(last, held_last)]))


def parts_of(lengths: Sequence[int], most_tokens: int | None, most: int | None = None) -> list[slice]:
    """Neighbours that hold at most so many tokens together and are at most so many, at least one; None: no limit.

    Example:
        >>> parts_of([3, 3, 9, 1, 1], 6)
        [slice(0, 2, None), slice(2, 3, None), slice(3, 5, None)]
        >>> parts_of([80, 50, 50], 100, most=2)
        [slice(0, 1, None), slice(1, 3, None)]
    """
    bounds, held = [0], 0
    for place, length in enumerate(lengths):
        is_full = most_tokens is not None and held + length > most_tokens
        if held and (is_full or place - bounds[-1] == most):
            bounds.append(place)
            held = 0
        held += max(length, 1)
    return [slice(start, end) for start, end in zip(bounds, [*bounds[1:], len(lengths)], strict=True)]


@dataclass
class Prefill:
    """Prompts after one pass: what their completions read from, and the last token's state of each."""

    prompts: DecodingPrompts
    last_hidden: Float[Tensor, "prompts width"]


def prefill(model: PreTrainedModel, batch: PromptBatch, features: VideoFeatures, group_size: int = 1) -> Prefill:
    """Read prompts once, without padding, keeping their keys and values for `group_size` completions of each."""
    row = prompt_row(batch)
    recorded: dict[int, tuple[Tensor, Tensor]] = {}
    states = _read(model, row, features, recorded)
    return Prefill(DecodingPrompts.of(recorded, row.layout, group_size), states[row.predicting[:, 0]])


def decode_step(
    model: PreTrainedModel,
    token_ids: Int[Tensor, " rows"],
    positions: Int[Tensor, "3 rows"],
    prompts: PromptsBefore,
) -> Float[Tensor, "rows width"]:
    """Read one more token of every completion that is still being written.

    Args:
        model: the vision-language model.
        token_ids: rows in the order of the prompts.
        positions: of those tokens.
        prompts: what was read before; the new tokens are written into it.

    Returns:
        What predicts each completion's next token.
    """
    layout = RowLayout((GroupSpan(0, 0, (1,) * len(token_ids)),), before=prompts)
    mask = row_mask(layout, token_ids.device, model.dtype)
    states = language_states(model, token_ids[None], positions[:, None], attention_mask=mask, row_layout=layout)
    return states[0]


def _read(
    model: PreTrainedModel,
    row: GroupRow,
    features: VideoFeatures | None = None,
    recorded: dict[int, tuple[Tensor, Tensor]] | None = None,
) -> Float[Tensor, "row_tokens width"]:
    """One pass over a row."""
    layout = RowLayout(row.layout.spans, row.layout.before, recorded)
    mask = row_mask(layout, row.token_ids.device, model.dtype)
    states = language_states(model, row.token_ids, row.position_ids, features, attention_mask=mask, row_layout=layout)
    return states[0]


def _part_states(
    model: PreTrainedModel,
    batch: PromptBatch,
    part: Completions,
    read: LearningPrompt,
    last: Float[Tensor, " width"],
) -> Float[Tensor, "rows tokens width"]:
    """The states of some completions of a prompt that was read before."""
    lengths = tokens_read(part)
    continued = continued_position_ids(batch.position_ids, part.token_ids.shape[1])[:, 0]
    num_prompt_tokens = int(batch.attention_mask.sum())
    token_ids = torch.cat([ids[:length] for ids, length in zip(part.token_ids, lengths, strict=True)])
    positions = torch.cat([continued[:, :length] for length in lengths], dim=1)
    # In this row the prompt's last state comes first, and its tokens are elsewhere.
    places = predicting_places([GroupSpan(0, 1, tuple(lengths))], part)
    if not len(token_ids):
        return last.expand(*part.mask.shape, -1)
    span = GroupSpan(0, num_prompt_tokens, tuple(lengths))
    row = GroupRow(token_ids[None], positions[:, None], RowLayout((span,), before=read), places)
    return torch.cat([last[None], _read(model, row)])[places]
