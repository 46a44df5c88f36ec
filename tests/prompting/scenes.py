"""Small scenes of moving boxes with exact masks, and a video that is held in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from stvg_lightning.prompting import Frame, MaskTrack
from stvg_lightning.tubes import Box, Rle, box_mask, encode_mask

HEIGHT, WIDTH = 48, 64
Place = Callable[[int], Box | None]


@dataclass(frozen=True)
class HeldVideo:
    """Grey frames; only their numbers matter to what is given the truth."""

    num_frames: int

    def forward(self) -> Iterator[Frame]:
        return (self._frame(index) for index in range(self.num_frames))

    def backward(self, last_frame: int) -> Iterator[Frame]:
        return (self._frame(index) for index in range(last_frame, -1, -1))

    def _frame(self, index: int) -> Frame:
        return Frame(index, np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8))


def mask_of(box: Box) -> Rle:
    return encode_mask(box_mask(box, HEIGHT, WIDTH))


def scene(num_frames: int, places: Mapping[int, Place]) -> dict[int, dict[int, Rle]]:
    """Number of a thing -> frame -> mask; a thing is not seen where its place is None."""
    boxes = {number: {f: box for f in range(num_frames) if (box := place(f))} for number, place in places.items()}
    return {number: {frame: mask_of(box) for frame, box in frames.items()} for number, frames in boxes.items()}


def frames_of(tracks: tuple[MaskTrack, ...]) -> dict[int, list[int]]:
    """Object id -> the frames in which it has a mask."""
    return {track.object_id: sorted(track.masks) for track in tracks}


def still(box: Box, *spans: tuple[int, int]) -> Place:
    """A thing that stands in one place during some spans of frames `[start, end)`, or always."""
    return lambda frame: box if not spans or any(start <= frame < end for start, end in spans) else None
