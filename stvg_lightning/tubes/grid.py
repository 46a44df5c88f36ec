"""The points of time that a model counts in its answers: whole seconds, or the frames that it is shown."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from stvg_lightning.tubes.boxes import Box
from stvg_lightning.tubes.sample import Tube
from stvg_lightning.tubes.spans import Span

IndexSpan = tuple[int, int]
"""First and last index, both included; `last < first` where nothing is between them."""


@dataclass(frozen=True)
class TimeGrid:
    """A video cut into cells that are counted from 0; cell `i` lasts until the next one begins, the last to the end.

    Attributes:
        starts_frames: the frame of the original video with which each cell begins, ascending from 0.
        fps: frames per second of the original video.
        num_frames: number of frames of the original video.
    """

    starts_frames: tuple[int, ...]
    fps: float
    num_frames: int

    def __post_init__(self) -> None:
        starts = self.starts_frames
        assert starts and starts[0] == 0 and starts[-1] < self.num_frames, starts
        assert all(first <= second for first, second in pairwise(starts)), starts

    @classmethod
    def of_seconds(cls, fps: float, num_frames: int) -> TimeGrid:
        """One cell for every second; a frame belongs to the second that its middle lies in, as in all spans.

        Example:
            >>> TimeGrid.of_seconds(fps=10.0, num_frames=25).starts_frames
            (0, 10, 20)
        """
        starts = [0]
        # As in `span_seconds_to_frames`: 1e-6 of a frame absorbs the binary rounding of rates such as 29.97.
        while (start := math.ceil(len(starts) * fps - 0.5 - 1e-6)) < num_frames:
            starts.append(start)
        return cls(tuple(starts), fps, num_frames)

    @classmethod
    def of_frames(cls, frame_indices: Sequence[int], fps: float, num_frames: int) -> TimeGrid:
        """One cell for every frame taken from the video; the first one is frame 0."""
        return cls(tuple(frame_indices), fps, num_frames)

    @property
    def num_cells(self) -> int:
        return len(self.starts_frames)

    def cells_of(self, span_frames: tuple[int, int]) -> IndexSpan:
        """The first and the last cell that a half-open span of frames has a part in.

        On seconds, but for the half frame by which a frame may be early: `floor(start)` to `ceil(end) - 1`.

        Example:
            >>> TimeGrid.of_seconds(fps=10.0, num_frames=100).cells_of((54, 70))
            (5, 6)
        """
        start, end = span_frames
        return bisect_right(self.starts_frames, start) - 1, bisect_left(self.starts_frames, end) - 1

    def seconds_of(self, cells: IndexSpan) -> Span:
        """From the beginning of the first cell to the end of the last; `end <= start` where they are reversed.

        A cell after the video's last begins when the video ends.
        """
        first, last = cells
        return self._start_seconds(first), self._start_seconds(last + 1)

    def boxes_of(self, tube: Tube, cells: IndexSpan) -> dict[int, Box]:
        """Index -> the box of a tube in the frame nearest to the cell's first, for all cells of a span.

        A tube without any box gives none.
        """
        frames = sorted(tube)
        if not frames:
            return {}
        return {index: tube[_nearest(frames, self.starts_frames[index])] for index in range(cells[0], cells[1] + 1)}

    def _start_seconds(self, index: int) -> float:
        starts = self.starts_frames
        return (starts[index] if index < len(starts) else self.num_frames) / self.fps


def index_span_iou(predicted: IndexSpan, true: IndexSpan) -> float:
    """IoU of two spans of whole indices, both ends included (STVG-o1: `|T_cap| = end - start + 1`, equation 7).

    Example:
        >>> index_span_iou((5, 7), (6, 9))
        0.4
    """
    shared = max(0, min(predicted[1], true[1]) - max(predicted[0], true[0]) + 1)
    lengths = [max(0, last - first + 1) for first, last in (predicted, true)]
    union = sum(lengths) - shared
    return shared / union if union else 0.0


def interpolated(boxes_xyxy: Tube, span_frames: tuple[int, int]) -> dict[int, Box]:
    """A box for every frame of a span: on a straight line between those that are given, and resting outside them.

    Args:
        boxes_xyxy: frame -> box, for at least one frame; those outside the span count as well.
        span_frames: `[start, end)`.

    Example:
        >>> interpolated({0: (0.0, 0.0, 2.0, 2.0), 2: (4.0, 0.0, 6.0, 2.0)}, (1, 4))
        {1: (2.0, 0.0, 4.0, 2.0), 2: (4.0, 0.0, 6.0, 2.0), 3: (4.0, 0.0, 6.0, 2.0)}
    """
    frames = sorted(boxes_xyxy)
    return {frame: _on_the_line(boxes_xyxy, frames, frame) for frame in range(*span_frames)}


def _on_the_line(boxes_xyxy: Tube, frames: list[int], frame: int) -> Box:
    place = bisect_left(frames, frame)
    before, after = frames[max(place - 1, 0)], frames[min(place, len(frames) - 1)]
    if frame >= after or frame <= before:
        return boxes_xyxy[after if frame >= after else before]
    share = (frame - before) / (after - before)
    x1, y1, x2, y2 = ((1 - share) * a + share * b for a, b in zip(boxes_xyxy[before], boxes_xyxy[after]))
    return x1, y1, x2, y2


def _nearest(frames: list[int], frame: int) -> int:
    """The nearest of some ascending frames; the earlier one of two."""
    place = bisect_left(frames, frame)
    return min(frames[max(place - 1, 0) : place + 1], key=lambda known: abs(known - frame))
