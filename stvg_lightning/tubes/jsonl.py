"""The truth lines that users write and read; what is wrong is refused by its line."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stvg_lightning.tubes.json_values import (
    LARGEST_COUNT,
    check_finite,
    check_keys,
    is_integer,
    is_number,
    read_by_frame,
    read_by_object,
    read_frame_span,
    read_integer,
    read_optional,
    read_seconds_span,
    read_text,
    read_tube,
    refuse,
    shortest_number,
    strict_json,
    tube_to_json,
)
from stvg_lightning.tubes.masks import Rle
from stvg_lightning.tubes.sample import TASKS, Truth, Tube
from stvg_lightning.tubes.spans import Span, span_seconds_to_frames

REQUIRED_TRUTH_KEYS = ("id", "query", "fps", "num_frames", "width", "height")
SPAN_KEYS = ("span_frames", "span_seconds")
OPTIONAL_TRUTH_KEYS = (
    "boxes_xyxy",
    "object_id",
    "object_ids",
    "tracks",
    "task",
    "answer",
    "graph",
    "first_frame",
    "labels",
)
TRUTH_KEYS = (*REQUIRED_TRUTH_KEYS, *SPAN_KEYS, *OPTIONAL_TRUTH_KEYS)
EXTRA_KEYS = ("masks", "target_masks", "categories", "thought", "response", "video", "votes")

Masks = Mapping[int, Mapping[int, Rle]]
"""Object id -> frame -> mask."""


@dataclass(frozen=True)
class TruthExtras:
    """What a truth line may say beyond the truth itself when shards are built from it, or masks are scored.

    `video` is a file name relative to the folder of videos, `target_masks` the true mask of all that is meant, frame by
    frame; the others are those of `Sample`.
    """

    masks: Masks = field(default_factory=dict)
    target_masks: Mapping[int, Rle] = field(default_factory=dict)
    categories: Mapping[int, str] = field(default_factory=dict)
    thought: str = ""
    response: str = ""
    video: str | None = None
    votes: Mapping[int, int] = field(default_factory=dict)


def truth_from_json(record: Mapping[str, Any], where: str) -> Truth:
    """The truth that a line's JSON object stands for.

    A line of the tasks `stvg` and `spatial` that names an `object_id` with a track may leave out
    `boxes_xyxy`: they are the track's boxes during the span.

    Args:
        record: the object, with the keys of `TRUTH_KEYS`; an optional key may be null or left out.
        where: `path:line`, with which every error begins.

    Raises:
        ValueError: an unknown or missing key, or a value that is not allowed.

    Example:
        >>> line = {"id": "a", "query": "who runs", "fps": 8, "num_frames": 40, "width": 64, "height": 48}
        >>> truth_from_json(line | {"task": "temporal", "span_frames": [8, 16]}, "truth.jsonl:1").span_seconds
        (1.0, 2.0)
    """
    return complete_truth(parse_truth(record, where)[0], where)


def parse_truth(record: Mapping[str, Any], where: str, extra_keys: Collection[str] = ()) -> tuple[Truth, TruthExtras]:
    """Read a truth line with the extra keys of shard building, value by value.

    Whether the task has all it needs is left to `complete_truth`, so that a caller can first make
    tracks from masks.

    Args:
        record: the line's object.
        where: `path:line`, with which every error begins.
        extra_keys: those of `EXTRA_KEYS` that are allowed.
    """
    assert set(extra_keys) <= set(EXTRA_KEYS), extra_keys
    try:
        check_keys(record, (*TRUTH_KEYS, *(key for key in EXTRA_KEYS if key in extra_keys)), REQUIRED_TRUTH_KEYS)
        truth = _read_truth(record)
        return truth, _read_extras(record, truth)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def complete_truth(truth: Truth, where: str) -> Truth:
    """The truth with the target's boxes taken from its track where they are missing, refused if still incomplete.

    Raises:
        ValueError: the task lacks its span, its boxes or its answer, or the target has no track.
    """
    try:
        if truth.tracks and truth.object_id is not None and truth.object_id not in truth.tracks:
            known = ", ".join(map(str, sorted(truth.tracks)))
            raise ValueError(f"object_id {truth.object_id} has no track: the tracks are of {known}")
        if truth.object_ids and truth.object_id is not None:
            raise ValueError("object_id and object_ids stand together: a sentence means one object or several")
        if truth.task in ("stvg", "temporal") and truth.span_frames is None:
            raise ValueError(f"span_frames is missing: task {truth.task!r} needs it")
        if truth.task in ("stvg", "spatial") and not truth.boxes_xyxy:
            truth = replace(truth, boxes_xyxy=_target_boxes(truth))
        if truth.task == "choice" and not isinstance(truth.answer, str):
            refuse("answer", truth.answer, "a text for task 'choice'")
        if truth.task == "numeric" and not isinstance(truth.answer, float):
            refuse("answer", truth.answer, "a finite number for task 'numeric'")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return truth


def truth_to_json(truth: Truth) -> dict[str, Any]:
    """The JSON object of a truth: what is None or empty is left out, boxes are rounded to 3 decimals.

    Example:
        >>> truth = Truth("a", "who runs", 8.0, 40, 64, 48, (8, 16), task="temporal")
        >>> truth_to_json(truth)["fps"], truth_to_json(truth)["span_frames"], "tracks" in truth_to_json(truth)
        (8, [8, 16], False)
    """
    start, end = truth.span_frames or (0, 0)
    optional: dict[str, Any] = {
        "span_frames": [start, end] if start < end else None,
        "span_seconds": None if truth.annotated_seconds is None else list(truth.annotated_seconds),
        "boxes_xyxy": tube_to_json(truth.boxes_xyxy) or None,
        "object_id": truth.object_id,
        "tracks": {str(key): tube_to_json(tube) for key, tube in sorted(truth.tracks.items())} or None,
        "task": truth.task,
        "answer": truth.answer,
        "graph": truth.graph,
        "object_ids": list(truth.object_ids) or None,
        "first_frame": truth.first_frame or None,
        "labels": dict(truth.labels) or None,
    }
    required = {key: getattr(truth, key) for key in REQUIRED_TRUTH_KEYS} | {"fps": shortest_number(truth.fps)}
    return required | {key: value for key, value in optional.items() if value is not None}


def read_truths(path: Path) -> list[Truth]:
    """All truths of a file, in order; two may not share an id."""
    return [truth for truth, _ in _read_truths(path, ())]


def read_truths_with_masks(path: Path) -> list[tuple[Truth, TruthExtras]]:
    """All truths of a file, in order, with the masks of objects and targets that their lines may hold.

    Raises:
        ValueError: two lines of one id, or a line that is wrong: the message begins with `path:line`.
    """
    return list(_read_truths(path, ("masks", "target_masks")))


def _read_truths(path: Path, extra_keys: Collection[str]) -> Iterator[tuple[Truth, TruthExtras]]:
    first_seen = dict[str, str]()
    for where, record in read_json_lines(path):
        truth, extras = parse_truth(record, where, extra_keys)
        refuse_repeated_id(truth.id, where, first_seen)
        yield complete_truth(truth, where), extras


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """`("path:line", object)` of each line that is not blank.

    Raises:
        ValueError: not UTF-8, not strict JSON, not an object, or no line at all.
    """
    num_objects = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if not text.strip():
                    continue
                record = strict_json(text)
                if not isinstance(record, dict):
                    refuse("the line", record, "a JSON object")
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            num_objects += 1
            yield where, record
    if not num_objects:
        raise ValueError(f"{path}:1: the file is empty: at least one JSON object is needed")


def refuse_repeated_id(identity: str, where: str, first_seen: dict[str, str]) -> None:
    """Note in `first_seen` (id -> where) that an id stands here, and refuse it if it stood elsewhere before."""
    if identity in first_seen:
        raise ValueError(f"{where}: id {identity!r} stands already at {first_seen[identity]}: ids must differ")
    first_seen[identity] = where


def _read_truth(record: Mapping[str, Any]) -> Truth:
    num_frames = read_integer(record["num_frames"], "num_frames")
    task = read_optional(record, "task", lambda value: read_text(value, "task")) or "stvg"
    if task not in TASKS:
        refuse("task", task, f"one of {', '.join(TASKS)}")
    if not is_number(record["fps"]) or not record["fps"] > 0:
        refuse("fps", record["fps"], "a finite number above 0")
    graph = record.get("graph")
    check_finite(graph, "graph")
    fps = float(record["fps"])
    seconds = read_optional(record, "span_seconds", lambda value: _annotated_span(value, num_frames / fps))
    frames = read_optional(record, "span_frames", lambda value: read_frame_span(value, num_frames, least_length=1))
    if seconds is not None:
        near = _frames_of(seconds, fps, num_frames)
        if frames is not None and any(abs(given - told) > 1 for given, told in zip(frames, near)):
            refuse("span_frames", list(frames), f"that of span_seconds, {list(near)}, to a frame")
        frames = frames or near
    return Truth(
        id=read_text(record["id"], "id"),
        query=read_text(record["query"], "query"),
        fps=fps,
        num_frames=num_frames,
        width=read_integer(record["width"], "width"),
        height=read_integer(record["height"], "height"),
        span_frames=frames,
        boxes_xyxy=read_optional(record, "boxes_xyxy", lambda value: read_tube(value, "boxes_xyxy", num_frames)) or {},
        object_id=read_optional(record, "object_id", lambda value: read_integer(value, "object_id")),
        tracks=read_by_object(record, "tracks", lambda value, name: read_tube(value, name, num_frames)),
        task=task,  # type: ignore[arg-type]
        answer=read_optional(record, "answer", _answer),
        graph=graph,
        annotated_seconds=seconds,
        object_ids=read_optional(record, "object_ids", _several_objects) or (),
        first_frame=read_optional(record, "first_frame", lambda value: read_integer(value, "first_frame", 0)) or 0,
        labels=read_optional(record, "labels", _labels) or {},
    )


def _annotated_span(value: Any, duration_seconds: float) -> Span:
    """A span that begins in the video; it may end after it, as one in eight of Charades-STA does, or be empty."""
    start, end = read_seconds_span(value, float(LARGEST_COUNT))
    if start > duration_seconds:
        refuse("span_seconds", value, f"a span that begins before the video ends, after {duration_seconds:g} seconds")
    return start, end


def _frames_of(span_seconds: Span, fps: float, num_frames: int) -> tuple[int, int]:
    """The frames of a span; none, in its place, where it is empty."""
    start, end = span_seconds
    if start < min(end, num_frames / fps):
        return span_seconds_to_frames(span_seconds, fps, num_frames)
    place = min(int(start * fps + 1e-6), num_frames)
    return place, place


def _read_extras(record: Mapping[str, Any], truth: Truth) -> TruthExtras:
    return TruthExtras(
        masks=masks_from_json(record.get("masks"), truth),
        target_masks=read_optional(
            record,
            "target_masks",
            lambda value: masks_by_frame(value, "target_masks", truth.num_frames, [truth.height, truth.width]),
        )
        or {},
        categories=read_by_object(record, "categories", read_text),
        thought=read_optional(record, "thought", lambda value: read_text(value, "thought", may_be_empty=True)) or "",
        response=read_optional(record, "response", lambda value: read_text(value, "response")) or "",
        video=read_optional(record, "video", lambda value: read_text(value, "video")),
        votes=read_by_object(record, "votes", lambda value, name: read_integer(value, name)),
    )


def masks_from_json(value: Any, truth: Truth) -> Masks:
    """Masks from `{"<object id>": {"<frame>": {"size": [height, width], "counts": text}}}`, none from null.

    Sizes and frames are checked against the truth's video; whether the counts decode is not.
    """

    def read_rles(frames: Any, name: str) -> dict[int, Rle]:
        return masks_by_frame(frames, name, truth.num_frames, [truth.height, truth.width])

    return read_by_object({"masks": value}, "masks", read_rles)


def _target_boxes(truth: Truth) -> Tube:
    start, end = truth.span_frames or (0, truth.num_frames)
    track = truth.tracks.get(truth.object_id, {}) if truth.object_id is not None else {}
    boxes = {frame: box for frame, box in track.items() if start <= frame < end}
    if not boxes:
        raise ValueError(
            f"boxes_xyxy is missing: task {truth.task!r} needs it, or an object_id with a track in frames {start} "
            f"to {end - 1}"
        )
    return boxes


def _answer(value: Any) -> str | float:
    return float(value) if is_number(value) else read_text(value, "answer")


def _labels(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        refuse("labels", value, "an object of texts")
    return {read_text(name, "a label's name"): read_text(label, f"label {name!r}") for name, label in value.items()}


def masks_by_frame(value: Any, name: str, num_frames: int, size: list[int] | None) -> dict[int, Rle]:
    """Masks from `{"<frame>": {"size": [height, width], "counts": text}}`; `size`, where known, is the video's."""
    return {frame: _rle(rle, size) for frame, rle in read_by_frame(value, name, num_frames)}


def _several_objects(value: Any) -> tuple[int, ...]:
    ids = read_object_ids(value)
    if len(set(ids)) < max(len(ids), 2) or 0 in ids:
        refuse("object_ids", value, "at least two different object ids, each of at least 1")
    return ids


def read_object_ids(value: Any) -> tuple[int, ...]:
    """A list of object ids, refused where it is something else."""
    if not isinstance(value, list) or not all(is_integer(object_id, 0) for object_id in value):
        refuse("object_ids", value, "a list of integers of at least 0")
    return tuple(value)


def _rle(value: Any, size: list[int] | None) -> Rle:
    if not isinstance(value, dict) or set(value) != {"size", "counts"}:
        refuse("a mask", value, 'an object {"size": [height, width], "counts": text}')
    if size is not None and value["size"] != size:
        refuse("a mask's size", value["size"], f"[height, width] of the video, {size}")
    if not isinstance(value["counts"], str) or not value["counts"].isascii():
        refuse("a mask's counts", value["counts"], "compressed text, as COCO's tools write it")
    return {"size": value["size"], "counts": value["counts"]}
