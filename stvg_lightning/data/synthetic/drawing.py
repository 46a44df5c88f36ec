"""Draw a scene of the synthetic world: frames, and the visible mask of every thing in every frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stvg_lightning.data.synthetic.scene import COLORS, Scene, Thing

DIM = 0.3
"""A blinking thing's brightness while it is dark, as a share of its colour."""


def draw_scene(
    scene: Scene, frames_drawn: Sequence[int] | NDArray[np.int64] | None = None
) -> tuple[NDArray[np.uint8], dict[int, NDArray[np.bool_]]]:
    """Draw every frame of a scene, or some.

    Returns:
        Frames (frames, height, width, 3), uint8 RGB, and for each object id its visible mask
        (frames, height, width): what a later thing covers is not part of an earlier one.
    """
    size = scene.settings.frame_size
    drawn = range(scene.num_frames) if frames_drawn is None else frames_drawn
    frames = np.repeat(_background(scene.seed, size)[None], len(drawn), axis=0)
    masks = {thing.object_id: np.zeros((len(drawn), size, size), dtype=bool) for thing in scene.things}
    for thing in scene.things:
        color = np.array(COLORS[thing.color], dtype=np.float32)
        for place, frame in enumerate(drawn):
            rows, columns, inside = _silhouette(thing, frame, size)
            for other in masks.values():
                other[place, rows, columns] &= ~inside
            masks[thing.object_id][place, rows, columns] |= inside
            brightness = 1.0 if thing.lit[frame] else DIM
            frames[place, rows, columns][inside] = (color * brightness).astype(np.uint8)
    return frames, masks


def _background(seed: int, size: int) -> NDArray[np.uint8]:
    """A dull gradient with a little grain, different for every seed."""
    rng = np.random.default_rng([seed, 7])
    corners = rng.uniform(70, 150, size=(2, 2, 1)) + rng.uniform(-12, 12, size=(2, 2, 3))
    ramp = np.linspace(0, 1, size)
    across = corners[0][:, None] * (1 - ramp)[None, :, None] + corners[1][:, None] * ramp[None, :, None]
    plane = across[0][None] * (1 - ramp)[:, None, None] + across[1][None] * ramp[:, None, None]
    return np.clip(plane + rng.normal(0, 3, size=(size, size, 1)), 0, 255).astype(np.uint8)


def _silhouette(thing: Thing, frame: int, size: int) -> tuple[slice, slice, NDArray[np.bool_]]:
    """The window of the frame that holds a thing, and which of its pixels the thing fills."""
    (x, y), radius = thing.centers_xy[frame], thing.radii[frame]
    left, top = max(int(x - radius), 0), max(int(y - radius), 0)
    right, bottom = min(int(x + radius) + 2, size), min(int(y + radius) + 2, size)
    across = (np.arange(left, right) + 0.5 - x)[None] / radius
    down = (np.arange(top, bottom) + 0.5 - y)[:, None] / radius
    return slice(top, bottom), slice(left, right), _fills(thing.shape, across, down)


def _fills(shape: str, across: NDArray[np.float64], down: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether points, in units of the radius from the centre, lie inside a shape."""
    if shape == "circle":
        return across**2 + down**2 <= 1
    if shape == "square":
        return (np.abs(across) <= 0.88) & (np.abs(down) <= 0.88)
    if shape == "triangle":
        return (down <= 0.85) & (np.abs(across) <= (down + 1) / 1.85)
    assert shape == "cross", shape
    arm = 0.42
    return ((np.abs(across) <= arm) & (np.abs(down) <= 1)) | ((np.abs(down) <= arm) & (np.abs(across) <= 1))
