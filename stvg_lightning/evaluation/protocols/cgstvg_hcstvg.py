"""CG-STVG's evaluator of HC-STVG, which TA-STVG uses too.

It keeps the true span with its last frame included and then computes as if it were left out: the true span is one
frame short, a perfect prediction reaches (n - 1) / n, and one that ends a frame early reaches 1. vIoU counts all
frames, over the hull; gt_vIoU is the mean over all true boxes, the last one included. Recall counts values above the
threshold. Two videos are left out by name, and a frame without a predicted box adds 0. (github.com/HengLan/CGSTVG,
datasets/evaluation/hcstvg_eval.py)
"""

from __future__ import annotations

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.overlap import compare_tubes
from stvg_lightning.evaluation.protocols._cgstvg import METRICS, scored
from stvg_lightning.evaluation.protocols.protocol import Row

__all__ = ["METRICS", "TASKS", "score"]

TASKS = ("stvg",)
LEFT_OUT = ("10__Gvp-cj3bmIY", "1_aMYcLyh9OhU")


def score(case: Case) -> Row:
    """tIoU, vIoU and gt_vIoU, with what they are made of; all None for the two videos that are left out."""
    start, end = case.true_frames
    tube = {frame: box for frame, box in case.truth.boxes_xyxy.items() if start <= frame < end}
    row = scored(compare_tubes(case.boxes_xyxy, tube), case.span_frames, (start, end - 1))
    left_out = case.truth.id.startswith(LEFT_OUT)
    return {**row, **dict.fromkeys(("tIoU", "vIoU", "gt_vIoU"))} if left_out else row
