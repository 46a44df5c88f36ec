"""Answers as JSON, so that they can be kept and scored again: what scores need of them, and nothing rounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stvg_lightning.answers.answer import Answer
from stvg_lightning.answers.reading import plain_reply
from stvg_lightning.tubes import Box


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """An answer as a JSON object: text, time, place and problems; the thought stands in the text.

    Example:
        >>> answer_to_json(Answer("a", (1.0, 2.5), object_ids=(3,)))
        {'text': 'a', 'span_seconds': [1.0, 2.5], 'object_ids': [3], 'names_objects': True, 'reply': ''}
    """
    record: dict[str, Any] = {
        "text": answer.text,
        "span_seconds": None if answer.span_seconds is None else list(answer.span_seconds),
        "object_ids": list(answer.object_ids),
        "names_objects": answer.names_objects,
        "reply": answer.reply,
    }
    if answer.boxes_xyxy is not None:
        record["boxes_xyxy"] = {str(frame): list(box) for frame, box in answer.boxes_xyxy.items()}
    if answer.masks is not None:
        record["masks"] = {str(frame): dict(rle) for frame, rle in answer.masks.items()}
    if answer.problems:
        record["problems"] = list(answer.problems)
    return record


def answer_from_json(record: Mapping[str, Any]) -> Answer:
    """The answer of a record that `answer_to_json` made. Old ones have no reply: `<answer>` is, or the text."""
    span, boxes, masks = record["span_seconds"], record.get("boxes_xyxy"), record.get("masks")
    return Answer(
        record["text"],
        span_seconds=None if span is None else (float(span[0]), float(span[1])),
        object_ids=tuple(int(object_id) for object_id in record["object_ids"]),
        boxes_xyxy=None if boxes is None else {int(frame): _box(sides) for frame, sides in boxes.items()},
        problems=tuple(record.get("problems", ())),
        names_objects=record["names_objects"],
        masks=None if masks is None else {int(frame): rle for frame, rle in masks.items()},
        reply=record["reply"] if "reply" in record else plain_reply(record["text"]),
    )


def _box(sides: Sequence[float]) -> Box:
    x1, y1, x2, y2 = map(float, sides)
    return x1, y1, x2, y2
