"""Lessons in reading the synthetic world: many plain questions about one scene, to teach a model to see.

They are what the tiny model is pretrained on. None of them is the task itself: no question asks for
an object and its time together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from stvg_lightning.data.synthetic.drawing import draw_scene
from stvg_lightning.data.synthetic.samples import tube_of
from stvg_lightning.data.synthetic.scene import ACTIONS, COLORS, SHAPES, Scene, Thing, WorldSettings, make_scene
from stvg_lightning.data.synthetic.sentences import Description, choose_description, what_it_does, who_it_is
from stvg_lightning.tubes import Clip, Sample, Truth, encode_mask


@dataclass(frozen=True)
class Lesson:
    """A scene to be read: its frames, a sample that marks them, and questions with their answers."""

    scene: Scene
    clip: Clip
    sample: Sample


def make_lesson(seed: int, fps: float, settings: WorldSettings = WorldSettings()) -> Lesson:
    """The lesson of a seed: a scene drawn at a rate of frames, starting up to a quarter of a second late.

    Args:
        seed: see `split_seeds`.
        fps: frames taken for each second; the world's own rate is a multiple of it.
        settings: sizes of the world.
    """
    scene = make_scene(seed, settings)
    step = round(settings.fps / fps)
    rng = np.random.default_rng([seed, 13])
    first = int(rng.integers(step))
    indices = tuple(range(first, scene.num_frames - (scene.num_frames - first) % (2 * step), step))
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


def questions(scene: Scene, numbers: Mapping[int, int], rng: Generator, count: int) -> list[tuple[str, str]]:
    """Random questions about a scene with their answers, no two alike.

    Args:
        scene: what is seen.
        numbers: object id -> the number drawn on the object.
        rng: source of randomness.
        count: how many at most; a small scene may hold fewer.
    """
    makers, weights = list(MAKERS), np.array(list(MAKERS.values()))
    found: list[tuple[str, str]] = []
    for _ in range(4 * count):
        maker = makers[int(rng.choice(len(makers), p=weights / weights.sum()))]
        pair = maker(scene, numbers, rng)
        if pair is not None and pair not in found:
            found.append(pair)
    return found[:count]


def questions_of_looks(scene: Scene, numbers: Mapping[int, int], rng: Generator, count: int) -> list[tuple[str, str]]:
    """Questions about looks and numbers alone, which a still picture answers; no two alike, `count` at most."""
    found = [maker(thing, numbers) for thing in scene.things for maker in (_looks_of, _number_of)]
    return [found[index] for index in rng.permutation(len(found))[:count]]


def list_of_things(
    scene: Scene, numbers: Mapping[int, int], rng: Generator, share_by_number: float = 0.5
) -> tuple[str, str]:
    """A question for all things, and the list of them, in any order, with their numbers first or last.

    `share_by_number` is how often the numbers come first. Each word stands right beside the one that it is looked up
    by: this is how the way from words to things is found.
    """
    things = [scene.things[index] for index in rng.permutation(len(scene.things))]
    if rng.random() < share_by_number:
        found = [f"{numbers[thing.object_id]} {thing.color} {thing.shape}" for thing in things]
        return "List all things by number.", f"{', '.join(found)}."
    found = [f"{thing.color} {thing.shape} {numbers[thing.object_id]}" for thing in things]
    return "List all things by looks.", f"{', '.join(found)}."


def _looks_of(thing: Thing, numbers: Mapping[int, int]) -> tuple[str, str]:
    return f"What is number {numbers[thing.object_id]}?", f"The {thing.color} {thing.shape}."


def _number_of(thing: Thing, numbers: Mapping[int, int]) -> tuple[str, str]:
    # Said again, the looks stand beside the number that they are to find.
    return f"Which number is the {thing.color} {thing.shape}?", who_it_is(thing, numbers[thing.object_id])


def _what_is(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> tuple[str, str]:
    return _looks_of(_any(scene, rng), numbers)


def _which_is(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> tuple[str, str]:
    return _number_of(_any(scene, rng), numbers)


def _what_does(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> tuple[str, str]:
    thing = _any(scene, rng)
    name = f"number {numbers[thing.object_id]}" if rng.random() < 0.5 else f"the {thing.color} {thing.shape}"
    deeds = [what_it_does(action, scene) for action in thing.actions]
    return f"What does {name} do?", f"It {' and '.join(deeds)}."


def _when_does(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> tuple[str, str]:
    thing = _any(scene, rng)
    name = f"number {numbers[thing.object_id]}" if rng.random() < 0.5 else f"the {thing.color} {thing.shape}"
    action = thing.actions[int(rng.integers(len(thing.actions)))]
    return f"When does it happen that {name} {action.kind}?", f"It {what_it_does(action, scene)}."


def _who_does(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> tuple[str, str]:
    kind = ACTIONS[int(rng.integers(len(ACTIONS)))] if rng.random() < 0.1 else _any_deed(scene, rng)
    who = sorted({numbers[t.object_id] for t in scene.things if any(a.kind == kind for a in t.actions)})
    answer = "Number " + " and ".join(str(number) for number in who) if who else "None"
    return f"Which number {kind}?", f"{answer}."


def _who_does_first(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> tuple[str, str] | None:
    kind = _any_deed(scene, rng)
    turn = int(rng.integers(2))
    events = Description(kind, turn=turn).events(scene)
    if len(events) != 1:
        return None
    return f"Which number {kind} {('first', 'last')[turn]}?", f"Number {numbers[events[0].thing.object_id]}."


def _tell_of(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> tuple[str, str]:
    thing = _any(scene, rng)
    number = numbers[thing.object_id]
    deeds = [f"It {what_it_does(action, scene)}." for action in thing.actions]
    return f"Tell of number {number}.", " ".join([who_it_is(thing, number), *deeds])


def _who_is_meant(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> tuple[str, str]:
    description, event = choose_description(scene, rng)
    return f"Who is meant: {description.sentence()}?", who_it_is(event.thing, numbers[event.thing.object_id])


def _when_is_meant(scene: Scene, numbers: Mapping[int, int], rng: Generator) -> tuple[str, str]:
    description, event = choose_description(scene, rng)
    return f"When is meant: {description.sentence()}?", f"It {what_it_does(event.action, scene)}."


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
        texts += [text for pair in questions(scene, numbers, rng, 8) for text in pair]
    return texts
