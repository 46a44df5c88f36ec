"""What a detector is, what it finds, and which of its finds are taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from stvg_lightning.tubes import Box, box_iou_matrix
from stvg_lightning.tubes.choices import check_choice

PERSON = "person"
Kinds = Literal["all", "person", "non-person"]
Dtype = Literal["float32", "bfloat16"]
"""Precision of a network's weights."""


@dataclass(frozen=True)
class Frame:
    """One frame of a video: its number from 0, and its picture (height, width, 3), uint8 RGB, at the original size."""

    index: int
    picture: NDArray[np.uint8]


@dataclass(frozen=True)
class Detection:
    """A box that a detector found: in pixels of the original frame, with its category and confidence in [0, 1]."""

    box_xyxy: Box
    category: str
    confidence: float = 1.0


@runtime_checkable
class Detector(Protocol):
    """Finds things in a frame."""

    def __call__(self, frame: Frame) -> Sequence[Detection]:
        """The things in a frame, in any order, of any confidence."""


@runtime_checkable
class DetectorChoice(Protocol):
    """A detector that is named and not loaded yet, as recipes hold it."""

    def load(self, device: str) -> Detector:
        """The detector with its weights on a device, such as `cpu` or `cuda:1`."""


@dataclass(frozen=True)
class DetectionFilter:
    """Which detections are taken.

    Attributes:
        least_confidence: in [0, 1]; "a confidence threshold of 0.25" (STVG-R1, section 4.1).
        kinds: `all`, `person` alone, or all but persons (`target_mode` of the released code; `person` for HC-STVG).
        most_iou: of two boxes in a frame that overlap by more than this, whatever their categories, the less confident
            is left out, so that one thing under two names gets one number; 1 leaves out none. Ours: detectors that
            suppress nothing themselves need it.

    Raises:
        ValueError: a share outside [0, 1], or unknown kinds.
    """

    least_confidence: float = 0.25
    kinds: Kinds = "all"
    most_iou: float = 0.7

    def __post_init__(self) -> None:
        for name in ("least_confidence", "most_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {getattr(self, name)}")
        check_choice("kinds", self.kinds, ("all", "person", "non-person"))

    def __call__(self, detections: Sequence[Detection], height: int, width: int) -> list[Detection]:
        """The detections that are taken, the most confident first, their boxes clipped to the frame.

        Boxes without area inside the frame are left out. Of equally confident ones the order is kept.
        """
        inside = [_clipped(detection, height, width) for detection in detections if self._is_wanted(detection)]
        found = sorted((d for d in inside if d is not None), key=lambda detection: -detection.confidence)
        if not found:
            return []
        boxes = torch.tensor([detection.box_xyxy for detection in found], dtype=torch.float64)
        ious = box_iou_matrix(boxes, boxes)
        kept: list[int] = []
        for place in range(len(found)):
            if all(ious[place, other] <= self.most_iou for other in kept):
                kept.append(place)
        return [found[place] for place in kept]

    def _is_wanted(self, detection: Detection) -> bool:
        is_kind = self.kinds == "all" or (detection.category == PERSON) == (self.kinds == "person")
        return is_kind and detection.confidence >= self.least_confidence


def _clipped(detection: Detection, height: int, width: int) -> Detection | None:
    """The detection with its box inside the frame; None where nothing of it is."""
    x1, y1, x2, y2 = detection.box_xyxy
    box = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if not (box[0] < box[2] and box[1] < box[3]):
        return None
    return Detection(box, detection.category, detection.confidence)
