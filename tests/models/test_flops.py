"""Arithmetic of a step against torch's own count of what it computes, and against cases worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from stvg_lightning.models.adapters import Lora, add_adapter
from stvg_lightning.models.flops import (
    ModelShape,
    TowerShape,
    Work,
    measured_flops_per_second,
    prefill_work,
    repeated_work,
    shape_of,
    shared_work,
    total,
)
from stvg_lightning.models.forward import Completions, completion_log_probs, encode_videos
from stvg_lightning.models.group_forward import group_log_probs
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.tubes import Sample
from tests.small_models import batch_of, copied, prompts_of, random_completions

SHAPE = ModelShape(
    weights=100,
    adapter_weights=10,
    layers=2,
    attention_width=8,
    head_weights=50,
    trains_weights=False,
    tower=TowerShape(30, 20, 5, 2, stem_weights=10, patches_per_token=4),
)
NOT_TRAINED = {"trained_patch_weights": 0, "trained_token_weights": 0}


def test_work_by_hand() -> None:
    # Prompt of two tokens; completions of three, one and two: two, none and one are read.
    # Pairs: 1 + 2 in the prompt; then 3 + 4, and 3.
    assert shared_work(2, [3, 1, 2]) == Work(tokens=5, pairs=13, scored=6)
    # Rows of five, three and four tokens: 15 + 6 + 10 pairs.
    assert repeated_work(2, [3, 1, 2]) == Work(tokens=12, pairs=31, scored=6)
    assert total([Work(1, 2, 3), Work(10, 20, 30, 40)]) == Work(11, 22, 33, 40)
    # The tower reads a video once, or once for each of three completions.
    assert shared_work(2, [3, 1, 2], patches=8).patches == 8 and repeated_work(2, [3, 1, 2], patches=8).patches == 24
    assert prefill_work(2, patches=8).times(3) == Work(tokens=6, pairs=9, scored=3, patches=24)


def test_flops_by_hand() -> None:
    work = Work(tokens=3, pairs=6, scored=2)
    # 2 * 110 * 3, 4 * 2 * 8 * 6, 2 * 50 * 2
    assert work.forward_flops(SHAPE) == 660 + 384 + 200
    # Adapters alone: once more what flows back, twice for attention, and 2 * 10 * 3 for their own gradient.
    assert work.training_flops(SHAPE) == 2 * (660 + 384 + 200) + 384 + 60
    assert work.training_flops(replace(SHAPE, trains_weights=True)) == 3 * (660 + 384 + 200)
    with_video, frozen = replace(work, patches=8), replace(SHAPE, tower=replace(SHAPE.tower, **NOT_TRAINED))
    assert with_video.forward_flops(SHAPE) - work.forward_flops(SHAPE) == SHAPE.tower.forward_flops(8)
    assert with_video.training_flops(SHAPE) - work.training_flops(SHAPE) == SHAPE.tower.training_flops(8)
    assert with_video.training_flops(frozen) - work.training_flops(frozen) == SHAPE.tower.forward_flops(8)
    assert SHAPE.tower.forward_flops(patches=8) == 2 * (30 * 8 + 20 * 2)
    # What flows back stops at the stem; five weights a patch and two a token have gradients of their own.
    of_images = replace(SHAPE.tower, patches_in_one=4)
    assert of_images.forward_flops(patches=2) == SHAPE.tower.forward_flops(patches=8)
    assert of_images.training_flops(patches=2) == SHAPE.tower.training_flops(patches=8)
    assert SHAPE.tower.training_flops(patches=8) == 2 * 2 * (30 * 8 + 20 * 2) - 2 * 10 * 8 + 2 * (5 * 8 + 2 * 2)


@pytest.mark.parametrize("trained", [False, True])
def test_the_repeated_form_is_what_torch_counts(
    model: VideoLanguageModel, world_samples: tuple[Sample, ...], trained: bool
) -> None:
    """torch counts all pairs of a row, where half of them are hidden: attention is left out on both sides."""
    network = copied(model).network
    network.model.language_model.config._attn_implementation = "sdpa"
    batch = batch_of(model, prompts_of(model, world_samples[:1]))
    completions = Completions(random_completions(2, 4), torch.ones(2, 4, dtype=torch.bool))
    with torch.no_grad():
        features = encode_videos(network, batch)
    with FlopCounterMode(display=False) as counter:
        log_probs = completion_log_probs(network.requires_grad_(trained), batch, completions, features)
        if trained:
            log_probs.sum().backward()
    counted = {str(name): flops for name, flops in counter.get_flop_counts()["Global"].items()}
    matrices = sum(flops for name, flops in counted.items() if "attention" not in name)
    shape = replace(shape_of(network), layers=0)
    work = repeated_work(batch.num_tokens, [4, 4])
    if not trained:
        assert matrices == work.forward_flops(shape)
        return
    again = 2.0 * shape.head_weights * work.scored  # the head is computed again for its gradient
    assert matrices == work.training_flops(shape) + again


def test_a_tower_that_runs_for_every_copy_is_what_torch_counts(
    qwen: VideoLanguageModel, world_samples: tuple[Sample, ...]
) -> None:
    """The repeated form as released trainers have it: a row for each completion, with a video of its own."""
    network = copied(qwen).network.requires_grad_(True)
    network.model.language_model.config._attn_implementation = "sdpa"
    rows = batch_of(qwen, prompts_of(qwen, [world_samples[0]] * 3))
    completions = Completions(random_completions(3, 4), torch.ones(3, 4, dtype=torch.bool))
    with FlopCounterMode(display=False) as counter:
        features = encode_videos(network, rows)
        completion_log_probs(network, rows, completions, features).sum().backward()
    counted = {str(name): flops for name, flops in counter.get_flop_counts()["Global"].items()}
    shape = replace(shape_of(network), layers=0)
    work = repeated_work(rows.num_tokens, [4, 4, 4], patches=len(rows.patches) // 3)
    again = 2.0 * shape.head_weights * work.scored
    matrices = sum(flops for name, flops in counted.items() if "attention" not in name)
    assert matrices == work.training_flops(shape) + again


def test_a_group_s_row_is_what_torch_counts(model: VideoLanguageModel, world_samples: tuple[Sample, ...]) -> None:
    network = add_adapter(copied(model), Lora(rank=4)).model.network
    batch = batch_of(model, prompts_of(model, world_samples[:2]))
    lengths = [4, 2, 1, 3]
    completions = Completions(random_completions(4, 4), torch.arange(4) < torch.tensor(lengths)[:, None])
    with torch.no_grad():
        features = encode_videos(network, batch)
        with FlopCounterMode(display=False) as counter:
            group_log_probs(network, batch, completions, features)
    counted = {str(name): flops for name, flops in counter.get_flop_counts()["Global"].items()}
    prompts = batch.attention_mask.sum(dim=1).tolist()
    work = shared_work(prompts[0], lengths[:2]) + shared_work(prompts[1], lengths[2:])
    shape = replace(shape_of(network), layers=0)
    assert shape.adapter_weights > 0 and not shape.trains_weights
    assert sum(flops for name, flops in counted.items() if "attention" not in name) == work.forward_flops(shape)


@pytest.mark.parametrize("trained", ["nothing", "adapters", "weights"])
def test_the_tower_is_what_torch_counts(
    model: VideoLanguageModel, world_samples: tuple[Sample, ...], trained: str
) -> None:
    batch = batch_of(model, prompts_of(model, world_samples[:1]))
    network = copied(model).network.requires_grad_(trained == "weights")
    if trained == "adapters":  # as wide as what they adapt, so that they tell
        network = add_adapter(copied(model), Lora(rank=32, vision_tower="adapted")).model.network
    with FlopCounterMode(display=False) as counter:
        features = encode_videos(network, batch)
        if trained != "nothing":
            sum(each.sum() for level in (features.tokens, *features.deepstack) for each in level).backward()
    counted = {str(name): flops for name, flops in counter.get_flop_counts()["Global"].items()}
    matrices = sum(flops for name, flops in counted.items() if "attention" not in name)
    patches = int(batch.grid_thw.prod(dim=1).sum())  # of InternVL's video: its frames, of 16 patches each
    tower = shape_of(network).tower
    assert tower.is_trained == (trained != "nothing")
    predicted = tower.forward_flops(patches) if trained == "nothing" else tower.training_flops(patches)
    if network.config.model_type == "internvl":  # its tower reads one more token an image
        assert predicted == pytest.approx(matrices, rel=0.07)
    elif trained == "adapters":
        assert matrices < predicted < 1.06 * matrices
    else:
        assert predicted == matrices


def test_a_shape_needs_no_weights(models: dict[str, VideoLanguageModel]) -> None:
    network = models["qwen2_5_vl"].network
    config = type(network.config)(**network.config.to_dict())
    with torch.device("meta"):
        empty = type(network)(config)
    assert shape_of(empty) == shape_of(copied(models["qwen2_5_vl"]).network.requires_grad_())


def test_a_product_of_matrices_is_measured() -> None:
    assert 1e8 < measured_flops_per_second("cpu", torch.float32) < 1e15
