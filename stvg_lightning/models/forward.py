"""Forward passes: videos once through the tower, tokens through the language model, and their log-probabilities.

Every pass (rollout, old, policy, reference) goes through here with the same positions, the same
video features and the same support of tokens, so that their log-probabilities can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from stvg_lightning.models.families import (
    encoder_outputs,
    own_position_ids,
    placeholder_token_id,
    tower_output,
)
from stvg_lightning.models.head import chosen_log_probs
from stvg_lightning.models.positions import continued_position_ids
from stvg_lightning.models.prompts import PromptBatch


@dataclass(frozen=True)
class VideoFeatures:
    """What the vision tower made of the videos of a batch: one tensor a video, and one list a deepstack level."""

    tokens: tuple[Float[Tensor, "_ width"], ...]
    deepstack: tuple[tuple[Float[Tensor, "_ width"], ...], ...] = ()

    def repeated(self, times: int) -> VideoFeatures:
        """The features of each video `times` times in a row; nothing is copied."""
        return VideoFeatures(_repeated(self.tokens, times), tuple(_repeated(level, times) for level in self.deepstack))

    def select(self, videos: slice) -> VideoFeatures:
        """The features of some neighbouring videos."""
        return VideoFeatures(self.tokens[videos], tuple(level[videos] for level in self.deepstack))

    def pick(self, videos: Sequence[int]) -> VideoFeatures:
        """The features of some videos."""
        levels = [tuple(level[place] for place in videos) for level in (self.tokens, *self.deepstack)]
        return VideoFeatures(levels[0], tuple(levels[1:]))

    def reordered(self, orders: Sequence[Int[Tensor, " _"]]) -> VideoFeatures:
        """The features of each video with its steps of time in another order.

        Towers look at each step by itself, so these are the features of the video whose frames, a step's together,
        were shown in that order.

        Args:
            orders: of each video's steps of time; all steps of a video make as many tokens.
        """
        levels = [
            tuple(
                tokens.unflatten(0, (len(order), -1))[order].flatten(0, 1)
                for tokens, order in zip(level, orders, strict=True)
            )
            for level in (self.tokens, *self.deepstack)
        ]
        return VideoFeatures(levels[0], tuple(levels[1:]))


@dataclass(frozen=True)
class Completions:
    """Completions padded on the right: token ids, and which of them are scored.

    A sampled completion is scored from its first token to its end token. Padding on the right needs
    no attention mask: nothing that is scored can see it.
    """

    token_ids: Int[Tensor, "rows tokens"]
    mask: Bool[Tensor, "rows tokens"]

    def to(self, device: torch.device | str) -> Completions:
        """The same completions on a device."""
        return Completions(self.token_ids.to(device), self.mask.to(device))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """A model in evaluation mode, and then in the mode it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def encode_videos(model: PreTrainedModel, batch: PromptBatch) -> VideoFeatures:
    """Run the vision tower once over a batch's videos.

    Raises:
        ValueError: the number of features is not the number of video placeholders in the prompts, so
            part of a video would not reach the language model.
    """
    output = tower_output(model, batch.patches, batch.grid_thw)
    features = VideoFeatures(output.pooler_output, tuple(output.deepstack_features))
    num_placeholders = (batch.input_ids == placeholder_token_id(model.config)).sum(dim=1).tolist()
    num_features = [len(tokens) for tokens in features.tokens]
    if num_placeholders != num_features:
        raise ValueError(f"prompts hold {num_placeholders} video placeholders for {num_features} video features")
    return features


def language_states(
    model: PreTrainedModel,
    token_ids: Int[Tensor, "batch tokens"],
    position_ids: Int[Tensor, "3 batch tokens"],
    features: VideoFeatures | None = None,
    **more: object,
) -> Float[Tensor, "batch tokens width"]:
    """The last states of tokens, read by the language model.

    Args:
        model: the vision-language model.
        token_ids: what is read.
        position_ids: time, height and width of each token.
        features: of the videos whose placeholders are among the tokens.
        more: what transformers takes beside: `attention_mask`, `row_layout`, a cache under the name that it has there.
    """
    videos = None if features is None else encoder_outputs(model.config, features.tokens, features.deepstack)
    output = model.model(
        input_ids=token_ids,
        position_ids=own_position_ids(model.config, position_ids),
        mm_encoder_outputs=videos,
        **{"use_cache": False, **more},
    )
    return output.last_hidden_state


