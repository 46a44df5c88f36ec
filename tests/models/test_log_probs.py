"""Log-probabilities of completions: against a naive full softmax, what is banned, and that the video matters."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stvg_lightning.models.families import placeholder_token_id
from stvg_lightning.models.forward import (
    Completions,
    completion_log_probs,
    conversation_log_probs,
    encode_videos,
)
from stvg_lightning.models.group_forward import prefill
from stvg_lightning.models.head import banned_token_ids, next_token_log_probs
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.models.prompts import PromptBatch
from stvg_lightning.rollouts.in_process import InProcessSampler
from stvg_lightning.rollouts.rollouts import Sampling
from stvg_lightning.tubes import Sample
from tests.helpers import assert_close
from tests.small_models import (
    VOCABULARY_SIZE,
    allowed_log_probs,
    batch_of,
    copied,
    plain_log_probs,
    plain_logits,
    prompts_of,
    random_completions,
    with_biased_head,
)

Samples = tuple[Sample, ...]


def mask_of(lengths: list[int], width: int) -> torch.Tensor:
    return torch.arange(width) < torch.tensor(lengths)[:, None]


@torch.no_grad()
def log_probs_of(model: VideoLanguageModel, batch: PromptBatch, completions: Completions, temperature: float = 1.0):
    features = encode_videos(model.network, batch)
    return completion_log_probs(model.network, batch, completions, features, temperature)


@torch.no_grad()
def test_conversations_without_padding_between_are_the_same(model: VideoLanguageModel, world_samples: Samples) -> None:
    """Prompts of unequal length, turns that are not scored between those that are, and one that ends early."""
    prompts = prompts_of(model, world_samples[:2])
    shorter = replace(prompts[1], input_ids=prompts[1].input_ids[:-3], position_ids=prompts[1].position_ids[:, :-3])
    batch = batch_of(model, [prompts[0], shorter])
    mask = torch.tensor([[True, True, False, True, True, True], [True, True, True, False, False, False]])
    conversation = Completions(random_completions(2, 6), mask)
    expected = log_probs_of(model, batch, conversation)[mask]
    found = conversation_log_probs(model.network, batch, conversation, encode_videos(model.network, batch))
    assert_close(found, expected, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_against_the_full_softmax_of_plain_passes(
    model: VideoLanguageModel, world_samples: Samples, temperature: float
) -> None:
    prompts = prompts_of(model, world_samples[:2])
    token_ids, lengths = random_completions(4, 6), [6, 2, 4, 1]
    completions = Completions(token_ids, mask_of(lengths, 6))
    found = log_probs_of(model, batch_of(model, prompts), completions, temperature)
    for row, length in enumerate(lengths):
        with torch.no_grad():
            expected = plain_log_probs(model, prompts[row // 2], token_ids[row, :length], temperature)
        assert_close(found[row, :length], expected, atol=1e-5)
        assert (found[row, length:] == 0).all()
    assert found.dtype == torch.float32


def test_the_gradient_is_that_of_plain_passes(models: dict[str, VideoLanguageModel], world_samples: Samples) -> None:
    model = copied(models["qwen3_vl"])
    prompts, token_ids = prompts_of(model, world_samples[:2]), random_completions(2, 4)
    batch = batch_of(model, prompts)
    watched = model.network.model.language_model.layers[0].self_attn.q_proj.weight
    features = encode_videos(model.network, batch)
    completions = Completions(token_ids, mask_of([4, 3], 4))
    completion_log_probs(model.network, batch, completions, features).sum().backward()
    ours, watched.grad = watched.grad.clone(), None
    sum(plain_log_probs(model, prompts[row], token_ids[row, :n]).sum() for row, n in ((0, 4), (1, 3))).backward()
    assert_close(ours / ours.norm(), watched.grad / ours.norm(), atol=1e-5)


def test_next_tokens_are_a_distribution_without_banned_ones(model: VideoLanguageModel, world_samples: Samples) -> None:
    prompts = prompts_of(model, world_samples[:2])
    batch = batch_of(model, prompts)
    with torch.no_grad():
        read = prefill(model.network, batch, encode_videos(model.network, batch))
        found = next_token_log_probs(model.network, read.last_hidden)
        expected = [allowed_log_probs(model, plain_logits(model, p, torch.tensor([], dtype=int))[0]) for p in prompts]
    banned = banned_token_ids(model.network)
    tokenizer = model.encoder.processor.tokenizer
    expected_banned = ["<|image_pad|>", "<|video_pad|>", "<|vision_end|>", "<|vision_start|>"]
    if model.network.config.model_type == "internvl":
        expected_banned = ["<|image_pad|>"]  # its markers are words to the model: alone they break nothing
    assert sorted(tokenizer.convert_ids_to_tokens(banned)) == expected_banned
    allowed = [token for token in range(VOCABULARY_SIZE) if token not in banned]
    for row in range(2):
        assert (found[row, banned] == -torch.inf).all()
        assert_close(found[row, allowed], expected[row][allowed], atol=1e-5)
        assert_close(found[row].exp().sum(), 1.0, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_banned_tokens_are_never_sampled(model: VideoLanguageModel, world_samples: Samples, temperature: float) -> None:
    banned = banned_token_ids(model.network)
    eager = with_biased_head(model, dict.fromkeys(banned, 50.0))
    batch = batch_of(eager, prompts_of(eager, world_samples[:2]))
    with torch.no_grad():
        features = encode_videos(eager.network, batch)
    rollouts = InProcessSampler(eager).sample(batch, features, 4, Sampling(6, temperature), [0, 1])
    assert not torch.isin(rollouts.token_ids, torch.tensor(banned)).any()
    assert torch.isfinite(rollouts.log_probs).all()


def test_a_black_video_changes_the_log_probs(model: VideoLanguageModel, world_samples: Samples) -> None:
    prompt = prompts_of(model, world_samples[:1])[0]
    black = replace(prompt, patches=torch.full_like(prompt.patches, -1.0))
    batch = batch_of(model, [prompt, black])
    token_ids = random_completions(1, 6).repeat(2, 1)
    seen, dark = log_probs_of(model, batch, Completions(token_ids, torch.ones(2, 6, dtype=torch.bool)))
    assert ((seen - dark).abs() > 1e-3).all(), "every token of the answer must depend on the video"


def test_a_later_frame_changes_the_log_probs(model: VideoLanguageModel, world_samples: Samples) -> None:
    prompt = prompts_of(model, world_samples[:1])[0]
    per_step = int(prompt.grid_thw[0, 1:].prod())
    batch = [prompt]
    for step in range(int(prompt.grid_thw[0, 0])):
        patches = prompt.patches.clone()
        patches[step * per_step : (step + 1) * per_step] = -1.0
        batch.append(replace(prompt, patches=patches))
    token_ids = random_completions(1, 3).repeat(len(batch), 1)
    log_probs = log_probs_of(model, batch_of(model, batch), Completions(token_ids, torch.ones_like(token_ids) > 0))
    assert ((log_probs[1:] - log_probs[0]).abs().amax(dim=1) > 1e-4).all(), "every frame reaches the model"


def test_features_that_do_not_match_the_placeholders_are_refused(
    model: VideoLanguageModel, world_samples: Samples
) -> None:
    prompts = prompts_of(model, world_samples[:2])
    video = placeholder_token_id(model.network.config)
    lost = prompts[1].input_ids.clone()
    lost[(lost == video).nonzero()[0]] = 20
    batch = batch_of(model, [prompts[0], replace(prompts[1], input_ids=lost)])
    with pytest.raises(ValueError, match=r"video placeholders for \["):
        encode_videos(model.network, batch)


def test_features_in_another_order_than_their_prompts_are_refused(
    model: VideoLanguageModel, world_samples: Samples
) -> None:
    # The sums agree here: only counting prompt by prompt finds it.
    prompts = prompts_of(model, world_samples)
    long, short = (choose(prompts, key=lambda p: len(p.patches)) for choose in (max, min))
    assert len(long.patches) > len(short.patches)
    batch = batch_of(model, [long, short])
    swapped = batch_of(model, [short, long])
    with pytest.raises(ValueError, match="placeholders"):
        encode_videos(model.network, replace(batch, patches=swapped.patches, grid_thw=swapped.grid_thw))
