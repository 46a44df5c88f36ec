"""Sentences of the synthetic world: descriptions that fit exactly one thing at exactly one time."""

from __future__ import annotations

from dataclasses import dataclass

from numpy.random import Generator

from stvg_lightning.data.synthetic.scene import Action, Scene, Thing


@dataclass(frozen=True)
class Event:
    """A thing and one of its actions: what a sentence is about."""

    thing: Thing
    action: Action


@dataclass(frozen=True)
class Description:
    """What a sentence tells of an event; None where it is silent.

    `turn` tells two events of the same kind apart by time: 0 is the first of them, 1 the last.
    """

    kind: str
    color: str | None = None
    shape: str | None = None
    turn: int | None = None

    def events(self, scene: Scene) -> list[Event]:
        """The events of a scene that the description fits."""
        fitting = [
            Event(thing, action)
            for thing in scene.things
            for action in thing.actions
            if action.kind == self.kind and self.color in (None, thing.color) and self.shape in (None, thing.shape)
        ]
        if self.turn is None:
            return fitting
        if len(fitting) < 2:
            return []
        starts = [event.action.start_frame for event in fitting]
        chosen = min(starts) if self.turn == 0 else max(starts)
        return [event for event, start in zip(fitting, starts) if start == chosen]

    def sentence(self) -> str:
        """The description in words."""
        thing = " ".join(word for word in ("the", self.color, self.shape or "thing") if word)
        if self.turn is None:
            return f"{thing} {self.kind}"
        return f"{thing} that {self.kind} {'first' if self.turn == 0 else 'last'}"


def unambiguous_descriptions(scene: Scene) -> list[tuple[Description, Event]]:
    """Every description that fits exactly one event of the scene, with that event."""
    found = []
    for thing in scene.things:
        for kind in sorted({action.kind for action in thing.actions}):
            for color in (thing.color, None):
                for shape in (thing.shape, None):
                    for turn in (None, 0, 1):
                        description = Description(kind, color, shape, turn)
                        events = description.events(scene)
                        if len(events) == 1 and events[0].thing is thing:
                            found.append((description, events[0]))
    return found


def choose_description(scene: Scene, rng: Generator) -> tuple[Description, Event]:
    """A random unambiguous description, preferring those whose looks or deed alone would not do.

    A description is preferred when another thing shares the action, or when the thing does something
    else too: then words, place and time are all needed.
    """
    found = unambiguous_descriptions(scene)
    assert found, f"scene {scene.seed} has no event that words can single out"
    hard = [pair for pair in found if _needs_words_and_time(pair[1], scene)]
    pool = hard or found
    return pool[int(rng.integers(len(pool)))]


def _needs_words_and_time(event: Event, scene: Scene) -> bool:
    shared = any(
        action.kind == event.action.kind
        for thing in scene.things
        if thing is not event.thing
        for action in thing.actions
    )
    return shared or len(event.thing.actions) > 1


def who_it_is(thing: Thing, number: int | str) -> str:
    """A thing's looks and its number, in a sentence."""
    return f"The {thing.color} {thing.shape} is number {number}."


def what_it_does(action: Action, scene: Scene) -> str:
    """An action and its seconds, in words that follow a subject."""
    fps = scene.settings.fps
    return f"{action.kind} from {action.start_frame / fps:.2f} to {action.end_frame / fps:.2f}"


def reasoning_trace(event: Event, scene: Scene) -> str:
    """A short thought that leads to the answer: who the thing is, and when it acts.

    `{target}` stands where the thing's marker is named, since the marker is chosen when it is drawn.
    """
    return f"{who_it_is(event.thing, '{target}')} It {what_it_does(event.action, scene)}."
