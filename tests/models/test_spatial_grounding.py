"""The spatial grounding module: the plain detector before training, clips, tracks, and what is inserted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from stvg_lightning.models import spatial_grounding
from stvg_lightning.models.spatial_grounding import (
    Candidates,
    DetectorLora,
    FrameReading,
    FrameStates,
    SpatialGrounder,
    adapt_detector,
    load_spatial,
)
from stvg_lightning.models.spatial_layers import (
    MAX_GLOBAL_TOKENS,
    GlobalLocalFusion,
    TemporalEnhancement,
    time_embedding,
)
from stvg_lightning.models.spatial_tracks import centers_and_sizes, corners, track_order
from tests.helpers import assert_close
from tests.small_detectors import random_grounder

WIDTH = 24
SECONDS = [0.0, 0.25, 0.5, 0.75, 1.0]
EVERY = range(5)


@pytest.fixture(scope="module")
def plain() -> SpatialGrounder:
    return random_grounder(WIDTH)


@pytest.fixture(scope="module")
def stirred() -> SpatialGrounder:
    return random_grounder(WIDTH, stirred=0.2)


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.randint(0, 256, (5, 96, 128, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.fixture(scope="module")
def video_tokens() -> torch.Tensor:
    return torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def states_of(grounder: SpatialGrounder, pictures: torch.Tensor, video_tokens: torch.Tensor) -> FrameStates:
    phrase = grounder.phrase("The red circle moves left.")
    return grounder.module.frame_states(grounder.pixels(pictures), phrase, video_tokens)[0]


@torch.no_grad()
def candidates_of(grounder: SpatialGrounder, states: FrameStates, *clips: range | list[int]) -> list[Candidates]:
    return grounder.module.candidates(states, clips, SECONDS)


def test_before_any_training_it_is_the_plain_detector(
    plain: SpatialGrounder, pictures: torch.Tensor, video_tokens: torch.Tensor
) -> None:
    found = candidates_of(plain, states_of(plain, pictures, video_tokens), EVERY)[0]
    phrase = plain.phrase("The red circle moves left.")
    with torch.no_grad():
        expected = plain.module.detector(plain.pixels(pictures), phrase.input_ids.expand(5, -1))
    logits = expected.logits.max(dim=-1).values
    order = track_order(logits.sigmoid(), expected.pred_boxes)
    assert order[0].tolist() == list(range(10)) and all(sorted(row) == list(range(10)) for row in order.tolist())
    assert_close(found.logits, torch.take_along_dim(logits, order, dim=1), atol=1e-5, rtol=1e-6)
    assert_close(found.boxes_cxcywh, torch.take_along_dim(expected.pred_boxes, order[..., None], dim=1), atol=1e-6)
    assert found.logits.std() > 0.1, "of something"


def test_tracks_follow_things_and_not_ranks() -> None:
    left, right, small = [0.2, 0.5, 0.3, 0.3], [0.8, 0.5, 0.3, 0.3], [0.8, 0.5, 0.1, 0.1]
    moved = [0.3, 0.5, 0.3, 0.3]
    boxes = torch.tensor([[left, right, small], [small, right, moved], [moved, small, right]])
    assert track_order(torch.full((3, 3), 0.5), boxes).tolist() == [[0, 1, 2], [2, 1, 0], [0, 2, 1]]
    # Of two candidates for one thing the scores decide.
    boxes, scores = torch.tensor([[left, left], [left, left]]), torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    assert track_order(scores, boxes).tolist() == [[0, 1], [1, 0]]


def test_the_best_candidates_alone_are_tracked(
    plain: SpatialGrounder, pictures: torch.Tensor, video_tokens: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = candidates_of(plain, states_of(plain, pictures, video_tokens), EVERY)[0]
    monkeypatch.setattr(spatial_grounding, "MAX_CANDIDATES", 4)
    best = candidates_of(plain, states_of(plain, pictures, video_tokens), EVERY)[0]
    assert_close(best.logits.sort(dim=1).values, every.logits.sort(dim=1).values[:, -4:], atol=1e-5, rtol=1e-6)


def test_what_is_inserted_counts_once_it_has_learned(
    plain: SpatialGrounder, stirred: SpatialGrounder, pictures: torch.Tensor, video_tokens: torch.Tensor
) -> None:
    states = states_of(stirred, pictures, video_tokens)
    found = candidates_of(stirred, states, EVERY)[0]
    unfused = candidates_of(stirred, states_of(plain, pictures, video_tokens), EVERY)[0]
    other_video = candidates_of(stirred, states_of(stirred, pictures, video_tokens.flip(0) * 2), EVERY)[0]
    unenhanced = candidates_of(plain, states, EVERY)[0]
    for other in (unfused, other_video, unenhanced):
        assert (found.logits - other.logits).abs().max() > 1e-3
    assert not plain.module.detector.model.encoder._forward_pre_hooks, "the detector itself is as it was"


def test_clips_of_all_lengths_do_not_see_each_other(
    stirred: SpatialGrounder, pictures: torch.Tensor, video_tokens: torch.Tensor
) -> None:
    states = states_of(stirred, pictures, video_tokens)
    clips = ([0, 1, 2, 3, 4], [2], [1, 3])
    together = candidates_of(stirred, states, *clips)
    for clip, found in zip(clips, together, strict=True):
        by_itself = stirred.module.candidates(states.select(clip), [range(len(clip))], [SECONDS[i] for i in clip])[0]
        assert found.logits.shape == (len(clip), 10)
        assert_close(found.logits, by_itself.logits, atol=1e-5, rtol=1e-5)
        assert_close(found.boxes_cxcywh, by_itself.boxes_cxcywh, atol=1e-6)
    assert (together[0].logits[2] - together[1].logits[0]).abs().max() > 1e-3, "neighbours in time count"


def test_time_counts_from_the_beginning_of_a_clip(
    stirred: SpatialGrounder, pictures: torch.Tensor, video_tokens: torch.Tensor
) -> None:
    states = states_of(stirred, pictures, video_tokens).select([0, 1, 2])
    first, later, slower = (
        stirred.module.candidates(states, [range(3)], times)[0].logits
        for times in ([0.0, 0.25, 0.5], [7.0, 7.25, 7.5], [0.0, 1.0, 2.0])
    )
    assert_close(first, later, atol=1e-5, rtol=1e-5)
    assert (first - slower).abs().max() > 1e-4


def test_the_enhancement_is_attention_along_time_and_then_among_candidates() -> None:
    torch.manual_seed(3)
    layer = TemporalEnhancement(16, 2)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    states, seconds = torch.randn(1, 4, 3, 16), torch.tensor([[0.0, 0.5, 1.0, 2.5]])
    found = layer(states, seconds, torch.ones(1, 4, dtype=torch.bool))[0]
    after_time = torch.empty(4, 3, 16)
    for candidate in range(3):
        row = states[0, :, candidate]
        normed = layer.norms[0](row)
        timed = normed + time_embedding(seconds, 16)[0]
        after_time[:, candidate] = row + layer.along_time(timed, timed, normed)[0]
    for frame in range(4):
        row = after_time[frame]
        normed = layer.norms[1](row)
        row = row + layer.among_candidates(normed, normed, normed)[0]
        assert_close(found[frame], row + layer.feed_forward(layer.norms[2](row)), atol=1e-5)


def test_the_fusion_asks_the_video_and_passes_large_features_down() -> None:
    torch.manual_seed(4)
    layer = GlobalLocalFusion(32, 2, 2, WIDTH)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    shapes, features, video = [(4, 2), (2, 1)], torch.randn(3, 10, 32), torch.randn(7, WIDTH)
    places = torch.randn(3, 10, 32)
    found = layer(features, places, shapes, video)
    asked = layer.projection(video)
    fused = []
    for frame in range(3):
        parts = []
        for level, at in enumerate((slice(0, 8), slice(8, 10))):
            asking = layer.norms[level](features[frame, at]) + places[frame, at]
            parts.append(features[frame, at] + layer.attentions[level](asking, asked, asked)[0])
        fused.append(parts)
    for frame, (large, small) in enumerate(fused):
        below = small.T.view(32, 2, 1).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        weight, bias = layer.downward[0].weight[:, :, 0, 0], layer.downward[0].bias
        passed = torch.einsum("oi,ihw->ohw", weight, below) + bias[:, None, None]
        assert_close(found[frame, :8], large + passed.flatten(1).T, atol=1e-5)
        assert_close(found[frame, 8:], small, atol=1e-5)


def test_a_long_video_is_asked_in_averages() -> None:
    layer = GlobalLocalFusion(32, 1, 2, WIDTH)
    torch.nn.init.normal_(layer.attentions[0].out_proj.weight)
    features, tokens = torch.randn(1, 4, 32), torch.randn(MAX_GLOBAL_TOKENS, WIDTH)
    twice = tokens.repeat_interleave(2, dim=0)
    places = torch.zeros_like(features)
    assert_close(layer(features, places, [(2, 2)], twice), layer(features, places, [(2, 2)], tokens), atol=1e-5)


def test_the_track_of_the_highest_mean_score() -> None:
    logits = torch.tensor([[4.0, 1.5, 0.0], [-4.0, 1.5, 0.0]])  # one frame's best is not the whole clip's
    boxes = torch.rand(2, 3, 4)
    assert_close(Candidates(logits, boxes).best_track(), corners(boxes[:, 1]))


def test_corners_and_back() -> None:
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.4]])
    assert_close(centers_and_sizes(boxes), [[0.3, 0.3, 0.4, 0.2]], atol=1e-6)
    assert_close(corners(centers_and_sizes(boxes)), boxes, atol=1e-6)


@pytest.mark.parametrize(
    ("query", "read"),
    [
        ("The red circle moves left.", "the red circle moves left."),
        ("the thing that blinks. first?", "the thing that blinks first."),
        ("the blue cross", "the blue cross."),
    ],
)
def test_a_query_is_one_phrase(plain: SpatialGrounder, query: str, read: str) -> None:
    ids = plain.phrase(query).input_ids.tolist()
    assert plain.tokenizer.decode(ids, skip_special_tokens=True).replace(" .", ".") == read
    assert ids[0] == 101 and ids[-2:] == [1012, 102] and 1012 not in ids[:-2] and 1029 not in ids


def test_saved_with_its_adapter_and_loaded_again(
    pictures: torch.Tensor, video_tokens: torch.Tensor, tmp_path: Path
) -> None:
    grounder = adapt_detector(random_grounder(WIDTH), DetectorLora(rank=4, alpha=8))
    trained = {name for name, parameter in grounder.module.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or name.startswith(("fusion.", "enhancement.")) for name in trained)
    assert not any("bbox_embed" in name for name in trained) and len(trained) > 100
    with torch.no_grad():
        for name, parameter in grounder.module.named_parameters():
            if name in trained:
                parameter.add_(0.05 * torch.randn_like(parameter))
    grounder.module.eval()
    grounder.save(tmp_path)
    loaded = load_spatial(str(tmp_path), WIDTH)
    expected, found = (
        candidates_of(each, states_of(each, pictures, video_tokens), EVERY)[0] for each in (grounder, loaded)
    )
    untrained = candidates_of(plain := random_grounder(WIDTH), states_of(plain, pictures, video_tokens), EVERY)[0]
    assert_close(found.logits, expected.logits, atol=1e-5, rtol=1e-5)
    assert_close(found.boxes_cxcywh, expected.boxes_cxcywh, atol=1e-5)
    assert (found.logits - untrained.logits).abs().max() > 1e-2
    assert not loaded.module.training and grounder.adapter is not None
    with pytest.raises(ValueError, match="video tokens of width 24, and these are 32"):
        load_spatial(str(tmp_path), 32)


@pytest.mark.parametrize("recompute", [False, True])
def test_frames_in_parts_are_as_frames_at_once(
    pictures: torch.Tensor, video_tokens: torch.Tensor, recompute: bool
) -> None:
    gradients, found = [], []
    weights = torch.randn(64, generator=torch.Generator().manual_seed(1))
    for reading in (FrameReading(), FrameReading(frames_at_once=2, recompute_activations=recompute)):
        plain = replace(random_grounder(WIDTH, stirred=0.1), reading=reading)
        torch.manual_seed(0)
        grounder = adapt_detector(plain, DetectorLora(rank=4, alpha=8))
        layers = grounder.read(pictures, "the red circle moves left", video_tokens, num_layers=3)
        assert [states.layer for states in layers] == [-1, -2, -3]
        sum((states.hidden * weights).sum() for states in layers).backward()
        trained = [p for p in grounder.module.parameters() if p.grad is not None]
        gradients.append(torch.cat([p.grad.flatten() for p in trained]))
        found.append(layers)
    for once, parted in zip(*found, strict=True):
        assert_close(parted.hidden, once.hidden, atol=1e-5)
        assert_close(parted.references, once.references, atol=1e-6)
    assert gradients[0].norm() > 0
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 1e-5


def test_the_size_of_frames(pictures: torch.Tensor, tmp_path: Path) -> None:
    plain = random_grounder(WIDTH)
    plain.save(tmp_path)
    assert plain.pixels(pictures).shape[-2:] == (48, 64)
    smaller = load_spatial(str(tmp_path), WIDTH, reading=FrameReading(shortest_side_pixels=32))
    assert smaller.pixels(pictures).shape[-2:] == (24, 32)
    with pytest.raises(ValueError, match="shortest_side_pixels must be at least 1"):
        FrameReading(shortest_side_pixels=0)


def test_no_detector_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no Grounding DINO at"):
        load_spatial(str(tmp_path / "nothing"), WIDTH)


def test_gradients_reach_all_that_is_trained(pictures: torch.Tensor, video_tokens: torch.Tensor) -> None:
    grounder = adapt_detector(random_grounder(WIDTH, stirred=0.1), DetectorLora(rank=4, alpha=8))
    video_tokens = video_tokens.clone().requires_grad_()
    (states,) = grounder.module.frame_states(grounder.pixels(pictures), grounder.phrase("the cross"), video_tokens)
    found = grounder.module.candidates(states, [EVERY], SECONDS)[0]
    (found.boxes_cxcywh.square().sum() + F.logsigmoid(found.logits).sum()).backward()
    trained = {name: p for name, p in grounder.module.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None] == [], "several processes would wait for these"
    assert video_tokens.grad is not None and video_tokens.grad.abs().max() > 0, "and the tower, where it learns"
