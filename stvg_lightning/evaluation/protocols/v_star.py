"""V-STaR's evaluator of when and where.

When: the IoU of both spans in seconds over their hull. Where: the mean IoU over the annotated frames, one a second,
whatever time was answered; a frame without a predicted box counts 0, and boxes in other frames cost nothing. AP is
the share of annotated frames whose IoU reaches a threshold, averaged over questions. Recalls count values that reach
the threshold. What: V-STaR lets a language model of 72 billion parameters grade the answer in words, from which it
makes its means over chains; that grade is not reproduced here. (github.com/V-STaR-Bench/V-STaR, eval.py)
"""

from __future__ import annotations

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.protocols._temporal import THRESHOLDS, hull_iou
from stvg_lightning.evaluation.protocols.protocol import Row, at_least, recalls, share

TASKS = ("stvg", "temporal", "spatial")
AP_THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
METRICS = {
    "m_tIoU": share("tIoU"),
    **recalls("tIoU", THRESHOLDS, at_least),
    "m_sIoU": share("sIoU"),
    **{f"AP@{threshold:g}": share(f"AP@{threshold:g}") for threshold in AP_THRESHOLDS},
}


def score(case: Case) -> Row:
    """tIoU, the mean IoU over the annotated frames, and the share of them above each threshold."""
    truth = case.truth
    has_place, num_true = truth.task != "temporal", len(case.overlap.true_frames)
    ious = case.overlap.ious
    precisions = {threshold: float((ious >= threshold).sum()) / max(num_true, 1) for threshold in AP_THRESHOLDS}
    return {
        "tIoU": None if truth.task == "spatial" else hull_iou(case.answer.span_seconds, case.true_seconds),
        "sIoU": float(ious.sum()) / max(num_true, 1) if has_place else None,
        **{f"AP@{threshold:g}": value if has_place else None for threshold, value in precisions.items()},
        "num_annotated": num_true,
    }
