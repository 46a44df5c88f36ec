"""Time-R1's evaluator of temporal grounding (xiaomi-research).

tIoU is the intersection of both spans in seconds over their hull, the true span as annotated, even where it ends after
the video. Recall counts values above 0.3, 0.5 and 0.7. An answer without a time scores 0. Where both spans are the
same point, it divides 0 by 0 and the mean becomes NaN; here such a question scores 0. Questions whose video is missing
are left out there; here they count. (github.com/xiaomi-research/time-r1, src/vllm_inference/eval_all.py)
"""

from __future__ import annotations

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.protocols._temporal import TASKS, THRESHOLDS, scored
from stvg_lightning.evaluation.protocols.protocol import Row, above, recalls, share

__all__ = ["METRICS", "TASKS", "score"]

METRICS = {"m_tIoU": share("tIoU"), **recalls("tIoU", THRESHOLDS, above)}


def score(case: Case) -> Row:
    """tIoU, and both spans in seconds."""
    return scored(case)
