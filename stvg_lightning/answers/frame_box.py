"""One box in one frame: the second question of a baseline that finds the time first (STVG-R1, section 4.2).

The paper prints no instruction for it: this one is ours. Boxes are read as general models write them, bare or in JSON.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import get_args

from stvg_lightning.answers.coordinates import Coordinates, scales_of, words_of
from stvg_lightning.answers.view import Frames
from stvg_lightning.tubes import Box
from stvg_lightning.tubes.choices import check_choice

_NUMBER = r"\s{0,9}(-?[0-9]{1,9}(?:\.[0-9]{0,9})?)\s{0,9}"
_BOX = re.compile(rf"[\[(]{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}[\])]", re.ASCII)


@dataclass(frozen=True)
class FrameBox:
    """How a model is asked for a box in a single frame.

    Attributes:
        coordinates: what it counts corners in.

    Raises:
        ValueError: unknown coordinates.
    """

    coordinates: Coordinates = "norm1000"

    def __post_init__(self) -> None:
        check_choice("coordinates", self.coordinates, get_args(Coordinates))

    def instruction(self, query: str, frames: Frames) -> str:
        """The question put to the model; its format holds no digits that a model could copy."""
        return "\n".join(
            [
                f'Find what this sentence describes: "{query}"',
                f"Give its bounding box in this format: [x1, y1, x2, y2], corners in "
                f"{words_of(self.coordinates, frames)}.",
            ]
        )

    def read(self, text: str, frames: Frames) -> Box | None:
        """The first box of a text, in pixels of the original frame; None where there is none with an area.

        Args:
            text: the completion.
            frames: what the model was shown, and the size of the original.

        Example:
            >>> frames = Frames((0,), 500, 400, 1000, 800, fps=1.0, num_frames=1)
            >>> FrameBox("input").read('```json [{"bbox_2d": [10, 20, 30, 40], "label": "man"}]```', frames)
            (20.0, 40.0, 60.0, 80.0)
            >>> FrameBox("input").read("There is none.", frames)
        """
        scale_x, scale_y = scales_of(self.coordinates, frames)
        for match in _BOX.finditer(text):
            x1, y1, x2, y2 = (float(number) for number in match.groups())
            if x1 < x2 and y1 < y2:
                return x1 * scale_x, y1 * scale_y, x2 * scale_x, y2 * scale_y
        return None
