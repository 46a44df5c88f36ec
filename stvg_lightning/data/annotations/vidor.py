"""VidOR's trajectory files: the boxes of every object of a video in every frame. VidSTG's boxes are these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stvg_lightning.data.annotations.conversions import box_of_corners
from stvg_lightning.data.annotations.records import field, frame_number, listing, table, text, whole_json
from stvg_lightning.tubes import Box, Tube


@dataclass(frozen=True)
class Trajectories:
    """Object id (`tid + 1`) -> its boxes, and -> the name of its kind."""

    tracks: dict[int, Tube]
    categories: dict[int, str]


def read_trajectories(file: Path) -> Trajectories:
    """The tracks of a VidOR file.

    Converted: objects are numbered `tid + 1`; corners are taken as continuous, as STVG's evaluators do (VidOR's own
    counts them as pixels, and adds 1). A box without area is left out; an object may be missing in any frame.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a broken file; it begins with the file and the frame.
    """
    record = whole_json(file)
    tracks: dict[int, dict[int, Box]] = {}
    try:
        for frame, boxes in enumerate(field(record, "trajectories", listing)):
            for object_id, box in _boxes_of_frame(boxes, frame):
                tracks.setdefault(object_id, {})[frame] = box
        objects = field(record, "subject/objects", listing)
        categories = {
            field(table(item, "an object"), "tid", frame_number) + 1: field(item, "category", text) for item in objects
        }
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return Trajectories({object_id: tracks[object_id] for object_id in sorted(tracks)}, categories)


def _boxes_of_frame(boxes: Any, frame: int) -> Iterator[tuple[int, Box]]:
    for item in listing(boxes, f"trajectories[{frame}]"):
        box = field(table(item, f"trajectories[{frame}]"), "bbox", lambda value, _: box_of_corners(value))
        if box is not None:
            yield field(item, "tid", frame_number) + 1, box
