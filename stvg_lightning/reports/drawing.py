"""Draw true and predicted tubes into frames, and encode them as a video that browsers play."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stvg_lightning.data.video import encode_mp4
from stvg_lightning.tubes import Box, Clip, Tube

TRUE_COLOR = "#16a34a"
PREDICTED_COLOR = "#e0218a"
NARROWEST_PIXELS, WIDEST_PIXELS = 320, 640
REPORT_CRF = 24
"""x264's quality for drawn videos: box edges stay sharp, and a few seconds take some tens of kB."""


@dataclass(frozen=True)
class TimedTube:
    """Boxes and the frames `[start, end)` during which they count: a box outside the span is not drawn."""

    span_frames: tuple[int, int]
    boxes_xyxy: Tube

    def box_at(self, frame: int) -> Box | None:
        """The box of a frame inside the span, in pixels of the original frame."""
        start, end = self.span_frames
        return self.boxes_xyxy.get(frame) if start <= frame < end else None


def display_scale(width_pixels: int) -> float:
    """How much to enlarge a video so that its boxes can be seen: 320 to 640 pixels wide, by a whole number if small.

    Example:
        >>> display_scale(128), display_scale(480), display_scale(1280)
        (3.0, 1.0, 0.5)
    """
    if width_pixels < NARROWEST_PIXELS:
        return float(math.ceil(NARROWEST_PIXELS / width_pixels))
    return min(1.0, WIDEST_PIXELS / width_pixels)


def tubes_video(
    clip: Clip, true: TimedTube | None, predicted: TimedTube | None, scale: float | None = None
) -> NDArray[np.uint8]:
    """Draw the true tube in green and the predicted one in magenta, each with a small label.

    Args:
        clip: frames at the original size, perhaps with markers, and their numbers in the video.
        true: drawn just outside its edge, so that it stays visible around an equal prediction; None for none.
        predicted: drawn just inside its edge; None for none.
        scale: enlargement of the frames; `display_scale` of their width where None.

    Returns:
        Frames of shape (frames, height * scale, width * scale, 3) with both sides rounded to even numbers.
        A frame outside a tube's span, or without a box, shows nothing of that tube.

    Raises:
        ValueError: a scale that is not above 0.
    """
    scale = display_scale(clip.width) if scale is None else scale
    if not scale > 0:
        raise ValueError(f"scale must be above 0, not {scale}")
    size = max(2, round(clip.width * scale / 2) * 2), max(2, round(clip.height * scale / 2) * 2)
    frames = []
    for picture, frame in zip(clip.frames, clip.frame_indices, strict=True):
        image = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
        if true is not None and (box := true.box_at(frame)) is not None:
            _draw_box(image, box, scale, "true")
        if predicted is not None and (box := predicted.box_at(frame)) is not None:
            _draw_box(image, box, scale, "predicted")
        frames.append(np.asarray(image))
    return np.stack(frames)


def drawn_video(
    clip: Clip, true: TimedTube | None, predicted: TimedTube | None, duration_seconds: float, crf: int = REPORT_CRF
) -> bytes:
    """An mp4 of a clip with both tubes drawn in, at a size that can be read, played in real time.

    Args:
        clip: all frames of a video, or evenly spaced ones of it.
        true: the true tube, or None.
        predicted: the predicted tube, or None.
        duration_seconds: length of the whole video; its frames are spread over it.
        crf: x264's quality, 0 (lossless) to 51.

    Raises:
        ValueError: a duration that is not above 0.
    """
    if not duration_seconds > 0:
        raise ValueError(f"duration_seconds must be above 0, not {duration_seconds}")
    return encode_mp4(tubes_video(clip, true, predicted), len(clip.frames) / duration_seconds, crf)


def line_width(image_width_pixels: int) -> int:
    """Thickness of box edges in pixels on a drawn frame."""
    return max(3, round(image_width_pixels / 110))


def _draw_box(image: Image.Image, box_xyxy: Box, scale: float, label: str) -> None:
    """Draw a box; the edge lies outside it where it is the true one, else inside."""
    color, line = (TRUE_COLOR if label == "true" else PREDICTED_COLOR), line_width(image.width)
    outset = line if label == "true" else 0
    x1, y1 = (max(round(value * scale) - outset, 0) for value in box_xyxy[:2])
    x2 = min(round(box_xyxy[2] * scale) + outset, image.width) - 1
    y2 = min(round(box_xyxy[3] * scale) + outset, image.height) - 1
    # A predicted box may lie outside the frame altogether.
    if x1 > x2 or y1 > y2:
        return
    canvas = ImageDraw.Draw(image)
    canvas.rectangle((x1, y1, x2, y2), outline=color, width=line)
    _draw_label(canvas, image.size, (x1, y1, x2, y2), label, color)


def _draw_label(
    canvas: ImageDraw.ImageDraw, size: tuple[int, int], edges: tuple[int, int, int, int], label: str, color: str
) -> None:
    """A filled tag with the label: above the true box, below the predicted one, so that neither hides the other."""
    font = _font(max(11.0, size[0] / 30))
    left, top, right, bottom = canvas.textbbox((0, 0), label, font=font)
    width, height = math.ceil(right - left) + 6, math.ceil(bottom - top) + 5
    x = min(edges[0], max(size[0] - width, 0))
    y = edges[1] - height if label == "true" else edges[3] + 1
    y = min(max(y, 0), max(size[1] - height, 0))
    canvas.rectangle((x, y, x + width - 1, y + height - 1), fill=color)
    canvas.text((x + 3 - left, y + 2 - top), label, fill="white", font=font)


@lru_cache(maxsize=16)
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
