"""HC-STVG's official evaluator.

It gets tubes as dictionaries of frames, both ends included, and never looks at a span by itself: vIoU is the sum of
IoU over the frames that both dictionaries hold, over the length of the hull of both tubes; tIoU is the number of
these frames over the same length. A hole in a predicted tube so costs tIoU too. Recall counts values above the
threshold. A video without a prediction scores 0 and stays in the mean. (github.com/tzhhhh123/HC-STVG, eval_hcvg.py)
"""

from __future__ import annotations

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.overlap import hull, shared_span, span_size
from stvg_lightning.evaluation.protocols.protocol import Row, recalls, share

TASKS = ("stvg",)
METRICS = {"m_tIoU": share("tIoU"), "m_vIoU": share("vIoU"), **recalls("vIoU", (0.3, 0.5))}


def score(case: Case) -> Row:
    """tIoU and vIoU, with what they are made of."""
    predicted, true = case.span_frames, case.true_frames
    if not span_size(predicted):
        return {"tIoU": 0.0, "vIoU": 0.0, "iou_sum": 0.0, "num_shared": 0, "num_hull": span_size(true)}
    both, num_hull = shared_span(predicted, true), span_size(hull(predicted, true))
    frames = case.overlap.frames
    num_shared = int(((frames >= both[0]) & (frames < both[1])).sum())
    iou_sum = case.overlap.iou_sum(both)
    return {
        "tIoU": num_shared / num_hull,
        "vIoU": iou_sum / num_hull,
        "iou_sum": iou_sum,
        "num_shared": num_shared,
        "num_hull": num_hull,
    }
