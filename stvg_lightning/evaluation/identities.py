"""How well tracks keep the identity of what they follow: the switches and fragments of CLEAR MOT.

Bernardin and Stiefelhagen, "Evaluating multiple object tracking performance: the CLEAR MOT metrics", 2008, with the
matching of TrackEval: a pair of the frame before is kept while it overlaps enough, the rest is matched by IoU. As
there, frames without anything true, or without anything found, are passed over, and the pairs before them go on behind
them: what is lost and found again is a fragment only where something, if only something else, was found meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from stvg_lightning.tubes import Box, Tube, box_iou_matrix

LEAST_IOU = 0.5
KEPT_PAIR_BONUS = 1000.0
"""So much more than any IoU that a pair is given up only where it overlaps too little."""


@dataclass(frozen=True)
class IdentityCounts:
    """What happened to the identity of some true things.

    Attributes:
        switches: how often a thing was followed under another number than the last time that it was followed.
        fragments: how often a thing was followed again after frames in which it was not followed, though something
            true was seen and something was found there.
        matches: frames in which a thing was followed, summed over things.
        misses: frames in which a thing was seen and not followed.
    """

    switches: int
    fragments: int
    matches: int
    misses: int


def count_identities(
    true_tubes: Mapping[int, Tube], tubes: Mapping[int, Tube], least_iou: float = LEAST_IOU
) -> IdentityCounts:
    """Switches and fragments of true things in the tubes of a tracker.

    Args:
        true_tubes: number of a thing -> frame -> box, for the frames in which it is seen.
        tubes: number given by the tracker -> frame -> box.
        least_iou: in (0, 1]; boxes that overlap less are not of one thing.

    Raises:
        ValueError: a threshold outside (0, 1].

    Example:
        >>> box = (0.0, 0.0, 4.0, 4.0)
        >>> true, found = {1: dict.fromkeys(range(6), box)}, {7: {0: box, 1: box}, 8: {4: box, 5: box}}
        >>> count_identities(true, found)
        IdentityCounts(switches=1, fragments=0, matches=4, misses=2)
        >>> count_identities(true, {**found, 9: {2: (8.0, 8.0, 9.0, 9.0)}})
        IdentityCounts(switches=1, fragments=1, matches=4, misses=2)
    """
    if not 0 < least_iou <= 1:
        raise ValueError(f"least_iou must lie in (0, 1], not {least_iou}")
    true_at, found_at = _by_frame(true_tubes), _by_frame(tubes)
    last: dict[int, int] = {}
    before: dict[int, int] = {}
    was_seen_at_all: set[int] = set()
    switches = fragments = matches = 0
    for frame in sorted(true_at.keys() & found_at.keys()):
        pairs = _pairs(true_at[frame], found_at[frame], before, least_iou)
        switches += sum(number in last and last[number] != other for number, other in pairs.items())
        fragments += sum(number in was_seen_at_all and number not in before for number in pairs)
        matches += len(pairs)
        last.update(pairs)
        was_seen_at_all.update(pairs)
        before = pairs
    return IdentityCounts(switches, fragments, matches, sum(map(len, true_at.values())) - matches)


def _pairs(
    true: Mapping[int, Box], found: Mapping[int, Box], before: Mapping[int, int], least: float
) -> dict[int, int]:
    """True number -> tracker's number in one frame."""
    numbers, others = list(true), list(found)
    ious = box_iou_matrix(*(torch.tensor(list(boxes.values()), dtype=torch.float64) for boxes in (true, found))).numpy()
    kept = np.array([[before.get(number) == other for other in others] for number in numbers])
    score = np.where(ious >= least - np.finfo(float).eps, ious + KEPT_PAIR_BONUS * kept, 0.0)
    rows, columns = linear_sum_assignment(score, maximize=True)
    return {numbers[row]: others[column] for row, column in zip(rows, columns, strict=True) if score[row, column] > 0}


def _by_frame(tubes: Mapping[int, Tube]) -> dict[int, dict[int, Box]]:
    at: dict[int, dict[int, Box]] = {}
    for number, tube in sorted(tubes.items()):
        for frame, box in tube.items():
            at.setdefault(frame, {})[number] = box
    return at
