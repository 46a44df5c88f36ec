"""The continuous spatial reward, an ablation: how well the answered object's boxes fit (STVG-R1, section 4.5)."""

from __future__ import annotations

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import reward
from stvg_lightning.rewards.object_id import TASKS_WITH_OBJECTS
from stvg_lightning.tubes import Truth, span_seconds_to_frames
from stvg_lightning.tubes.boxes import tube_ious


@reward
def continuous_spatial(answer: Answer, truth: Truth) -> float | None:
    """Mean box IoU of the answered object's track with the true boxes, where both spans overlap.

    Frames without a true box are not counted; a counted frame in which the answered object has no box
    scores 0. A spatial question has no answered span: the true one, or else the whole video, is taken.

    Returns:
        Mean IoU in [0, 1]; 0 where the spans share no frame with a true box, or the answer names no
        object or several; None for tasks that ask for no object.

    Raises:
        ValueError: a truth of such a task without boxes, or of task stvg without a span.
    """
    if truth.task not in TASKS_WITH_OBJECTS:
        return None
    if not truth.boxes_xyxy or (truth.task == "stvg" and truth.span_frames is None):
        raise ValueError(f"truth {truth.id!r} of task {truth.task!r} has no boxes_xyxy or no span_frames")
    start, end = truth.span_frames or (0, truth.num_frames)
    if truth.task == "stvg":
        if answer.span_seconds is None:
            return 0.0
        first, last = span_seconds_to_frames(answer.span_seconds, truth.fps, truth.num_frames)
        start, end = max(start, first), min(end, last)
    frames = [frame for frame in range(start, end) if frame in truth.boxes_xyxy]
    if not frames or len(answer.object_ids) != 1:
        return 0.0
    return float(tube_ious(truth.tracks.get(answer.object_ids[0], {}), truth.boxes_xyxy, frames).mean())
