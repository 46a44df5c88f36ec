"""Scenes of the synthetic world: which things there are, where they stand, and what each does when."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

SHAPES = ("circle", "square", "triangle", "cross")
REACHES = {
    "circle": (1.0, 1.0, 1.0, 1.0),
    "square": (0.88, 0.88, 0.88, 0.88),
    "triangle": (1.0, 1.0, 1.0, 0.85),
    "cross": (1.0, 1.0, 1.0, 1.0),
}
"""How far each shape reaches to the left, up, to the right and down, in radii."""
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 45, 45),
    "green": (40, 170, 70),
    "blue": (50, 90, 230),
    "yellow": (240, 205, 40),
    "purple": (160, 60, 200),
    "cyan": (40, 200, 215),
}
ACTIONS = ("moves left", "moves right", "moves up", "moves down", "grows", "shrinks", "blinks")
DIRECTIONS = {"moves left": (-1, 0), "moves right": (1, 0), "moves up": (0, -1), "moves down": (0, 1)}
GROWTH = {"grows": 1.45, "shrinks": 1 / 1.45}
BLINK_PERIOD_SECONDS = 0.5
MAX_SCHEDULE_TRIES = 200
PLACES_TRIED = 60
MIN_GAP = 0.85
PAUSE_SECONDS = 0.5
MARGIN_FRAMES = 2

Motion = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]


@dataclass(frozen=True)
class WorldSettings:
    """Sizes of the world: lengths in pixels, times in seconds.

    `max_ids` is the largest number an object may carry; numbers are drawn without order, so that
    they say nothing about the object.
    """

    frame_size: int = 128
    fps: float = 8.0
    min_seconds: float = 4.0
    max_seconds: float = 5.0
    min_things: int = 2
    max_things: int = 4
    min_action_seconds: float = 0.75
    max_action_seconds: float = 1.75
    max_ids: int = 9

    def __post_init__(self) -> None:
        most = len(COLORS) + len(SHAPES) - 1
        if not 1 <= self.min_things <= self.max_things <= min(most, self.max_ids):
            raise ValueError(
                f"min_things {self.min_things} and max_things {self.max_things} must lie in 1 to {most}, "
                f"the looks that can share colour or shape with one, and to max_ids {self.max_ids}"
            )
        if not self.min_seconds <= self.max_seconds or not self.min_action_seconds <= self.max_action_seconds:
            raise ValueError(f"a least length is above the largest: {self}")
        # Two actions with a pause between them, and two still frames at either end.
        needed_seconds = 2 * self.min_action_seconds + PAUSE_SECONDS + 2 * MARGIN_FRAMES / self.fps
        if self.min_seconds < needed_seconds:
            raise ValueError(f"min_seconds {self.min_seconds} is too short: two actions need {needed_seconds}")


@dataclass(frozen=True)
class Action:
    """What a thing does during the frames `[start_frame, end_frame)`."""

    kind: str
    start_frame: int
    end_frame: int


@dataclass(frozen=True)
class Thing:
    """One thing: its looks, its actions in order of time, and where that puts it in each frame."""

    object_id: int
    shape: str
    color: str
    actions: tuple[Action, ...]
    centers_xy: NDArray[np.float64]
    radii: NDArray[np.float64]
    lit: NDArray[np.bool_]


@dataclass(frozen=True)
class Scene:
    """A whole video before it is drawn. Things later in the list are drawn over earlier ones."""

    seed: int
    settings: WorldSettings
    num_frames: int
    things: tuple[Thing, ...]


def box_of(thing: Thing, frame: int) -> tuple[float, float, float, float]:
    """The corners x1, y1, x2, y2 of a thing's outline in a frame, to a fraction of a pixel."""
    (x, y), radius = thing.centers_xy[frame], thing.radii[frame]
    left, up, right, down = (float(radius) * share for share in REACHES[thing.shape])
    return float(x) - left, float(y) - up, float(x) + right, float(y) + down


def covered_share(thing: Thing, frames: tuple[int, int], token_size: float, side: int) -> NDArray[np.float64]:
    """The share of each of a picture's tokens, row by row, that lies in a thing's box."""
    center = thing.centers_xy[list(frames)].mean(axis=0)
    radius = thing.radii[list(frames)].mean()
    edges = np.arange(side) * token_size
    x, y = (
        np.clip(np.minimum(edges + token_size, c + radius) - np.maximum(edges, c - radius), 0, None) / token_size
        for c in center
    )
    return np.outer(y, x).ravel()


def make_scene(seed: int, settings: WorldSettings = WorldSettings()) -> Scene:
    """The scene of a seed.

    Every second thing shares its colour or its shape with the first, and most scenes hold the same
    action at two times by two things, so that neither looks nor deed nor time alone give the answer.

    Args:
        seed: any non-negative integer; the same seed and settings give the same scene anywhere.
        settings: sizes of the world.

    Raises:
        ValueError: the things do not fit in a frame of this size.
    """
    rng = np.random.default_rng([seed, zlib.crc32(repr(settings).encode())])
    shortest, longest = (round(seconds * settings.fps) for seconds in (settings.min_seconds, settings.max_seconds))
    num_frames = int(rng.integers(shortest, longest + 1))
    num_things = int(rng.integers(settings.min_things, settings.max_things + 1))
    looks = _draw_looks(rng, num_things)
    object_ids = rng.permutation(np.arange(1, settings.max_ids + 1))[:num_things]
    for _ in range(MAX_SCHEDULE_TRIES):
        schedules = _draw_schedules(rng, num_things, num_frames, settings)
        motions = _place(rng, schedules, num_frames, settings)
        if motions is not None:
            things = tuple(
                Thing(int(object_id), shape, color, schedule, *motion)
                for object_id, (color, shape), schedule, motion in zip(
                    object_ids, looks, schedules, motions, strict=True
                )
            )
            return Scene(seed, settings, num_frames, things)
    raise ValueError(f"{num_things} things do not fit in a frame of {settings.frame_size} pixels")


