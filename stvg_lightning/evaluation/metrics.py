"""The canonical scores, each written once: of spans, tubes, choices and numbers. Spans are half-open frame ranges."""

from __future__ import annotations

from collections.abc import Sequence

from stvg_lightning.evaluation.overlap import FrameSpan, TubeOverlap, shared_span, union_size
from stvg_lightning.tubes import span_iou


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


def spatial_iou(overlap: TubeOverlap, predicted_frames: FrameSpan, true_frames: FrameSpan) -> float:
    """sIoU: mean box IoU over the frames in both spans that have a true box.

    Args:
        overlap: both tubes compared; a frame without a predicted box scores 0.
        predicted_frames: `[start, end)`.
        true_frames: `[start, end)`.

    Returns:
        Mean IoU in [0, 1]; 0 where there is no such frame. One good frame is enough for 1: read it
        beside tIoU, or read vIoU.

    Example:
        >>> from stvg_lightning.evaluation import compare_tubes
        >>> spatial_iou(compare_tubes({0: (0.0, 0.0, 2.0, 2.0)}, {0: (0.0, 0.0, 2.0, 1.0)}), (0, 1), (0, 4))
        0.5
    """
    both = shared_span(predicted_frames, true_frames)
    num_true = overlap.num_true(both)
    return overlap.iou_sum(both) / num_true if num_true else 0.0


def video_iou(overlap: TubeOverlap, predicted_frames: FrameSpan, true_frames: FrameSpan) -> float:
    """vIoU: the sum of box IoU over the frames in both spans, over the number of frames in either (TubeDETR).

    Args:
        overlap: both tubes compared; a frame without a box in either scores 0.
        predicted_frames: `[start, end)`.
        true_frames: `[start, end)`.

    Returns:
        vIoU in [0, 1], never above tIoU; 0 where both spans are empty.

    Example:
        >>> from stvg_lightning.evaluation import compare_tubes
        >>> video_iou(compare_tubes({0: (0.0, 0.0, 2.0, 2.0)}, {0: (0.0, 0.0, 2.0, 1.0)}), (0, 1), (0, 4))
        0.125
    """
    num_union = union_size(predicted_frames, true_frames)
    return overlap.iou_sum(shared_span(predicted_frames, true_frames)) / num_union if num_union else 0.0


def ground_truth_video_iou(overlap: TubeOverlap, true_frames: FrameSpan) -> float:
    """gt_vIoU: mean box IoU over the true frames that have a box, whatever time was answered (TubeDETR's `gt_viou`).

    Args:
        overlap: both tubes compared; predicted boxes outside the answered time count too.
        true_frames: `[start, end)`.

    Returns:
        Mean IoU in [0, 1]; 0 where no true frame has a box. It says nothing of time.
    """
    num_true = overlap.num_true(true_frames)
    return overlap.iou_sum(true_frames) / num_true if num_true else 0.0


def volume_iou(overlap: TubeOverlap, predicted_frames: FrameSpan, true_frames: FrameSpan) -> float:
    """The ratio of volumes: shared area summed over time, over united area summed over time (SARL-STG, supplement 1.3).

    Args:
        overlap: both tubes compared.
        predicted_frames: `[start, end)`.
        true_frames: `[start, end)`.

    Returns:
        IoU in [0, 1]; large boxes weigh more than small ones, unlike in vIoU. 0 where both volumes are empty.
    """
    shared, union = overlap.volumes(predicted_frames, true_frames)
    return shared / union if union > 0 else 0.0


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
