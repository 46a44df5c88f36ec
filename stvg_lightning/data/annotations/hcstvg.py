"""HC-STVG, both versions: who does what in a clip of 20 seconds, with a box in every frame of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from stvg_lightning.data.annotations.conversions import (
    box_of_xywh,
    check_annotated,
    file_stem,
    samples_of,
    span_in_video,
    truth_of,
    tube_during,
    tube_in_video,
)
from stvg_lightning.data.annotations.records import count, field, frame_number, json_records, listing, sentence
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.report import Dropped, Report
from stvg_lightning.tubes import Sample

CLIP_SECONDS = 20.0
HELD_OUT = "the video is held out: another file has it"
TWICE = "the video was annotated twice: the first file counts"
NO_BOXES = "there are no boxes: the file holds queries only"
OTHER_RATE = "the annotation's 20 seconds and the video's rate disagree: the video counts"
LARGEST_RATE_DIFFERENCE = 0.02

Version = Literal["v1", "v2"]


def read(
    annotations: Path,
    videos: VideoFolder,
    report: Report,
    also: Sequence[str] = (),
    without: Sequence[str] = (),
    version: Version | None = None,
) -> Iterator[Sample]:
    """Samples of HC-STVG files, one a video, its id the video's name without extension.

    Converted: `st_frame` from 1-based to 0-based; `bbox` from `[x, y, width, height]` to corners; the span is the
    frames that have a box, `[st_frame - 1, st_frame - 1 + len(bbox))`, half-open. The rate is the video's own.
    Dropped: videos that `without` holds, that were annotated in an earlier file, that are missing or were not
    annotated as they are; records without boxes.

    Args:
        annotations: a JSON file of either version.
        videos: the clips; names are searched at any depth, whatever their extension.
        report: counts what was changed and dropped.
        also: further files, for instance version 1 beside version 2; of a video in both the first file counts.
        without: files whose videos are left out, for instance every val and test file of both versions.
        version: refuse records of the other version; by default each record's keys tell.

    Raises:
        ValueError: a record that is broken.
    """
    held_out = {file_stem(str(name)) for file in without for _, name, _ in json_records(Path(file))}
    seen: set[str] = set()

    def convert(where: str, named: tuple[str, Any]) -> Sample:
        name, record = named
        stem = file_stem(name)
        if stem in held_out:
            raise Dropped(HELD_OUT)
        if stem in seen:
            raise Dropped(TWICE)
        seen.add(stem)
        return _sample(where, name, record, videos, report, version)

    return samples_of(_named_records([annotations, *map(Path, also)]), convert, report)


def _named_records(files: Sequence[Path]) -> Iterator[tuple[str, tuple[str, Any]]]:
    for file in files:
        for where, name, record in json_records(file):
            if not isinstance(name, str):
                raise ValueError(f"{file}: an object of video names is expected, not a list")
            yield where, (name, record)


def _sample(where: str, name: str, record: Any, videos: VideoFolder, report: Report, version: Version | None) -> Sample:
    query, width, height = _version_facts(record, version)
    num_annotated = field(record, "img_num", count)
    if not field(record, "bbox", listing, default=[]):
        raise Dropped(NO_BOXES)
    start = field(record, "st_frame", count) - 1
    boxes = {start + index: box_of_xywh(box, f"bbox[{index}]") for index, box in enumerate(record["bbox"])}
    video = videos.find(name)
    info = videos.facts(video)
    check_annotated(info, num_annotated, width, height)
    if abs(info.fps * CLIP_SECONDS / num_annotated - 1) > LARGEST_RATE_DIFFERENCE:
        report.changed(OTHER_RATE, where, f"{num_annotated} frames, {info.fps:g} frames a second")
    span = span_in_video(start, start + len(boxes), info.num_frames, where, report)
    tube = tube_during(tube_in_video(boxes, info.num_frames, where, report), span)
    truth = truth_of(file_stem(name), query, info, span_frames=span, boxes_xyxy=tube)
    return Sample(truth, video, source=where)


def _version_facts(record: Any, version: Version | None) -> tuple[str, int, int]:
    """Sentence, width and height, which the two versions name differently; version 2 gives `[height, width]`."""
    is_second = isinstance(record, dict) and ("English" in record or "img_size" in record)
    if version is not None and is_second != (version == "v2"):
        raise ValueError(f"the record's keys are those of version {'2' if is_second else '1'}, not of {version}")
    if is_second:
        height, width = (count(side, "img_size") for side in field(record, "img_size", _height_width))
        return field(record, "English", sentence), width, height
    return field(record, "caption", sentence), field(record, "width", count), field(record, "height", count)


def _height_width(value: Any, name: str) -> list[Any]:
    if len(listing(value, name)) < 2:
        raise ValueError(f"{name} is {value!r}: it must be [height, width, ...]")
    return [frame_number(side, name) for side in value[:2]]