def _draw_looks(rng: Generator, num_things: int) -> list[tuple[str, str]]:
    """Distinct (colour, shape) pairs in which every later thing shares one of the two with the first."""
    colors, shapes = list(COLORS), list(SHAPES)
    first = (str(rng.choice(colors)), str(rng.choice(shapes)))
    looks = [first]
    while len(looks) < num_things:
        shares_color = rng.random() < 0.5
        look = (first[0], str(rng.choice(shapes))) if shares_color else (str(rng.choice(colors)), first[1])
        if look not in looks:
            looks.append(look)
    order = rng.permutation(num_things)
    return [looks[i] for i in order]


def _draw_schedules(
    rng: Generator, num_things: int, num_frames: int, settings: WorldSettings
) -> list[tuple[Action, ...]]:
    """One or two actions a thing; the second thing repeats an action of the first at another time if it can."""
    schedules: list[tuple[Action, ...]] = []
    for index in range(num_things):
        num_actions = int(rng.integers(1, 3))
        spans = _draw_disjoint_spans(rng, num_actions, num_frames, settings)
        kinds = [str(kind) for kind in rng.permutation(list(ACTIONS))[: len(spans)]]
        if index == 1 and rng.random() < 0.8:
            repeated = schedules[0][0].kind
            kinds = [repeated, *(kind for kind in kinds if kind != repeated)][: len(spans)]
            kinds += ["blinks" if repeated != "blinks" else "grows"] * (len(spans) - len(kinds))
        schedules.append(tuple(Action(kind, *span) for kind, span in zip(kinds, spans)))
    return schedules


def _draw_disjoint_spans(
    rng: Generator, num_spans: int, num_frames: int, settings: WorldSettings
) -> list[tuple[int, int]]:
    """Spans that begin and end inside the video, in order of time, with a pause of half a second between them."""
    shortest, longest = (round(s * settings.fps) for s in (settings.min_action_seconds, settings.max_action_seconds))
    pause = round(PAUSE_SECONDS * settings.fps)
    while True:
        lengths = rng.integers(shortest, longest + 1, size=num_spans)
        slack = num_frames - 2 * MARGIN_FRAMES - int(lengths.sum()) - pause * (num_spans - 1)
        if slack >= 0:
            break
    cuts = np.sort(rng.integers(0, slack + 1, size=num_spans))
    starts = MARGIN_FRAMES + cuts + np.concatenate([[0], np.cumsum(lengths[:-1] + pause)])
    return [(int(start), int(start + length)) for start, length in zip(starts, lengths)]


def _place(
    rng: Generator, schedules: list[tuple[Action, ...]], num_frames: int, settings: WorldSettings
) -> list[Motion] | None:
    """A motion for every schedule, one thing after the other; None where one finds no room."""
    motions: list[Motion] = []
    size = settings.frame_size
    for schedule in schedules:
        path, radii, lit = _draw_motion(rng, schedule, num_frames, settings)
        first_centers = rng.uniform(0.12 * size, 0.88 * size, size=(PLACES_TRIED, 1, 2))
        tried = first_centers + path
        fitting = np.flatnonzero(_have_room(tried, radii, motions, size))
        if len(fitting) == 0:
            return None
        motions.append((tried[fitting[0]], radii, lit))
    return motions


def _draw_motion(rng: Generator, schedule: tuple[Action, ...], num_frames: int, settings: WorldSettings) -> Motion:
    """Path from the first place (frames, 2), radii (frames,) and whether the thing is lit (frames,)."""
    size = settings.frame_size
    velocity, log_growth = np.zeros((num_frames, 2)), np.zeros(num_frames)
    lit = np.ones(num_frames, dtype=bool)
    for action in schedule:
        frames = slice(action.start_frame, action.end_frame)
        length = action.end_frame - action.start_frame
        if action.kind in DIRECTIONS:
            distance = rng.uniform(0.24, 0.36) * size
            velocity[frames] = np.array(DIRECTIONS[action.kind]) * distance / length
        elif action.kind in GROWTH:
            log_growth[frames] = np.log(GROWTH[action.kind]) / length
        else:
            elapsed_seconds = np.arange(length) / settings.fps
            lit[frames] = (elapsed_seconds // (BLINK_PERIOD_SECONDS / 2)) % 2 == 0
    growth = np.exp(np.cumsum(log_growth))
    smallest_radius, largest_radius = 0.125 * size / growth.min(), 0.2 * size / growth.max()
    first_radius = np.clip(rng.uniform(0.14, 0.16) * size, smallest_radius, largest_radius)
    return np.cumsum(velocity, axis=0), first_radius * growth, lit


def _have_room(
    tried: NDArray[np.float64], radii: NDArray[np.float64], others: list[Motion], frame_size: int
) -> NDArray[np.bool_]:
    """Which of some paths (tries, frames, 2) stay in the frame and leave other things uncovered, but for corners."""
    reach = radii[:, None]
    inside = (tried - reach >= 1) & (tried + reach <= frame_size - 1)
    room: NDArray[np.bool_] = np.all(inside, axis=(1, 2))
    for centers, other_radii, _ in others:
        distance = np.abs(tried - centers).max(axis=2)
        room &= (distance >= (radii + other_radii) * MIN_GAP).all(axis=1)
    return room
