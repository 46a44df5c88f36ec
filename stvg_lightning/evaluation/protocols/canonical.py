"""The scores of this package: frames count from 0, ends are left out, a part that is missing counts 0.

tIoU, sIoU and vIoU as the README defines them; gt_vIoU is the mean IoU over all true frames whatever time was
answered. Recalls count values above the threshold. A choice is right where its letter is; a number is scored by mean
relative accuracy.
"""

from __future__ import annotations

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.protocols.protocol import Row
from stvg_lightning.evaluation.scoring import METRICS, score_case
from stvg_lightning.tubes.sample import TASKS

__all__ = ["METRICS", "TASKS", "score"]


def score(case: Case) -> Row:
    """The row of `score_answer`."""
    return score_case(case)
