"""Prompts: what the model is told of the video, padding on the left, and parts of a batch."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from stvg_lightning.models.forward import Completions, completion_log_probs, encode_videos
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.models.prompts import resize_frames
from stvg_lightning.tubes import Clip, Sample
from tests.helpers import assert_close
from tests.small_models import batch_of, noise_clip, prompts_of, random_completions


def test_the_model_is_told_each_step_s_time(models: dict[str, VideoLanguageModel]) -> None:
    encoder = models["qwen3_vl"].encoder
    # Frames 0, 4, 8, ... of 8 a second: pairs at 0 and 0.5, 1 and 1.5, 2 and 2.5 seconds.
    prompt = encoder.encode(noise_clip(6, 32, 32), "Who jumps?", 32, 32)
    text = encoder.processor.tokenizer.decode(prompt.input_ids)
    assert [float(time) for time in re.findall(r"<([\d.]+) seconds>", text)] == pytest.approx([0.2, 1.2, 2.2], abs=0.06)
    assert text.count("<|video_pad|>") == 3 * 4
    assert text.startswith("<|im_start|>user\n<")
    assert text.endswith("Who jumps?<|im_end|>\n<|im_start|>assistant\n")


def test_the_tower_gets_the_frames_of_the_clip(qwen: VideoLanguageModel) -> None:
    frames = np.zeros((2, 16, 32, 3), dtype=np.uint8)
    frames[:, :, 16:] = 255
    prompt = qwen.encoder.encode(Clip(frames, (0, 4), 8.0), "Who?", 16, 32)
    assert prompt.grid_thw.tolist() == [[1, 2, 4]]
    # Merged cells come one after the other: the left one's four patches are black, the right one's white.
    dark, bright = prompt.patches[:4], prompt.patches[4:]
    assert dark.unique().numel() <= 3 and bright.unique().numel() <= 3, "one value a colour channel"
    assert dark.max() < bright.min()


def test_internvl_gets_each_frame_as_an_image(models: dict[str, VideoLanguageModel]) -> None:
    encoder = models["internvl"].encoder
    clip = noise_clip(3, 32, 32)
    prompt = encoder.encode(clip, "Who?", 32, 32)
    assert prompt.grid_thw.tolist() == [[3, 1, 1]] and prompt.patches.shape == (3, 3 * 32 * 32)
    plain = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).flatten(1).float()
    for pixels, shown in zip(plain, prompt.patches, strict=True):
        assert torch.corrcoef(torch.stack([pixels, shown]))[0, 1] > 0.99
    assert prompt.position_ids.tolist() == [list(range(len(prompt.input_ids)))] * 3
    text = encoder.processor.tokenizer.decode(prompt.input_ids)
    assert [f"Frame{number}" in text for number in range(1, 5)] == [True, True, True, False]
    with pytest.raises(ValueError, match=r"32 x 32 pixels, not of 64 x 32.*max_frame_pixels to 1024"):
        encoder.encode(clip, "Who?", 32, 64)


def test_frames_are_resized_only_where_they_must_be() -> None:
    clip = noise_clip(2, 16, 32)
    same = resize_frames(clip, 16, 32)
    assert torch.equal(same, torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float())
    smaller = resize_frames(clip, 8, 16)
    assert smaller.shape == (2, 3, 8, 16)
    assert torch.equal(smaller, smaller.round()) and smaller.min() >= 0 and smaller.max() <= 255
    assert abs(float(smaller.mean() - same.mean())) < 2.0


def test_prompts_are_padded_on_the_left(model: VideoLanguageModel, world_samples: tuple[Sample, ...]) -> None:
    prompts = prompts_of(model, world_samples[:3])
    lengths = [len(prompt.input_ids) for prompt in prompts]
    assert len(set(lengths)) > 1, "the test needs prompts of unequal length"
    batch = batch_of(model, prompts)
    assert batch.num_prompts == 3 and batch.num_tokens == max(lengths)
    for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        assert batch.attention_mask[row].tolist() == [False] * (max(lengths) - length) + [True] * length
        assert torch.equal(batch.input_ids[row, -length:], prompt.input_ids)
        assert torch.equal(batch.position_ids[:, row, -length:], prompt.position_ids)
        assert (batch.input_ids[row, :-length] == model.pad_token_id).all()


def test_left_padding_changes_no_log_probability(model: VideoLanguageModel, world_samples: tuple[Sample, ...]) -> None:
    prompts = prompts_of(model, world_samples[:3])
    completions = random_completions(3, 5)
    everything = torch.ones(3, 5, dtype=torch.bool)

    def log_probs(rows: list[int]) -> torch.Tensor:
        batch = batch_of(model, [prompts[row] for row in rows])
        chosen = Completions(completions[rows], everything[rows])
        with torch.no_grad():
            return completion_log_probs(model.network, batch, chosen, encode_videos(model.network, batch))

    together = log_probs([0, 1, 2])
    for row in range(3):
        assert_close(together[row], log_probs([row])[0], atol=1e-5)


def test_neighbouring_prompts_of_a_batch_keep_their_videos(
    model: VideoLanguageModel, world_samples: tuple[Sample, ...]
) -> None:
    prompts = prompts_of(model, world_samples[:4])
    batch = batch_of(model, prompts)
    part = batch.select(slice(1, 3))
    assert part.num_prompts == 2
    assert torch.equal(part.patches, torch.cat([prompts[1].patches, prompts[2].patches]))
    assert torch.equal(part.grid_thw, torch.cat([prompts[1].grid_thw, prompts[2].grid_thw]))
    assert torch.equal(part.position_ids, batch.position_ids[:, 1:3])
    moved = batch.to("cpu")
    assert all(torch.equal(getattr(moved, name), value) for name, value in vars(batch).items())
