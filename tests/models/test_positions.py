"""Position ids: against transformers for Qwen3-VL, by hand for both families, and where ours differ on purpose."""

from __future__ import annotations

import pytest
import torch

from stvg_lightning.models.loading import VideoLanguageModel, position_rule
from stvg_lightning.models.positions import PositionRule, continued_position_ids, prompt_position_ids
from tests.small_models import noise_clip

QWEN3 = PositionRule(merge_size=2, frames_in_text=True)
QWEN2_5 = PositionRule(merge_size=2, frames_in_text=False, tokens_per_second=2.0)
T, V = 0, 2


def positions(types: list[int], grids: list[list[int]], rule: PositionRule, seconds_per_step: float = 1.0) -> list:
    return prompt_position_ids(torch.tensor(types), torch.tensor(grids), rule, seconds_per_step).tolist()


@pytest.mark.parametrize(
    ("num_frames", "height", "width"), [(2, 32, 32), (6, 48, 32), (8, 32, 64), (4, 64, 64), (10, 16, 16)]
)
def test_qwen3_vl_positions_are_those_of_transformers(
    models: dict[str, VideoLanguageModel], num_frames: int, height: int, width: int
) -> None:
    model = models["qwen3_vl"]
    prompt = model.encoder.encode(noise_clip(num_frames, height, width), "Who moves, and when?", height, width)
    types = 2 * (prompt.input_ids == model.network.config.video_token_id).int()
    theirs, _ = model.network.model.get_rope_index(
        prompt.input_ids[None], types[None], video_grid_thw=prompt.grid_thw.clone()
    )
    assert torch.equal(prompt.position_ids, theirs[:, 0])


def test_qwen3_vl_positions_of_two_videos_are_those_of_transformers(models: dict[str, VideoLanguageModel]) -> None:
    frame = [T, *[V] * 2, T]  # a start marker, a frame of one row and two columns, an end marker
    types = torch.tensor([T, *frame * 2, T, T, *[T, *[V] * 6, T] * 3, T])
    grids = torch.tensor([[2, 2, 4], [3, 6, 4]])
    theirs, _ = models["qwen3_vl"].network.model.get_rope_index(
        torch.zeros_like(types)[None], types[None].int(), video_grid_thw=grids.clone()
    )
    assert torch.equal(prompt_position_ids(types, grids, QWEN3), theirs[:, 0])


def test_qwen3_vl_by_hand() -> None:
    # Two steps of one row and three columns, each between text that tells its time.
    time, height, width = positions([T, V, V, V, T, V, V, V, T], [[2, 2, 6]], QWEN3)
    assert time == [0, 1, 1, 1, 4, 5, 5, 5, 8]
    assert height == [0, 1, 1, 1, 4, 5, 5, 5, 8]
    assert width == [0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_qwen2_5_vl_by_hand() -> None:
    # Two steps one second apart, two positions a second, two by two tokens each.
    time, height, width = positions([T, T, *[V] * 8, T, T], [[2, 4, 4]], QWEN2_5)
    assert time == [0, 1, 2, 2, 2, 2, 4, 4, 4, 4, 5, 6]
    assert height == [0, 1, 2, 2, 3, 3, 2, 2, 3, 3, 5, 6]
    assert width == [0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 5, 6]


def test_qwen2_5_vl_spacing_is_cut_to_whole_positions() -> None:
    # 0.3 seconds a step and two positions a second: 0, 0.6, 1.2, 1.8 and 2.4 are cut off.
    time, _, width = positions([T, *[V] * 5, T], [[5, 2, 2]], QWEN2_5, seconds_per_step=0.3)
    assert time == [0, 1, 1, 2, 2, 3, 4]
    assert width == [0, 1, 1, 1, 1, 1, 4]


def test_qwen2_5_vl_text_after_a_wide_video_starts_after_its_last_column() -> None:
    time, height, width = positions([V] * 8 + [T], [[2, 2, 8]], QWEN2_5, seconds_per_step=0.5)
    assert time == [0] * 4 + [1] * 4 + [4]
    assert height == [0] * 8 + [4]
    assert width == [0, 1, 2, 3, 0, 1, 2, 3, 4]


def test_qwen2_5_vl_two_videos_by_hand() -> None:
    time, _, _ = positions([V, V, T, V, V, V, T], [[2, 2, 2], [3, 2, 2]], QWEN2_5, seconds_per_step=2.0)
    assert time == [0, 4, 5, 6, 10, 14, 15]


@pytest.mark.parametrize("seconds_per_step", [0.5, 1.0, 2.5])
def test_qwen2_5_vl_differs_from_transformers_only_after_the_video(
    models: dict[str, VideoLanguageModel], seconds_per_step: float
) -> None:
    network = models["qwen2_5_vl"].network
    types = torch.tensor([T] * 3 + [V] * 16 + [T] * 4)
    grids = torch.tensor([[4, 4, 4]])
    theirs, _ = network.model.get_rope_index(
        torch.zeros_like(types)[None],
        types[None].int(),
        video_grid_thw=grids,
        second_per_grid_ts=torch.tensor([seconds_per_step]),
    )
    ours = prompt_position_ids(types, grids, position_rule(network.config), seconds_per_step)
    assert torch.equal(ours[:, :19], theirs[:, 0, :19])
    # Theirs starts text two after the video's start, its side in tokens; ours one after its last time.
    last_time = 3 + int(3 * 2 * seconds_per_step)
    assert theirs[0, 0, 19:].tolist() == [5, 6, 7, 8]
    assert ours[0, 19:].tolist() == [max(last_time, 4) + 1 + i for i in range(4)]


def test_the_time_between_frames_reaches_qwen2_5_vl(models: dict[str, VideoLanguageModel]) -> None:
    model = models["qwen2_5_vl"]
    times = {}
    for every in (2, 4, 8):
        clip = noise_clip(6, 16, 16, fps=8.0, every=every)
        prompt = model.encoder.encode(clip, "Who?", 16, 16)
        video = prompt.input_ids == model.network.config.video_token_id
        times[every] = (prompt.position_ids[0, video] - prompt.position_ids[0, video][0]).tolist()
    # A step of two frames is 0.5, 1 or 2 seconds long, and a second two positions.
    assert times == {2: [0, 1, 2], 4: [0, 2, 4], 8: [0, 4, 8]}


def test_what_follows_a_prompt_goes_on_from_its_last_position() -> None:
    last = torch.tensor([7, 12])
    prompt = torch.stack([torch.tensor([[0, 7], [0, 12]])] * 3)
    assert continued_position_ids(prompt, 3).tolist() == [[[8, 9, 10], [13, 14, 15]]] * 3
    assert continued_position_ids(prompt, 1, start=2)[0, :, 0].tolist() == (last + 3).tolist()


@pytest.mark.parametrize("rule", [QWEN3, QWEN2_5])
@pytest.mark.parametrize("num_placeholders", [3, 5, 0])
def test_placeholders_must_match_the_grids(rule: PositionRule, num_placeholders: int) -> None:
    with pytest.raises(ValueError, match=f"{num_placeholders} video placeholders.*4 video features"):
        positions([T] + [V] * num_placeholders + [T], [[1, 4, 4]], rule)


def test_other_families_are_refused(models: dict[str, VideoLanguageModel]) -> None:
    with pytest.raises(ValueError, match=r"qwen3_vl_text.*qwen2_5_vl, qwen3_vl"):
        position_rule(models["qwen3_vl"].network.config.text_config)
