"""ScanNet's rooms as axis-aligned boxes: the arrays that VoteNet's and MMDetection3D's preparation leave."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

SUFFIXES = ("_aligned_bbox.npy", "_bbox.npy")
UNALIGNED = "_unaligned_bbox.npy"
"""VoteNet's preparation leaves the boxes before the room is turned too, beside the others."""

NAMES = {
    3: "cabinet",
    4: "bed",
    5: "chair",
    6: "sofa",
    7: "table",
    8: "door",
    9: "window",
    10: "bookshelf",
    11: "picture",
    12: "counter",
    14: "desk",
    16: "curtain",
    24: "refrigerator",
    28: "shower curtain",
    33: "toilet",
    34: "sink",
    36: "bathtub",
}
"""ScanNet's benchmark kinds by their NYU40 number, without "other furniture"."""


@dataclass(frozen=True)
class RoomBox:
    """A thing on the floor: its centre, and its length, width and height, in metres."""

    name: str
    center: tuple[float, float]
    size: tuple[float, float, float]


def read_room(file: Path) -> tuple[list[RoomBox], int]:
    """The boxes of a scene, and how many were left out because their kind has no name here.

    Args:
        file: `<scene>_aligned_bbox.npy` or `<scene>_bbox.npy`, a row for each thing: centre x, y, z, size x, y, z in
            metres, and the NYU40 number of its kind. z points upwards.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such array; it begins with the file and the row, from 0.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no annotation file at {file}")
    try:
        rows = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{file}: no array of numbers: {error}") from None
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != 7 or rows.dtype.kind not in "fiu":
        found = f"{rows.dtype} of shape {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise ValueError(f"{file}: {found}: an array of numbers with 7 columns is needed")
    boxes = []
    for index, row in enumerate(rows.astype(float)):
        x, y, _, dx, dy, dz, kind = (float(value) for value in row)
        if not np.isfinite(row).all() or min(dx, dy, dz) <= 0:
            raise ValueError(f"{file}[{index}]: {row.tolist()}: finite numbers, sizes above 0, are needed")
        if int(kind) in NAMES:
            boxes.append(RoomBox(NAMES[int(kind)], (x, y), (max(dx, dy), min(dx, dy), dz)))
    return boxes, len(rows) - len(boxes)


def scene_of(file: Path) -> str | None:
    """The scene that a file's name tells; None where it is none of these files, or holds boxes along other axes.

    Example:
        >>> scene_of(Path("scene0000_00_aligned_bbox.npy")), scene_of(Path("scene0000_00_unaligned_bbox.npy"))
        ('scene0000_00', None)
    """
    if file.name.endswith(UNALIGNED):
        return None
    return next((file.name.removesuffix(end) for end in SUFFIXES if file.name.endswith(end)), None)
