"""The evaluator of DAVIS 2017's semi-supervised task: J and F without the first and the last frame.

J is the IoU of both masks, F the harmonic mean of the precision and recall of their boundaries, matched within
`ceil(0.008 * diagonal)` pixels; where neither mask shows anything both are 1. Means over the frames of each object,
then over objects; J&F is the mean of both means. (github.com/davisvideochallenge/davis2017-evaluation)
"""

from __future__ import annotations

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.protocols._video_masks import METRICS, TASKS, scored
from stvg_lightning.evaluation.protocols.protocol import Row

__all__ = ["METRICS", "TASKS", "score"]


def score(case: Case) -> Row:
    """J, F and J&F over the frames between the first and the last."""
    return scored(case, range(1, case.truth.num_frames - 1))
