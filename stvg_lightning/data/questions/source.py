"""What questions are made of: named things, where each is in which frame, on the picture or on the ground."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Literal

from stvg_lightning.tubes import Box
from stvg_lightning.tubes.scene_graph import Node

Plane = Literal["picture", "camera", "floor"]
"""`picture`: pixels, x to the right, y down. `camera`: metres on the ground, x to the camera's right, y away from it.
`floor`: metres on a floor that no direction is marked on, seen from above, turning left from x to y."""

GRID_SIDE = 10.0
Point = tuple[float, float]


@dataclass(frozen=True)
class Place:
    """A thing in one frame.

    Attributes:
        center: on the plane, in pixels or metres.
        size: width and height in pixels, or length, width and height in metres.
        box_xyxy: in the picture, where it is known.
    """

    center: Point
    size: tuple[float, ...]
    box_xyxy: Box | None = None


@dataclass(frozen=True)
class Thing:
    """A thing of a name, which others may share.

    Attributes:
        id: its number, at least 1.
        name: what it is called.
        places: frame -> where it is, for the frames in which it is seen.
        kinds: what it counts as; None is its name alone.
        partly: frames of which nobody can say whether they show it: no question may depend on that.
    """

    id: int
    name: str
    places: Mapping[int, Place]
    kinds: tuple[str, ...] | None = None
    partly: frozenset[int] = frozenset()

    @property
    def counts_as(self) -> tuple[str, ...]:
        return (self.name,) if self.kinds is None else self.kinds


@dataclass(frozen=True)
class Source:
    """All that questions know of a video.

    Attributes:
        id: the video's, from which the seed of its questions is made too.
        fps: frames a second.
        num_frames: of the video.
        things: in any order, ids distinct.
        plane: what centres lie on.
        corner: of the square that becomes the grid: its least x and y, in the plane's unit.
        side: of that square, in the plane's unit.
        is_still: whether nothing moves, so that questions tell no time.
    """

    id: str
    fps: float
    num_frames: int
    things: tuple[Thing, ...]
    plane: Plane
    corner: Point
    side: float
    is_still: bool = False

    @cached_property
    def seen(self) -> dict[int, tuple[Thing, ...]]:
        """Frame -> the things that are seen in it, for the frames that show any; frames ascend."""
        found: dict[int, list[Thing]] = {}
        for thing in self.things:
            for frame in thing.places:
                found.setdefault(frame, []).append(thing)
        return {frame: tuple(things) for frame, things in sorted(found.items())}

    @property
    def is_metric(self) -> bool:
        return self.plane != "picture"

    @property
    def unit_per_cell(self) -> float:
        """Pixels or metres in a cell of the grid."""
        return self.side / GRID_SIDE

    def seconds(self, frame: int) -> float:
        """When a frame is shown, to a hundredth, as questions tell it."""
        return round(frame / self.fps, 2)

    def on_grid(self, thing: Thing, frame: int) -> Point:
        """A thing's centre on the grid of ten by ten."""
        x, y = thing.places[frame].center
        return (x - self.corner[0]) / self.unit_per_cell, (y - self.corner[1]) / self.unit_per_cell

    def node(self, thing: Thing, frame: int, decimals: int) -> Node:
        """A thing as a node of a scene graph."""
        x, y = (round(value, decimals) for value in self.on_grid(thing, frame))
        return Node(thing.name, thing.id, (x, y))

    def only_ones(self, frames: tuple[int, ...]) -> list[Thing]:
        """The things that are seen in all of some frames, and whose name no other bears from the first to the last."""
        first, last = min(frames), max(frames)
        seen = [
            thing for thing in self.things if any(first <= frame <= last for frame in chain(thing.places, thing.partly))
        ]
        names = [thing.name for thing in seen]
        return [
            thing for thing in seen if names.count(thing.name) == 1 and all(frame in thing.places for frame in frames)
        ]
