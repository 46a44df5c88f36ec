"""Two tubes compared once: the IoU of every frame in which both have a box, ready to be summed over any span."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stvg_lightning.tubes import BoxTube, Tube

FrameSpan = tuple[int, int]
Frames = NDArray[np.int64]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class TubeOverlap:
    """What two tubes share, frame by frame; all frames ascend, areas are in squared pixels.

    Attributes:
        frames: the frames in which both tubes have a box.
        ious: the IoU of both boxes in each of these, in [0, 1]; 0 where the union is empty.
        areas: the area that both boxes share in each of these.
        predicted_frames: all frames of the predicted tube.
        predicted_areas: the area of its box in each.
        true_frames: all frames of the true tube.
        true_areas: the area of its box in each.
    """

    frames: Frames
    ious: Values
    areas: Values
    predicted_frames: Frames
    predicted_areas: Values
    true_frames: Frames
    true_areas: Values

    def iou_sum(self, span: FrameSpan) -> float:
        """The sum of IoU over the frames `[start, end)`; a frame in which either tube has no box adds 0."""
        return float(self.ious[_within(self.frames, span)].sum())

    def iou_sum_at(self, frames: Frames) -> float:
        """The sum of IoU over some frames, each counted once."""
        return float(self.ious[np.isin(self.frames, frames)].sum())

    def num_true(self, span: FrameSpan) -> int:
        """In how many of the frames `[start, end)` the true tube has a box."""
        return len(self.true_frames[_within(self.true_frames, span)])

    def volumes(self, predicted_span: FrameSpan, true_span: FrameSpan) -> tuple[float, float]:
        """The volumes of the intersection and of the union of both tubes, each cut to its own span."""
        predicted = float(self.predicted_areas[_within(self.predicted_frames, predicted_span)].sum())
        true = float(self.true_areas[_within(self.true_frames, true_span)].sum())
        shared = float(self.areas[_within(self.frames, shared_span(predicted_span, true_span))].sum())
        return shared, predicted + true - shared


def compare_tubes(predicted_xyxy: Tube, true_xyxy: Tube) -> TubeOverlap:
    """Compare two tubes frame by frame.

    Args:
        predicted_xyxy: frame -> box in pixels.
        true_xyxy: frame -> box in pixels.

    Example:
        >>> compare_tubes({0: (0.0, 0.0, 2.0, 2.0)}, {0: (0.0, 0.0, 2.0, 1.0), 1: (0.0, 0.0, 1.0, 1.0)}).ious
        array([0.5])
    """
    predicted, true = BoxTube.of(predicted_xyxy), BoxTube.of(true_xyxy)
    frames, in_predicted, in_true = np.intersect1d(
        predicted.frames, true.frames, assume_unique=True, return_indices=True
    )
    predicted_areas, true_areas = _areas(predicted.boxes_xyxy), _areas(true.boxes_xyxy)
    areas = _areas(_shared_boxes(predicted.boxes_xyxy[in_predicted], true.boxes_xyxy[in_true]))
    unions = predicted_areas[in_predicted] + true_areas[in_true] - areas
    ious = areas / np.where(unions > 0, unions, 1.0)
    return TubeOverlap(frames, ious, areas, predicted.frames, predicted_areas, true.frames, true_areas)


def shared_span(first: FrameSpan, second: FrameSpan) -> FrameSpan:
    """The frames in both spans; `end <= start` where there are none.

    Example:
        >>> shared_span((0, 5), (3, 9))
        (3, 5)
    """
    return max(first[0], second[0]), min(first[1], second[1])


def hull(first: FrameSpan, second: FrameSpan) -> FrameSpan:
    """From the earlier start to the later end."""
    return min(first[0], second[0]), max(first[1], second[1])


def span_size(span: FrameSpan) -> int:
    """The number of frames in a span; 0 where it is reversed."""
    return max(0, span[1] - span[0])


def union_size(first: FrameSpan, second: FrameSpan) -> int:
    """The number of frames in either of two spans."""
    return span_size(first) + span_size(second) - span_size(shared_span(first, second))


def _areas(boxes_xyxy: Values) -> Values:
    """Areas of boxes (boxes, 4), as `tubes.box_areas`: an operation of numpy is over before one of torch begins."""
    sides = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0.0)
    return sides[:, 0] * sides[:, 1]


def _shared_boxes(first_xyxy: Values, second_xyxy: Values) -> Values:
    """What each pair of boxes shares; reversed where it is nothing."""
    top_left = np.maximum(first_xyxy[:, :2], second_xyxy[:, :2])
    return np.concatenate([top_left, np.minimum(first_xyxy[:, 2:], second_xyxy[:, 2:])], axis=1)


def _within(frames: Frames, span: FrameSpan) -> slice:
    """The part of some ascending frames that lies in `[start, end)`."""
    first, last = np.searchsorted(frames, span)
    return slice(first, last)
