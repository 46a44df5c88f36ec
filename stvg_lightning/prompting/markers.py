"""Object-centric visual prompts: each object's label at its centre, drawn as a clip is loaded (STVG-R1, 3.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from stvg_lightning.answers.labels import MARKER_KINDS, MarkerKind, label_of
from stvg_lightning.prompting.tracks import MaskTrack
from stvg_lightning.tubes import Box, Clip, Rle, Sample, Tube, box_mask, encode_mask, mask_area, rle_box, rle_center
from stvg_lightning.tubes.choices import check_choice

REFERENCE_SIDE = 336
"""Font sizes are given for a frame whose longer side has this many pixels, as the released code scales them."""


@dataclass(frozen=True)
class Markers:
    """How object ids are drawn. The defaults are the paper's (STVG-R1, sections 4.5 and 4.6).

    Attributes:
        kind: `number`, `upper`, `lower`, or `mix` (numbers to 9, then letters); Table 5.
        size: font size in pixels on a frame whose longer side is 336 pixels, scaled with the frame.
        color: a CSS colour name or `#rrggbb`.
        background: colour of a disc behind the label, or None for none.
        theta: masks smaller than this share of the largest mask are not marked; 0 marks all; Table 6.
        theta_within: the largest mask is sought among masks of the same `category` (the paper) or in
            the whole `frame` (the released code).
        draw: False leaves the video clean (the paper's "without visual prompts").
    """

    kind: MarkerKind = "number"
    size: float = 20.0
    color: str = "red"
    background: str | None = None
    theta: float = 1 / 3
    theta_within: Literal["category", "frame"] = "category"
    draw: bool = True

    def __post_init__(self) -> None:
        check_choice("marker kind", self.kind, MARKER_KINDS)
        if not self.size > 0:
            raise ValueError(f"marker size must be above 0, not {self.size}")
        if not 0 <= self.theta <= 1:
            raise ValueError(f"theta must lie in [0, 1], not {self.theta}")
        check_choice("theta_within", self.theta_within, ("category", "frame"))
        for color in (self.color, self.background or "red"):
            ImageColor.getrgb(color)


@dataclass(frozen=True)
class MarkedClip:
    """A clip with labels drawn into it, and the times in seconds at which each object was marked."""

    clip: Clip
    marked_seconds: Mapping[int, tuple[float, ...]]


def draw_markers(clip: Clip, sample: Sample, markers: Markers) -> MarkedClip:
    """Draw every object's label into the frames of a clip.

    Args:
        clip: frames at the original size of the video.
        sample: the masks of its objects, or at least their tracks, per original frame.
        markers: how to draw.

    Returns:
        A new clip, and for each object the times of the frames in which its label was drawn.
    """
    if not markers.draw:
        return MarkedClip(clip, {object_id: () for object_id in sample.truth.tracks})
    frames = np.empty_like(clip.frames)
    marked: dict[int, list[float]] = {object_id: [] for object_id in sample.truth.tracks}
    for place, (frame, seconds) in enumerate(zip(clip.frame_indices, clip.times_seconds, strict=True)):
        centers = _visible_centers(sample, frame, markers)
        frames[place] = _draw_labels(clip.frames[place], centers, markers)
        for object_id in centers:
            marked[object_id].append(seconds)
    marked_clip = Clip(frames, clip.frame_indices, clip.fps)
    return MarkedClip(marked_clip, {object_id: tuple(times) for object_id, times in marked.items()})


def large_enough(areas: Mapping[int, float], categories: Mapping[int, str], markers: Markers) -> set[int]:
    """The objects of one frame that the mask filter keeps (STVG-R1, section 4.6).

    Args:
        areas: object id -> mask area in pixels, in this frame.
        categories: object id -> category; objects without one share a category.
        markers: gives theta and where the largest mask is sought.

    Example:
        >>> sorted(large_enough({1: 90.0, 2: 29.0, 3: 30.0}, {}, Markers(theta=1 / 3)))
        [1, 3]
    """
    largest: dict[str, float] = {}
    group_of = {i: categories.get(i, "") if markers.theta_within == "category" else "" for i in areas}
    for object_id, area in areas.items():
        group = group_of[object_id]
        largest[group] = max(largest.get(group, 0.0), area)
    return {i for i, area in areas.items() if area > 0 and area >= markers.theta * largest[group_of[i]]}


def marked_tubes(tracks: Sequence[MaskTrack], markers: Markers, frames: Iterable[int]) -> dict[int, Tube]:
    """The boxes of things in those of some frames in which the mask filter lets them be marked.

    Args:
        tracks: the things of a video.
        markers: gives theta and where the largest mask is sought.
        frames: frame numbers.

    Returns:
        object id -> frame -> box; a thing that is marked in none of the frames is left out.
    """
    categories = {track.object_id: track.category for track in tracks}
    tubes: dict[int, dict[int, Box]] = {}
    for frame in frames:
        seen = {track.object_id: track.masks[frame] for track in tracks if frame in track.masks}
        areas = {object_id: float(mask_area(rle)) for object_id, rle in seen.items()}
        for object_id in sorted(large_enough(areas, categories, markers)):
            box = rle_box(seen[object_id])
            if box is not None:
                tubes.setdefault(object_id, {})[frame] = box
    return dict(tubes)


def _visible_centers(sample: Sample, frame: int, markers: Markers) -> dict[int, tuple[float, float]]:
    """Object id -> the point in pixels at which its label goes, for the objects marked in a frame."""
    seen = {i: mask for i in sample.truth.tracks if (mask := _mask_in_frame(sample, i, frame)) is not None}
    areas = {object_id: float(mask_area(rle)) for object_id, rle in seen.items()}
    centers = {i: rle_center(seen[i]) for i in sorted(large_enough(areas, sample.categories, markers))}
    return {object_id: center for object_id, center in centers.items() if center is not None}


def _mask_in_frame(sample: Sample, object_id: int, frame: int) -> Rle | None:
    """An object's mask in a frame, or the box of an object that has no masks at all; None where it is not seen."""
    truth, masks = sample.truth, sample.masks.get(object_id)
    if masks:
        return masks.get(frame)
    box = truth.tracks[object_id].get(frame)
    return None if box is None else encode_mask(box_mask(box, truth.height, truth.width))


def _draw_labels(picture: np.ndarray, centers: Mapping[int, tuple[float, float]], markers: Markers) -> np.ndarray:
    image = Image.fromarray(picture)
    canvas = ImageDraw.Draw(image)
    font_size = max(markers.size * max(image.size) / REFERENCE_SIDE, 1.0)
    font = _font(round(font_size, 2))
    for object_id, (x, y) in centers.items():
        label = label_of(object_id, markers.kind)
        if markers.background is not None:
            radius = font_size * (0.3 + 0.2 * len(label))
            canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=markers.background)
        canvas.text((x, y), label, fill=markers.color, font=font, anchor="mm", stroke_width=font_size / 28)
    return np.asarray(image)


@lru_cache(maxsize=64)
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that markers look the same on every machine."""
    return ImageFont.load_default(size)
