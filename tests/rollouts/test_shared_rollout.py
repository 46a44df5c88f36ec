"""The group-shared rollout: against rollouts made one by one by plain passes, and against transformers' generate."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stvg_lightning.models import decoding_prompts
from stvg_lightning.models.adapters import Lora, add_adapter
from stvg_lightning.models.decoding import Decoding
from stvg_lightning.models.decoding_prompts import DecodingPrompts
from stvg_lightning.models.forward import Completions, completion_log_probs, encode_videos
from stvg_lightning.models.group_rows import RowLayout
from stvg_lightning.models.head import banned_token_ids
from stvg_lightning.models.lean_layers import LeanLayers
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.models.prompts import EncodedPrompt
from stvg_lightning.rollouts import in_process
from stvg_lightning.rollouts.in_process import InProcessSampler
from stvg_lightning.rollouts.rollouts import GREEDY, Rollouts, Sampling, written_mask
from stvg_lightning.tubes import Sample
from tests.helpers import assert_close
from tests.small_models import (
    VOCABULARY_SIZE,
    allowed_log_probs,
    batch_of,
    copied,
    noise_clip,
    own_tower_attention,
    plain_log_probs,
    plain_logits,
    prompts_of,
    with_biased_head,
)

Samples = tuple[Sample, ...]


def roll_out(
    model: VideoLanguageModel, prompts: list[EncodedPrompt], group_size: int, sampling: Sampling, seeds: list[int]
) -> Rollouts:
    batch = batch_of(model, prompts)
    with torch.no_grad():
        features = encode_videos(model.network, batch)
    return InProcessSampler(model).sample(batch, features, group_size, sampling, seeds)


def often_ending(model: VideoLanguageModel) -> VideoLanguageModel:
    """A model that ends an answer after a few tokens."""
    return with_biased_head(model, {model.end_token_id: 5.5})


@torch.no_grad()
def repeated_rollout(
    model: VideoLanguageModel, prompt: EncodedPrompt, group_size: int, sampling: Sampling, seed: int
) -> list[tuple[list[int], list[float]]]:
    """Each completion by itself: one plain pass a token, Gumbel noise of its row, the largest sum wins."""
    generator = torch.Generator().manual_seed(seed)
    uniform = [torch.rand(group_size, VOCABULARY_SIZE, generator=generator) for _ in range(sampling.max_new_tokens)]
    group = []
    for row in range(group_size):
        tokens: list[int] = []
        log_probs: list[float] = []
        while len(tokens) < sampling.max_new_tokens and model.end_token_id not in tokens:
            logits = plain_logits(model, prompt, torch.tensor(tokens, dtype=torch.long))[-1]
            next_log_probs = allowed_log_probs(model, logits, sampling.temperature)
            noise = -(-uniform[len(tokens)][row].double().log()).log()
            tokens.append(int((next_log_probs + noise).argmax()))
            log_probs.append(float(next_log_probs[tokens[-1]]))
        group.append((tokens, log_probs))
    return group


@pytest.mark.parametrize(("temperature", "decoding"), [(1.0, "plain"), (1.0, "fixed"), (1.0, "lean"), (0.7, "lean")])
def test_a_shared_rollout_equals_repeated_rollouts(
    model: VideoLanguageModel, world_samples: Samples, temperature: float, decoding: Decoding
) -> None:
    model = often_ending(model)
    prompts, sampling, seeds = prompts_of(model, world_samples[:2]), Sampling(6, temperature, decoding), [5, 6]
    rollouts = roll_out(model, prompts, 3, sampling, seeds)
    lengths = rollouts.lengths_tokens.tolist()
    for index, prompt in enumerate(prompts):
        for row, (tokens, log_probs) in enumerate(repeated_rollout(model, prompt, 3, sampling, seeds[index])):
            place = 3 * index + row
            assert rollouts.token_ids[place, : lengths[place]].tolist() == tokens
            assert_close(rollouts.log_probs[place, : lengths[place]], log_probs, atol=1e-5)


@pytest.mark.parametrize("decoding", ["plain", "lean"])
def test_what_was_written_stays_where_tables_grow(
    model: VideoLanguageModel, world_samples: Samples, decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, sampling = prompts_of(model, world_samples[:2]), Sampling(12, 1.0, decoding)
    expected = roll_out(model, prompts, 2, sampling, [5, 6])
    monkeypatch.setattr(decoding_prompts, "LEAST_ROOM_TOKENS", 1)
    rollouts = roll_out(model, prompts, 2, sampling, [5, 6])
    assert torch.equal(rollouts.token_ids, expected.token_ids)
    assert_close(rollouts.log_probs, expected.log_probs, atol=1e-5)


def test_lean_rollouts_pass_by_the_layers_and_follow_their_weights(
    model: VideoLanguageModel, world_samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As weights are learned: what was taken apart for one rollout is not there for the next."""
    model, steps, step = copied(model), [], LeanLayers.step
    monkeypatch.setattr(LeanLayers, "step", lambda *given: (steps.append(1), step(*given))[1])
    prompts = prompts_of(model, world_samples[:2])
    before = roll_out(model, prompts, 2, Sampling(6, 1.0, "lean"), [5, 6])
    assert len(steps) == before.token_ids.shape[1] - 1 > 0
    torch.manual_seed(3)
    for parameter in model.network.model.language_model.layers.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    after, plain = (roll_out(model, prompts, 2, Sampling(6, 1.0, way), [5, 6]) for way in ("lean", "plain"))
    assert torch.equal(after.token_ids, plain.token_ids)
    assert_close(after.log_probs, plain.log_probs, atol=1e-5)
    assert (before.log_probs[:, 0] - after.log_probs[:, 0]).abs().max() > 0.01


