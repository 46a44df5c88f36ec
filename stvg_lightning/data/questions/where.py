"""Questions about one moment: how many, in which direction, how near, how large."""

from __future__ import annotations

import math

from numpy.random import Generator

from stvg_lightning.data.questions.asking import (
    CLEARLY,
    Question,
    apart,
    at_time,
    away,
    choice_lines,
    direction_words,
    main_axis,
    pick,
    picks,
    slack,
)
from stvg_lightning.data.questions.source import Source, Thing

MOST_CANDIDATES = 4
SHORTEST_METRES = 0.5
SECTORS = {"ahead": (0.0, 30.0), "left": (60.0, 120.0), "right": (-120.0, -60.0), "behind": (150.0, 180.0)}
"""Degrees to the left at which a direction is clear; what lies ahead or behind may lie on either side."""


def counting(source: Source, rng: Generator, decimals: int) -> Question | None:
    """How many things of a kind are seen at a time, where none is seen in part."""
    frame = pick(list(source.seen), rng)
    kinds = sorted({kind for thing in source.seen[frame] for kind in thing.counts_as})
    kind = pick(kinds, rng)
    if any(frame in thing.partly and kind in thing.counts_as for thing in source.things):
        return None
    counted = tuple(thing for thing in source.seen[frame] if kind in thing.counts_as)
    asked = f'{at_time(source, frame)}, how many things of the kind "{kind}" are there?'
    return Question("counting", "numeric", asked, (frame,), counted, float(len(counted)), called=kind)


def relative_direction(source: Source, rng: Generator, decimals: int) -> Question | None:
    """In which direction one thing lies from another; on a floor, from a third thing's point of view (VSI-Bench)."""
    frame = pick(list(source.seen), rng)
    found = source.only_ones((frame,))
    if source.plane == "floor":
        return _seen_from(source, frame, found, rng, decimals)
    if len(found) < 2:
        return None
    first, second = picks(found, 2, rng)
    way = away(source.on_grid(second, frame), source.on_grid(first, frame))
    axis = main_axis(way, decimals)
    if axis is None:
        return None
    words = direction_words(source)
    right = words[axis[0]][axis[1]]
    asked = f"{at_time(source, frame)}, in which direction from the {second.name} does the {first.name} mainly lie?"
    query, letter = choice_lines(asked, right, [w for pair in words for w in pair if w != right], rng)
    return Question("relative_direction", "choice", query, (frame,), (first, second), letter)


def relative_distance(source: Source, rng: Generator, decimals: int) -> Question | None:
    """Which of some things lies nearest to another; or how far two are apart, where places are known in metres."""
    frame = pick(list(source.seen), rng)
    found = source.only_ones((frame,))
    if source.is_metric and len(found) >= 2 and rng.random() < 0.5:
        return _metres_apart(source, frame, found, rng)
    if len(found) < 3:
        return None
    reference, *candidates = picks(found, MOST_CANDIDATES + 1, rng)
    near = sorted(candidates, key=lambda thing: apart(source, reference, thing, frame))
    nearest, next_one = (apart(source, reference, thing, frame) for thing in near[:2])
    off = math.sqrt(2) * slack(decimals)
    if next_one - off < CLEARLY * (nearest + off):
        return None
    asked = f"{at_time(source, frame)}, which of these lies nearest to the {reference.name}?"
    query, letter = choice_lines(asked, f"the {near[0].name}", [f"the {thing.name}" for thing in near[1:]], rng)
    return Question("relative_distance", "choice", query, (frame,), (reference, *candidates), letter)


def object_size(source: Source, rng: Generator, decimals: int) -> Question | None:
    """Which of some things is the largest in the picture; or how high or long one is, in metres."""
    frame = pick(list(source.seen), rng)
    found = source.only_ones((frame,))
    if source.is_metric:
        return _metres_of(source, frame, found, rng)
    if len(found) < 2:
        return None
    candidates = picks(found, MOST_CANDIDATES, rng)
    large = sorted(candidates, key=lambda thing: -_area(thing, frame))
    if _area(large[0], frame) < CLEARLY * _area(large[1], frame):
        return None
    asked = f"{at_time(source, frame)}, which of these is the largest in the picture?"
    query, letter = choice_lines(asked, f"the {large[0].name}", [f"the {thing.name}" for thing in large[1:]], rng)
    return Question("object_size", "choice", query, (frame,), tuple(candidates), letter)


def bearing_word(degrees: float) -> str | None:
    """What a direction is called, in degrees to the left of ahead; None where it lies between two words.

    Example:
        >>> bearing_word(90.0), bearing_word(-10.0), bearing_word(45.0), bearing_word(-170.0)
        ('left', 'ahead', None, 'behind')
    """
    for word, (least, most) in SECTORS.items():
        if least <= (abs(degrees) if word in ("ahead", "behind") else degrees) <= most:
            return word
    return None


def _seen_from(source: Source, frame: int, found: list[Thing], rng: Generator, decimals: int) -> Question | None:
    if len(found) < 3:
        return None
    stand, face, target = picks(found, 3, rng)
    here, there, goal = (source.on_grid(thing, frame) for thing in (stand, face, target))
    least = 11 * slack(decimals)  # nearer, and rounded positions could turn the direction by 15 degrees
    if min(math.dist(here, there), math.dist(here, goal)) < least:
        return None
    (ax, ay), (bx, by) = away(here, there), away(here, goal)
    word = bearing_word(math.degrees(math.atan2(ax * by - ay * bx, ax * bx + ay * by)))
    if word is None:
        return None
    asked = (
        f"{at_time(source, frame)}, standing at the {stand.name} and facing the {face.name}, "
        f"where does the {target.name} lie?"
    )
    query, letter = choice_lines(asked, word, [other for other in SECTORS if other != word], rng)
    return Question("relative_direction", "choice", query, (frame,), (stand, face, target), letter)


def _metres_apart(source: Source, frame: int, found: list[Thing], rng: Generator) -> Question | None:
    first, second = picks(found, 2, rng)
    metres = apart(source, first, second, frame) * source.unit_per_cell
    if metres < SHORTEST_METRES:
        return None
    asked = (
        f"{at_time(source, frame)}, how many metres along the ground lie between the centres of the {first.name} and "
        f"of the {second.name}?"
    )
    return Question("relative_distance", "numeric", asked, (frame,), (first, second), round(metres, 2))


def _metres_of(source: Source, frame: int, found: list[Thing], rng: Generator) -> Question | None:
    if not found:
        return None
    thing = pick(found, rng)
    length, width, height = thing.places[frame].size
    word, metres = pick([("high", height), ("long", max(length, width))], rng)
    if metres < 0.1:
        return None
    asked = f"{at_time(source, frame)}, how many metres {word} is the {thing.name}?"
    return Question("object_size", "numeric", asked, (frame,), (thing,), round(metres, 2))


def _area(thing: Thing, frame: int) -> float:
    width, height = thing.places[frame].size
    return width * height
