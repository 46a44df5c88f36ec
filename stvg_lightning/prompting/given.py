"""A detector and a tracker that are given what they should find: for tests, and to see what a perfect one would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stvg_lightning.prompting.detections import Detection, Frame
from stvg_lightning.prompting.tracking import MaskArray, Prompt
from stvg_lightning.tubes import Rle, box_mask, decode_mask, encode_mask, mask_overlaps, rle_box

GivenMasks = Mapping[int, Mapping[int, Rle]]


@dataclass(frozen=True)
class GivenDetector:
    """Finds exactly the things of which it was given masks, in each frame in which they are seen.

    Attributes:
        masks: any number of the thing -> frame -> mask.
        categories: number -> category; `thing` where it is not given.
        confidences: number -> confidence; 1 where it is not given.
        blind_frames: frames in which it finds nothing.
    """

    masks: GivenMasks
    categories: Mapping[int, str] = field(default_factory=dict)
    confidences: Mapping[int, float] = field(default_factory=dict)
    blind_frames: frozenset[int] = frozenset()

    def __call__(self, frame: Frame) -> Sequence[Detection]:
        """The given things that are seen in a frame."""
        if frame.index in self.blind_frames:
            return []
        boxes = {number: rle_box(rles[frame.index]) for number, rles in self.masks.items() if frame.index in rles}
        return [
            Detection(box, self.categories.get(number, "thing"), self.confidences.get(number, 1.0))
            for number, box in boxes.items()
            if box is not None
        ]


@dataclass(frozen=True)
class GivenTracker:
    """Follows exactly the things of which it was given masks.

    A prompt shows it the given thing whose mask is most like it in that frame; a prompt that is like none shows it
    nothing, and its mask is empty from then on.

    Attributes:
        masks: any number of the thing -> frame -> mask.
        forgets_after_frames: a thing that is out of sight for more than so many frames on end is never seen again;
            None remembers all.
    """

    masks: GivenMasks
    forgets_after_frames: int | None = None

    def session(self, height: int, width: int) -> _GivenSession:
        """A session that has seen nothing yet."""
        return _GivenSession(self, (height, width))


class _GivenSession:
    """Object id -> given number, and when each was last seen."""

    def __init__(self, tracker: GivenTracker, size: tuple[int, int]) -> None:
        self._tracker, self._size = tracker, size
        self._numbers: dict[int, int | None] = {}
        self._unseen_frames: dict[int, int] = {}
        self._frame = -1

    def advance(self, frame: Frame) -> Mapping[int, MaskArray]:
        """The given masks of all things shown so far."""
        self._frame = frame.index
        return {object_id: self._mask(object_id) for object_id in self._numbers}

    def add(self, prompts: Mapping[int, Prompt]) -> Mapping[int, MaskArray]:
        """Find which of the given things each prompt shows."""
        for object_id, prompt in prompts.items():
            self._numbers[object_id] = self._shown_by(prompt)
            self._unseen_frames[object_id] = 0
        return {object_id: self._mask(object_id) for object_id in prompts}

    def _mask(self, object_id: int) -> MaskArray:
        number, limit = self._numbers[object_id], self._tracker.forgets_after_frames
        rle = None if number is None else self._tracker.masks[number].get(self._frame)
        self._unseen_frames[object_id] = 0 if rle else self._unseen_frames[object_id] + 1
        if limit is not None and self._unseen_frames[object_id] > limit:
            self._numbers[object_id] = None
        return np.zeros(self._size, dtype=bool) if rle is None else decode_mask(rle)

    def _shown_by(self, prompt: Prompt) -> int | None:
        shown = encode_mask(prompt) if isinstance(prompt, np.ndarray) else encode_mask(box_mask(prompt, *self._size))
        seen = [number for number, rles in self._tracker.masks.items() if self._frame in rles]
        if not seen:
            return None
        candidates = [self._tracker.masks[number][self._frame] for number in seen]
        if not isinstance(prompt, np.ndarray):  # a box is compared with boxes
            boxes = [rle_box(rle) or (0.0, 0.0, 0.0, 0.0) for rle in candidates]
            candidates = [encode_mask(box_mask(box, *self._size)) for box in boxes]
        ious = mask_overlaps([shown], candidates)[0][0]
        best = int(ious.argmax())
        return seen[best] if ious[best] > 0 else None
