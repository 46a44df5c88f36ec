"""Scores of one grounded video: temporal, spatial and spatio-temporal IoU. Spans are half-open frame ranges."""

from __future__ import annotations

from collections.abc import Sequence

from stvg_lightning.tubes import Tube, span_iou
from stvg_lightning.tubes.boxes import tube_ious

FrameSpan = tuple[int, int]


def temporal_iou_frames(predicted_frames: FrameSpan, true_frames: FrameSpan) -> float:
    """tIoU: frames in both spans over frames in either.

    Args:
        predicted_frames: `[start, end)`; a reversed span counts as empty.
        true_frames: `[start, end)`.

    Returns:
        IoU in [0, 1]; 0 where both are empty.

    Example:
        >>> temporal_iou_frames((100, 200), (150, 300))
        0.25
    """
    (p_start, p_end), (t_start, t_end) = predicted_frames, true_frames
    return span_iou((float(p_start), float(p_end)), (float(t_start), float(t_end)))


def spatial_iou(predicted_xyxy: Tube, true_xyxy: Tube, predicted_frames: FrameSpan, true_frames: FrameSpan) -> float:
    """sIoU: mean box IoU over the frames in both spans that have a true box.

    Args:
        predicted_xyxy: frame -> predicted box in pixels; a frame without one scores 0.
        true_xyxy: frame -> true box in pixels.
        predicted_frames: `[start, end)`.
        true_frames: `[start, end)`.

    Returns:
        Mean IoU in [0, 1]; 0 where there is no such frame. One good frame is enough for 1: read it
        beside tIoU, or read vIoU.

    Example:
        >>> spatial_iou({0: (0.0, 0.0, 2.0, 2.0)}, {0: (0.0, 0.0, 2.0, 1.0)}, (0, 1), (0, 4))
        0.5
    """
    frames = [frame for frame in _shared_frames(predicted_frames, true_frames) if frame in true_xyxy]
    return float(tube_ious(predicted_xyxy, true_xyxy, frames).mean()) if frames else 0.0


def video_iou(predicted_xyxy: Tube, true_xyxy: Tube, predicted_frames: FrameSpan, true_frames: FrameSpan) -> float:
    """vIoU: the sum of box IoU over the frames in both spans, over the number of frames in either (TubeDETR).

    Args:
        predicted_xyxy: frame -> predicted box in pixels; a frame without one scores 0.
        true_xyxy: frame -> true box in pixels; a frame without one scores 0.
        predicted_frames: `[start, end)`.
        true_frames: `[start, end)`.

    Returns:
        vIoU in [0, 1], never above tIoU; 0 where both spans are empty.

    Example:
        >>> video_iou({0: (0.0, 0.0, 2.0, 2.0)}, {0: (0.0, 0.0, 2.0, 1.0)}, (0, 1), (0, 4))
        0.125
    """
    shared = _shared_frames(predicted_frames, true_frames)
    num_union = len(range(*predicted_frames)) + len(range(*true_frames)) - len(shared)
    return float(tube_ious(predicted_xyxy, true_xyxy, shared).sum()) / num_union if num_union else 0.0


def recall_at(values: Sequence[float], threshold: float) -> float:
    """Share of values strictly above a threshold, as TubeDETR and the HC-STVG evaluator count (`>`, not `>=`).

    Raises:
        ValueError: no values.

    Example:
        >>> recall_at([0.3, 0.31, 0.9, 0.0], 0.3)
        0.5
    """
    if len(values) == 0:
        raise ValueError("recall needs at least one value")
    return sum(value > threshold for value in values) / len(values)


def _shared_frames(predicted_frames: FrameSpan, true_frames: FrameSpan) -> range:
    return range(max(predicted_frames[0], true_frames[0]), min(predicted_frames[1], true_frames[1]))
