"""Masks as COCO run-length encodings, and the boxes and marker positions that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from stvg_lightning.tubes.boxes import Box


class Rle(TypedDict):
    """A COCO run-length encoding as it stands in JSON: `size` is (height, width), `counts` is compressed text."""

    size: list[int]
    counts: str


def encode_mask(mask: NDArray[np.bool_]) -> Rle:
    """Run-length encode a boolean mask of shape (height, width)."""
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def decode_mask(rle: Rle) -> NDArray[np.bool_]:
    """The boolean mask of shape (height, width) that a run-length encoding stands for."""
    return coco.decode(_as_bytes(rle)).astype(bool)


def check_counts(rle: Rle) -> None:
    """Refuse compressed counts that do not cover their frame exactly; COCO's decoder leaves such pixels undefined.

    Each number is written in base 32, lowest digit first, with bit 5 set in all digits but the last
    and the sign in bit 4 of the last; from the fourth on they are differences to the number two before.

    Example:
        >>> check_counts({"size": [2, 2], "counts": "04"})
    """
    runs: list[int] = []
    value, num_digits = 0, 0
    for character in rle["counts"]:
        digit = ord(character) - 48
        value |= (digit & 31) << (5 * num_digits)
        num_digits += 1
        if digit & 32:
            continue
        value -= (1 << (5 * num_digits)) if digit & 16 else 0
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value, num_digits = 0, 0
    height, width = rle["size"]
    if num_digits or min(runs, default=-1) < 0 or sum(runs) != height * width:
        raise ValueError(
            f"a mask's counts {rle['counts'][:20]!r} are broken: they must cover {width} x {height} pixels exactly"
        )


def rle_box(rle: Rle) -> Box | None:
    """The tightest continuous box around a run-length encoded mask, or None where it is empty; nothing is decoded."""
    x, y, width, height = (float(value) for value in coco.toBbox(_as_bytes(rle)))
    return (x, y, x + width, y + height) if width and height else None


def union_of_masks(rles: Sequence[Rle]) -> Rle:
    """The run-length encoding of all pixels that any of some masks of one size holds; at least one mask."""
    merged = coco.merge([_as_bytes(rle) for rle in rles])
    return {"size": [int(side) for side in merged["size"]], "counts": merged["counts"].decode("ascii")}


def mask_area(rle: Rle) -> int:
    """How many pixels a mask holds; nothing is decoded."""
    return int(coco.area(_as_bytes(rle)))


def mask_overlaps(first: Sequence[Rle], second: Sequence[Rle]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far masks of one size cover each other, each of the first with each of the second.

    Args:
        first: masks.
        second: masks of the same size.

    Returns:
        Two arrays (first, second) in [0, 1]: IoU, and the shared pixels as a share of the smaller mask. Both are 0
        where a mask is empty.

    Example:
        >>> small, large = np.zeros((4, 4), dtype=bool), np.ones((4, 4), dtype=bool)
        >>> small[:2] = True
        >>> ious, shares = mask_overlaps([encode_mask(small)], [encode_mask(large)])
        >>> float(ious[0, 0]), float(shares[0, 0])
        (0.5, 1.0)
    """
    if not first or not second:
        empty = np.zeros((len(first), len(second)))
        return empty, empty.copy()
    ours, theirs = [_as_bytes(rle) for rle in first], [_as_bytes(rle) for rle in second]
    ious = np.asarray(coco.iou(ours, theirs, [0] * len(theirs)), dtype=np.float64)
    areas, other_areas = coco.area(ours).astype(np.float64), coco.area(theirs).astype(np.float64)
    shared = np.rint(ious / (1 + ious) * (areas[:, None] + other_areas[None]))
    smaller = np.minimum(areas[:, None], other_areas[None])
    shares = np.divide(shared, smaller, out=np.zeros_like(shared), where=smaller > 0)
    return np.where(smaller > 0, ious, 0.0), shares


def union_of_objects(masks: Mapping[int, Mapping[int, Rle]], object_ids: Sequence[int]) -> dict[int, Rle]:
    """Frame -> the union of some objects' masks; empty where none of them has any.

    Args:
        masks: object id -> frame -> mask.
        object_ids: those to join.
    """
    by_frame: dict[int, list[Rle]] = {}
    for object_id in object_ids:
        for frame, rle in masks.get(object_id, {}).items():
            by_frame.setdefault(frame, []).append(rle)
    return {frame: union_of_masks(rles) for frame, rles in sorted(by_frame.items())}


def mask_box(mask: NDArray[np.bool_]) -> Box | None:
    """The tightest continuous box around a mask, or None where no pixel is set.

    Example:
        >>> mask_box(np.pad(np.ones((2, 3), dtype=bool), 1))
        (1.0, 1.0, 4.0, 3.0)
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def box_mask(box_xyxy: Box, height: int, width: int) -> NDArray[np.bool_]:
    """The mask of a filled box, clipped to the frame; for objects of which only boxes are known."""
    mask = np.zeros((height, width), dtype=bool)
    x1, y1, x2, y2 = (round(value) for value in box_xyxy)
    mask[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
    return mask


def mask_center(mask: NDArray[np.bool_]) -> tuple[float, float] | None:
    """A point `(x, y)` in pixels inside the object, near its centre; None for an empty mask.

    The row is the middle of the mask's height and the column the mean of the mask's pixels on that
    row, as STVG-R1's released preprocessing places its markers: unlike the centroid, the row always
    crosses a connected object.
    """
    box = mask_box(mask)
    if box is None:
        return None
    row = _middle_row(box, mask.shape[0])
    return _center(np.flatnonzero(mask[row]), row, box)


def rle_center(rle: Rle) -> tuple[float, float] | None:
    """The point `(x, y)` that `mask_center` gives for a run-length encoded mask; nothing is decoded but one row."""
    box = rle_box(rle)
    if box is None:
        return None
    height, width = rle["size"]
    row = _middle_row(box, height)
    run_ends = _run_lengths(rle["counts"]).cumsum()  # the first run is empty of the mask, and so is every other one
    runs = run_ends.searchsorted(np.arange(width) * height + row, side="right")  # pixels lie column by column
    return _center(np.flatnonzero(runs % 2), row, box)


def _middle_row(box: Box, height: int) -> int:
    return min(int((box[1] + box[3]) / 2), height - 1)


def _center(columns: NDArray[np.int64], row: int, box: Box) -> tuple[float, float]:
    """The centre, of the columns in which a mask crosses the row."""
    x = float(columns.mean()) + 0.5 if len(columns) else (box[0] + box[2]) / 2
    return x, row + 0.5


def _run_lengths(counts: str) -> NDArray[np.int64]:
    """The numbers that compressed counts stand for, as `check_counts` reads them, all at once."""
    digits = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    lasts = np.flatnonzero((digits & 32) == 0)
    starts = np.concatenate([[0], lasts[:-1] + 1])
    places = np.arange(len(digits)) - np.repeat(starts, lasts - starts + 1)
    values = np.add.reduceat((digits & 31) << (5 * places), starts)
    values -= np.where(digits[lasts] & 16, np.int64(1) << (5 * (lasts - starts + 1)), 0)
    for first in (1, 2):  # each is a difference to the number two before, from the fourth on
        values[first::2] = values[first::2].cumsum()
    return values


def _as_bytes(rle: Rle) -> dict[str, object]:
    """A mask as COCO's tools take it."""
    return {"size": rle["size"], "counts": rle["counts"].encode("ascii")}
