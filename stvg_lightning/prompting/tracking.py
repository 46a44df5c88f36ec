"""What a tracker is: a session that sees the frames of a video one after another and follows what it was shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stvg_lightning.prompting.detections import Frame
from stvg_lightning.tubes import Box

MaskArray = NDArray[np.bool_]
Prompt = Box | MaskArray
"""What shows a thing to a tracker: its box in pixels, or its mask (height, width)."""


@runtime_checkable
class TrackingSession(Protocol):
    """Follows things through frames in the order in which it is given them, which may be backwards in time.

    What it remembers must not grow with the number of frames.
    """

    def advance(self, frame: Frame) -> Mapping[int, MaskArray]:
        """Go on to the next frame: object id -> mask of each thing shown so far, an empty one where it is not seen."""

    def add(self, prompts: Mapping[int, Prompt]) -> Mapping[int, MaskArray]:
        """Show things in the frame that it last went on to: object id -> mask of each thing shown now."""


@runtime_checkable
class Tracker(Protocol):
    """A loaded tracker, which can follow things through any number of videos."""

    def session(self, height: int, width: int) -> TrackingSession:
        """A session for frames of this size in pixels, that has seen nothing yet."""


@runtime_checkable
class TrackerChoice(Protocol):
    """A tracker that is named and not loaded yet, as recipes hold it."""

    def load(self, device: str) -> Tracker:
        """The tracker with its weights on a device, such as `cpu` or `cuda:1`."""
