"""MOT's text files: the boxes of people and cars by frame, as annotated (`gt.txt`) or as a tracker found them."""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

from stvg_lightning.data.annotations.text_lines import columns_of
from stvg_lightning.tubes import Box

CLASSES = {
    1: "pedestrian",
    2: "person on a vehicle",
    3: "car",
    4: "bicycle",
    5: "motorbike",
    6: "non-motorised vehicle",
    7: "static person",
}
"""Of MOT16 and later; the others are occluders, reflections and crowds."""

PERSON = "pedestrian"
"""What MOT15, which names no classes, is about."""


@dataclass(frozen=True)
class MotTracks:
    """Object id -> frame -> box, and -> name; and how many lines were left out."""

    tracks: dict[int, dict[int, Box]]
    names: dict[int, str]
    num_left_out: int


def read_mot_tracks(file: Path) -> MotTracks:
    """The tracks of a MOT file.

    Converted: frames and pixels count from 1 there; boxes are left, top, width and height. Left out: lines whose
    confidence is 0 (in a `gt.txt` such a line does not count), whose id is -1 (a detection without a track), whose
    visibility is 0 (wholly hidden), of classes that are no things of their own, and boxes without area.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a broken line, or an id that is twice in a frame or changes its class; it begins with file and line.
    """
    tracks: dict[int, dict[int, Box]] = {}
    names: dict[int, str] = {}
    left_out = 0
    for line in columns_of(file, 6, ","):
        frame, object_id = line.whole(0, "frame", 1) - 1, line.whole(1, "id", -1)
        x, y, width, height = (line.number(2 + i, name) for i, name in enumerate(("left", "top", "width", "height")))
        if width < 0 or height < 0:
            line.refuse("the box", line.values[2:6], "left, top, width and height, the last two not negative")
        counts = len(line.values) < 7 or line.number(6, "confidence") != 0
        name: str | None = PERSON
        if len(line.values) == 9:
            name = _class_of(line.whole(7, "class", -1))
            counts = counts and line.number(8, "visibility") != 0
        if object_id < 1 or not counts or name is None or not width or not height:
            left_out += 1
            continue
        if frame in tracks.setdefault(object_id, {}):
            raise ValueError(f"{line.where}: id {object_id} stands already in frame {frame + 1}")
        tracks[object_id][frame] = (x - 1, y - 1, x - 1 + width, y - 1 + height)
        if names.setdefault(object_id, name) != name:
            raise ValueError(f"{line.where}: id {object_id} is a {name}, and was a {names[object_id]} before")
    return MotTracks(dict(sorted(tracks.items())), names, left_out)


def mot_rate(file: Path) -> float | None:
    """The frames a second that a sequence's `seqinfo.ini` tells, beside `gt.txt`'s folder; None where it does not.

    Raises:
        ValueError: a file that cannot be read, or a rate that is no number above 0.
    """
    info = file.parent.parent / "seqinfo.ini"
    if not info.is_file():
        return None
    parser = configparser.ConfigParser()
    try:
        parser.read_string(info.read_text(encoding="utf-8-sig"))
        told = parser.get("Sequence", "frameRate", fallback=None)
        rate = None if told is None else float(told)
    except (configparser.Error, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{info}: {error}") from None
    if rate is not None and not 0 < rate < 10_000:
        raise ValueError(f"{info}: frameRate is {told}: it must be a number above 0")
    return rate


def _class_of(number: int) -> str | None:
    """A class's name, None for what is no thing; of a file in which the column holds -1, people."""
    return PERSON if number == -1 else CLASSES.get(number)
