"""Axis-aligned boxes `x1, y1, x2, y2`: continuous coordinates, so width is `x2 - x1` without a +1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Box = tuple[float, float, float, float]


def box_areas(boxes_xyxy: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch"]:
    """Areas of boxes in squared pixels; a reversed box has area 0."""
    width_height = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).clamp(min=0)
    return width_height[..., 0] * width_height[..., 1]


def box_intersections(
    first_xyxy: Float[Tensor, "*batch 4"], second_xyxy: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch"]:
    """Shared area of each pair of boxes (`first[i]` with `second[i]`), in squared pixels."""
    top_left = torch.maximum(first_xyxy[..., :2], second_xyxy[..., :2])
    bottom_right = torch.minimum(first_xyxy[..., 2:], second_xyxy[..., 2:])
    return box_areas(torch.cat([top_left, bottom_right], dim=-1))


def paired_box_iou(
    first_xyxy: Float[Tensor, "*batch 4"], second_xyxy: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch"]:
    """IoU of each pair of boxes (`first[i]` with `second[i]`).

    Args:
        first_xyxy: boxes in pixels, or in any unit both arguments share.
        second_xyxy: boxes of the same shape.

    Returns:
        IoU in [0, 1]; 0 where the union is empty.

    Example:
        >>> paired_box_iou(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 5, 15, 15]]))
        tensor([0.1429])
    """
    shared, union = _shared_and_union(first_xyxy, second_xyxy)
    return _quotient(shared, union)


def paired_box_giou(
    first_xyxy: Float[Tensor, "*batch 4"], second_xyxy: Float[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch"]:
    """Generalised IoU of each pair of boxes (arXiv 1902.09630): IoU less the share of the hull that neither covers.

    Args:
        first_xyxy: boxes in pixels, or in any unit both arguments share.
        second_xyxy: boxes of the same shape.

    Returns:
        GIoU in [-1, 1]; -1 where the hull of both has no area.

    Example:
        >>> paired_box_giou(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[3.0, 0, 4, 1]]))
        tensor([-0.5000])
    """
    shared, union = _shared_and_union(first_xyxy, second_xyxy)
    top_left = torch.minimum(first_xyxy[..., :2], second_xyxy[..., :2])
    bottom_right = torch.maximum(first_xyxy[..., 2:], second_xyxy[..., 2:])
    hull = box_areas(torch.cat([top_left, bottom_right], dim=-1))
    return _quotient(shared, union) - 1 + _quotient(union, hull)


def box_iou_matrix(
    first_xyxy: Float[Tensor, "first 4"], second_xyxy: Float[Tensor, "second 4"]
) -> Float[Tensor, "first second"]:
    """IoU of every box of the first set with every box of the second."""
    num_first, num_second = len(first_xyxy), len(second_xyxy)
    return paired_box_iou(
        first_xyxy[:, None].expand(num_first, num_second, 4), second_xyxy[None].expand(num_first, num_second, 4)
    )


def box_overlap_matrix(
    first_xyxy: Float[Tensor, "first 4"], second_xyxy: Float[Tensor, "second 4"]
) -> Float[Tensor, "first second"]:
    """Shared area as a share of the smaller box, of every box of the first set with every box of the second.

    Example:
        >>> box_overlap_matrix(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 9, 9], [0.0, 0, 9, 9]]))
        tensor([[0.5000, 1.0000]])
    """
    pairs = len(first_xyxy), len(second_xyxy), 4
    first, second = first_xyxy[:, None].expand(pairs), second_xyxy[None].expand(pairs)
    return _quotient(box_intersections(first, second), torch.minimum(box_areas(first), box_areas(second)))


def tube_ious(
    predicted_xyxy: Mapping[int, Box], true_xyxy: Mapping[int, Box], frames: Sequence[int]
) -> Float[Tensor, " frames"]:
    """IoU of two tubes in each of some frames; 0 in a frame where either has no box.

    Args:
        predicted_xyxy: frame -> box in pixels.
        true_xyxy: frame -> box in pixels.
        frames: frame numbers, in any order.

    Returns:
        IoU in [0, 1] for each frame, in double precision.

    Example:
        >>> tube_ious({0: (0.0, 0.0, 2.0, 2.0)}, {0: (0.0, 0.0, 2.0, 1.0), 1: (0.0, 0.0, 1.0, 1.0)}, (0, 1))
        tensor([0.5000, 0.0000], dtype=torch.float64)
    """
    ious = torch.zeros(len(frames), dtype=torch.float64)
    shared = [i for i, frame in enumerate(frames) if frame in predicted_xyxy and frame in true_xyxy]
    if shared:
        predicted = torch.tensor([predicted_xyxy[frames[i]] for i in shared], dtype=torch.float64)
        true = torch.tensor([true_xyxy[frames[i]] for i in shared], dtype=torch.float64)
        ious[shared] = paired_box_iou(predicted, true)
    return ious


def _shared_and_union(
    first_xyxy: Float[Tensor, "*batch 4"], second_xyxy: Float[Tensor, "*batch 4"]
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    shared = box_intersections(first_xyxy, second_xyxy)
    return shared, box_areas(first_xyxy) + box_areas(second_xyxy) - shared


def _quotient(part: Float[Tensor, "*batch"], whole: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Part by whole; 0 where the whole is empty, and the part in it."""
    return part / whole.where(whole > 0, 1.0)
