"""A whole group in one row, scored or sampled: the prompt once, then its completions side by side.

A row is `[prompt, completion 1, ..., completion G]`. A block mask lets every completion see the
prompt and itself, and each one's positions go on where the prompt ends: each token sees exactly what
it would see in a row of its own, so values and gradients are those of `completion_log_probs`, which
repeats the prompt G times. In video GRPO the prompt is most of the row, and the group costs little
more than one completion. Sampling keeps the same order but by steps: `[prompt, first token of each
completion, second token of each, ...]`, so keys and values of the prompt are held and read once.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from stvg_lightning.models.forward import Completions, VideoFeatures, chosen_log_probs, encoder_outputs
from stvg_lightning.models.positions import continued_position_ids
from stvg_lightning.models.prompts import PromptBatch


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
    return log_probs_of_states(model, group_states(model, batch, completions, features), completions, temperature)


def log_probs_of_states(
    model: PreTrainedModel, states: Float[Tensor, "rows tokens width"], completions: Completions, temperature: float
) -> Float[Tensor, "rows tokens"]:
    """Log-probability of every completion token, given the states of `group_states`."""
    mask = completions.mask
    written = chosen_log_probs(model, states[mask], completions.token_ids[mask], temperature)
    return torch.zeros(mask.shape, device=written.device).masked_scatter(mask, written)


def group_states(
    model: PreTrainedModel, batch: PromptBatch, completions: Completions, features: VideoFeatures
) -> Float[Tensor, "rows tokens width"]:
    """The state that predicts each completion token; arguments are those of `group_log_probs`."""
    rows, num_tokens = completions.token_ids.shape
    group_size = rows // batch.num_prompts
    assert group_size * batch.num_prompts == rows, (rows, batch.num_prompts)
    side_by_side = completions.token_ids.reshape(batch.num_prompts, group_size * num_tokens)
    positions = continued_position_ids(batch.position_ids, num_tokens).repeat(1, 1, group_size)
    output = model.model(
        input_ids=torch.cat([batch.input_ids, side_by_side], dim=1),
        attention_mask=group_attention_mask(batch.attention_mask, group_size, num_tokens)[:, None],
        position_ids=torch.cat([batch.position_ids, positions], dim=2),
        mm_encoder_outputs=encoder_outputs(features),
        use_cache=False,
    )
    return _predicting_states(output.last_hidden_state, batch.num_tokens, group_size)


def group_attention_mask(
    prompt_mask: Bool[Tensor, "prompts prompt_tokens"], group_size: int, num_tokens: int
) -> Bool[Tensor, "prompts row_tokens row_tokens"]:
    """Which token of a row may see which: True at `[prompt, query, key]` where the query sees the key.

    Args:
        prompt_mask: False for padding on the left.
        group_size: completions a row.
        num_tokens: tokens of each completion, padding included.

    Returns:
        Causal; a completion's tokens see the prompt and their own completion. A padding token sees
        itself alone, since attention over nothing is not a number.
    """
    num_prompts, num_prompt_tokens = prompt_mask.shape
    device = prompt_mask.device
    in_prompt = torch.full((num_prompt_tokens,), -1, device=device)
    owner = torch.cat([in_prompt, torch.arange(group_size, device=device).repeat_interleave(num_tokens)])
    causal = torch.ones(len(owner), len(owner), dtype=torch.bool, device=device).tril()
    visible = causal & ((owner[None] == -1) | (owner[None] == owner[:, None]))
    real = torch.cat([prompt_mask, prompt_mask.new_ones(num_prompts, group_size * num_tokens)], dim=1)
    return (visible & real[:, None]) | torch.eye(len(owner), dtype=torch.bool, device=device)


def decode_step(
    model: PreTrainedModel, token_ids: Int[Tensor, " rows"], batch: PromptBatch, step: int, cache: DynamicCache
) -> Float[Tensor, "rows width"]:
    """Read one more token of every completion.

    Args:
        model: the vision-language model.
        token_ids: rows in the order of the prompts, the same number for each.
        batch: prompts, padded on the left.
        step: tokens of each completion that were read before.
        cache: keys and values of the prompts and of those tokens; it grows in place.

    Returns:
        What predicts each completion's next token.
    """
    group_size = len(token_ids) // batch.num_prompts
    positions = continued_position_ids(batch.position_ids, 1, start=step).expand(-1, -1, group_size)
    output = model.model(
        input_ids=token_ids.view(batch.num_prompts, group_size),
        attention_mask=decoding_mask(batch.attention_mask, group_size, step)[:, None],
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    return output.last_hidden_state.flatten(0, 1)


def decoding_mask(
    prompt_mask: Bool[Tensor, "prompts prompt_tokens"], group_size: int, step: int
) -> Bool[Tensor, "prompts group row_tokens"]:
    """Which token of a row the newest token of each completion may see: the prompt, its own past and itself."""
    prompt = prompt_mask[:, None].expand(-1, group_size, -1)
    own = torch.eye(group_size, dtype=torch.bool, device=prompt_mask.device).repeat(1, step + 1)
    return torch.cat([prompt, own.expand(len(prompt), -1, -1)], dim=2)


def _predicting_states(
    hidden: Float[Tensor, "prompts row_tokens width"], num_prompt_tokens: int, group_size: int
) -> Float[Tensor, "rows tokens width"]:
    """The state that predicts each completion token: the prompt's last one, then the completion's own."""
    num_prompts, _, width = hidden.shape
    own = hidden[:, num_prompt_tokens:].reshape(num_prompts * group_size, -1, width)
    last = hidden[:, num_prompt_tokens - 1].repeat_interleave(group_size, dim=0)
    return torch.cat([last[:, None], own[:, :-1]], dim=1)
