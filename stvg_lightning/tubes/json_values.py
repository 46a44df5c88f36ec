"""Strict JSON, and readers of single values in it: each refuses a wrong value with what is allowed instead."""

from __future__ import annotations

import difflib
import itertools
import json
import math
import re
import reprlib
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import numpy as np

from stvg_lightning.tubes.box_tube import BoxTube
from stvg_lightning.tubes.boxes import Box
from stvg_lightning.tubes.sample import Tube
from stvg_lightning.tubes.spans import Span

WHOLE_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
EXPONENT = re.compile(r"[eE][-+0-9]")
LARGEST_COUNT = 10**9
LARGEST_COORDINATE = 1e7
"""Pixels; beyond it areas leave what numbers can tell apart, and no frame is as large."""
T = TypeVar("T")


def strict_decoder(checks_fractions: bool = True) -> json.JSONDecoder:
    """A decoder that refuses NaN, infinity and a key that stands twice in one object.

    Args:
        checks_fractions: whether a fraction may be beyond the largest float, and must be looked at.
    """

    def refuse_constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not allowed: numbers must be finite")

    def finite(digits: str) -> float:
        value = float(digits)
        return value if is_number(value) else refuse_constant(digits)

    def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            raise ValueError(f"key {counts.most_common(1)[0][0]!r} stands twice in one object")
        return found

    return json.JSONDecoder(
        parse_constant=refuse_constant,
        parse_float=finite if checks_fractions else None,
        object_pairs_hook=without_doubles,
    )


def strict_json(text: str) -> Any:
    """Parse JSON that holds no NaN, no infinity and no key twice in one object.

    Example:
        >>> strict_json('{"a": [1, 2.5]}')
        {'a': [1, 2.5]}
    """
    try:
        if text.startswith("\ufeff"):
            raise json.JSONDecodeError("a byte order mark stands before it", text, 0)
        # A function of ours for every fraction doubles the time of parsing. Without an exponent only one of more than
        # 300 digits is infinite: the readers of values below refuse it.
        return strict_decoder(checks_fractions=EXPONENT.search(text) is not None).decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"broken JSON at column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise ValueError("broken JSON: it is nested too deeply") from None


def check_keys(record: Mapping[str, Any], allowed: tuple[str, ...], required: tuple[str, ...]) -> None:
    """Refuse a key that is not allowed, naming the nearest valid one, and a required key that is missing."""
    for key in record:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1, cutoff=0.0)
            names = ", ".join(allowed)
            raise ValueError(f"unknown key {key!r}: the nearest valid key is {near[0]!r}; allowed: {names}")
    for key in required:
        if key not in record:
            raise ValueError(f"key {key!r} is missing: a line needs {', '.join(required)}")


def read_optional(record: Mapping[str, Any], key: str, read: Callable[[Any], T]) -> T | None:
    """What `read` makes of a key's value; None where the key is null or left out."""
    return None if record.get(key) is None else read(record[key])


def refuse(name: str, value: Any, allowed: str) -> NoReturn:
    """Raise the ValueError that names a value and what it must be instead."""
    raise ValueError(f"{name} is {reprlib.repr(value)}: it must be {allowed}")


def is_number(value: Any) -> bool:
    """A finite number; NaN fails every comparison, and an integer beyond any float is refused too."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_integer(value: Any, least: int, most: int = LARGEST_COUNT) -> bool:
    """An integer in `least` to `most`; true and false are not integers here."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def read_integer(value: Any, name: str, least: int = 1) -> int:
    """An integer of at least `least`, refused by name otherwise."""
    if not is_integer(value, least):
        refuse(name, value, f"an integer of at least {least}")
    return value


def read_text(value: Any, name: str, may_be_empty: bool = False) -> str:
    """A text, refused by name where it is something else or empty."""
    if not isinstance(value, str) or not (may_be_empty or value.strip()):
        refuse(name, value, "a text" if may_be_empty else "a text that is not empty")
    return value


def read_frame_span(value: Any, num_frames: int, least_length: int) -> tuple[int, int]:
    """A half-open span in whole frames inside the video, of at least `least_length` frames."""
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 2
        or not all(is_integer(frame, 0, num_frames) for frame in value)
        or value[1] - value[0] < least_length
    ):
        sign = "<" if least_length else "<="
        refuse("span_frames", value, f"[start, end] in whole frames with 0 <= start {sign} end <= {num_frames}")
    return value[0], value[1]


def read_seconds_span(value: Any, latest: float) -> Span:
    """A span in seconds, not reversed, inside 0 to `latest`."""
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 2
        or not all(is_number(seconds) for seconds in value)
        or not 0 <= value[0] <= value[1] <= latest
    ):
        refuse("span_seconds", value, f"[start, end] in seconds with 0 <= start <= end <= {latest:g}")
    return float(value[0]), float(value[1])


