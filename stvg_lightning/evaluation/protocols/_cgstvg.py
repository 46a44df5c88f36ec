"""What CG-STVG's and TA-STVG's evaluators share: scores over all frames, ends left out."""

from __future__ import annotations

from stvg_lightning.evaluation.metrics import temporal_iou_frames
from stvg_lightning.evaluation.overlap import FrameSpan, TubeOverlap, hull, shared_span, span_size
from stvg_lightning.evaluation.protocols._tubedetr import METRICS
from stvg_lightning.evaluation.protocols.protocol import Row

__all__ = ["METRICS", "scored"]


def scored(overlap: TubeOverlap, predicted: FrameSpan, true: FrameSpan) -> Row:
    """tIoU, vIoU over the hull of both spans, and gt_vIoU over all boxes of the true tube.

    Args:
        overlap: the predicted tube compared with the true one, which may reach beyond the true span.
        predicted: `[start, end)`.
        true: `[start, end)`, as the evaluator has it.
    """
    num_hull, num_true = span_size(hull(predicted, true)), len(overlap.true_frames)
    iou_sum = overlap.iou_sum(shared_span(predicted, true))
    return {
        "tIoU": temporal_iou_frames(predicted, true),
        "vIoU": iou_sum / max(num_hull, 1),
        "gt_vIoU": float(overlap.ious.sum()) / max(num_true, 1),
        "iou_sum": iou_sum,
        "num_hull": num_hull,
        "num_true": num_true,
    }
