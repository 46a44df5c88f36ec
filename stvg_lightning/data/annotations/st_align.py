"""ST-Align (LLaVA-ST): three tasks about parts of videos, written as conversations with tokens for times and boxes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stvg_lightning.data.annotations.conversions import (
    Numbering,
    box_of_xywh,
    file_stem,
    samples_of,
    span_in_video,
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
    sentence,
    table,
    text,
)
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.footage import excerpt
from stvg_lightning.data.report import Dropped, Report
from stvg_lightning.data.video import VideoInfo
from stvg_lightning.tubes import Box, Sample, Task, Tube
from stvg_lightning.tubes.json_values import WHOLE_NUMBER, refuse

BOXES, START, END = "<bboxes>", "<s>", "<e>"
MEDIA = re.compile(r"<(?:video|image)>\s*")
CAPTION = re.compile(r"Ends in <e>,\s*(.*?)\s*(?:Object bounding box:\s*<bboxes>\.?)?", re.DOTALL)
ELC_TURNED = "event localisation: the event's caption is the sentence, its time and boxes the answer"
CROPPED = "the question is about a part of its video: that part is cut out"
OTHER_SIZE = "the video has another size than annotated"


def read(annotations: Path, videos: VideoFolder, report: Report, crop: bool = True) -> Iterator[Sample]:
    """Samples of all three tasks, ids `<video>/<n>`; each record's own words tell which it is.

    STVG (time and boxes asked for) becomes the task `stvg`. SVG (the time `<s>` to `<e>` is told, or none) becomes
    `spatial`, its times written into the sentence in seconds. ELC (end, event and boxes asked for, from the start)
    has no counterpart: its caption becomes the sentence of an `stvg` sample, and that is counted.

    Converted: `split` and `<e>` count their last frame in; ours do not. Boxes from `[x, y, width, height]` to corners;
    only the frames that were sampled have one (100 of a part). The part `split` becomes a video of its own, and
    frames count from its start. Dropped: missing videos, spans that are reversed or outside, records without a box.

    Args:
        annotations: a JSON list of records.
        videos: the videos, found by `video_path` or by its file name.
        report: counts what was changed and dropped.
        crop: false leaves the whole video, with frames as the file counts them.

    Raises:
        ValueError: a record that is broken.
    """
    numbering = Numbering()

    def convert(where: str, record: Any) -> Sample:
        path = field(record, "video_path", text)
        identity = numbering.next_of(file_stem(path))
        video = videos.find(path)
        info = videos.facts(video)
        meta = field(record, "meta", table)
        size = field(meta, "width", count), field(meta, "height", count)
        if size != (info.width, info.height):
            raise Dropped(OTHER_SIZE, f"{info.width} x {info.height} instead of {size[0]} x {size[1]}")
        part = _part(meta, info, where, report) if crop else (0, info.num_frames)
        if part != (0, info.num_frames):
            video = excerpt(video, *part)
            info = VideoInfo(info.fps, part[1] - part[0], info.width, info.height)
            report.changed(CROPPED, where, f"[{part[0]}, {part[1]})")
        return _sample(where, identity, record, video, (info, part[0]), report)

    return samples_of(((where, record) for where, _, record in json_records(annotations)), convert, report)


def _part(meta: Any, info: VideoInfo, where: str, report: Report) -> tuple[int, int]:
    first, last = (frame_number(frame, "split") for frame in _pair(field(meta, "split", listing), "split"))
    return span_in_video(first, last + 1, info.num_frames, where, report)


def _sample(
    where: str, identity: str, record: Any, video: Path, shown: tuple[VideoInfo, int], report: Report
) -> Sample:
    """The sample of a record, in a video that begins at a frame of the annotated one."""
    info, offset = shown
    meta = field(record, "meta", table)
    question, answer = (_words(record, index) for index in (0, 1))
    times = field(meta, "time_token", table, default={})
    span = None
    if START in times and END in times:
        first, last = (field(times, token, frame_number) - offset for token in (START, END))
        span = span_in_video(first, last + 1, info.num_frames, where, report)
    boxes = _boxes(field(meta, "spatial_token", table), offset)
    tube: Tube = tube_in_video(boxes, info.num_frames, where, report)
    tube = tube_during(tube, span or (0, info.num_frames))
    caption = CAPTION.fullmatch(answer)
    task: Task = "stvg" if span is not None and (caption is not None or START not in question) else "spatial"
    if caption is not None:
        report.changed(ELC_TURNED, where)
    query = caption[1] if caption is not None else _told(question, span, info)
    truth = truth_of(identity, sentence(query, "the sentence"), info, span_frames=span, boxes_xyxy=tube, task=task)
    return Sample(truth, video, source=where)


def _told(question: str, span: tuple[int, int] | None, info: VideoInfo) -> str:
    """The question without its media tokens, and with seconds for its tokens of time."""
    told = MEDIA.sub("", question)
    if span is not None:
        for token, frame in zip((START, END), span, strict=True):
            told = told.replace(token, f"{frame / info.fps:.2f} s")
    return told


def _boxes(tokens: Any, offset: int) -> dict[int, Box | None]:
    boxes = field(tokens, BOXES, table)
    for frame in boxes:
        if not WHOLE_NUMBER.fullmatch(frame):
            refuse("a frame of <bboxes>", frame, "a whole number")
    moved = {int(frame) - offset: box_of_xywh(box, f"the box of frame {frame}") for frame, box in boxes.items()}
    return {frame: box for frame, box in moved.items() if frame >= 0}


def _words(record: Any, index: int) -> str:
    turns = field(record, "conversations", listing)
    if len(turns) < 2:
        refuse("conversations", turns, "a question and an answer")
    return field(table(turns[index], f"conversations[{index}]"), "value", text).strip()


def _pair(value: list[Any], name: str) -> list[Any]:
    if len(value) != 2:
        refuse(name, value, "[first frame, last frame]")
    return value