def read_by_frame(value: Any, name: str, num_frames: int) -> list[tuple[int, Any]]:
    """`(frame, value)` pairs of an object keyed by frame, ascending."""
    if not isinstance(value, dict):
        refuse(name, value, 'an object {"<frame>": ...}')
    for key in value:
        if not WHOLE_NUMBER.fullmatch(key) or int(key) >= num_frames:
            refuse(f"a frame of {name}", key, f"a whole number from 0 to {num_frames - 1}")
    return sorted(((int(key), item) for key, item in value.items()), key=lambda pair: pair[0])


def read_by_object(record: Mapping[str, Any], key: str, read: Callable[[Any, str], T]) -> dict[int, T]:
    """Object id -> what `read(value, name)` makes of the value, for a key that may be null or left out."""
    value = {} if record.get(key) is None else record[key]
    if not isinstance(value, dict):
        refuse(key, value, 'an object {"<object id>": ...}')
    for object_id in value:
        if not WHOLE_NUMBER.fullmatch(object_id) or object_id == "0":
            refuse(f"an object id of {key}", object_id, "a whole number of at least 1")
    ascending = sorted(((int(object_id), item) for object_id, item in value.items()), key=lambda pair: pair[0])
    return {object_id: read(item, f"{key} of object {object_id}") for object_id, item in ascending}


def read_tube(value: Any, name: str, num_frames: int) -> Tube:
    """A tube from `{"<frame>": [x1, y1, x2, y2]}`, its frames inside the video and ascending."""
    tube = _flawless_tube(value, num_frames)
    return _tube_box_by_box(value, name, num_frames) if tube is None else tube


def _flawless_tube(value: Any, num_frames: int) -> Tube | None:
    """The tube where nothing is to be refused, all boxes checked at once; None where box by box must tell what is."""
    try:
        keys, boxes = list(value), list(value.values())
        numbers = list(map(int, keys))
        sides = list(itertools.chain.from_iterable(boxes))
        well_typed = set(map(type, sides)) <= {int, float} and set(map(len, boxes)) <= {4}
        frames, xyxy = np.array(numbers, dtype=np.int64), np.array(sides, dtype=np.float64).reshape(-1, 4)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None
    # "007", "+7" and digits of other scripts are whole numbers to Python as well.
    if not well_typed or list(map(str, numbers)) != keys or not ((frames >= 0) & (frames < num_frames)).all():
        return None
    if not (np.abs(xyxy) <= LARGEST_COORDINATE).all() or not (xyxy[:, :2] < xyxy[:, 2:]).all():
        return None
    if (frames[1:] < frames[:-1]).any():
        order = np.argsort(frames)
        frames, xyxy = frames[order], xyxy[order]
    return BoxTube(frames, xyxy)


def _tube_box_by_box(value: Any, name: str, num_frames: int) -> Tube:
    tube = {}
    for frame, box in read_by_frame(value, name, num_frames):
        try:
            tube[frame] = read_box(box)
        except ValueError as error:
            raise ValueError(f"{name}, frame {frame}: {error}") from None
    return tube


def read_box(value: Any) -> Box:
    """A box of four finite numbers with x1 < x2 and y1 < y2."""
    if not isinstance(value, (list, tuple)) or len(value) != 4 or not all(is_number(side) for side in value):
        refuse("the box", value, "four finite numbers [x1, y1, x2, y2]")
    x1, y1, x2, y2 = (float(side) for side in value)
    if max(map(abs, (x1, y1, x2, y2))) > LARGEST_COORDINATE:
        refuse("the box", value, f"within {LARGEST_COORDINATE:g} pixels of the frame's corner")
    if not (x1 < x2 and y1 < y2):
        refuse("the box", value, "neither reversed nor without area: x1 < x2 and y1 < y2")
    return x1, y1, x2, y2


def check_finite(value: Any, name: str) -> None:
    """Refuse free-form JSON values in which a number is NaN or infinite, at any depth."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, float) and not is_number(item):
            refuse(f"a number in {name}", item, "finite")
        if isinstance(item, Mapping):
            pending.extend(item.values())
        elif isinstance(item, (list, tuple)):
            pending.extend(item)


def tube_to_json(tube: Tube) -> dict[str, list[int | float]]:
    """The JSON object of a tube, its boxes rounded to 3 decimals."""
    return {str(frame): _box_to_json(box) for frame, box in sorted(tube.items())}


def _box_to_json(box: Box) -> list[int | float]:
    """Rounded to a thousandth of a pixel, unless that would leave the box without area."""
    x1, y1, x2, y2 = (round(side, 3) for side in box)
    return [shortest_number(side) for side in ((x1, y1, x2, y2) if x1 < x2 and y1 < y2 else box)]


def shortest_number(value: float) -> int | float:
    """A whole number without its `.0`; NaN and infinity stay, for the strict writer to refuse."""
    return int(value) if math.isfinite(value) and value == int(value) else value
