"""The lines of predictions and completions that users write and read; what is wrong is refused by its line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stvg_lightning.tubes.json_values import (
    LARGEST_COUNT,
    check_keys,
    read_frame_span,
    read_optional,
    read_seconds_span,
    read_text,
    read_tube,
)
from stvg_lightning.tubes.jsonl import SPAN_KEYS, masks_by_frame, read_json_lines, read_object_ids, refuse_repeated_id
from stvg_lightning.tubes.masks import Rle
from stvg_lightning.tubes.sample import Truth, Tube
from stvg_lightning.tubes.spans import Span

OBJECT_KEYS = ("boxes_xyxy", "object_id", "object_ids", "masks")
PREDICTION_KEYS = ("id", *SPAN_KEYS, *OBJECT_KEYS, "text")


@dataclass(frozen=True)
class Prediction:
    """What a prediction line says: a span and the object, or a completion's text. What it leaves out is None.

    `span_frames` is half-open, in frames; `span_seconds` in seconds; boxes in pixels of the original frame; `masks` one
    for each frame, of all that is meant.
    """

    id: str
    span_frames: tuple[int, int] | None = None
    span_seconds: Span | None = None
    boxes_xyxy: Tube | None = None
    object_ids: tuple[int, ...] | None = None
    masks: Mapping[int, Rle] | None = None
    text: str | None = None


def prediction_from_json(record: Mapping[str, Any], where: str, truth: Truth | None = None) -> Prediction:
    """The prediction that a line's JSON object stands for.

    A span may be empty (it then overlaps nothing) but not reversed; a null value says that nothing
    was predicted there.

    Args:
        record: the object: `id` with `text`, or with at most one key of `SPAN_KEYS` and one of `OBJECT_KEYS`.
        where: `path:line`, with which every error begins.
        truth: where given, spans and frames are checked against its video; a span in seconds may end up to
            one frame late, for rounding.

    Raises:
        ValueError: an unknown, missing or contradicting key, or a value that is not allowed.
    """
    try:
        check_keys(record, PREDICTION_KEYS, ("id",))
        _check_choice(record)
        num_frames = LARGEST_COUNT if truth is None else truth.num_frames
        latest = float(LARGEST_COUNT) if truth is None else truth.duration_seconds + 1 / truth.fps
        size = None if truth is None else [truth.height, truth.width]
        ids = record.get("object_ids") if record.get("object_id") is None else [record["object_id"]]
        return Prediction(
            id=read_text(record["id"], "id"),
            span_frames=read_optional(
                record, "span_frames", lambda value: read_frame_span(value, num_frames, least_length=0)
            ),
            span_seconds=read_optional(record, "span_seconds", lambda value: read_seconds_span(value, latest)),
            boxes_xyxy=read_optional(record, "boxes_xyxy", lambda value: read_tube(value, "boxes_xyxy", num_frames)),
            object_ids=None if ids is None else read_object_ids(ids),
            masks=read_optional(record, "masks", lambda value: masks_by_frame(value, "masks", num_frames, size)),
            text=read_optional(record, "text", lambda value: read_text(value, "text", may_be_empty=True)),
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def read_predictions(path: Path, truths: Mapping[str, Truth] | None = None) -> list[Prediction]:
    """All predictions of a file, in order; two may not share an id.

    Args:
        path: a file of prediction lines.
        truths: where given (id -> truth), a prediction must be of one of these ids and fit its video.
    """

    predictions, first_seen = [], dict[str, str]()
    for where, record in read_json_lines(path):
        identity = record.get("id")
        known = None if truths is None or not isinstance(identity, str) else truths.get(identity)
        predictions.append(prediction_from_json(record, where, known))
        refuse_repeated_id(predictions[-1].id, where, first_seen)
        if truths is not None and known is None:
            raise ValueError(f"{where}: id {identity!r} is not among the {len(truths)} truths")
    return predictions


@dataclass(frozen=True)
class Completion:
    """What a model wrote as an answer to a question, and the boxes that a spatial discriminator found for it."""

    id: str
    text: str
    boxes_xyxy: Tube | None = None


def read_completions(path: Path, truths: Mapping[str, Truth]) -> list[Completion]:
    """Every line `{"id", "text"}`, with or without `boxes_xyxy`, in order; lines that share an id are a group.

    Args:
        path: a file of completion lines.
        truths: id -> truth; a completion must be of one of these ids, and its boxes lie in its video.
    """
    return [_read_completion(record, where, truths) for where, record in read_json_lines(path)]


def _read_completion(record: Mapping[str, Any], where: str, truths: Mapping[str, Truth]) -> Completion:
    try:
        check_keys(record, ("id", "text", "boxes_xyxy"), ("id", "text"))
        truth = truths.get(read_text(record["id"], "id"))
        if truth is None:
            raise ValueError(f"id {record['id']!r} is not among the {len(truths)} truths")
        return Completion(
            truth.id,
            read_text(record["text"], "text", may_be_empty=True),
            read_optional(record, "boxes_xyxy", lambda value: read_tube(value, "boxes_xyxy", truth.num_frames)),
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _check_choice(record: Mapping[str, Any]) -> None:
    """A prediction says each thing once: by text, or by at most one span and one object."""
    for group in (("text", *SPAN_KEYS), ("text", *OBJECT_KEYS)):
        given = [key for key in group if key in record]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} stand together: only one of {', '.join(group)} is allowed")
    if len(record) == 1:
        raise ValueError(f"the prediction says nothing: one of {', '.join(PREDICTION_KEYS[1:])} is missing")
