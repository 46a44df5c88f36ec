"""TimeZero's evaluator of temporal grounding (www-Ye/Time-R1).

As Time-R1's, but recall counts values that reach the threshold. A question that divides 0 by 0 raises there and falls
out of the mean; here it scores 0. (github.com/www-Ye/Time-R1, evaluate.py)
"""

from __future__ import annotations

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.protocols._temporal import TASKS, THRESHOLDS, scored
from stvg_lightning.evaluation.protocols.protocol import Row, at_least, recalls, share

__all__ = ["METRICS", "TASKS", "score"]

METRICS = {"m_tIoU": share("tIoU"), **recalls("tIoU", THRESHOLDS, at_least)}


def score(case: Case) -> Row:
    """tIoU, and both spans in seconds."""
    return scored(case)
