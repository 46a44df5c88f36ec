"""Lessons in reading the synthetic world: many plain questions about one scene, to teach a model to see.

They are what the tiny model is pretrained on. None of them is the task itself: no question asks for
an object and its time together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from stvg_lightning.data.synthetic.drawing import draw_scene
from stvg_lightning.data.synthetic.samples import tube_of
from stvg_lightning.data.synthetic.scene import ACTIONS, COLORS, SHAPES, Scene, Thing, WorldSettings, make_scene
from stvg_lightning.data.synthetic.sentences import Description, Event, choose_description, what_it_does, who_it_is
from stvg_lightning.tubes import Clip, Sample, Truth, encode_mask


@dataclass(frozen=True)
class Lesson:
    """A scene to be read: its frames, and a sample that tells where to mark them."""

    scene: Scene
    clip: Clip
    sample: Sample


def make_lesson(seed: int, fps: float, settings: WorldSettings = WorldSettings(), draw: bool = True) -> Lesson:
    """The lesson of a seed: a scene drawn at a rate of frames, starting up to a quarter of a second late.

    Args:
        seed: see `split_seeds`.
        fps: frames taken for each second; the world's own rate is a multiple of it.
        settings: sizes of the world.
        draw: whether to draw; frames and marks of a lesson that nobody sees stay empty.
    """
    scene = make_scene(seed, settings)
    step = round(settings.fps / fps)
    rng = np.random.default_rng([seed, 13])
    first = int(rng.integers(step))
    indices = tuple(range(first, scene.num_frames - (scene.num_frames - first) % (2 * step), step))
    if not draw:
        blank = np.broadcast_to(np.uint8(0), (len(indices), settings.frame_size, settings.frame_size, 3))
        return Lesson(scene, Clip(blank, indices, settings.fps), _sample_with_masks(scene, {}, indices))
    frames, masks = draw_scene(scene)
    clip = Clip(frames[list(indices)], indices, settings.fps)
    return Lesson(scene, clip, _sample_with_masks(scene, masks, indices))


def _sample_with_masks(scene: Scene, masks: Mapping[int, NDArray[np.bool_]], indices: tuple[int, ...]) -> Sample:
    seen = {i: {frame: stack[frame] for frame in indices if stack[frame].any()} for i, stack in masks.items()}
    size = scene.settings.frame_size
    truth = Truth(
        id=f"lesson-{scene.seed}",
        query="",
        fps=scene.settings.fps,
        num_frames=scene.num_frames,
        width=size,
        height=size,
        tracks={i: tube_of(frames) for i, frames in seen.items()},
        task="choice",
    )
    rles = {i: {frame: encode_mask(mask) for frame, mask in frames.items()} for i, frames in seen.items()}
    return Sample(truth, b"", rles, {})


def renumbered(sample: Sample, new_ids: Mapping[int, int]) -> Sample:
    """The same sample with other numbers on its objects."""
    truth = sample.truth
    tracks = {new_ids[i]: track for i, track in truth.tracks.items()}
    masks = {new_ids[i]: rles for i, rles in sample.masks.items()}
    return Sample(Truth(**{**vars(truth), "tracks": tracks}), sample.video, masks, {})


Fact = tuple[int, int | str | None]
"""What only the video tells of an object id: its looks (None), a deed of it or its place, or when its deed of a start
frame is."""


@dataclass(frozen=True)
class Question:
    """A question about a scene, its answer, and the facts that the answer tells."""

    asked: str
    answer: str
    facts: frozenset[Fact]


def questions(
    scene: Scene, numbers: Mapping[int, int], rng: Generator, count: int, told: Collection[Fact] = ()
) -> list[Question]:
    """Random questions about a scene; none tells what another has told.

    A second mention of a number or a time is copied from the first, and teaches nothing of the video (LOG.md).

    Args:
        scene: what is seen.
        numbers: object id -> the number drawn on the object; empty where none is drawn, and looks are all that names
            a thing.
        rng: source of randomness.
        count: how many at most; a small scene may hold fewer.
        told: facts that are known already.
    """
    chosen_from = MAKERS if numbers else MAKERS_BY_LOOKS
    makers, weights = list(chosen_from), np.array(list(chosen_from.values()))
    found: list[Question] = []
    known = set(told)
    for _ in range(4 * count):
        maker = makers[int(rng.choice(len(makers), p=weights / weights.sum()))]
        question = maker(scene, numbers, rng)
        if question is not None and not question.facts & known and question not in found:
            found.append(question)
            known |= question.facts
    return found[:count]


def questions_of_looks(scene: Scene, numbers: Mapping[int, int], rng: Generator, count: int) -> list[Question]:
    """Questions about looks and numbers alone, which a still picture answers: one of each thing, `count` at most."""
    found = [(_what_it_is if rng.random() < 0.5 else _number_of)(thing, numbers) for thing in scene.things]
    return [found[index] for index in rng.permutation(len(found))[:count]]


def list_of_things(scene: Scene, numbers: Mapping[int, int], rng: Generator, share_by_number: float = 0.5) -> Question:
    """A question for all things, and the list of them, in any order, with their numbers first or last.

    `share_by_number` is how often the numbers come first. Each word stands right beside the one that it is looked up
    by: this is how the way from words to things is found.
    """
    things = [scene.things[index] for index in rng.permutation(len(scene.things))]
    facts = frozenset(looks_of(thing) for thing in things)
    if rng.random() < share_by_number:
        found = [f"{numbers[thing.object_id]} {thing.color} {thing.shape}" for thing in things]
        return Question("List all things by number.", f"{', '.join(found)}.", facts)
    found = [f"{thing.color} {thing.shape} {numbers[thing.object_id]}" for thing in things]
    return Question("List all things by looks.", f"{', '.join(found)}.", facts)


def looks_of(thing: Thing) -> Fact:
    """What a thing looks like, and which number it bears."""
    return thing.object_id, None


def _deeds(thing: Thing) -> frozenset[Fact]:
    """What it does, and when."""
    return frozenset((thing.object_id, told) for action in thing.actions for told in (action.kind, action.start_frame))


def time_of(event: Event) -> Fact:
    """When an event happens."""
    return event.thing.object_id, event.action.start_frame


def place_of(thing: Thing) -> Fact:
    """Where a thing is."""
    return thing.object_id, "place"


def deed_of(event: Event) -> Fact:
    """That this thing does it."""
    return event.thing.object_id, event.action.kind


def _what_it_is(thing: Thing, numbers: Mapping[int, int]) -> Question:
    asked = f"What is number {numbers[thing.object_id]}?"
    return Question(asked, f"The {thing.color} {thing.shape}.", frozenset([looks_of(thing)]))


def _number_of(thing: Thing, numbers: Mapping[int, int]) -> Question:
    # Said again, the looks stand beside the number that they are to find.
    asked = f"Which number is the {thing.color} {thing.shape}?"
    return Question(asked, who_it_is(thing, numbers[thing.object_id]), frozenset([looks_of(thing)]))


def _what_is(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> Question:
    return _what_it_is(_any(scene, rng), numbers)


def _which_is(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> Question:
    return _number_of(_any(scene, rng), numbers)


def _what_does(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> Question:
    thing = _any(scene, rng)
    name = _name(thing, numbers, rng)
    deeds = [what_it_does(action, scene) for action in thing.actions]
    return Question(f"What does {name} do?", f"It {' and '.join(deeds)}.", _deeds(thing))


def _when_does(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> Question:
    thing = _any(scene, rng)
    name = _name(thing, numbers, rng)
    action = thing.actions[int(rng.integers(len(thing.actions)))]
    asked, event = f"When does it happen that {name} {action.kind}?", Event(thing, action)
    return Question(asked, f"It {what_it_does(action, scene)}.", frozenset([time_of(event), deed_of(event)]))


def _who_does(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> Question:
    kind = ACTIONS[int(rng.integers(len(ACTIONS)))] if rng.random() < 0.1 else _any_deed(scene, rng)
    who = [thing for thing in scene.things if any(action.kind == kind for action in thing.actions)]
    found = " and ".join(str(number) for number in sorted(numbers[thing.object_id] for thing in who))
    facts = frozenset((thing.object_id, kind) for thing in who)
    return Question(f"Which number {kind}?", f"Number {found}." if who else "None.", facts)


def _who_does_first(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> Question | None:
    kind = _any_deed(scene, rng)
    turn = int(rng.integers(2))
    events = Description(kind, turn=turn).events(scene)
    if len(events) != 1:
        return None
    asked = f"Which number {kind} {('first', 'last')[turn]}?"
    return Question(asked, f"Number {numbers[events[0].thing.object_id]}.", frozenset([deed_of(events[0])]))


def _tell_of(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> Question:
    thing = _any(scene, rng)
    number = numbers[thing.object_id]
    deeds = [f"It {what_it_does(action, scene)}." for action in thing.actions]
    answer = " ".join([who_it_is(thing, number), *deeds])
    return Question(f"Tell of number {number}.", answer, _deeds(thing) | {looks_of(thing)})


def _who_is_meant(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> Question:
    description, event = choose_description(scene, rng)
    answer = who_it_is(event.thing, numbers[event.thing.object_id])
    return Question(
        f"Who is meant: {description.sentence()}?", answer, frozenset([looks_of(event.thing), deed_of(event)])
    )


def _when_is_meant(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> Question:
    description, event = choose_description(scene, rng)
    answer = f"It {what_it_does(event.action, scene)}."
    return Question(f"When is meant: {description.sentence()}?", answer, frozenset([time_of(event), deed_of(event)]))


MAKERS = {
    list_of_things: 1.0,
    _what_is: 1.0,
    _which_is: 1.0,
    _what_does: 2.0,
    _when_does: 2.0,
    _who_does: 1.5,
    _who_does_first: 1.0,
    _tell_of: 1.5,
    _who_is_meant: 5.0,
    _when_is_meant: 3.0,
}
"""What asks questions about a scene, and how often."""


def _what_thing_does(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> Question:
    kind = _any_deed(scene, rng)
    who = [thing for thing in scene.things if any(action.kind == kind for action in thing.actions)]
    found = " and ".join(f"the {thing.color} {thing.shape}" for thing in who)
    return Question(f"What {kind}?", f"{found}.", frozenset((thing.object_id, kind) for thing in who))


def _what_is_meant(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> Question:
    description, event = choose_description(scene, rng)
    answer = f"The {event.thing.color} {event.thing.shape}."
    return Question(f"What is meant: {description.sentence()}?", answer, frozenset([deed_of(event)]))


MAKERS_BY_LOOKS = {_what_does: 2.0, _when_does: 3.0, _what_thing_does: 1.0, _when_is_meant: 3.0, _what_is_meant: 3.0}
"""What asks questions about a scene in which no numbers are drawn, and how often."""


def _name(thing: Thing, numbers: Mapping[int, int], rng: Generator) -> str:
    """A thing's number or its looks."""
    if numbers and rng.random() < 0.5:
        return f"number {numbers[thing.object_id]}"
    return f"the {thing.color} {thing.shape}"


def _any(scene: Scene, rng: Generator) -> Thing:
    return scene.things[int(rng.integers(len(scene.things)))]


def _any_deed(scene: Scene, rng: Generator) -> str:
    thing = _any(scene, rng)
    return thing.actions[int(rng.integers(len(thing.actions)))].kind


def tokenizer_texts(num_scenes: int) -> list[str]:
    """Texts of the world, from which a tokenizer can learn its merges."""
    texts = [f"The {color} {shape} {kind}" for color in COLORS for shape in SHAPES for kind in ACTIONS]
    texts += [f"<{tenth / 10:.1f} seconds>" for tenth in range(100)] * 5
    texts += ["user\n", "assistant\n"] * 200  # one token each, as in large models
    rng = np.random.default_rng(17)
    for seed in range(num_scenes):
        scene = make_scene(seed)
        numbers = {thing.object_id: thing.object_id for thing in scene.things}
        texts += [text for question in questions(scene, numbers, rng, 8) for text in (question.asked, question.answer)]
    return texts


def detector_texts() -> list[str]:
    """Texts that hold every word of the world's sentences."""
    looks = [f"the {color} {shape} thing" for color in COLORS for shape in SHAPES]
    return [*looks, *ACTIONS, "that first last and"]
