"""Questions about more than one moment: in which order, where to, how far, where and when."""

from __future__ import annotations

import math
from itertools import pairwise, permutations

from numpy.random import Generator

from stvg_lightning.data.questions.asking import (
    Question,
    away,
    choice_lines,
    direction_words,
    main_axis,
    pick,
    picks,
    slack,
)
from stvg_lightning.data.questions.source import Source, Thing

STAYS = "it stays where it is"
LEAST_SECONDS = 0.5
LEAST_CELLS = 0.5
LEAST_METRES = 0.5
MOST_BOXES = 3
MOST_ORDERED = 4
MOST_ORDERS = 4


def appearance_order(source: Source, rng: Generator, decimals: int) -> Question | None:
    """In which order things come into the picture, each at least half a second after the one before."""
    if source.is_still:
        return None
    names = [thing.name for thing in source.things]
    found = [thing for thing in source.things if names.count(thing.name) == 1 and thing.places and not thing.partly]
    found.sort(key=lambda thing: min(thing.places))
    count = int(rng.integers(2, MOST_ORDERED + 1))
    chosen = sorted(picks(found, count, rng), key=lambda thing: min(thing.places))
    firsts = [min(thing.places) for thing in chosen]
    least = LEAST_SECONDS * source.fps
    if len(chosen) < 2 or any(after - before < least for before, after in pairwise(firsts)):
        return None
    orders = [", ".join(f"the {thing.name}" for thing in order) for order in permutations(chosen)]
    wrong = picks(orders[1:], MOST_ORDERS - 1, rng)
    query, letter = choice_lines("In which order do these come into the picture?", orders[0], wrong, rng)
    return Question("appearance_order", "choice", query, tuple(firsts), tuple(chosen), letter)


def motion(source: Source, rng: Generator, decimals: int) -> Question | None:
    """In which direction a thing mainly moves from one time to another, or whether it stays."""
    found = _from_to(source, rng)
    if found is None or source.plane == "floor":
        return None
    thing, first, last = found
    way = away(source.on_grid(thing, first), source.on_grid(thing, last))
    words = direction_words(source)
    axis = main_axis(way, decimals)
    if axis is not None:
        right = words[axis[0]][axis[1]]
    elif max(map(abs, way)) < 0.5 * slack(max(decimals, 1)):
        right = STAYS
    else:
        return None
    seen = "seen from the camera, " if source.plane == "camera" else ""
    asked = (
        f"From {source.seconds(first):g} s to {source.seconds(last):g} s, {seen}where does the {thing.name} mainly "
        "move?"
    )
    wrong = [word for word in (*words[0], *words[1], STAYS) if word != right]
    query, letter = choice_lines(asked, right, wrong, rng)
    return Question("motion", "choice", query, (first, last), (thing,), letter, is_common=right == STAYS)


def displacement(source: Source, rng: Generator, decimals: int) -> Question | None:
    """How far a thing's places at two times lie apart, in a straight line."""
    found = _from_to(source, rng)
    if found is None:
        return None
    thing, first, last = found
    cells = math.dist(source.on_grid(thing, first), source.on_grid(thing, last))
    value = cells * source.unit_per_cell if source.is_metric else cells
    if cells < LEAST_CELLS or (source.is_metric and value < LEAST_METRES):
        return None
    unit = "metres" if source.is_metric else "tenths of the picture's longer side"
    seen = " as seen from the camera," if source.plane == "camera" else ""
    asked = (
        f"How far apart,{seen} in {unit}, are the places of the {thing.name} at {source.seconds(first):g} s and at "
        f"{source.seconds(last):g} s?"
    )
    return Question("displacement", "numeric", asked, (first, last), (thing,), round(value, 2))


def localisation(source: Source, rng: Generator, decimals: int) -> Question | None:
    """Where a thing is at up to three times, as boxes; or from when to when it is in the picture."""
    if rng.random() < 0.5 and not source.is_still:
        return _presence(source, rng)
    count = int(rng.integers(1, MOST_BOXES + 1))
    frames = tuple(sorted(picks(list(source.seen), count, rng)))
    with_boxes = [
        thing for thing in source.only_ones(frames) if all(thing.places[frame].box_xyxy is not None for frame in frames)
    ]
    if not with_boxes:
        return None
    thing = pick(with_boxes, rng)
    boxes = {frame: box for frame in frames if (box := thing.places[frame].box_xyxy) is not None}
    times = " and at ".join(f"{source.seconds(frame):g} s" for frame in frames)
    return Question(
        "localisation", "spatial", f"Where is the {thing.name} at {times}?", frames, (thing,), boxes_xyxy=boxes
    )


def _presence(source: Source, rng: Generator) -> Question | None:
    names = [thing.name for thing in source.things]
    found = [thing for thing in source.things if names.count(thing.name) == 1 and _stays_seen(source, thing)]
    if not found:
        return None
    thing = pick(found, rng)
    first, last = min(thing.places), max(thing.places)
    # The graph's times are told: one at which the thing is there and one at which it is not, neither of them an end.
    inside, outside = range(first + 1, last + 1), [*range(first), *range(last + 2, source.num_frames)]
    if not inside or not outside:
        return None
    frames = tuple(sorted((int(pick(inside, rng)), int(pick(outside, rng)))))
    asked = f"From when to when is the {thing.name} in the picture?"
    return Question("localisation", "temporal", asked, frames, (thing,), span_frames=(first, last + 1))


def _stays_seen(source: Source, thing: Thing) -> bool:
    """Whether a thing is seen without a break, for a while, and not in the whole video."""
    if not thing.places or thing.partly:
        return False
    first, last = min(thing.places), max(thing.places)
    length = last + 1 - first
    return length == len(thing.places) and LEAST_SECONDS * source.fps <= length < source.num_frames


def _from_to(source: Source, rng: Generator) -> tuple[Thing, int, int] | None:
    """A thing, and two frames at least half a second apart in which it is seen, no other of its name between them."""
    frames = list(source.seen)
    first, last = sorted(int(frame) for frame in (pick(frames, rng), pick(frames, rng)))
    if source.is_still or last - first < LEAST_SECONDS * source.fps:
        return None
    found = source.only_ones((first, last))
    return (pick(found, rng), first, last) if found else None
