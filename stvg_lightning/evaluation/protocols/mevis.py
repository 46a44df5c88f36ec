"""MeViS's evaluator: J and F over all frames of an expression.

As DAVIS's, but every frame counts, the target is the union of all objects that the expression means, and means are
over expressions. A missing prediction scores 0; a frame that it leaves out counts as an empty mask, where the original
stops. (github.com/henghuiding/MeViS)
"""

from __future__ import annotations

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.protocols._video_masks import METRICS, TASKS, scored
from stvg_lightning.evaluation.protocols.protocol import Row

__all__ = ["METRICS", "TASKS", "score"]


def score(case: Case) -> Row:
    """J, F and J&F over all frames."""
    return scored(case, range(case.truth.num_frames))
