"""What readers share: records to samples, spans to frames inside the video, boxes of other conventions to ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from stvg_lightning.data.annotations.records import number
from stvg_lightning.data.report import Dropped, Report
from stvg_lightning.data.video import MAX_FRAMES_APART, VideoInfo
from stvg_lightning.tubes import Box, Sample, Span, Truth, Tube, span_seconds_to_frames
from stvg_lightning.tubes.json_values import refuse
from stvg_lightning.tubes.jsonl import refuse_repeated_id

CLAMPED = "the span ends after its video: clamped"
STARTS_EARLY = "the span begins before its video: clamped"
REVERSED = "the span is reversed"
EMPTY = "the span is empty"
OUTSIDE = "the span begins after its video's end"
NO_AREA = "a box without area: left out"
BEYOND_VIDEO = "boxes after the video's end: left out"
OTHER_LENGTH = "the video has another number of frames than annotated"
OTHER_SIZE = "the video has another size than annotated"
ROUNDING_SECONDS = 1e-6
R = TypeVar("R")


def samples_of(
    records: Iterable[tuple[str, R]], convert: Callable[[str, R], Sample], report: Report
) -> Iterator[Sample]:
    """The samples of records, in order: what is dropped is counted, what is broken is refused by its record.

    Args:
        records: `(where, record)`; `where` names file and record in messages.
        convert: makes a sample of a record, or raises `Dropped`, or ValueError where the record is broken.
        report: counts what was dropped.

    Raises:
        ValueError: a broken record, or an id that stood before; it begins with `where`.
    """
    first_seen: dict[str, str] = {}
    for where, record in records:
        try:
            sample = convert(where, record)
        except Dropped as drop:
            report.dropped(drop.reason, where, drop.detail)
            continue
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        refuse_repeated_id(sample.truth.id, where, first_seen)
        report.kept()
        yield sample


class Numbering:
    """Ids `<video>/<n>`: the n-th question of a video in its file, from 0, whether or not it becomes a sample."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def next_of(self, video: str) -> str:
        self._counts[video] += 1
        return f"{video}/{self._counts[video] - 1}"


def truth_of(identity: str, query: str, info: VideoInfo, **what: Any) -> Truth:
    """A truth about a video whose facts are known; `what` are the other fields of `Truth`."""
    return Truth(identity, query, info.fps, info.num_frames, info.width, info.height, **what)


def check_annotated(info: VideoInfo, num_frames: int, width: int, height: int) -> None:
    """Drop a record whose video is not the one that was annotated: frames and boxes would not be of it.

    Raises:
        Dropped: the sizes differ, or the numbers of frames by more than one.
    """
    if (info.width, info.height) != (width, height):
        raise Dropped(OTHER_SIZE, f"{info.width} x {info.height} instead of {width} x {height}")
    if abs(info.num_frames - num_frames) > MAX_FRAMES_APART:
        raise Dropped(OTHER_LENGTH, f"{info.num_frames} instead of {num_frames}")


def span_in_video(start_frame: int, end_frame: int, num_frames: int, where: str, report: Report) -> tuple[int, int]:
    """Half-open frames inside the video: an end after it is clamped and counted.

    Raises:
        Dropped: reversed, empty, or all of it after the video.
    """
    _check_order(start_frame, end_frame)
    if start_frame >= num_frames or end_frame <= 0:
        raise Dropped(OUTSIDE, f"[{start_frame}, {end_frame}) of {num_frames} frames")
    if end_frame > num_frames:
        report.changed(CLAMPED, where, f"end {end_frame} of {num_frames} frames")
    if start_frame < 0:
        report.changed(STARTS_EARLY, where, f"start {start_frame}")
    return max(start_frame, 0), min(end_frame, num_frames)


