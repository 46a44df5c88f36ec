"""A video as a model is shown it: what the labels, numbers and coordinates of an answer stand for."""

from __future__ import annotations

from dataclasses import dataclass

from stvg_lightning.answers.labels import MarkerKind
from stvg_lightning.tubes import Truth


@dataclass(frozen=True)
class Frames:
    """The frames that a model reads, and the video that they were taken from.

    Attributes:
        indices: 0-based frame numbers of the original video, ascending.
        width: of the frames as the model reads them, in pixels.
        height: likewise.
        original_width: of the video, in pixels.
        original_height: likewise.
        fps: frames per second of the video.
        num_frames: number of frames of the video.
    """

    indices: tuple[int, ...]
    width: int
    height: int
    original_width: int
    original_height: int
    fps: float
    num_frames: int

    @classmethod
    def untouched(cls, truth: Truth) -> Frames:
        """Every frame of a truth's video, at its own size."""
        size = truth.width, truth.height
        return cls(tuple(range(truth.num_frames)), *size, *size, truth.fps, truth.num_frames)


@dataclass(frozen=True)
class View:
    """How objects are labelled, which frames are shown, and whether labels are drawn into them.

    Languages without frames or boxes need no `frames`.
    """

    marker_kind: MarkerKind = "number"
    frames: Frames | None = None
    is_labelled: bool = True
