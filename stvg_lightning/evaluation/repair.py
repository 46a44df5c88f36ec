"""Boxes for an answered object id in frames where its track has none: STVG-R1's two ways, the paper's and the code's.

Trackers lose things and number them anew. Both ways look for the answered object under another number.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping
from typing import Literal

from stvg_lightning.tubes import Box, Tube

Repair = Literal["none", "paper", "code"]
LEAST_IOU = 0.4
LEAST_COVERED_SHARE = 0.6

Tracks = Mapping[int, Tube]


def repaired_track(
    object_id: int, tracks: Tracks, span_frames: tuple[int, int], repair: Repair, frames_asked: Collection[int] = ()
) -> Tube:
    """The track of an answered object, with boxes lent by other tracks where its own has none.

    Args:
        object_id: the answered one; it may have no track at all.
        tracks: object id -> frame -> box, of all objects.
        span_frames: `[start, end)`, the frames that count: the answered ones for `paper`, those that are answered
            and true for `code`.
        repair: `paper` is Algorithm 1 of STVG-R1's appendix A.5, `code` its released evaluation, `none` the track.
        frames_asked: frames in which nothing has a box, and a box is wanted all the same, as `code` lends them.

    Returns:
        frame -> box; with `none` the whole track, else the boxes in `span_frames`.
    """
    if repair == "none":
        return tracks.get(object_id, {})
    if repair == "paper":
        return _by_algorithm_1(object_id, tracks, span_frames)
    return _by_released_code(object_id, tracks, span_frames, frames_asked)


def box_iou(first: Box, second: Box) -> float:
    """IoU of two boxes; 0 where they share nothing."""
    shared = _shared_area(first, second)
    return shared / (_area(first) + _area(second) - shared) if shared > 0 else 0.0


def _by_algorithm_1(object_id: int, tracks: Tracks, span_frames: tuple[int, int]) -> Tube:
    """Algorithm 1, line by line; frames without any box stay without.

    A repaired frame bears the answered id from then on, so that later frames may refer to it, as the algorithm's
    changes to the set of ids say. Of several remembered ids in a frame the one remembered first counts, of two nearest
    frames the earlier one.
    """
    boxes_at = _boxes_by_frame(tracks, span_frames)
    own = sorted(frame for frame, boxes in boxes_at.items() if object_id in boxes)
    found: dict[int, Box] = {}
    remembered: list[int] = []
    for frame, boxes in boxes_at.items():
        if object_id in boxes:
            found[frame] = boxes[object_id]
            continue
        known = [old_id for old_id in remembered if old_id in boxes]
        if known:
            found[frame] = boxes[known[0]]
            continue
        reference = _nearest_box(frame, found, own, boxes_at, object_id)
        old_id = None if reference is None else _most_alike(reference, boxes)
        if reference is not None and old_id is not None and _is_the_same(reference, boxes[old_id]):
            found[frame] = boxes[old_id]
            remembered.append(old_id)
        else:
            found[frame] = _largest(boxes)
    return found


def _nearest_box(
    frame: int, found: Mapping[int, Box], own: list[int], boxes_at: Mapping[int, Mapping[int, Box]], object_id: int
) -> Box | None:
    """The answered object's box in the nearest frame that has one: a frame before, repaired or not, or one after."""
    before = max(found, default=None)  # frames are found in ascending order, all before this one
    place = bisect_left(own, frame)
    after = own[place] if place < len(own) else None
    if before is not None and (after is None or frame - before <= after - frame):
        return found[before]
    return None if after is None else boxes_at[after][object_id]


def _by_released_code(
    object_id: int, tracks: Tracks, span_frames: tuple[int, int], frames_asked: Collection[int]
) -> Tube:
    """The released evaluation: hold on to the last own box, and take what overlaps it most, however little.

    A box that was held on to is not itself held on to: the next frame is compared with the last own one again. Before
    the first own box, the nearest one to come is compared; where nothing overlaps, the largest box of the frame counts.
    """
    start, end = span_frames
    boxes_at = _boxes_by_frame(tracks, span_frames)
    empty: dict[int, Box] = {}
    boxes_at |= {frame: empty for frame in {start, *frames_asked} - boxes_at.keys() if start <= frame < end}
    own = sorted(frame for frame, boxes in boxes_at.items() if object_id in boxes)
    found: dict[int, Box] = {}
    current: Box | None = None
    last_own: Box | None = None
    for frame, boxes in sorted(boxes_at.items()):
        if object_id in boxes:
            box: Box | None = boxes[object_id]
            current = last_own = box
        elif current is not None:
            box = _overlapping(current, boxes) or _largest_or_none(boxes)
            if box is None and last_own is not None:
                box = current = last_own
        elif own:
            nearest = min(own, key=lambda known: abs(known - frame))
            reference = boxes_at[nearest][object_id]
            box = current = _overlapping(reference, boxes) or reference
        else:
            box = _largest_or_none(boxes)
        if box is not None:
            found[frame] = box
    return found


def _boxes_by_frame(tracks: Tracks, span_frames: tuple[int, int]) -> dict[int, dict[int, Box]]:
    """Frame -> object id -> box, for the frames of a span in which anything has a box, ascending."""
    start, end = span_frames
    boxes_at: dict[int, dict[int, Box]] = {}
    for object_id, track in sorted(tracks.items()):
        for frame, box in track.items():
            if start <= frame < end:
                boxes_at.setdefault(frame, {})[object_id] = box
    return dict(sorted(boxes_at.items()))


def _most_alike(reference: Box, boxes: Mapping[int, Box]) -> int:
    """The object whose box has the highest IoU with another; the lowest id of several."""
    return max(boxes, key=lambda object_id: box_iou(reference, boxes[object_id]))


def _is_the_same(reference: Box, box: Box) -> bool:
    smaller = min(_area(reference), _area(box))
    covered_share = _shared_area(reference, box) / smaller if smaller > 0 else 0.0
    return box_iou(reference, box) >= LEAST_IOU or covered_share >= LEAST_COVERED_SHARE


def _overlapping(reference: Box, boxes: Mapping[int, Box]) -> Box | None:
    """The box with the highest IoU with another, where any overlaps it."""
    if not boxes:
        return None
    best = boxes[_most_alike(reference, boxes)]
    return best if box_iou(reference, best) > 0 else None


def _largest(boxes: Mapping[int, Box]) -> Box:
    return max(boxes.values(), key=_area)


def _largest_or_none(boxes: Mapping[int, Box]) -> Box | None:
    """The largest box with an area."""
    return max((box for box in boxes.values() if _area(box) > 0), key=_area, default=None)


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def _shared_area(first: Box, second: Box) -> float:
    return _area(
        (max(first[0], second[0]), max(first[1], second[1]), min(first[2], second[2]), min(first[3], second[3]))
    )