def completion_log_probs(
    model: PreTrainedModel,
    batch: PromptBatch,
    completions: Completions,
    features: VideoFeatures,
    temperature: float = 1.0,
) -> Float[Tensor, "rows tokens"]:
    """Log-probability of every completion token given its prompt and the tokens before it.

    Each prompt is repeated for each of its completions: the plain form, against which
    `group_log_probs` is tested. The head runs on completion positions only; see `chosen_statistics`.

    Args:
        model: the vision-language model.
        batch: prompts on the left.
        completions: rows in the order of the prompts, the same number for each.
        features: the prompts' videos.
        temperature: divides the logits, as it did in sampling.

    Returns:
        Float32; 0 where the mask is False.
    """
    mask = completions.mask
    states = completion_states(model, batch, completions, features)
    written = chosen_log_probs(model, states[mask], completions.token_ids[mask], temperature)
    return torch.zeros(mask.shape, device=written.device).masked_scatter(mask, written)


def completion_states(
    model: PreTrainedModel, batch: PromptBatch, completions: Completions, features: VideoFeatures
) -> Float[Tensor, "rows tokens width"]:
    """The state that predicts each completion token, each prompt repeated; see `completion_log_probs`."""
    rows, num_tokens = completions.token_ids.shape
    group_size = rows // batch.num_prompts
    assert group_size * batch.num_prompts == rows, (rows, batch.num_prompts)
    prompt_ids = batch.input_ids.repeat_interleave(group_size, dim=0)
    prompt_mask = batch.attention_mask.repeat_interleave(group_size, dim=0)
    prompt_positions = batch.position_ids.repeat_interleave(group_size, dim=1)
    states = language_states(
        model,
        torch.cat([prompt_ids, completions.token_ids], dim=1),
        torch.cat([prompt_positions, continued_position_ids(prompt_positions, num_tokens)], dim=2),
        features.repeated(group_size),
        attention_mask=torch.cat([prompt_mask, torch.ones_like(completions.mask)], dim=1).long(),
    )
    return states[:, batch.num_tokens - 1 : -1]


def conversation_log_probs(
    model: PreTrainedModel, batch: PromptBatch, conversation: Completions, features: VideoFeatures
) -> Float[Tensor, " scored"]:
    """Log-probabilities of the scored tokens of one conversation a prompt, row by row.

    The same as those of `completion_log_probs`, without padding between prompt and conversation: what is padded on
    the right alone needs no attention mask, which costs a CPU twice as long.
    """
    num_tokens = conversation.token_ids.shape[1]
    ends = conversation.mask.long().cumsum(dim=1).argmax(dim=1) + 1
    written = torch.arange(num_tokens, device=ends.device) < ends[:, None]
    kept = torch.cat([batch.attention_mask, written], dim=1)
    order = (~kept).long().argsort(dim=1, stable=True)[:, : int(kept.sum(dim=1).max())]
    positions = torch.cat([batch.position_ids, continued_position_ids(batch.position_ids, num_tokens)], dim=2)
    token_ids, scored = (
        torch.cat(pair, dim=1).gather(1, order)
        for pair in (
            (batch.input_ids, conversation.token_ids),
            (torch.zeros_like(batch.attention_mask), conversation.mask),
        )
    )
    states = language_states(
        model,
        token_ids,
        positions.gather(2, order.expand(3, -1, -1)),
        features,
        attention_mask=torch.ones_like(token_ids),
    )
    predicting = states[:, :-1][scored[:, 1:]]
    return chosen_log_probs(model, predicting, token_ids[:, 1:][scored[:, 1:]], temperature=1.0)


def _repeated(tensors: tuple[Tensor, ...], times: int) -> tuple[Tensor, ...]:
    return tuple(tensor for tensor in tensors for _ in range(times))
