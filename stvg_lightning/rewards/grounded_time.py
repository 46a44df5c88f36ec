"""The time that shows the answer to a grounded question of choice (TVG-R1: 0.7 accuracy, 0.1 format, 0.2 this)."""

from __future__ import annotations

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import reward
from stvg_lightning.tubes import Truth, span_iou


@reward
def grounded_time(answer: Answer, truth: Truth) -> float | None:
    """IoU of the answered and the true span in seconds, for questions of choice that know a time.

    The released code divides by the hull of both spans, which is their union wherever they overlap, and both are 0
    elsewhere.

    Returns:
        IoU in [0, 1]; 0 where no span could be read; None for other tasks, and where no time is known.
    """
    if truth.task != "choice" or truth.span_seconds is None:
        return None
    return 0.0 if answer.span_seconds is None else span_iou(answer.span_seconds, truth.span_seconds)
