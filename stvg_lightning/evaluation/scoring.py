"""From an answer and its truth to a row of scores, and from rows to a table's figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stvg_lightning.answers import Answer
from stvg_lightning.evaluation.metrics import (
    FrameSpan,
    recall_at,
    spatial_iou,
    temporal_iou_frames,
    video_iou,
)
from stvg_lightning.tubes import Box, Truth, Tube, span_seconds_to_frames
from stvg_lightning.tubes.choices import check_choice

Row = dict[str, Any]

GROUNDING_TASKS = ("stvg", "spatial", "temporal")


def predicted_tube(answer: Answer, truth: Truth) -> tuple[FrameSpan, dict[int, Box]]:
    """The frames and boxes an answer stands for.

    The span is the answered one, in frames; for a spatial question, which asks for no time, the true span
    or else the whole video. The boxes are the answer's own, or those of the answered object's track;
    several objects answer with the box that encloses theirs.

    Args:
        answer: as read.
        truth: gives the frame rate, the objects' tracks and the task.

    Returns:
        `[start, end)`, empty where no span was read, and frame -> box for the frames of it that have one.

    Example:
        >>> truth = Truth("a", "a man", 2.0, 8, 9, 9, tracks={3: {f: (0.0, 0.0, 1.0, 1.0) for f in range(3)}})
        >>> predicted_tube(Answer("", span_seconds=(1.0, 3.0), object_ids=(3,)), truth)
        ((2, 6), {2: (0.0, 0.0, 1.0, 1.0)})
    """
    if truth.task == "spatial":
        span = truth.span_frames or (0, truth.num_frames)
    elif answer.span_seconds is None:
        span = 0, 0
    else:
        span = span_seconds_to_frames(answer.span_seconds, truth.fps, truth.num_frames)
    if truth.task == "temporal":
        return span, {}
    boxes = answer.boxes_xyxy
    if boxes is None:
        boxes = _enclosing_boxes([truth.tracks.get(object_id, {}) for object_id in answer.object_ids])
    return span, {frame: boxes[frame] for frame in range(*span) if frame in boxes}


def missing_parts(answer: Answer, truth: Truth) -> tuple[str, ...]:
    """What the question asks for and the answer does not tell, one sentence each; nothing where all is there."""
    missing = []
    if truth.task in ("stvg", "spatial") and not answer.object_ids and answer.boxes_xyxy is None:
        missing.append("no object was read")
    if truth.task in ("stvg", "temporal") and answer.span_seconds is None:
        missing.append("no time was read")
    return tuple(missing)


def score_answer(answer: Answer, truth: Truth) -> Row:
    """Score one answer.

    Args:
        answer: as read; one that could not be read scores 0.
        truth: of task `stvg`, `spatial` or `temporal`.

    Returns:
        A row that JSON can hold: `id`, `task`, `tIoU`, `sIoU`, `vIoU`, `object_id_correct`,
        `predicted_span_seconds`, `true_span_seconds`, `predicted_object_ids`, `true_object_id`,
        `unreadable` (a part that the question asks for is missing), `problems`, `text`. A score that the
        task does not have is None: no tIoU for `spatial`, only tIoU for `temporal`, no
        `object_id_correct` where the true id is not known, or the answer is in boxes.

    Raises:
        ValueError: another task, or a truth without the span or the boxes that its task needs.
    """
    _check_truth(truth)
    span, boxes = predicted_tube(answer, truth)
    true_span = truth.span_frames or (0, truth.num_frames)
    has_boxes, has_times = truth.task != "temporal", truth.task != "spatial"
    correct = None
    if has_boxes and truth.object_id is not None and answer.names_objects:
        correct = answer.object_ids == (truth.object_id,)
    missing = missing_parts(answer, truth)
    return {
        "id": truth.id,
        "task": truth.task,
        "tIoU": temporal_iou_frames(span, true_span) if has_times else None,
        "sIoU": spatial_iou(boxes, truth.boxes_xyxy, span, true_span) if has_boxes else None,
        "vIoU": video_iou(boxes, truth.boxes_xyxy, span, true_span) if has_boxes else None,
        "object_id_correct": correct,
        "predicted_span_seconds": None if answer.span_seconds is None else list(answer.span_seconds),
        "true_span_seconds": None if truth.span_seconds is None else list(truth.span_seconds),
        "predicted_object_ids": list(answer.object_ids),
        "true_object_id": truth.object_id,
        "unreadable": bool(missing),
        "problems": [*answer.problems, *missing, *_unknown_objects(answer, truth)],
        "text": answer.text,
    }


def _column(name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda row: None if row[name] is None else float(row[name])


def _above(name: str, threshold: float) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda row: None if row[name] is None else recall_at([row[name]], threshold)


METRICS: Mapping[str, Callable[[Mapping[str, Any]], float | None]] = {
    "m_tIoU": _column("tIoU"),
    "m_sIoU": _column("sIoU"),
    "m_vIoU": _column("vIoU"),
    "vIoU@0.3": _above("vIoU", 0.3),
    "vIoU@0.5": _above("vIoU", 0.5),
    "tIoU@0.3": _above("tIoU", 0.3),
    "tIoU@0.5": _above("tIoU", 0.5),
    "id_accuracy": _column("object_id_correct"),
    "unreadable": _column("unreadable"),
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


def _enclosing_boxes(tracks: Sequence[Tube]) -> dict[int, Box]:
    """Frame -> the tightest box around all boxes that the tracks have in it."""
    boxes: dict[int, Box] = {}
    for track in tracks:
        for frame, box in track.items():
            boxes[frame] = _enclosing_box(boxes[frame], box) if frame in boxes else box
    return boxes


def _enclosing_box(first: Box, second: Box) -> Box:
    return min(first[0], second[0]), min(first[1], second[1]), max(first[2], second[2]), max(first[3], second[3])


def _unknown_objects(answer: Answer, truth: Truth) -> list[str]:
    if truth.task == "temporal" or not truth.tracks:
        return []
    return [f"object {i} is not in the video" for i in answer.object_ids if i not in truth.tracks]


def _check_truth(truth: Truth) -> None:
    if truth.task not in GROUNDING_TASKS:
        raise ValueError(f"truth {truth.id!r}: scored are {', '.join(GROUNDING_TASKS)}, not {truth.task!r}")
    if truth.task != "spatial" and truth.span_frames is None:
        raise ValueError(f"truth {truth.id!r} of task {truth.task!r} has no span_frames")
    if truth.task != "temporal" and not truth.boxes_xyxy:
        raise ValueError(f"truth {truth.id!r} of task {truth.task!r} has no boxes_xyxy")