def test_completions_end_at_different_times(model: VideoLanguageModel, world_samples: Samples) -> None:
    """What the comparison above needs to say anything about answers that end early."""
    rollouts = roll_out(often_ending(model), prompts_of(model, world_samples[:2]), 3, Sampling(6), [5, 6])
    assert len(set(rollouts.lengths_tokens.tolist())) > 2


def test_greedy_equals_transformers_generate(qwen: VideoLanguageModel) -> None:
    # One step of time: there Qwen2.5-VL's positions after the video are the same in transformers.
    clip = noise_clip(2, 32, 32)
    prompts = [qwen.encoder.encode(clip, text, 32, 32) for text in ("Who jumps?", "Which of the things moves first?")]
    rollouts = roll_out(qwen, prompts, 1, Sampling(8, temperature=0.0), [0, 0])
    for row, prompt in enumerate(prompts):
        with torch.no_grad(), own_tower_attention(qwen.network):
            generated = qwen.network.generate(
                input_ids=prompt.input_ids[None],
                attention_mask=torch.ones_like(prompt.input_ids)[None],
                mm_token_type_ids=2 * (prompt.input_ids == qwen.network.config.video_token_id).int()[None],
                pixel_values_videos=prompt.patches,
                video_grid_thw=prompt.grid_thw,
                max_new_tokens=8,
                do_sample=False,
                suppress_tokens=banned_token_ids(qwen.network),
                eos_token_id=qwen.end_token_id,
                pad_token_id=qwen.pad_token_id,
            )
        expected = generated[0, len(prompt.input_ids) :].tolist()
        assert rollouts.token_ids[row, : len(expected)].tolist() == expected


