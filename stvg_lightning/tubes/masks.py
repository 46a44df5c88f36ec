"""Masks as COCO run-length encodings, and the boxes and marker positions that follow from them."""

from __future__ import annotations

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
    return coco.decode({"size": rle["size"], "counts": rle["counts"].encode("ascii")}).astype(bool)


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
    x1, y1, x2, y2 = box
    row = min(int((y1 + y2) / 2), mask.shape[0] - 1)
    columns = np.flatnonzero(mask[row])
    x = float(columns.mean()) + 0.5 if len(columns) else (x1 + x2) / 2
    return x, row + 0.5
