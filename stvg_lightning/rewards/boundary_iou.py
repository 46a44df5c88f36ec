"""Time-R1's temporal reward with a penalty on both ends (github.com/xiaomi-research/time-r1, main.py, `iou_v2`)."""

from __future__ import annotations

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import reward
from stvg_lightning.rewards.temporal_iou import asked_span
from stvg_lightning.tubes import Truth, span_iou


@reward
def boundary_iou(answer: Answer, truth: Truth) -> float | None:
    """`IoU * (1 - |s - s'| / D) * (1 - |e - e'| / D)`: s and e are the ends of both spans, D the video's length.

    All in seconds. An end that is off by more than the video's length counts as off by all of it; where both spans
    are empty the released code takes the last sample's value, and this term 0.

    Returns:
        In [0, 1]; 0 where no span could be read; None for tasks that ask for no time.

    Raises:
        ValueError: a truth of such a task without a span.
    """
    true = asked_span(truth)
    if true is None:
        return None
    if answer.span_seconds is None:
        return 0.0
    overlap = span_iou(answer.span_seconds, true)
    for answered, meant in zip(answer.span_seconds, true):
        overlap *= max(0.0, 1 - abs(answered - meant) / truth.duration_seconds)
    return overlap
