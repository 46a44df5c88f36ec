"""What evaluators of temporal grounding share: the IoU of two spans in seconds, over their hull."""

from __future__ import annotations

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.protocols.protocol import Row
from stvg_lightning.tubes import Span

TASKS = ("temporal", "stvg")
THRESHOLDS = (0.3, 0.5, 0.7)


def hull_iou(predicted: Span | None, true: Span) -> float:
    """IoU of two spans over their hull; 0 for no span, one that is reversed, and 0/0.

    Example:
        >>> hull_iou((4.0, 8.0), (6.0, 10.0))
        0.3333333333333333
    """
    if predicted is None:
        return 0.0
    shared = min(predicted[1], true[1]) - max(predicted[0], true[0])
    length = max(predicted[1], true[1]) - min(predicted[0], true[0])
    return shared / length if shared > 0 and length > 0 else 0.0


def scored(case: Case) -> Row:
    """tIoU in seconds: the answer as it was written, the truth as it was annotated, which may end after the video."""
    predicted, true = case.answer.span_seconds, case.true_seconds
    return {
        "tIoU": hull_iou(predicted, true),
        "predicted_span_seconds": None if predicted is None else list(predicted),
        "true_span_seconds": list(true),
    }
