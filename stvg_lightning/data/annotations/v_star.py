"""V-STaR: chains of questions - what, when, where - about one thing in a video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stvg_lightning.data.annotations.conversions import (
    Numbering,
    box_of_corners,
    check_annotated,
    samples_of,
    seconds_in_video,
    truth_of,
    tube_during,
    tube_in_video,
)
from stvg_lightning.data.annotations.records import (
    count,
    field,
    frame_number,
    json_records,
    listing,
    name_text,
    seconds_pair,
    sentence,
    table,
)
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.report import Report
from stvg_lightning.tubes import Box, Sample
from stvg_lightning.tubes.json_values import refuse

QUESTIONS = ("temporal_question", "spatial_question", "spatial_question_2")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read(annotations: Path, videos: VideoFolder, report: Report) -> Iterator[Sample]:
    """Samples of a record's questions of time (`temporal`) and of place (`spatial`), ids `<video>/<n>/<question>`.

    Converted: `timestamps` in seconds to the frames of the video's own rate; `bboxes`, one a second, lie at their
    `frame_index`, from 0, and are corners already. Both ways of writing a box are read: with the keys `timestamp` and
    `frame_index`, or under a key "<timestamp>_<frame index>". Left out: the question "what", whose answer is free
    text. Dropped: missing videos, videos other than annotated, spans that are reversed, empty or after the video.

    Args:
        annotations: a JSON list of records.
        videos: the videos, named `<vid>`.
        report: counts what was changed and dropped.

    Raises:
        ValueError: a record that is broken.
    """

    def convert(where: str, item: tuple[str, str, Any]) -> Sample:
        identity, key, record = item
        video = videos.find(field(record, "vid", name_text))
        info = videos.facts(video)
        check_annotated(info, *(field(record, name, count) for name in ("frame_count", "width", "height")))
        query = sentence(record[key], key)
        span = seconds_in_video(field(record, "timestamps", seconds_pair), info, where, report)
        if key == "temporal_question":
            return Sample(truth_of(identity, query, info, span_frames=span, task="temporal"), video, source=where)
        tube = tube_in_video(dict(map(_box_at, field(record, "bboxes", listing))), info.num_frames, where, report)
        boxes = tube_during(tube, (0, info.num_frames))
        truth = truth_of(identity, query, info, span_frames=span, boxes_xyxy=boxes, task="spatial")
        return Sample(truth, video, source=where)

    return samples_of(_questions(annotations), convert, report)


def _questions(file: Path) -> Iterator[tuple[str, tuple[str, str, Any]]]:
    numbering = Numbering()
    for where, _, record in json_records(file):
        try:
            identity = numbering.next_of(Path(field(record, "vid", name_text)).stem)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        for key in QUESTIONS:
            if record.get(key) is not None:
                yield f"{where}.{key}", (f"{identity}/{key}", key, record)


def _box_at(entry: Any) -> tuple[int, Box | None]:
    """Frame and box of an entry of `bboxes`."""
    record = table(entry, "a box")
    if "frame_index" in record:
        return field(record, "frame_index", frame_number), box_of_corners(_corners(record))
    if len(record) != 1:
        refuse("a box", record, 'an object with frame_index, xmin, ..., or {"<timestamp>_<frame index>": {...}}')
    ((key, corners),) = record.items()
    index = key.rpartition("_")[2]
    if not index.isdecimal() or len(index) > 9:
        refuse("the key of a box", key, '"<timestamp>_<frame index>"')
    return int(index), box_of_corners(corners)


def _corners(record: Mapping[str, Any]) -> dict[str, Any]:
    return {side: record[side] for side in CORNERS if side in record}
