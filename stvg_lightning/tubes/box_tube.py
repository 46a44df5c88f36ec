"""A tube that is kept as two arrays: small in memory, and quick to compare with another."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stvg_lightning.tubes.boxes import Box


class BoxTube(Mapping[int, Box]):
    """Frame -> box, as any other tube; it equals a dictionary of the same boxes.

    Attributes:
        frames: the frames, int64, ascending.
        boxes_xyxy: their boxes (frames, 4), float64, in pixels.

    Example:
        >>> tube = BoxTube(np.array([3, 5]), np.array([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]]))
        >>> tube[5], 4 in tube, tube == {3: (0.0, 0.0, 2.0, 2.0), 5: (1.0, 0.0, 3.0, 2.0)}
        ((1.0, 0.0, 3.0, 2.0), False, True)
    """

    def __init__(self, frames: NDArray[np.int64], boxes_xyxy: NDArray[np.float64]) -> None:
        assert boxes_xyxy.shape == (len(frames), 4), (frames.shape, boxes_xyxy.shape)
        self.frames, self.boxes_xyxy = frames, boxes_xyxy

    @classmethod
    def of(cls, tube: Mapping[int, Box]) -> BoxTube:
        """The same tube as arrays."""
        if isinstance(tube, BoxTube):
            return tube
        frames = np.fromiter(tube, dtype=np.int64, count=len(tube))
        boxes = np.array(list(tube.values()), dtype=np.float64).reshape(-1, 4)
        order = np.argsort(frames)
        return cls(frames[order], boxes[order])

    @cached_property
    def _boxes(self) -> dict[int, Box]:
        boxes: list[Box] = list(map(tuple, self.boxes_xyxy.tolist()))
        return dict(zip(self.frames.tolist(), boxes, strict=True))

    def __getitem__(self, frame: int) -> Box:
        return self._boxes[frame]

    def __iter__(self) -> Iterator[int]:
        return iter(self._boxes)

    def __len__(self) -> int:
        return len(self.frames)

    def __contains__(self, frame: object) -> bool:
        return frame in self._boxes

    def keys(self) -> KeysView[int]:
        """The frames, ascending."""
        return self._boxes.keys()

    def values(self) -> ValuesView[Box]:
        """The boxes, by frame."""
        return self._boxes.values()

    def items(self) -> ItemsView[int, Box]:
        """Pairs of frame and box, by frame."""
        return self._boxes.items()

    def __repr__(self) -> str:
        return repr(self._boxes)