def seconds_in_video(
    span_seconds: Span, info: VideoInfo, where: str, report: Report, rounding_seconds: float = ROUNDING_SECONDS
) -> tuple[int, int]:
    """The frames shown during a span of seconds: an end after the video is clamped and counted.

    Frames are chosen by their midpoints (`span_seconds_to_frames`), so a time moves by at most half a frame. An end
    that is late by no more than `rounding_seconds` does not count as clamped.

    Raises:
        Dropped: reversed, empty, or all of it after the video.
    """
    start, end = span_seconds
    duration_seconds = info.num_frames / info.fps
    _check_order(start, end)
    if start >= duration_seconds or end <= 0:
        raise Dropped(OUTSIDE, f"{start:g} to {end:g} of {duration_seconds:g} seconds")
    if end > duration_seconds + rounding_seconds:
        report.changed(CLAMPED, where, f"end {end:g} of {duration_seconds:g} seconds")
    if start < 0:
        report.changed(STARTS_EARLY, where, f"start {start:g} seconds")
    return span_seconds_to_frames((start, end), info.fps, info.num_frames)


def box_of_xywh(value: Any, name: str = "the box") -> Box | None:
    """A box `x1, y1, x2, y2` from `[x, y, width, height]`; None where it has no area.

    Raises:
        ValueError: not four finite numbers, or a negative width or height.
    """
    if not isinstance(value, list) or len(value) != 4:
        refuse(name, value, "four finite numbers [x, y, width, height]")
    x, y, width, height = (number(side, name) for side in value)
    if width < 0 or height < 0:
        refuse(name, value, "[x, y, width, height] with no negative width or height")
    return _with_area((x, y, x + width, y + height))


def box_of_corners(value: Any, name: str = "the box") -> Box | None:
    """A box from an object with `xmin`, `ymin`, `xmax`, `ymax`; None where it has no area.

    Raises:
        ValueError: a missing or non-finite corner, or a reversed box.
    """
    if not isinstance(value, Mapping) or not {"xmin", "ymin", "xmax", "ymax"} <= set(value):
        refuse(name, value, "an object with xmin, ymin, xmax, ymax")
    x1, y1, x2, y2 = (number(value[side], name) for side in ("xmin", "ymin", "xmax", "ymax"))
    if x2 < x1 or y2 < y1:
        refuse(name, value, "not reversed")
    return _with_area((x1, y1, x2, y2))


def tube_in_video(boxes: Mapping[int, Box | None], num_frames: int, where: str, report: Report) -> Tube:
    """Boxes by frame, ascending, without those that have no area or lie after the video; both are counted."""
    no_area = sum(box is None for box in boxes.values())
    late = sum(frame >= num_frames for frame in boxes)
    if no_area:
        report.changed(NO_AREA, where, f"{no_area} of {len(boxes)} boxes")
    if late:
        report.changed(BEYOND_VIDEO, where, f"{late} of {len(boxes)} boxes")
    return {frame: box for frame, box in sorted(boxes.items()) if box is not None and frame < num_frames}


def tube_during(tube: Tube, span_frames: tuple[int, int]) -> Tube:
    """The part of a tube that lies in a span.

    Raises:
        Dropped: no box does.
    """
    start, end = span_frames
    during = {frame: box for frame, box in tube.items() if start <= frame < end}
    if not during:
        raise Dropped("there is no box during the span", f"[{start}, {end})")
    return during


def file_stem(name: str) -> str:
    """The file name without folders and its last extension.

    Example:
        >>> file_stem("videos/1_aMYcLyh9OhU.v2.mkv")
        '1_aMYcLyh9OhU.v2'
    """
    return Path(name).stem


def _check_order(start: int | float, end: int | float) -> None:
    if start > end:
        raise Dropped(REVERSED, f"{start:g} to {end:g}")
    if start == end:
        raise Dropped(EMPTY, f"at {start:g}")


def _with_area(box: Box) -> Box | None:
    x1, y1, x2, y2 = box
    return box if x1 < x2 and y1 < y2 else None
