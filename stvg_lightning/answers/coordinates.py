"""What the corners of a written box are counted in, and how many pixels of the original frame one unit is."""

from __future__ import annotations

from typing import Literal

from stvg_lightning.answers.view import Frames

Coordinates = Literal["input", "norm1000", "original"]
"""Pixels of the frames as the model reads them (Qwen2.5-VL), thousandths of their sides (Qwen3-VL, InternVL3), or
pixels of the original video."""


def words_of(coordinates: Coordinates, frames: Frames) -> str:
    """How a model is told what to count corners in."""
    return {
        "input": f"pixels of this video, which is {frames.width} wide and {frames.height} high",
        "norm1000": "thousandths of the video's width and height",
        "original": f"pixels of a video that is {frames.original_width} wide and {frames.original_height} high",
    }[coordinates]


def scales_of(coordinates: Coordinates, frames: Frames) -> tuple[float, float]:
    """Pixels of the original frame in one written unit of x and of y."""
    widths = {"input": frames.width, "norm1000": 1000, "original": frames.original_width}
    heights = {"input": frames.height, "norm1000": 1000, "original": frames.original_height}
    return frames.original_width / widths[coordinates], frames.original_height / heights[coordinates]
