"""The temporal reward: overlap of the answered and the true span (STVG-R1, equation 4)."""

from __future__ import annotations

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import reward
from stvg_lightning.tubes import Span, Truth, span_iou

TASKS_WITH_TIMES = ("stvg", "temporal")


@reward
def temporal_iou(answer: Answer, truth: Truth) -> float | None:
    """Intersection over union of the answered and the true span in seconds (STVG-R1, equation 4).

    Returns:
        IoU in [0, 1]; 0 where no span could be read; None for tasks that ask for no time.

    Raises:
        ValueError: a truth of such a task without a span.
    """
    true = asked_span(truth)
    if true is None:
        return None
    return 0.0 if answer.span_seconds is None else span_iou(answer.span_seconds, true)


def asked_span(truth: Truth) -> Span | None:
    """The true span in seconds, or None where the task asks for no time.

    Raises:
        ValueError: a truth of a task that does, without a span.
    """
    if truth.task not in TASKS_WITH_TIMES:
        return None
    if truth.span_seconds is None:
        raise ValueError(f"truth {truth.id!r} of task {truth.task!r} has no span_frames")
    return truth.span_seconds
