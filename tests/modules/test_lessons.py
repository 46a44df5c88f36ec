"""Lessons of the tiny model: their order, their labels, and the training that they make."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from stvg_lightning.data.synthetic.scene import ACTIONS, COLORS, SHAPES, make_scene
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.models.tiny_architecture import FRAME_SIDE
from stvg_lightning.modules.lessons import UNNAMED, WORDS, Course, LessonBatch, LessonStream, _deed
from stvg_lightning.modules.pretraining import SHARPNESS, PatchNaming, warm_cosine_factor
from stvg_lightning.prompting import Markers
from tests.helpers import assert_close

COURSES = (Course("mixed", 2, 2, 4), Course("still", 1, 3, 4, min_things=1, max_things=3), Course("video", 2, 2, 4))
FPS = 4.0


@pytest.fixture(scope="module")
def encoder(models: dict[str, VideoLanguageModel]) -> Any:
    return models["qwen3_vl"].encoder


def stream(encoder: Any, first_batch: int = 0, markers: Markers = Markers(size=80.0)) -> LessonStream:
    return LessonStream(encoder, markers, FPS, COURSES, first_batch)


def test_courses_follow_one_another_and_the_last_goes_on(encoder: Any) -> None:
    batches = list(islice(stream(encoder), 7))
    pairs = [batch.prompts.grid_thw[:, 0].tolist() for batch in batches]
    assert pairs[:3] == [[8, 8], [8, 8], [1, 1, 1]]
    assert all(len(each) == 2 and min(each) > 5 for each in pairs[3:]), "whole videos"


def test_a_restart_goes_on_with_the_next_batch(encoder: Any) -> None:
    def parts(batch: LessonBatch) -> tuple[torch.Tensor, ...]:
        return batch.prompts.input_ids, batch.prompts.patches, batch.conversation.token_ids, batch.classes

    whole = list(islice(stream(encoder), 5))
    for first in (1, 2, 4):
        for kept, again in zip(whole[first:], stream(encoder, first)):
            assert all(torch.equal(a, b) for a, b in zip(parts(kept), parts(again), strict=True))
    assert not torch.equal(whole[3].prompts.patches[:64], whole[4].prompts.patches[:64])


def test_the_patch_named_shows_the_colour_it_is_named_with(encoder: Any) -> None:
    side = FRAME_SIDE // encoder.side_multiple
    batch = next(iter(stream(encoder, first_batch=3, markers=Markers(size=1.0))))
    colors, num_right = np.array(list(COLORS.values())), 0
    pixels_per_merged = batch.prompts.patches.shape[1] * 4
    merged = batch.prompts.patches.reshape(-1, pixels_per_merged)
    assert len(merged) == int(batch.prompts.grid_thw[:, 0].sum()) * side**2
    # A merged token holds 2 x 2 patches of (channel, frame, row, column).
    values = merged.reshape(len(merged), 4, 3, 2, -1).permute(0, 1, 3, 4, 2).reshape(len(merged), -1, 3)
    stored = (values * 0.5 + 0.5) * 255
    for token, (_, color, shape, _) in zip(batch.patch_index.tolist(), batch.classes.tolist(), strict=True):
        assert 0 <= shape < len(SHAPES)
        distance = (stored[token] - torch.tensor(colors[color])).norm(dim=-1)
        num_right += int((distance < 40).any())
    assert num_right > 0.9 * len(batch.classes), "a blinking thing may be dark"


def test_a_list_names_each_thing_once(encoder: Any) -> None:
    lists = LessonStream(encoder, Markers(size=80.0), FPS, [Course("list", 1, 8, 8)])
    batch = next(iter(lists))
    for token_ids, mask in zip(batch.conversation.token_ids, batch.conversation.mask, strict=True):
        items = encoder.processor.tokenizer.decode(token_ids[mask]).removesuffix("<|im_end|>").rstrip(".").split(", ")
        named = [tuple(sorted(item.split())) for item in items]
        assert 2 <= len(set(named)) == len(named) <= 4
        for words in named:
            assert len(words) == 3 and len({*words} & {*COLORS}) == len({*words} & {*SHAPES}) == 1


def test_answers_are_scored_and_questions_are_not(encoder: Any) -> None:
    tokenizer = encoder.processor.tokenizer
    for batch in islice(stream(encoder, first_batch=2), 3):
        for token_ids, mask in zip(batch.conversation.token_ids, batch.conversation.mask, strict=True):
            scored, told = tokenizer.decode(token_ids[mask]), tokenizer.decode(token_ids[~mask])
            assert "?" not in scored.replace("<answer>", "") and scored.endswith("<|im_end|>")
            assert "assistant" in told or told.count("<|endoftext|>") == len(token_ids[~mask]) or not told


def test_naming_by_hand(encoder: Any) -> None:
    batch = next(iter(stream(encoder, first_batch=2)))
    ids = {"number": range(9), "color": range(9, 15), "shape": range(15, 19), "deed": range(19, 26)}
    naming = PatchNaming({name: list(rows) for name, rows in ids.items()}, 27)
    embeddings = 3 * torch.eye(27)[:26]
    with torch.no_grad():
        naming.doing_nothing.copy_(torch.eye(27)[26:])
        features = torch.zeros(1000, 27)
        features[:, [2, 10, 15, 26]] = 0.7  # number 3, the second colour, the first shape, no deed
        loss, accuracies = naming(features, embeddings, batch)
    chosen, expected = (2, 1, 0, 7), 0.0
    score = SHARPNESS / 2  # the features' angle to each of their four words is 60 degrees
    for column, (choice, size) in enumerate(zip(chosen, (9, 6, 4, 8), strict=True)):
        classes = [c for c in batch.classes[:, column].tolist() if c != UNNAMED]
        total = np.log(np.exp(score) + size - 1)
        expected += np.mean([total - score * (c == choice) for c in classes])
        name = list(WORDS)[column]
        assert_close(accuracies[f"tower/{name}_accuracy"], np.mean([c == choice for c in classes]), atol=1e-6)
    assert_close(loss, expected, atol=1e-4)


def test_deeds_are_named_where_both_frames_show_them() -> None:
    scene = next(s for s in map(make_scene, range(20)) if len(s.things[0].actions) > 1)
    thing = scene.things[0]
    action = thing.actions[0]
    start, end, deed = action.start_frame, action.end_frame, ACTIONS.index(action.kind)
    assert [_deed(thing, *pair) for pair in ((start, start + 2), (end - 3, end - 1))] == [deed, deed]
    assert [_deed(thing, *pair) for pair in ((start - 1, start + 1), (end - 1, end + 1))] == [UNNAMED, UNNAMED]
    assert _deed(thing, start - 2, start - 1) == len(ACTIONS)


def test_the_schedule_by_hand() -> None:
    assert_close([warm_cosine_factor(step, 100) for step in (0, 4, 5)], [0.2, 1.0, 1.0], atol=1e-12)
    assert_close([warm_cosine_factor(step, 105) for step in (55, 105, 300)], [0.55, 0.1, 0.1], atol=1e-12)
