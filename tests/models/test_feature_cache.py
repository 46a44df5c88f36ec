"""Features that are kept: those of the tower, one pass for each video, none of another tower."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stvg_lightning.models.adapters import Lora, add_adapter
from stvg_lightning.models.families import tower_of
from stvg_lightning.models.feature_cache import FeatureCache
from stvg_lightning.models.forward import VideoFeatures, encode_videos
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.tubes import Sample
from tests.helpers import assert_close
from tests.small_models import batch_of, copied, prompts_of

Samples = tuple[Sample, ...]


def watched(model: VideoLanguageModel) -> tuple[VideoLanguageModel, list[int]]:
    """A copy, and what is added to at each pass of its tower."""
    made, passes = copied(model), []
    made.network.requires_grad_(False)
    tower_of(made.network).register_forward_hook(lambda *_: passes.append(1))
    return made, passes


def assert_same(found: VideoFeatures, expected: VideoFeatures) -> None:
    assert len(found.tokens) == len(expected.tokens) and len(found.deepstack) == len(expected.deepstack)
    for mine, other in zip((found.tokens, *found.deepstack), (expected.tokens, *expected.deepstack), strict=True):
        for one, two in zip(mine, other, strict=True):
            assert_close(one, two, atol=1e-5)


def test_a_video_passes_once(model: VideoLanguageModel, world_samples: Samples) -> None:
    made, passes = watched(model)
    prompts = prompts_of(made, world_samples[:3])
    cache = FeatureCache(100)
    for chosen in ([0, 1], [1, 2], [2, 0, 1]):
        batch = batch_of(made, [prompts[place] for place in chosen])
        found = cache.encode(made.network, batch)
        assert not any(tokens.requires_grad for tokens in found.tokens)
        so_far = len(passes)
        with torch.no_grad():
            assert_same(found, encode_videos(made.network, batch))
        del passes[so_far:]
    assert len(passes) == 3


def test_nothing_stale_is_taken(model: VideoLanguageModel, world_samples: Samples) -> None:
    """Other pixels, or a tower that was written to, by an optimiser or a checkpoint, ask for a new pass."""
    made, passes = watched(model)
    prompt = prompts_of(made, world_samples[:1])[0]
    cache = FeatureCache(100)
    first = cache.encode(made.network, batch_of(made, [prompt]))
    darker = replace(prompt, patches=prompt.patches - 0.5)
    cache.encode(made.network, batch_of(made, [darker]))
    assert len(passes) == 2
    weight = next(p for p in tower_of(made.network).parameters() if p.ndim > 1)
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    torch.optim.SGD([weight], lr=0.1).step()
    second = cache.encode(made.network, batch_of(made, [prompt]))
    assert len(passes) == 3 and (second.tokens[0] - first.tokens[0]).abs().max() > 1e-3
    made.network.load_state_dict(model.network.state_dict())
    assert_same(cache.encode(made.network, batch_of(made, [prompt])), first)
    assert len(passes) == 4


def test_a_trained_tower_is_refused(model: VideoLanguageModel, world_samples: Samples) -> None:
    batch = batch_of(model, prompts_of(model, world_samples[:1]))
    adapted = add_adapter(copied(model), Lora(rank=4, vision_tower="adapted"))
    with pytest.raises(ValueError, match="features_kept_mib must be 0"):
        FeatureCache(100).encode(adapted.model.network, batch)
    assert len(FeatureCache(0).encode(adapted.model.network, batch).tokens) == 1
    assert FeatureCache(100).encode(add_adapter(copied(model), Lora(rank=4)).model.network, batch).tokens


def test_features_are_those_of_the_adapters_that_take_part(model: VideoLanguageModel, world_samples: Samples) -> None:
    """A tower that an earlier stage adapted is frozen, and yet gives other features with its adapter than without."""
    adapted = add_adapter(copied(model), Lora(rank=4, vision_tower="adapted"))
    for name, weights in adapted.adapter.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.3)
    adapted.adapter.requires_grad_(False)
    network, batch = adapted.model.network, batch_of(model, prompts_of(model, world_samples[:1]))
    cache = FeatureCache(100)
    with_it = cache.encode(network, batch)
    with adapted.without_adapter():
        without = cache.encode(network, batch)
        with torch.no_grad():
            assert_same(without, encode_videos(network, batch))
    assert (with_it.tokens[0] - without.tokens[0]).abs().max() > 1e-3
    adapted.adapter.requires_grad_(False)
    assert_same(cache.encode(network, batch), with_it)
    assert len(cache._kept) == 2


def test_it_holds_no_more_than_it_may(models: dict[str, VideoLanguageModel], world_samples: Samples) -> None:
    made, passes = watched(models["qwen2_5_vl"])
    prompts = prompts_of(made, world_samples[:2])
    sizes = [len(encode_videos(made.network, batch_of(made, [p])).tokens[0]) * 64 * 4 / 2**20 for p in prompts]
    passes.clear()
    cache = FeatureCache(max(sizes) * 1.1)
    for place in (0, 0, 1, 1, 0):
        cache.encode(made.network, batch_of(made, [prompts[place]]))
    assert len(passes) == 3, "the second pushed the first out"
    assert cache._held_bytes <= cache.max_mib * 2**20
    none = FeatureCache(0)
    for _ in range(2):
        none.encode(made.network, batch_of(made, prompts))
    assert len(passes) == 5 and not none._kept
