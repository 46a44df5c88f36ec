"""Lessons of the tiny model: their order, their labels, and the training that they make."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from stvg_lightning.answers import BoxChain, Frames, View
from stvg_lightning.data.synthetic.drawing import draw_scene
from stvg_lightning.data.synthetic.reading import Question, questions
from stvg_lightning.data.synthetic.scene import (
    ACTIONS,
    COLORS,
    SHAPES,
    Scene,
    WorldSettings,
    box_of,
    covered_share,
    make_scene,
)
from stvg_lightning.data.synthetic.sentences import unambiguous_descriptions
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.models.tiny_architecture import FRAME_SIDE
from stvg_lightning.modules.lesson_tasks import (
    form_of_an_answer,
    half_a_task,
    half_a_task_in_boxes,
    questions_of_events,
    questions_of_places,
    task_in_boxes,
)
from stvg_lightning.modules.lessons import UNNAMED, Course, LessonBatch, LessonStream, _deed, word_ids
from stvg_lightning.modules.pretraining import (
    CHOICE_WEIGHT,
    PLACE_WEIGHT,
    SHARPNESS,
    LanguageReading,
    Pretraining,
    Rates,
    SceneWords,
    TowerNaming,
    WorldReading,
    place_directions,
    warm_cosine_factor,
)
from stvg_lightning.prompting import Markers
from stvg_lightning.tubes import mask_box
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
    for token, (_, color, shape, *_) in zip(batch.patch_index.tolist(), batch.classes.tolist(), strict=True):
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


def test_no_lesson_asks_for_an_object_and_its_time_together(encoder: Any) -> None:
    videos = LessonStream(encoder, Markers(size=80.0), FPS, [Course("video", 1, 24, 8)])
    tokenizer = encoder.processor.tokenizer
    batch = next(iter(videos))
    texts = [
        tokenizer.decode(torch.cat([prompt, told]))
        for prompt, told in zip(batch.prompts.input_ids, batch.conversation.token_ids, strict=True)
    ]
    turns = [turn for text in texts for turn in text.split("<|im_start|>user\n")[1:]]
    instructed = [turn for turn in turns if "Think inside" in turn]
    formed = [turn for turn in turns if "Write this as an answer:" in turn]
    assert instructed and formed
    for turn in instructed:
        assert ("Target ID: [" in turn) != ("Time range: [" in turn), turn
    for turn in formed:
        told = turn.partition("Write this as an answer: ")[2].partition("<|im_end|>")[0]
        number, start, end = re.fullmatch(r".* number (\d)\. .* from (\S+) to (\S+)\.", told).groups()
        answer = f"<think>{told}</think><answer>Target ID: {number}, Time range: {start} to {end}</answer>"
        assert answer in turn


def test_no_question_tells_what_another_has_told() -> None:
    """A later answer could copy it, and would not be read from the video."""
    num_which = 0
    for seed in range(80):
        scene, rng = make_scene(seed), np.random.default_rng(seed)
        numbers = {thing.object_id: thing.object_id for thing in scene.things}
        first = (half_a_task, form_of_an_answer)[seed % 2](scene, numbers, rng)
        asked = [first, *questions(scene, numbers, rng, 16, first.facts)]
        told = [fact for question in asked for fact in question.facts]
        assert len(asked) > 1 and len(set(told)) == len(told)
        for place, question in enumerate(asked):
            times = re.findall(r"(?:from|range:) (\S+) to", question.answer)
            frames = {fact for _, fact in question.facts if isinstance(fact, int)}
            assert set(times) == {f"{frame / scene.settings.fps:.2f}" for frame in frames}
            which = re.fullmatch(r"Which number (\w+s(?: \w+)??)(?: first| last)?\?", question.asked)
            if which is None or which[1].startswith("is"):
                continue
            num_which += 1
            for thing in scene.things:
                names = (f"umber {thing.object_id}", f"{thing.color} {thing.shape}")
                if f"umber {thing.object_id}" in question.answer:
                    before = [turn.asked + turn.answer for turn in asked[:place]]
                    assert not any(which[1] in turn and any(name in turn for name in names) for turn in before)
    assert num_which > 20


def test_lessons_that_nobody_sees_are_told_alike(encoder: Any) -> None:
    courses = [Course("video", 1, 4, 8), Course("caption", 1, 4, 8)]
    drawn, told = (
        list(islice(LessonStream(encoder, Markers(size=80.0), FPS, courses, draw=draw), 2)) for draw in (True, False)
    )
    for seen, heard in zip(drawn, told, strict=True):
        assert torch.equal(seen.conversation.token_ids, heard.conversation.token_ids)
        assert torch.equal(seen.prompts.input_ids, heard.prompts.input_ids)
        assert torch.equal(seen.patch_index, heard.patch_index) and torch.equal(seen.classes, heard.classes)
        assert len(heard.prompts.patches.unique()) == 1 < len(seen.prompts.patches.unique())


def test_answers_are_scored_and_questions_are_not(encoder: Any) -> None:
    tokenizer = encoder.processor.tokenizer
    for batch in islice(stream(encoder, first_batch=2), 3):
        for token_ids, mask in zip(batch.conversation.token_ids, batch.conversation.mask, strict=True):
            scored, told = tokenizer.decode(token_ids[mask]), tokenizer.decode(token_ids[~mask])
            assert "?" not in scored.replace("<answer>", "") and scored.endswith("<|im_end|>")
            padding = tokenizer.decode([0] * len(token_ids[~mask]))
            assert "assistant" in told or told == padding


def test_a_caption_follows_the_bare_video(encoder: Any) -> None:
    captions = LessonStream(encoder, Markers(size=80.0), FPS, [Course("caption", 1, 8, 8)])
    batch = next(iter(captions))
    tokenizer, side = encoder.processor.tokenizer, FRAME_SIDE // encoder.side_multiple
    expected = ["<|vision_start|>", *["<|video_pad|>"] * side**2, "<|vision_end|>"]
    assert all(tokenizer.convert_ids_to_tokens(row) == expected for row in batch.prompts.input_ids.tolist())
    corners = batch.prompts.position_ids[:, :, [0, 1, -1]].unique(dim=1)[:, 0].T.tolist()
    assert corners == [[0, 0, 0], [1, 1, 1], [1 + side] * 3]
    for token_ids in batch.conversation.token_ids:
        assert re.match(r"\w+ \w+ \d[,.]", tokenizer.decode(token_ids))


def bare_lessons(encoder: Any, share: float = 1.0, count: int = 24) -> LessonBatch:
    """Video lessons without numbers."""
    course = Course("video", 1, count, 8, bare_share=share)
    return next(iter(LessonStream(encoder, Markers(size=80.0), FPS, [course], draw=False)))


def turns_of(encoder: Any, batch: LessonBatch) -> list[tuple[str, str]]:
    """Questions and answers."""
    texts = [
        encoder.processor.tokenizer.decode(torch.cat([prompt, told]))
        for prompt, told in zip(batch.prompts.input_ids, batch.conversation.token_ids, strict=True)
    ]
    turns = [turn for text in texts for turn in text.split("<|im_start|>user\n")[1:]]
    pairs = [turn.split("<|im_end|>\n<|im_start|>assistant\n") for turn in turns]
    return [(asked.rpartition("<|vision_end|>")[2], answer.partition("<|im_end|>")[0]) for asked, answer in pairs]


def test_lessons_without_numbers_speak_of_none(encoder: Any) -> None:
    batch = bare_lessons(encoder)
    assert (batch.classes[:, 0] == UNNAMED).all() and (batch.classes[:, 1:3] != UNNAMED).all()
    turns = turns_of(encoder, batch)
    assert len(turns) > 48 and not any("umber " in asked + answer for asked, answer in turns)
    kinds = ("Where is", "When", "What does", "What is meant")
    assert all(any(kind in asked for asked, _ in turns) for kind in kinds)
    mixed = bare_lessons(encoder, 0.5)
    assert {"Which number" in asked for asked, _ in turns_of(encoder, mixed)} == {True, False}


def tasks_in_boxes(ask: Callable[..., Question]) -> list[tuple[Scene, View, Question]]:
    """A question about each of forty scenes."""
    size, found = WorldSettings().frame_size, []
    for seed in range(40):
        scene = make_scene(seed)
        view = View(frames=Frames((0, 2), FRAME_SIDE, FRAME_SIDE, size, size, scene.settings.fps, scene.num_frames))
        found.append((scene, view, ask(scene, view, np.random.default_rng(seed))))
    return found


def test_no_answer_about_a_place_tells_a_time_that_is_asked_for(encoder: Any) -> None:
    course = Course("video", 1, 8, 8, bare_share=1.0, event_share=1.0)
    lessons = LessonStream(encoder, Markers(draw=False), FPS, [course])
    rng = np.random.default_rng(0)
    for _ in range(40):
        asked = lessons._asked_of_places(lessons._lesson(rng), rng)
        told = [fact for question in asked for fact in question.facts]
        assert len(told) == len(set(told)), [question.asked for question in asked]


def test_half_a_task_in_boxes_tells_the_other_half() -> None:
    """Boxes are asked for of a thing and a time that the question names, or the time alone."""
    num_times = 0
    for scene, view, question in tasks_in_boxes(half_a_task_in_boxes):
        named = re.search(r'"the (\w+) (\w+) from (\S+) to (\S+)"', question.asked)
        if named is None:
            num_times += 1
            assert re.fullmatch(r"<time> \d - \d </time>", question.answer) and len(question.facts) == 2
            continue
        start, end = (round(float(seconds) * scene.settings.fps) for seconds in named.groups()[2:])
        answer = BoxChain().read(question.answer, view)
        assert answer.well_formed and answer.box_lists is not None and answer.box_lists.cells is not None
        assert answer.box_lists.cells == answer.box_lists.grid.cells_of((start, end))
        thing = next(thing for thing in scene.things if (thing.color, thing.shape) == named.groups()[:2])
        frame = answer.box_lists.grid.starts_frames[answer.box_lists.predicted[-1][0]]
        told = np.array(answer.box_lists.predicted[-1][1])
        assert np.abs(told - np.array(box_of(thing, min(max(frame, start), end - 1)))).max() <= 1.0 + 1e-6
        assert question.facts == {(thing.object_id, "place")}
    assert 10 < num_times < 30


def test_events_are_seen_where_their_things_are() -> None:
    """Each is told with the boxes of its thing at its time, and no two tell of one thing."""
    num_events = 0
    for seed in range(40):
        scene = make_scene(seed)
        size = scene.settings.frame_size
        view = View(frames=Frames((0, 2), FRAME_SIDE, FRAME_SIDE, size, size, scene.settings.fps, scene.num_frames))
        asked = questions_of_events(scene, view, np.random.default_rng(seed), 4)
        told = [fact for question in asked for fact in question.facts]
        assert asked and len(set(told)) == len(told)
        for question in asked:
            query = re.fullmatch(r'Where is this seen: "(.*)"', question.asked).group(1)
            fitting = [
                event for description, event in unambiguous_descriptions(scene) if description.sentence() == query
            ]
            action, thing = fitting[0].action, fitting[0].thing
            first = int(question.answer.partition(".")[0])
            assert first == int(action.start_frame / scene.settings.fps)
            frame = max(round(first * scene.settings.fps), action.start_frame)
            told_box = np.array(re.findall(r"\d+", question.answer)[1:5], dtype=float)
            assert np.abs(told_box - np.array(box_of(thing, frame)) / size * FRAME_SIDE).max() <= 0.5 + 1e-6
            num_events += 1
    assert num_events > 60


def test_the_whole_task_in_boxes_is_rare(encoder: Any) -> None:
    def share(whole_share: float) -> float:
        course = Course("video", 1, 4, 8, bare_share=1.0, whole_share=whole_share)
        stream = LessonStream(encoder, Markers(size=80.0), FPS, [course], draw=False)
        opened = [turns_of(encoder, batch)[0][0] for batch in islice(stream, 8)]
        tasks = [asked for asked in opened if "where it is seen" in asked]
        return sum(" from " not in asked.partition("\n")[0] for asked in tasks) / max(len(tasks), 1)

    assert share(0.0) == 0 and share(1.0) == 1
    asked = [question for _, _, question in tasks_in_boxes(task_in_boxes)]
    assert all(" from " not in question.asked.partition("\n")[0] for question in asked)


def test_places_are_those_of_the_scene(encoder: Any) -> None:
    """The boxes told are true ones, second by second, in the pixels that the model is shown."""
    num_boxes, size = 0, WorldSettings().frame_size
    for seed in range(40):
        scene, rng = make_scene(seed), np.random.default_rng(seed)
        view = View(frames=Frames((0, 2), FRAME_SIDE, FRAME_SIDE, size, size, scene.settings.fps, scene.num_frames))
        for question in questions_of_places(scene, view, rng, 4):
            color, shape, first, last = re.fullmatch(
                r"Where is the (\w+) (\w+) from (\d) to (\d)\?", question.asked
            ).groups()
            thing = next(thing for thing in scene.things if (thing.color, thing.shape) == (color, shape))
            told = re.findall(r"(\d)\. \[(\d+), (\d+), (\d+), (\d+)\]", question.answer)
            assert [int(second) for second, *_ in told] == list(range(int(first), int(last) + 1))
            for second, *corners in told:
                expected = np.array(box_of(thing, round(int(second) * scene.settings.fps))) / size * FRAME_SIDE
                assert np.abs(np.array(corners, dtype=float) - expected).max() <= 0.5 + 1e-6
                num_boxes += 1
    assert num_boxes > 100


def test_a_box_holds_what_is_drawn() -> None:
    for seed in range(8):
        scene = make_scene(seed, WorldSettings(max_things=2))
        _, masks = draw_scene(scene)
        for thing in scene.things:
            for frame in (0, scene.num_frames - 1):
                drawn = np.array(mask_box(masks[thing.object_id][frame]))
                assert np.abs(drawn - np.array(box_of(thing, frame))).max() < 1.01


WORD_IDS = {"number": range(9), "color": range(9, 15), "shape": range(15, 19), "deed": range(19, 26)}


def words_and_one_thing(encoder: Any) -> tuple[SceneWords, torch.Tensor, LessonBatch]:
    """Words that stand at right angles, and a batch in which one thing covers the second token.

    It is number 3, of the second colour and the first shape, does the fourth deed in the first frame only, and stands
    a quarter across, and reaches down to the frame's middle.
    """
    batch = next(iter(stream(encoder, first_batch=2)))
    classes = torch.tensor([[2, 1, 0, 3, UNNAMED]])
    words = SceneWords({kind: list(ids) for kind, ids in WORD_IDS.items()}, background_id=26)
    places = torch.tensor([[0.25, 0.3, 0.45, 0.5]])
    return words, 3 * torch.eye(48), replace(batch, patch_index=torch.tensor([1]), classes=classes, places=places)


def place_by_hand() -> torch.Tensor:
    """What tells the place of the one thing, edge by edge: five waves along a side that is 1 / 1.3 of the slowest."""
    told = torch.zeros(48)
    for edge, share in enumerate((0.25, 0.3, 0.45, 0.5)):
        for wave in range(5):
            angle = 2 * math.pi * (wave + 1) * share / 1.3
            told += math.cos(angle) / math.sqrt(5) * place_directions(48)[10 * edge + wave]
            told += math.sin(angle) / math.sqrt(5) * place_directions(48)[10 * edge + 5 + wave]
    return told


def test_a_scene_told_by_hand(encoder: Any) -> None:
    words, embeddings, batch = words_and_one_thing(encoder)
    expected = torch.zeros(3, 48)
    expected[[0, 2], 26] = 1
    expected[1, [2, 10, 15]], expected[1, 22] = 1.0, 0.5
    expected[1] += place_by_hand()
    assert_close(words.told(embeddings, batch, 3), expected, atol=1e-6)


def test_naming_by_hand(encoder: Any) -> None:
    words, embeddings, batch = words_and_one_thing(encoder)
    features = torch.zeros(3, 48)
    features[1, [2, 10, 15, 21]] = 1.0  # all right but the deed
    features[1] += place_by_hand()
    loss, measures = words.naming_loss(features, embeddings, batch)
    distance = (1 + 1 + 1 + 0.25) / 3  # two empty tokens, a deed too many and half a deed missing
    assert_close(measures["tower/distance"], distance, atol=1e-6)
    error = torch.zeros(48)
    error[21], error[22] = 1.0, -0.5
    place = (place_directions(48) @ error).square().sum()
    assert_close(measures["tower/place_error"], place, atol=1e-6)
    scores = SHARPNESS * features[1] / features[1].norm()
    choice = 0.0
    for kind, right in (("number", 2), ("color", 1), ("shape", 0), ("deed", 3)):
        of_kind = scores[list(WORD_IDS[kind])].double()
        choice += float(of_kind.exp().sum().log() - of_kind[right])
    assert_close(loss, distance + PLACE_WEIGHT * place + CHOICE_WEIGHT * choice, atol=1e-5)
    names = ("number", "color", "shape", "first_deed")
    assert [measures[f"tower/{name}_accuracy"].item() for name in names] == [1, 1, 1, 0]
    assert "tower/last_deed_accuracy" not in measures


def test_words_do_not_move_towards_the_tower(encoder: Any) -> None:
    words, embeddings, batch = words_and_one_thing(encoder)
    embeddings.requires_grad_()
    features = torch.ones(3, 48, requires_grad=True)
    words.naming_loss(features, embeddings, batch)[0].backward()
    assert embeddings.grad is None and features.grad.abs().max() > 0
    words.told(embeddings, batch, 3).square().sum().backward()
    assert embeddings.grad is not None, "but told ones learn from what is read of them"


def training(kind: Callable[..., Pretraining], model: VideoLanguageModel) -> Pretraining:
    words = SceneWords(word_ids(model.encoder), model.network.config.video_token_id)
    module = kind(model.network, words, Rates(), max_steps=10)
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    return module


def of_other_numbers(batch: LessonBatch) -> LessonBatch:
    """What is taught of a batch changes, and not what is seen."""
    return replace(batch, classes=torch.cat([(batch.classes[:, :1] + 1) % 9, batch.classes[:, 1:]], dim=1))


def in_the_dark(batch: LessonBatch) -> LessonBatch:
    return replace(batch, prompts=replace(batch.prompts, patches=torch.zeros_like(batch.prompts.patches)))


def test_a_reader_leaves_its_words_alone(models: dict[str, VideoLanguageModel]) -> None:
    model = models["qwen3_vl"]
    batch = next(iter(stream(model.encoder, first_batch=2)))
    for learns_words in (False, True):
        module = training(partial(LanguageReading, learns_words=learns_words), model)
        module.configure_optimizers()
        model.network.zero_grad()
        module.loss_of(batch).backward()
        assert (module.embeddings().grad is not None) == learns_words
        assert all(p.grad is not None for p in model.network.model.language_model.layers.parameters())
        module.on_fit_end()
        assert module.embeddings().requires_grad, "a training that follows learns them again"
    model.network.zero_grad()


@pytest.mark.parametrize(
    ("kind", "sees", "is_told", "trains_language", "trains_tower"),
    [
        (LanguageReading, False, True, True, False),
        (TowerNaming, True, True, False, True),
        (WorldReading, True, True, True, True),
    ],
)
def test_what_each_training_learns_from_and_what_learns(
    models: dict[str, VideoLanguageModel],
    kind: type[Pretraining],
    sees: bool,
    is_told: bool,
    trains_language: bool,
    trains_tower: bool,
) -> None:
    model = models["qwen3_vl"]
    batch = next(iter(stream(model.encoder, first_batch=2)))
    module = training(kind, model)
    loss = module.loss_of(batch)
    assert bool(module.loss_of(in_the_dark(batch)) != loss) == sees
    assert bool(module.loss_of(of_other_numbers(batch)) != loss) == is_told
    trained = {id(p) for part in module.trained_parts() for p in part.parameters()}
    parts = model.network.model
    assert {id(p) for p in parts.language_model.parameters()} <= trained or not trains_language
    assert any(id(p) in trained for p in parts.language_model.parameters()) == trains_language
    assert any(id(p) in trained for p in parts.visual.parameters()) == trains_tower
    model.network.zero_grad()
    loss.backward()
    embeddings, projection = model.network.get_input_embeddings().weight, parts.visual.merger.linear_fc2.weight
    assert (embeddings.grad is not None) == trains_language
    assert (projection.grad is not None) == trains_tower
    model.network.zero_grad()


def test_a_box_covers_tokens_by_hand() -> None:
    thing = next(t for t in make_scene(0).things)
    centers, radii = np.array([[30.0, 40.0], [34.0, 40.0]]), np.array([16.0, 16.0])
    thing = replace(thing, centers_xy=centers, radii=radii)
    # The mean box is 16 to 48 across and 24 to 56 down; tokens are 32 pixels wide.
    expected = np.outer([8 / 32, 24 / 32, 0, 0], [16 / 32, 16 / 32, 0, 0]).ravel()
    assert_close(covered_share(thing, (0, 1), 32.0, 4), expected, atol=1e-12)


def test_deeds_are_those_of_each_frame() -> None:
    thing = next(s for s in map(make_scene, range(20)) if len(s.things[0].actions) > 1).things[0]
    action = thing.actions[0]
    start, end, deed = action.start_frame, action.end_frame, ACTIONS.index(action.kind)
    assert [_deed(thing, frame) for frame in (start - 1, start, end - 1, end)] == [UNNAMED, deed, deed, UNNAMED]


def test_the_schedule_by_hand() -> None:
    assert_close([warm_cosine_factor(step, 100) for step in (0, 4, 5)], [0.2, 1.0, 1.0], atol=1e-12)
    assert_close([warm_cosine_factor(step, 105) for step in (55, 105, 300)], [0.55, 0.1, 0.1], atol=1e-12)
