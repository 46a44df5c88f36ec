"""From samples to texts: preparation and the greedy predictor."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stvg_lightning.answers import View, id_span
from stvg_lightning.data.video import UnreadableVideo, VideoSampling
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.prompting import Markers
from stvg_lightning.rollouts.predictor import ModelPredictor
from stvg_lightning.rollouts.preparation import Preparation
from stvg_lightning.rollouts.rollouts import Sampling
from stvg_lightning.tubes import Sample
from tests.small_models import allowed_log_probs, plain_logits, preparation_of

Samples = tuple[Sample, ...]


@torch.no_grad()
def naive_answer(model: VideoLanguageModel, sample: Sample, num_tokens: int) -> str:
    """The likeliest token, again and again."""
    prompt, written = preparation_of(model)(sample).prompt, torch.tensor([], dtype=torch.long)
    while len(written) < num_tokens and model.end_token_id not in written:
        logits = plain_logits(model, prompt, written)[-1]
        written = torch.cat([written, allowed_log_probs(model, logits).argmax()[None]])
    return model.encoder.processor.tokenizer.decode(written, skip_special_tokens=True)


def test_the_predictor_gives_the_likeliest_text_whatever_the_batch(
    model: VideoLanguageModel, world_samples: Samples
) -> None:
    predictor = ModelPredictor(model, preparation_of(model), Sampling(6, temperature=0.0))
    texts = predictor(world_samples[:3])
    assert texts == [naive_answer(model, sample, 6) for sample in world_samples[:3]]
    assert texts == [predictor([sample])[0] for sample in world_samples[:3]]


@pytest.mark.parametrize("draw", [True, False])
def test_a_question_of_time_speaks_of_markers_where_they_are_drawn(
    draw: bool, models: dict[str, VideoLanguageModel], world_samples: Samples
) -> None:
    model, sample = models["qwen3_vl"], world_samples[0]
    asked = replace(sample, truth=replace(sample.truth, task="temporal"))
    preparation = replace(preparation_of(model), markers=Markers(draw=draw))
    text = model.encoder.processor.tokenizer.decode(preparation(asked).prompt.input_ids)
    assert ("marked with a number" in text) is draw


def test_preparation_asks_the_question_and_knows_the_gold_answer(
    models: dict[str, VideoLanguageModel], world_samples: Samples
) -> None:
    model, sample = models["qwen3_vl"], world_samples[0]
    markers = Markers(kind="upper", size=80.0)
    sampling = VideoSampling(fps=4.0, min_frame_pixels=1024, max_frame_pixels=1024)
    example = Preparation(model.encoder, sampling, markers, id_span)(sample)
    text = model.encoder.processor.tokenizer.decode(example.prompt.input_ids)
    assert id_span.instruction(sample.truth, View("upper")) in text
    assert example.gold == id_span.write(sample.truth, sample.thought, View("upper"))
    assert example.truth is sample.truth
    grid = example.prompt.grid_thw.tolist()[0]
    assert grid[1:] == [4, 4], "32 x 32 pixels in patches of 8"
    # Four frames a second of a video of eight: every second frame, and two of them make a step.
    assert grid[0] == round(sample.truth.num_frames / 4)
    times = {time for seconds in example.marked_seconds.values() for time in seconds}
    assert max(times) < sample.truth.duration_seconds and len(times) <= 2 * grid[0]
    assert set(example.marked_seconds) == set(sample.truth.tracks)


def test_markers_reach_the_model(models: dict[str, VideoLanguageModel], world_samples: Samples) -> None:
    preparation = preparation_of(models["qwen3_vl"])
    clean = replace(preparation, markers=replace(preparation.markers, draw=False))
    sample = replace(world_samples[0], truth=replace(world_samples[0].truth, task="temporal"))
    marked, plain = preparation(sample), clean(sample)
    assert (marked.prompt.patches != plain.prompt.patches).any()
    assert all(not seconds for seconds in plain.marked_seconds.values())


def test_an_unreadable_video_is_named(models: dict[str, VideoLanguageModel], world_samples: Samples) -> None:
    broken = replace(world_samples[0], video=world_samples[0].video[:400])
    with pytest.raises(UnreadableVideo):
        preparation_of(models["qwen3_vl"])(broken)


def test_reading_uses_the_markers_kind(models: dict[str, VideoLanguageModel], world_samples: Samples) -> None:
    preparation = replace(preparation_of(models["qwen3_vl"]), markers=Markers(kind="lower"))
    assert preparation.read("<answer>Target ID: c</answer>", world_samples[0].truth).object_ids == (3,)
