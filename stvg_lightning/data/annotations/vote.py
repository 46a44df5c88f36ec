"""Which of the tracked objects a sentence's boxes belong to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch

from stvg_lightning.tubes import Box, Tube, box_iou_matrix

CLEAR_MAJORITY = 0.5
"""Up to this share of the votes it is doubtful which object is meant."""


def vote_object_id(boxes_xyxy: Tube, tracks: Mapping[int, Tube]) -> tuple[int | None, float]:
    """The object whose track follows the given boxes: best IoU in each frame, then majority (STVG-R1, equations 2, 3).

    Args:
        boxes_xyxy: the target's true boxes, one a frame, in pixels.
        tracks: object id -> its boxes, in the same pixels.

    Returns:
        The object id (the lowest of those with equally many votes, None where nobody voted) and its
        share of the votes in [0, 1]. A frame in which no track overlaps the true box casts no vote.

    Example:
        >>> truth = {0: (0.0, 0.0, 4.0, 4.0), 1: (0.0, 0.0, 4.0, 4.0)}
        >>> vote_object_id(truth, {1: {0: (9.0, 9.0, 12.0, 12.0)}, 2: {0: (1.0, 0.0, 5.0, 4.0)}})
        (2, 1.0)
    """
    return elected(count_votes(boxes_xyxy, tracks))


def count_votes(boxes_xyxy: Tube, tracks: Mapping[int, Tube]) -> dict[int, int]:
    """In how many frames each object overlaps the true box most; those of `vote_object_id`, ascending by object id."""
    ballots = (_best_track(box, frame, tracks) for frame, box in boxes_xyxy.items())
    return dict(sorted(Counter(ballot for ballot in ballots if ballot is not None).items()))


def elected(votes: Mapping[int, int]) -> tuple[int | None, float]:
    """The object with the most votes, and its share of them; what stands at `vote_object_id` holds.

    Example:
        >>> elected({1: 1, 4: 3})
        (4, 0.75)
    """
    if not votes:
        return None, 0.0
    most = max(votes.values())
    return min(object_id for object_id, count in votes.items() if count == most), most / sum(votes.values())


def _best_track(box: Box, frame: int, tracks: Mapping[int, Tube]) -> int | None:
    """The object that overlaps the box most in this frame; the lowest id where several overlap it equally."""
    candidates = sorted(object_id for object_id, track in tracks.items() if frame in track)
    if not candidates:
        return None
    boxes = torch.tensor([tracks[object_id][frame] for object_id in candidates], dtype=torch.float64)
    ious = box_iou_matrix(torch.tensor([box], dtype=torch.float64), boxes)[0]
    best = int(ious.argmax())
    return candidates[best] if ious[best] > 0 else None