@pytest.mark.parametrize(("temperature", "is_adapted"), [(1.0, False), (0.7, True), (0.0, False)])
def test_rollout_log_probs_are_those_of_training(
    model: VideoLanguageModel, world_samples: Samples, temperature: float, is_adapted: bool
) -> None:
    model = often_ending(model)
    if is_adapted:
        model = add_adapter(copied(model), Lora(rank=4)).model
        torch.manual_seed(4)
        for name, parameter in model.network.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
    prompts = prompts_of(model, world_samples[:3])
    rollouts = roll_out(model, prompts, 4, Sampling(8, temperature), [1, 2, 3])
    batch = batch_of(model, prompts)
    with torch.no_grad():
        features = encode_videos(model.network, batch)
        again = completion_log_probs(model.network, batch, rollouts.completions, features, temperature or 1.0)
    assert_close(again, rollouts.log_probs, atol=1e-5)
    assert rollouts.decoding == "lean"
    assert rollouts.log_probs[rollouts.mask].max() < 0


def test_the_same_sample_and_seed_give_the_same_group_in_any_batch(
    model: VideoLanguageModel, world_samples: Samples
) -> None:
    model = often_ending(model)
    prompts, seeds = prompts_of(model, world_samples[:4]), [11, 12, 13, 14]
    together = roll_out(model, prompts, 3, Sampling(6), seeds)
    for batch in ([2], [3, 1], [1, 0, 2]):
        other = roll_out(model, [prompts[i] for i in batch], 3, Sampling(6), [seeds[i] for i in batch])
        for place, index in enumerate(batch):
            mine, theirs = slice(3 * place, 3 * place + 3), slice(3 * index, 3 * index + 3)
            assert other.texts[mine] == together.texts[theirs]
            width = int(other.lengths_tokens[mine].max())
            assert torch.equal(other.mask[mine, :width], together.mask[theirs, :width])
            assert_close(other.log_probs[mine, :width], together.log_probs[theirs, :width], atol=1e-4)


def test_a_bound_of_tokens_changes_nothing(model: VideoLanguageModel, world_samples: Samples) -> None:
    model = often_ending(model)
    prompts = prompts_of(model, world_samples[:3])
    batch = batch_of(model, prompts)
    with torch.no_grad():
        features = encode_videos(model.network, batch)
    two = sum(len(prompt.input_ids) + 3 * 6 for prompt in prompts[:2])
    whole, *bounded = (
        InProcessSampler(model, most).sample(batch, features, 3, Sampling(6), [5, 6, 7]) for most in (None, two, 1)
    )
    for rollouts in bounded:
        assert torch.equal(rollouts.token_ids, whole.token_ids) and torch.equal(rollouts.mask, whole.mask)
        assert_close(rollouts.log_probs, whole.log_probs, atol=1e-5)
        assert rollouts.texts == whole.texts and torch.equal(rollouts.truncated, whole.truncated)
        assert rollouts.seconds.keys() == whole.seconds.keys()


def test_another_seed_gives_another_group(models: dict[str, VideoLanguageModel], world_samples: Samples) -> None:
    model = models["qwen3_vl"]
    prompts = prompts_of(model, world_samples[:1])
    first, again, other = (roll_out(model, prompts, 4, Sampling(4), [seed]).token_ids for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first != other).any(dim=1).all()
    assert len({tuple(row) for row in first.tolist()}) == 4, "the members of a group differ"


def test_an_answer_ends_once_and_what_is_cut_off_is_told(model: VideoLanguageModel, world_samples: Samples) -> None:
    model = often_ending(model)
    rollouts = roll_out(model, prompts_of(model, world_samples[:2]), 6, Sampling(7), [1, 2])
    ends = rollouts.token_ids == model.end_token_id
    assert 0 < int(rollouts.truncated.sum()) < 12, "the test needs both kinds"
    for row, truncated in enumerate(rollouts.truncated.tolist()):
        assert truncated == (not ends[row].any())
        length = rollouts.token_ids.shape[1] if truncated else int(ends[row].int().argmax()) + 1
        assert rollouts.mask[row].tolist() == [True] * length + [False] * (rollouts.token_ids.shape[1] - length)
        assert int(ends[row].sum()) == (not truncated)
        assert (rollouts.token_ids[row, length:] == model.pad_token_id).all()
        assert (rollouts.log_probs[row, length:] == 0).all()
        tokenizer = model.encoder.processor.tokenizer
        assert rollouts.texts[row] == tokenizer.decode(rollouts.token_ids[row, : length - (not truncated)])
    assert rollouts.group_size == 6 and rollouts.lengths_tokens.tolist() == rollouts.mask.sum(dim=1).tolist()


