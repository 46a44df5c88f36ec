"""The value types every floor shares: the truth of a question, a stored sample, and a decoded clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stvg_lightning.tubes.boxes import Box
from stvg_lightning.tubes.masks import Rle
from stvg_lightning.tubes.spans import Span, span_frames_to_seconds

Task = Literal["stvg", "temporal", "spatial", "choice", "numeric"]
TASKS: tuple[str, ...] = get_args(Task)

Tube = Mapping[int, Box]
"""Frame number -> box, for the frames in which the object is seen."""


@dataclass(frozen=True)
class Truth:
    """One question about one video, and everything known about its answer.

    Frames are 0-based, `span_frames` is half-open, boxes are `x1, y1, x2, y2` in pixels of the
    original frame. Where a sentence means several objects together, `object_ids` names them all, `object_id` is None,
    and `boxes_xyxy` enclose them. What a task does not use is None or empty. `annotated_seconds` is a span that was
    annotated in seconds, which frames can only come near to; it may end after the video. `first_frame` is the number
    that the video's first frame has in a longer one that it was cut from: TubeDETR samples by these. `labels` say what
    sort of question it is, `{"Task": "Spatial Relation", ...}`: scores are told for each apart.
    """

    id: str
    query: str
    fps: float
    num_frames: int
    width: int
    height: int
    span_frames: tuple[int, int] | None = None
    boxes_xyxy: Tube = field(default_factory=dict)
    object_id: int | None = None
    tracks: Mapping[int, Tube] = field(default_factory=dict)
    task: Task = "stvg"
    answer: str | float | None = None
    graph: Any = None
    annotated_seconds: Span | None = None
    object_ids: tuple[int, ...] = ()
    first_frame: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def span_seconds(self) -> Span | None:
        """The true span inside the video: as annotated in seconds, else that of the frames."""
        if self.annotated_seconds is not None:
            start, end = self.annotated_seconds
            return start, min(end, self.duration_seconds)
        return None if self.span_frames is None else span_frames_to_seconds(self.span_frames, self.fps)

    @property
    def target_ids(self) -> tuple[int, ...]:
        """The objects that the sentence means, as far as they are known."""
        return self.object_ids or (() if self.object_id is None else (self.object_id,))

    @property
    def has_place(self) -> bool:
        """Whether it asks for a place and tells the true one: not where only the time is asked for."""
        return self.task != "temporal" and bool(self.boxes_xyxy)

    @property
    def duration_seconds(self) -> float:
        return self.num_frames / self.fps


@dataclass(frozen=True)
class Sample:
    """A truth with its video and, where known, the masks and categories of every object in it.

    `video` is an encoded file: its bytes (from a shard) or its path. Until shards are written, a path may also be a
    picture, a folder of pictures, or an excerpt of a file (`data/footage.py`). `masks` maps object id -> frame
    -> RLE, at the original size. `thought` is a gold reasoning trace in which `{target}` stands for
    the target's marker; `response` is a whole gold completion, which stands in for one that would be written of truth
    and thought. `votes` tells how clear it is which object is meant, where that was voted for: object id -> frames in
    which it overlaps the true box most (STVG-R1, equations 2 and 3). `target_masks` is the annotated mask of all that
    is meant, by frame, where `masks` are another's, a tracker's perhaps. `source` names where the sample came from, for
    messages.
    """

    truth: Truth
    video: bytes | Path
    masks: Mapping[int, Mapping[int, Rle]] = field(default_factory=dict)
    categories: Mapping[int, str] = field(default_factory=dict)
    thought: str = ""
    response: str = ""
    source: str = ""
    votes: Mapping[int, int] = field(default_factory=dict)
    target_masks: Mapping[int, Rle] = field(default_factory=dict)


@dataclass(frozen=True)
class Clip:
    """Frames taken from a video.

    `frames` has shape (frames, height, width, 3), uint8 RGB, perhaps smaller than the original.
    `frame_indices` are 0-based frame numbers of the original video, ascending; `fps` is the original
    rate, so frame `i` was shown at `frame_indices[i] / fps` seconds.
    """

    frames: NDArray[np.uint8]
    frame_indices: tuple[int, ...]
    fps: float

    def __post_init__(self) -> None:
        assert self.frames.ndim == 4 and self.frames.shape[-1] == 3, self.frames.shape
        assert len(self.frames) == len(self.frame_indices), (len(self.frames), len(self.frame_indices))

    @property
    def times_seconds(self) -> tuple[float, ...]:
        return tuple(index / self.fps for index in self.frame_indices)

    @property
    def height(self) -> int:
        return self.frames.shape[1]

    @property
    def width(self) -> int:
        return self.frames.shape[2]
