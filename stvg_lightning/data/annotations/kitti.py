"""KITTI's tracking labels: 3-D boxes of cars and people by frame, in the camera's coordinates (`label_02/0000.txt`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stvg_lightning.data.annotations.text_lines import columns_of
from stvg_lightning.tubes import Box

DONT_CARE = "DontCare"
COLUMNS = 17
NAMES = {
    "Car": "car",
    "Van": "van",
    "Truck": "truck",
    "Pedestrian": "pedestrian",
    "Person": "person",
    "Person_sitting": "sitting person",
    "Cyclist": "cyclist",
    "Tram": "tram",
    "Misc": "other vehicle",
}
"""KITTI's types; its tracking labels write `Person` where its detection labels write `Person_sitting`."""


@dataclass(frozen=True)
class KittiBox:
    """A thing in a frame: metres to the right of the camera and away from it; length, width, height; its 2-D box."""

    center: tuple[float, float]
    size: tuple[float, float, float]
    box_xyxy: Box


@dataclass(frozen=True)
class KittiTracks:
    """Object id -> frame -> box, and -> name; and how many lines were left out."""

    tracks: dict[int, dict[int, KittiBox]]
    names: dict[int, str]
    num_left_out: int


def read_kitti_tracks(file: Path) -> KittiTracks:
    """The tracks of a KITTI label file.

    A line is `frame track type truncated occluded alpha left top right bottom height width length x y z rotation_y`.
    Converted: objects are numbered `track + 1`; of the place, x and z are kept. Left out: `DontCare`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a broken line, an unknown type, or a track that is twice in a frame or changes its type; it begins
            with file and line.
    """
    tracks: dict[int, dict[int, KittiBox]] = {}
    names: dict[int, str] = {}
    left_out = 0
    for line in columns_of(file, COLUMNS, None):
        frame, kind = line.whole(0, "frame", 0), line.values[2]
        if kind == DONT_CARE:
            left_out += 1
            continue
        if kind not in NAMES:
            line.refuse("type", kind, f"one of {', '.join(NAMES)}, {DONT_CARE}")
        object_id = line.whole(1, "track", 0) + 1
        x1, y1, x2, y2 = (line.number(index, "the 2-D box") for index in range(6, 10))
        height, width, length = (line.number(index, "height, width, length") for index in range(10, 13))
        if not x1 < x2 or not y1 < y2 or min(height, width, length) <= 0:
            line.refuse("the box", line.values[6:13], "left < right, top < bottom, and sizes above 0")
        place = line.number(13, "x"), line.number(15, "z")
        if frame in tracks.setdefault(object_id, {}):
            raise ValueError(f"{line.where}: track {object_id - 1} stands already in frame {frame}")
        tracks[object_id][frame] = KittiBox(place, (length, width, height), (x1, y1, x2, y2))
        if names.setdefault(object_id, NAMES[kind]) != NAMES[kind]:
            raise ValueError(f"{line.where}: track {object_id - 1} is {kind}, and was {names[object_id]} before")
    return KittiTracks(dict(sorted(tracks.items())), names, left_out)
