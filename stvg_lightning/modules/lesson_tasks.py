"""The grounding task in the tiny model's lessons: its instruction and the form of its answers.

Where numbers are drawn, never the task as a whole: the cold start is to teach that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from stvg_lightning.answers import BoxChain, Frames, View, id_span, timesteps
from stvg_lightning.answers.reading import between
from stvg_lightning.data.synthetic.reading import Question, deed_of, looks_of, place_of, time_of, tokenizer_texts
from stvg_lightning.data.synthetic.scene import Scene, Thing, box_of, make_scene
from stvg_lightning.data.synthetic.sentences import Event, choose_description, reasoning_trace, what_it_does, who_it_is
from stvg_lightning.tubes import Truth, Tube


def half_a_task(scene: Scene, numbers: dict[int, int], rng: np.random.Generator) -> Question:
    """A grounding question that asks for the object or for the time, never for both, with its gold answer."""
    truth, event = _asked(scene, numbers, rng)
    if rng.random() < 0.5:
        half, thought = replace(truth, task="spatial"), who_it_is(event.thing, "{target}")
        fact = looks_of(event.thing)
    else:
        half, thought = replace(truth, task="temporal"), f"It {what_it_does(event.action, scene)}."
        fact = time_of(event)
    return Question(id_span.instruction(half), id_span.write(half, thought), frozenset([fact, deed_of(event)]))


def form_of_an_answer(scene: Scene, numbers: dict[int, int], rng: np.random.Generator) -> Question:
    """Who and when, told in plain words, and the same in the form of an answer: nothing is to be found in the video."""
    truth, event = _asked(scene, numbers, rng)
    thought = reasoning_trace(event, scene)
    told = thought.replace("{target}", str(truth.object_id))
    facts = frozenset([looks_of(event.thing), deed_of(event), time_of(event)])
    return Question(f"Write this as an answer: {told}", id_span.write(truth, thought), facts)


def task_in_boxes(scene: Scene, view: View, rng: np.random.Generator) -> Question:
    """A grounding question for time and boxes (STVG-o1), the task as a whole, with its gold answer."""
    description, event = choose_description(scene, rng)
    span = event.action.start_frame, event.action.end_frame
    truth, language = _with_boxes(scene, event.thing, span, description.sentence()), BoxChain()
    facts = frozenset([time_of(event), deed_of(event), place_of(event.thing)])
    return Question(language.instruction(truth, view), language.write(truth, "", view), facts)


def half_a_task_in_boxes(scene: Scene, view: View, rng: np.random.Generator) -> Question:
    """A question in the words of STVG-o1 for boxes, thing and time being told, or for the time alone."""
    language = BoxChain()
    if rng.random() < 0.5:
        description, event = choose_description(scene, rng)
        span = event.action.start_frame, event.action.end_frame
        truth = _with_boxes(scene, event.thing, span, description.sentence())
        time = between(language.write(truth, "", view), "time")
        asked = f'Find the time during which this happens, in whole seconds: "{truth.query}"'
        assert time is not None
        return Question(asked, f"<time> {time.strip()} </time>", frozenset([time_of(event), deed_of(event)]))
    thing, settings = scene.things[int(rng.integers(len(scene.things)))], scene.settings
    shortest, longest = (
        round(seconds * settings.fps) for seconds in (settings.min_action_seconds, settings.max_action_seconds)
    )
    length = int(rng.integers(shortest, longest + 1))
    first = int(rng.integers(scene.num_frames - length + 1))
    end = first + length
    query = f"the {thing.color} {thing.shape} from {first / settings.fps:.2f} to {end / settings.fps:.2f}"
    truth = _with_boxes(scene, thing, (first, end), query)
    return Question(language.instruction(truth, view), language.write(truth, "", view), frozenset([place_of(thing)]))


def questions_of_places(scene: Scene, view: View, rng: np.random.Generator, count: int) -> list[Question]:
    """Where things are, second by second, in the words of STVG-o1; `count` at most, one of each thing."""
    fps, seconds = scene.settings.fps, int(scene.num_frames / scene.settings.fps)
    found = []
    for index in rng.permutation(len(scene.things))[:count]:
        thing = scene.things[index]
        first = int(rng.integers(seconds))
        last = min(first + int(rng.integers(3)), seconds - 1)
        span = round(first * fps), round((last + 1) * fps)
        name = f"the {thing.color} {thing.shape}"
        written = BoxChain(think=False).write(_with_boxes(scene, thing, span, name), "", view)
        boxes = between(written, "pred_bbox")
        assert boxes is not None
        found.append(Question(f"Where is {name} from {first} to {last}?", boxes, frozenset([place_of(thing)])))
    return found


def questions_of_events(scene: Scene, view: View, rng: np.random.Generator, count: int) -> list[Question]:
    """Where what a sentence tells of is seen, second by second; `count` at most, and none tells what another has."""
    found: list[Question] = []
    for _ in range(4 * count):
        description, event = choose_description(scene, rng)
        facts = frozenset([time_of(event), deed_of(event), place_of(event.thing)])
        if any(question.facts & facts for question in found):
            continue
        span = event.action.start_frame, event.action.end_frame
        truth = _with_boxes(scene, event.thing, span, description.sentence())
        boxes = between(BoxChain(think=False).write(truth, "", view), "pred_bbox")
        assert boxes is not None
        found.append(Question(f'Where is this seen: "{truth.query}"', boxes, facts))
    return found[:count]


def _with_boxes(scene: Scene, thing: Thing, span_frames: tuple[int, int], query: str) -> Truth:
    """A truth about a thing's place during a span."""
    boxes = {frame: box_of(thing, frame) for frame in range(*span_frames)}
    return replace(_unasked(scene), query=query, span_frames=span_frames, boxes_xyxy=boxes, tracks={})


def _asked(scene: Scene, numbers: dict[int, int], rng: np.random.Generator) -> tuple[Truth, Event]:
    """What a grounding question about a scene asks for, and the event that it is about."""
    description, event = choose_description(scene, rng)
    truth = replace(
        _unasked(scene),
        query=description.sentence(),
        span_frames=(event.action.start_frame, event.action.end_frame),
        object_id=numbers[event.thing.object_id],
    )
    return truth, event


def _unasked(scene: Scene) -> Truth:
    """What is known of a scene before anything is asked or drawn."""
    size = scene.settings.frame_size
    marked: dict[int, Tube] = {thing.object_id: {} for thing in scene.things}
    return Truth(f"lesson-{scene.seed}", "", scene.settings.fps, scene.num_frames, size, size, tracks=marked)


def world_texts(num_scenes: int) -> Iterator[str]:
    """Texts of the world and of the grounding task, from which a tokenizer learns its merges."""
    yield from tokenizer_texts(num_scenes)
    rng = np.random.default_rng(19)
    for seed in range(num_scenes):
        scene = make_scene(seed)
        numbers = {thing.object_id: thing.object_id for thing in scene.things}
        half = half_a_task(scene, numbers, rng)
        yield from (half.asked, half.answer)
        yield id_span.instruction(replace(_unasked(scene), query="the thing"))
        yield f"<think>.</think><answer>Target ID: {seed % 9 + 1}, Time range: 0.50 to 1.25</answer>"


def instructions_without_numbers() -> list[str]:
    """The questions of the methods that answer in boxes or in times alone, put about nothing."""
    truth = replace(_unasked(make_scene(0)), query="the thing")
    view = View(frames=Frames.untouched(truth))
    return [BoxChain().instruction(truth, view), timesteps.instruction(truth), "Where is it from then to then?"]
