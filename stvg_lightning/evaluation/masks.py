"""J and F of segmentation masks, many frames at once (DAVIS 2016, equations 1 and 2; Perazzi et al., CVPR 2016)."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

BOUNDARY_SHARE = 0.008
"""How far apart two boundary pixels may lie to match, as a share of the frame's diagonal."""

FRAMES_AT_ONCE = 16

Masks = NDArray[np.bool_]
Values = NDArray[np.float64]


def region_similarity(predicted: Masks, true: Masks) -> Values:
    """J: the IoU of two masks, in each frame.

    Args:
        predicted: (frames, height, width).
        true: of the same shape.

    Returns:
        IoU in [0, 1] of each frame; 1 where both masks are empty.

    Raises:
        ValueError: two shapes.
    """
    _check_shapes(predicted, true)
    shared = np.count_nonzero(predicted & true, axis=(1, 2))
    union = np.count_nonzero(predicted | true, axis=(1, 2))
    return np.where(union == 0, 1.0, shared / np.maximum(union, 1))


def boundary_accuracy(predicted: Masks, true: Masks) -> Values:
    """F: the harmonic mean of the boundary's precision and recall, in each frame.

    A boundary pixel matches where the other mask has one within `ceil(0.008 * diagonal)` pixels.

    Args:
        predicted: (frames, height, width).
        true: of the same shape.

    Returns:
        F in [0, 1] of each frame; 1 where neither mask has a boundary, 0 where one alone has none.

    Raises:
        ValueError: two shapes.
    """
    _check_shapes(predicted, true)
    portions = range(0, len(true), FRAMES_AT_ONCE)
    found = [_boundary_accuracy(predicted[i : i + FRAMES_AT_ONCE], true[i : i + FRAMES_AT_ONCE]) for i in portions]
    return np.concatenate(found) if found else np.zeros(0)


def boundaries(masks: Masks) -> Masks:
    """The boundary pixels of masks (frames, height, width): those that differ from the pixel right, below, or both.

    As in the benchmark's own code, the boundary so lies half a pixel towards the origin. The frame's edge is none.
    """
    edges = np.zeros_like(masks)
    edges[:, :, :-1] |= masks[:, :, :-1] ^ masks[:, :, 1:]
    edges[:, :-1] |= masks[:, :-1] ^ masks[:, 1:]
    edges[:, :-1, :-1] |= masks[:, :-1, :-1] ^ masks[:, 1:, 1:]
    return edges


def _boundary_accuracy(predicted: Masks, true: Masks) -> Values:
    _, height, width = true.shape
    radius = math.ceil(BOUNDARY_SHARE * math.hypot(height, width))
    shown, meant = boundaries(predicted), boundaries(true)
    precision = _matched_share(shown, meant, radius)
    recall = _matched_share(meant, shown, radius)
    # Where one mask alone has no boundary, one of the two shares is 0 and the other 1.
    total = precision + recall
    return np.where(total > 0, 2 * precision * recall / np.where(total > 0, total, 1.0), 0.0)


def _matched_share(edges: Masks, others: Masks, radius: int) -> Values:
    """The share of each frame's boundary pixels that have one of the others within a radius; 1 where there are none."""
    num_frames, height, width = edges.shape
    padded = np.zeros((num_frames, height + 2 * radius, width + 2 * radius), dtype=np.bool_)
    frame_size, row_size = padded.shape[1] * padded.shape[2], padded.shape[2]
    near = padded.reshape(-1)
    places = _flat_places(others, frame_size, row_size, radius)
    for offset in _disk_offsets(radius, row_size):
        near[places + offset] = True
    own = np.nonzero(edges)
    matched = near[own[0] * frame_size + (own[1] + radius) * row_size + own[2] + radius]
    num_own = np.bincount(own[0], minlength=num_frames)
    num_matched = np.bincount(own[0], weights=matched, minlength=num_frames)
    return np.where(num_own == 0, 1.0, num_matched / np.maximum(num_own, 1))


def _flat_places(edges: Masks, frame_size: int, row_size: int, radius: int) -> NDArray[np.int64]:
    """Where the pixels of some masks lie in their padded frames, laid end to end."""
    frames, rows, columns = np.nonzero(edges)
    return frames * frame_size + (rows + radius) * row_size + columns + radius


@cache
def _disk_offsets(radius: int, row_size: int) -> tuple[int, ...]:
    """The pixels within a radius of one, as steps in a flat frame."""
    across = range(-radius, radius + 1)
    return tuple(y * row_size + x for y in across for x in across if x * x + y * y <= radius * radius)


def _check_shapes(predicted: Masks, true: Masks) -> None:
    if predicted.shape != true.shape or true.ndim != 3:
        raise ValueError(f"masks must both be (frames, height, width), and are {predicted.shape} and {true.shape}")
