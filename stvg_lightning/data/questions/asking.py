"""A question about a source, with its answer and the scene graph that the answer can be worked out from."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.random import Generator

from stvg_lightning.data.questions.source import Point, Source, Thing
from stvg_lightning.tubes import Task, Tube
from stvg_lightning.tubes.scene_graph import Edge, GraphFrame, SceneGraph, all_edges, scene_graph_to_json

CLEARLY = 1.5
"""How many times as large one thing must be as another before a question compares them."""


@dataclass(frozen=True)
class Question:
    """A question, its answer, and what it is about.

    Attributes:
        kind: one of `KINDS`.
        task: `choice`, `numeric`, `spatial` or `temporal`.
        query: with the candidates of a choice, one a line.
        frames: which the graph shows, ascending; one to four.
        about: the things that the question names or counts.
        answer: the letter or the number.
        span_frames: the time that is asked for.
        boxes_xyxy: the boxes that are asked for.
        graph: the scene graph as JSON; see `graph_of`.
        called: what the things are called in the graph, which then shows no others; None leaves each its name. Names
            of their own, told with the question, would tell how many there are.
        is_common: whether this is the answer that chance gives most; see `making.COMMON_SHARE`.
    """

    kind: str
    task: Task
    query: str
    frames: tuple[int, ...]
    about: tuple[Thing, ...]
    answer: str | float | None = None
    span_frames: tuple[int, int] | None = None
    boxes_xyxy: Tube = field(default_factory=dict)
    graph: Mapping[str, Any] = field(default_factory=dict)
    called: str | None = None
    is_common: bool = False


Maker = Callable[[Source, Generator, int], Question | None]
"""Makes a question of a source, or none where it would be ambiguous. The number: decimals of the graph's positions."""


def slack(decimals: int) -> float:
    """How far the difference of two rounded positions may be off, along one axis."""
    return 10.0**-decimals


def choice_lines(asked: str, right: str, wrong: Sequence[str], rng: Generator) -> tuple[str, str]:
    """A question with lettered candidates in a random order, and the right one's letter."""
    candidates = [right, *wrong]
    assert len(set(candidates)) == len(candidates), candidates
    order = rng.permutation(len(candidates))
    lines = [f"({letter}) {candidates[index]}" for letter, index in zip(string.ascii_uppercase, order)]
    return "\n".join([asked, *lines]), string.ascii_uppercase[list(order).index(0)]


def at_time(source: Source, frame: int) -> str:
    """The words with which a question about one frame begins."""
    return "In this scene" if source.is_still else f"At {source.seconds(frame):g} s"


def main_axis(delta: Point, decimals: int) -> tuple[int, bool] | None:
    """Along which axis a way mainly leads, and whether upwards on it; None where that is not clear.

    Args:
        delta: on the grid.
        decimals: to which positions are rounded: it must be clear from rounded ones too.
    """
    off = slack(decimals)
    x, y = abs(delta[0]), abs(delta[1])
    axis, most, least = (0, x, y) if x >= y else (1, y, x)
    if most < 0.5 + off or most - off < CLEARLY * (least + off):
        return None
    return axis, delta[axis] > 0


def direction_words(source: Source) -> tuple[tuple[str, str], tuple[str, str]]:
    """What the two axes of a plane are called: (down, up) the first axis, (down, up) the second."""
    if source.plane == "picture":
        return ("left", "right"), ("up", "down")
    assert source.plane == "camera", source.plane
    return ("left", "right"), ("nearer to the camera", "farther from the camera")


def away(first: Point, second: Point) -> Point:
    """The way from one point to another."""
    return second[0] - first[0], second[1] - first[1]


def pick(items: Sequence[Any], rng: Generator) -> Any:
    """One of some items at random."""
    return items[int(rng.integers(len(items)))]


def picks(items: Sequence[Any], count: int, rng: Generator) -> list[Any]:
    """Some of the items, in a random order."""
    return [items[int(index)] for index in rng.permutation(len(items))[:count]]


def graph_of(source: Source, question: Question, most_things: int, decimals: int) -> dict[str, Any] | None:
    """The scene graph of a question: all things of the names that it is about, then others while there is room.

    Args:
        source: gives places.
        question: its times are shown.
        most_things: in one frame; names come whole or not at all, so that a frame's count of a name is right.
        decimals: of the positions.

    Returns:
        A graph as `scene_graph_to_json`, with the kinds that the question tells (`asked`), and for those who work out
        answers from it a node's `size` in the source's unit, `unit_per_cell`, plane and corner, and the frame's number;
        None where the things do not fit.
    """
    names = list(dict.fromkeys(thing.name for thing in question.about))
    if _most(source, question.frames, names) > most_things:
        return None
    if question.called is None:
        for name in dict.fromkeys(thing.name for frame in question.frames for thing in source.seen.get(frame, ())):
            if name not in names and _most(source, question.frames, [*names, name]) <= most_things:
                names.append(name)
    shown = [[thing for thing in source.seen.get(frame, ()) if thing.name in names] for frame in question.frames]
    frames = (_frame(source, things, frame, decimals) for things, frame in zip(shown, question.frames, strict=True))
    written = scene_graph_to_json(SceneGraph(tuple(frames)))
    for record, things, frame in zip(written["frames"], shown, question.frames, strict=True):
        record["frame"] = frame
        for node, thing in zip(record["nodes"], things, strict=True):
            node["size"] = [round(side, 3) for side in thing.places[frame].size]
            node["name"] = question.called or thing.name
    return {
        **written,
        "asked": sorted(names) if question.called is None else [question.called],
        "plane": source.plane,
        "corner": list(source.corner),
        "unit_per_cell": source.unit_per_cell,
    }


def _most(source: Source, frames: Sequence[int], names: Sequence[str]) -> int:
    return max(sum(thing.name in names for thing in source.seen.get(frame, ())) for frame in frames)


def _frame(source: Source, things: Sequence[Thing], frame: int, decimals: int) -> GraphFrame:
    nodes = tuple(source.node(thing, frame, decimals) for thing in things)
    edges = tuple(
        Edge(edge.a, edge.b, round(edge.distance, 2), float(round(edge.angle_degrees))) for edge in all_edges(nodes)
    )
    return GraphFrame(source.seconds(frame), nodes, edges)


def apart(source: Source, first: Thing, second: Thing, frame: int) -> float:
    """How far two things are from each other, in cells of the grid."""
    return math.dist(source.on_grid(first, frame), source.on_grid(second, frame))
