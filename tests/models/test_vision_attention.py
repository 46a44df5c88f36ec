"""The tower's attention over all frames at once: against a naive loop, and against transformers' own loop."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.models.vision_attention import NAME, batched_segment_attention
from tests.helpers import assert_close
from tests.small_models import noise_clip, own_tower_attention


@pytest.mark.parametrize("lengths", [[4, 4, 4], [3, 3, 5, 1, 1, 3], [6], [1, 2, 3]])
def test_segments_attend_to_themselves_only(lengths: list[int]) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, sum(lengths), 8, dtype=torch.float64)
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    output, weights = batched_segment_attention(nn.Module(), query, key, value, None, 0.3, bounds)
    assert weights is None and output.shape == (1, sum(lengths), 2, 8)
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        for head in range(2):
            for token in range(start, end):
                scores = 0.3 * key[0, head, start:end] @ query[0, head, token]
                expected = scores.softmax(0) @ value[0, head, start:end]
                assert_close(output[0, token, head], expected, atol=1e-12)


def test_features_are_those_of_transformers_own_loop(qwen: VideoLanguageModel) -> None:
    # Frames of different sizes: segments, and in Qwen2.5-VL windows, of different lengths.
    sizes = [(4, 48, 64), (6, 32, 32), (2, 80, 48)]
    prompts = [qwen.encoder.encode(noise_clip(n, h, w, seed=n), "Who?", h, w) for n, h, w in sizes]
    patches, grids = torch.cat([p.patches for p in prompts]), torch.cat([p.grid_thw for p in prompts])
    assert qwen.network.model.visual.config._attn_implementation == NAME
    with torch.no_grad():
        ours = qwen.network.model.get_video_features(patches, grids, return_dict=True)
        with own_tower_attention(qwen.network):
            theirs = qwen.network.model.get_video_features(patches, grids, return_dict=True)
    assert [len(video) for video in ours.pooler_output] == [2 * 3 * 4, 3 * 2 * 2, 1 * 5 * 3]
    for mine, other in zip(ours.pooler_output, theirs.pooler_output, strict=True):
        assert_close(mine, other, atol=1e-5)
        assert mine.std() > 0.01
    levels = [getattr(found, "deepstack_features", ()) or () for found in (ours, theirs)]
    assert len(levels[0]) == len(getattr(qwen.network.config.vision_config, "deepstack_visual_indexes", ()))
    for mine, other in zip(*levels, strict=True):
        assert_close(torch.cat(mine), torch.cat(other), atol=1e-5)


def test_frames_do_not_see_each_other(qwen: VideoLanguageModel) -> None:
    # Each pair of frames becomes one step of time; changing the second step leaves the first as it was.
    clip = noise_clip(4, 32, 32)
    prompt = qwen.encoder.encode(clip, "Who?", 32, 32)
    changed = prompt.patches.clone()
    changed[len(changed) // 2 :] += 1.0
    with torch.no_grad():
        before, after = (
            qwen.network.model.get_video_features(patches, prompt.grid_thw, return_dict=True).pooler_output[0]
            for patches in (prompt.patches, changed)
        )
    assert_close(before[:4], after[:4], atol=1e-5)
    assert (before[4:] - after[4:]).abs().max() > 1e-2
