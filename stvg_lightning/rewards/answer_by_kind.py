"""Whether the answer is right, by the kind of question: letters, numbers, times and boxes (Video-STR; TVG-R1's QA)."""

from __future__ import annotations

from stvg_lightning.answers import Answer
from stvg_lightning.answers.questions import chosen_letter, relative_accuracy, stated_number
from stvg_lightning.rewards.base import reward
from stvg_lightning.tubes import Truth, span_iou
from stvg_lightning.tubes.boxes import tube_ious

ACCURACY_TASKS = ("choice", "numeric", "temporal", "spatial")
"""The tasks of questions whose answers `answer_accuracy` judges."""


def answer_accuracy(answer: Answer, truth: Truth) -> float:
    """How right an answer is, in [0, 1].

    `choice`: 1 where the letter is right. `numeric`: mean relative accuracy. `temporal`: IoU of both spans. `spatial`:
    mean box IoU over the true boxes, of the answer's own boxes or the answered object's track. What could not be read
    is 0.

    Raises:
        ValueError: a truth of another task, or without what its task compares with.
    """
    if truth.task == "choice" and isinstance(truth.answer, str):
        return float(chosen_letter(answer.reply) == truth.answer)
    if truth.task == "numeric" and isinstance(truth.answer, float):
        number = stated_number(answer.reply)
        return 0.0 if number is None else relative_accuracy(number, truth.answer)
    if truth.task == "temporal" and truth.span_seconds is not None:
        return 0.0 if answer.span_seconds is None else span_iou(answer.span_seconds, truth.span_seconds)
    if truth.task == "spatial" and truth.boxes_xyxy:
        boxes = answer.boxes_xyxy
        if boxes is None and len(answer.object_ids) == 1:
            boxes = truth.tracks.get(answer.object_ids[0], {})
        return 0.0 if not boxes else float(tube_ious(boxes, truth.boxes_xyxy, sorted(truth.boxes_xyxy)).mean())
    raise ValueError(
        f"truth {truth.id!r} of task {truth.task!r} has no letter, number, time or place to be right about"
    )


@reward
def answer_by_kind(answer: Answer, truth: Truth) -> float:
    """`answer_accuracy` as a term."""
    return answer_accuracy(answer, truth)