def test_sampling_stops_when_all_have_ended(models: dict[str, VideoLanguageModel], world_samples: Samples) -> None:
    model = with_biased_head(models["qwen3_vl"], {models["qwen3_vl"].end_token_id: 100.0})
    rollouts = roll_out(model, prompts_of(model, world_samples[:2]), 2, Sampling(50), [1, 2])
    assert rollouts.token_ids.tolist() == [[model.end_token_id]] * 4
    assert not rollouts.truncated.any() and rollouts.texts == [""] * 4
    assert_close(rollouts.log_probs, torch.zeros(4, 1), atol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_one_new_token(model: VideoLanguageModel, world_samples: Samples, temperature: float) -> None:
    prompts = prompts_of(model, world_samples[:2])
    rollouts = roll_out(model, prompts, 2, Sampling(1, temperature), [1, 2])
    assert rollouts.token_ids.shape == (4, 1) and rollouts.mask.all() and rollouts.truncated.all()
    for row in range(4):
        with torch.no_grad():
            expected = plain_log_probs(model, prompts[row // 2], rollouts.token_ids[row])
        assert_close(rollouts.log_probs[row], expected, atol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_come_as_often_as_they_are_likely(
    models: dict[str, VideoLanguageModel], world_samples: Samples, temperature: float
) -> None:
    # Three tokens share all the probability, so that counts say something.
    likely = {100: 40.0, 200: 41.0, 300: 42.0}
    model, num_draws = with_biased_head(models["qwen3_vl"], likely), 500
    prompt = prompts_of(model, world_samples[:1])[0]
    drawn = roll_out(model, [prompt], num_draws, Sampling(1, temperature), [3]).token_ids[:, 0]
    with torch.no_grad():
        logits = plain_logits(model, prompt, torch.tensor([], dtype=torch.long))[0]
    for token in likely:
        probability = float(allowed_log_probs(model, logits, temperature)[token].exp())
        deviation = (probability * (1 - probability) / num_draws) ** 0.5
        assert abs(float((drawn == token).float().mean()) - probability) < 4 * deviation


def test_seconds_are_counted(models: dict[str, VideoLanguageModel], world_samples: Samples) -> None:
    model = models["qwen3_vl"]
    seconds = roll_out(model, prompts_of(model, world_samples[:1]), 2, Sampling(3), [1]).seconds
    assert seconds.keys() == {"prefill", "generate"} and min(seconds.values()) > 0


def test_written_tokens_by_hand() -> None:
    end = 2
    token_ids = torch.tensor([[5, 2, 0, 0], [2, 2, 2, 2], [5, 6, 7, 8], [5, 6, 7, 2]])
    assert written_mask(token_ids, [end]).int().tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    two_ends = written_mask(token_ids, [end, 6])
    assert two_ends.int().tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]


def test_every_end_token_of_a_family_ends_a_completion(
    models: dict[str, VideoLanguageModel], world_samples: Samples
) -> None:
    model = with_biased_head(models["qwen3_vl"], {55: 100.0})
    other = 55
    assert model.end_token_ids == (model.end_token_id,)
    model.network.generation_config.eos_token_id = [model.end_token_id, other]
    assert model.end_token_ids == tuple(sorted((model.end_token_id, other)))
    rollouts = roll_out(model, prompts_of(model, world_samples[:1]), 2, Sampling(5), [1])
    assert rollouts.token_ids.tolist() == [[other]] * 2 and not rollouts.truncated.any()


def test_rows_are_chosen_and_cut_to_their_longest() -> None:
    mask = torch.arange(5) < torch.tensor([5, 1, 3, 2])[:, None]
    rollouts = Rollouts(torch.arange(20).view(4, 5), mask, -torch.ones(4, 5), list("abcd"), mask[:, 0], 2)
    part = rollouts.select(slice(2, 4))
    assert part.texts == ["c", "d"] and part.token_ids.tolist() == [[10, 11, 12], [15, 16, 17]]
    assert part.mask.tolist() == [[True] * 3, [True, True, False]] and part.group_size == 2
    assert isinstance(part.completions, Completions)


@pytest.mark.parametrize(
    ("bad", "message"),
    [({"max_new_tokens": 0}, "at least 1, not 0"), ({"temperature": -0.5}, r"at least 0, not -0\.5")],
)
def test_impossible_samplings_are_refused(bad: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**bad)
    assert GREEDY.temperature == 0


@pytest.mark.parametrize("is_ahead", [False, True])
def test_a_completion_that_has_ended_is_not_read_any_more(
    model: VideoLanguageModel, world_samples: Samples, monkeypatch: pytest.MonkeyPatch, is_ahead: bool
) -> None:
    """Each step reads a token of each completion that goes on, or that may; all groups' prompts are read at once."""
    monkeypatch.setattr(in_process, "reads_ahead", lambda device: is_ahead)
    ending = often_ending(model)
    read: list[int] = []
    ending.network.model.language_model.register_forward_hook(
        lambda module, given, options, output: read.append(options["inputs_embeds"].shape[1]), with_kwargs=True
    )
    prompts = prompts_of(ending, world_samples[:2])
    rollouts = roll_out(ending, prompts, 3, Sampling(6, decoding="plain"), [5, 6])
    lengths = rollouts.lengths_tokens
    assert read[0] == sum(len(prompt.input_ids) for prompt in prompts)
    last_read = lengths.clamp(max=5) if is_ahead else lengths - 1
    assert read[1:] == [int((last_read >= step).sum()) for step in range(1, int(last_read.max()) + 1)]
    assert len(set(read[1:])) > 1


def test_prompts_of_unequal_length_are_held_as_long_as_the_longest(
    models: dict[str, VideoLanguageModel], world_samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables are as long as their longest prompt: what they hold stays below the limit, and nothing else changes."""
    model, group_size, sampling = often_ending(models["qwen2_5_vl"]), 2, Sampling(5)
    queries = ("it moves", "the red circle grows " * 100, "it grows", "it moves")
    asked = tuple(replace(world_samples[0], truth=replace(world_samples[0].truth, query=query)) for query in queries)
    batch = batch_of(model, prompts_of(model, asked))
    lengths = batch.attention_mask.sum(dim=1).tolist()
    assert max(lengths) > 3 * min(lengths), "the test needs one prompt that is much longer"
    with torch.no_grad():
        features = encode_videos(model.network, batch)
    held: list[int] = []
    laid_out = DecodingPrompts.of

    def watched(recorded: dict, layout: RowLayout, group_size: int) -> DecodingPrompts:
        prompts = laid_out(recorded, layout, group_size)
        assert not recorded, "no layer is held twice"
        num_prompts, _, num_tokens, _ = prompts.prompts[0][0].shape
        held.append(num_prompts * (num_tokens + group_size * sampling.max_new_tokens))
        return prompts

    monkeypatch.setattr(DecodingPrompts, "of", watched)
    seeds = [1, 2, 3, 4]
    whole = InProcessSampler(model).sample(batch, features, group_size, sampling, seeds)
    most = max(lengths) + min(lengths) + 2 * group_size * sampling.max_new_tokens
    cut = InProcessSampler(model, most).sample(batch, features, group_size, sampling, seeds)
    assert held[0] > most and len(held) > 2 and max(held[1:]) <= most
    assert torch.equal(whole.token_ids, cut.token_ids) and whole.texts == cut.texts
