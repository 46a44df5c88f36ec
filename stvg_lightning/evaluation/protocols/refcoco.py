"""The usual score of RefCOCO, RefCOCO+ and RefCOCOg: how often the box is right.

An image is a video of one frame. The answer is right where the IoU of its box with the true one is at least 0.5;
an answer without a box counts as wrong, where LLaVA-ST's evaluator leaves it out of the mean. m_IoU is the mean.
"""

from __future__ import annotations

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.protocols.protocol import Row, at_least, share

TASKS = ("spatial",)
METRICS = {"accuracy": at_least("IoU", 0.5), "m_IoU": share("IoU")}


def score(case: Case) -> Row:
    """The IoU in the only frame that has a true box."""
    if len(case.truth.boxes_xyxy) != 1:
        raise ValueError(f"an image has one true box, and this has {len(case.truth.boxes_xyxy)}")
    return {"IoU": float(case.overlap.ious.sum())}
