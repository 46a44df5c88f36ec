"""From an answer and its truth to a row of scores, and from rows to a table's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stvg_lightning.answers import Answer
from stvg_lightning.answers.questions import chosen_letter, relative_accuracy, stated_number
from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.metrics import (
    ground_truth_video_iou,
    spatial_iou,
    temporal_iou_frames,
    video_iou,
)
from stvg_lightning.evaluation.protocols.protocol import Row, Share, above, labels_of, share
from stvg_lightning.tubes import Truth
from stvg_lightning.tubes.choices import check_choice


def missing_parts(answer: Answer, truth: Truth) -> tuple[str, ...]:
    """What the question asks for and the answer does not tell, one sentence each; nothing where all is there."""
    missing = []
    if truth.task in ("stvg", "spatial") and not answer.object_ids and answer.boxes_xyxy is None:
        missing.append("no object was read")
    if truth.task in ("stvg", "temporal") and answer.span_seconds is None:
        missing.append("no time was read")
    if truth.task == "choice" and chosen_letter(answer.reply) is None:
        missing.append("no letter was read")
    if truth.task == "numeric" and stated_number(answer.reply) is None:
        missing.append("no number was read")
    return tuple(missing)


def score_answer(answer: Answer, truth: Truth) -> Row:
    """Score one answer; see `score_case`."""
    return score_case(Case(answer, truth))


def score_case(case: Case) -> Row:
    """Score one answer.

    Args:
        case: the answer, one that could not be read scores 0, and its truth.

    Returns:
        A row that JSON can hold: `id`, `task`, `labels` where there are any, `tIoU`, `sIoU`, `vIoU`, `gt_vIoU`,
        `object_id_correct`, `correct`, `relative_accuracy`, `predicted_span_seconds`, `true_span_seconds`,
        `predicted_object_ids`, `true_object_id`, `unreadable` (a part that the question asks for is missing),
        `problems`, `text`. A score that the task does not have is None: no tIoU for `spatial`, nor a vIoU where it has
        no span, only tIoU for `temporal`, `correct` alone for `choice` and `relative_accuracy` alone for `numeric`; no
        `object_id_correct` where the answer is in boxes. Where the truth names no object, the one that its boxes vote
        for is right, and none where no object overlaps them.

    Raises:
        ValueError: a truth without the span, the boxes or the answer that its task needs.
    """
    answer, truth = case.answer, case.truth
    _check_truth(truth)
    missing = missing_parts(answer, truth)
    return {
        "id": truth.id,
        "task": truth.task,
        **labels_of(truth),
        **_grounding_scores(case),
        **_question_scores(case),
        "predicted_span_seconds": None if answer.span_seconds is None else list(answer.span_seconds),
        "true_span_seconds": None if truth.span_seconds is None else list(truth.span_seconds),
        "predicted_object_ids": list(answer.object_ids),
        "true_object_id": truth.object_id,
        "unreadable": bool(missing),
        "problems": [*answer.problems, *missing, *_unknown_objects(answer, truth)],
        "text": answer.text,
    }


def _grounding_scores(case: Case) -> Row:
    """The scores of time and place that the task has; the others None."""
    truth = case.truth
    has_place, has_time = truth.task in ("stvg", "spatial"), truth.task in ("stvg", "temporal")
    # Asked at single moments, nothing says in how many frames there should be no box.
    has_tube = has_place and truth.span_frames is not None
    span, true = case.span_frames, case.true_frames
    return {
        "tIoU": temporal_iou_frames(span, true) if has_time else None,
        "sIoU": spatial_iou(case.overlap, span, true) if has_place else None,
        "vIoU": video_iou(case.overlap, span, true) if has_tube else None,
        "gt_vIoU": ground_truth_video_iou(case.overlap, true) if has_place else None,
        "object_id_correct": case.names_the_target if has_place else None,
    }


def _question_scores(case: Case) -> Row:
    """The scores of a choice or a number; None for other tasks."""
    task, reply, true = case.truth.task, case.answer.reply, case.truth.answer
    row: Row = {"correct": None, "relative_accuracy": None}
    if task == "choice":
        letter = chosen_letter(reply)
        row["correct"] = letter is not None and letter == true
    if task == "numeric":
        number = stated_number(reply)
        assert isinstance(true, float), true
        row["relative_accuracy"] = 0.0 if number is None else relative_accuracy(number, true)
    return row


METRICS: Mapping[str, Share] = {
    "m_tIoU": share("tIoU"),
    "m_sIoU": share("sIoU"),
    "m_vIoU": share("vIoU"),
    "vIoU@0.3": above("vIoU", 0.3),
    "vIoU@0.5": above("vIoU", 0.5),
    "m_gt_vIoU": share("gt_vIoU"),
    "tIoU@0.3": above("tIoU", 0.3),
    "tIoU@0.5": above("tIoU", 0.5),
    "tIoU@0.7": above("tIoU", 0.7),
    "id_accuracy": share("object_id_correct"),
    "accuracy": share("correct"),
    "relative_accuracy": share("relative_accuracy"),
    "unreadable": share("unreadable"),
}
"""Name -> the share in [0, 1] that one row adds to the mean, or None where the row has no such score."""


def metric_values(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, float]:
    """Sample id -> the row's share in a metric, for the rows that have it.

    Raises:
        ValueError: a metric that does not exist, or two rows of one id.
    """
    check_choice("metric", metric, METRICS)
    values: dict[str, float | None] = {}
    for row in rows:
        if row["id"] in values:
            raise ValueError(f"two rows have the id {row['id']!r}")
        values[row["id"]] = METRICS[metric](row)
    return {sample_id: value for sample_id, value in values.items() if value is not None}


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The means of `METRICS` over rows, in [0, 1].

    Args:
        rows: from `score_answer`, of distinct samples.

    Returns:
        Metric -> mean over the rows that have it; None where no row has. Recalls count values strictly
        above their threshold.

    Raises:
        ValueError: no rows, or two rows of one id.
    """
    if not rows:
        raise ValueError("there are no rows to summarise")
    means = {}
    for metric in METRICS:
        values = metric_values(rows, metric)
        means[metric] = sum(values.values()) / len(values) if values else None
    return means


def _unknown_objects(answer: Answer, truth: Truth) -> list[str]:
    if truth.task == "temporal":
        return []
    if not truth.tracks:
        return [f"object {i} is answered, and no objects are known" for i in answer.object_ids]
    return [f"object {i} is not in the video" for i in answer.object_ids if i not in truth.tracks]


def _check_truth(truth: Truth) -> None:
    if truth.task in ("stvg", "temporal") and truth.span_frames is None:
        raise ValueError(f"truth {truth.id!r} of task {truth.task!r} has no span_frames")
    if truth.task in ("stvg", "spatial") and not truth.boxes_xyxy:
        raise ValueError(f"truth {truth.id!r} of task {truth.task!r} has no boxes_xyxy")
    if truth.task in ("choice", "numeric") and truth.answer is None:
        raise ValueError(f"truth {truth.id!r} of task {truth.task!r} has no answer")
