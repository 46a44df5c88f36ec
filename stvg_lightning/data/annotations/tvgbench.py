"""TVGBench: 800 moments of several sets, some of them in parts of longer videos."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stvg_lightning.data.annotations.conversions import Numbering, file_stem
from stvg_lightning.data.annotations.records import field, json_records, number, text
from stvg_lightning.data.annotations.temporal import Moment, crop_samples
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.report import Report
from stvg_lightning.tubes import Sample, Span
from stvg_lightning.tubes.json_values import refuse

ANSWER = re.compile(r"([0-9]+(?:\.[0-9]+)?)-([0-9]+(?:\.[0-9]+)?)")


def read(annotations: Path, videos: VideoFolder, report: Report) -> Iterator[Sample]:
    """Samples of the task `temporal`, ids `<video>/<n>`.

    Converted: `answer`, a text such as "13.4-28.1", to frames; it counts seconds from `start`, where a record gives
    `start` and `end` of a part of its video (252 do): the part is cut out as a video of its own. Answers that end
    after their video (27) are clamped. Dropped: answers of no length (11), missing videos.

    Args:
        annotations: `tvgbench.json`.
        videos: the videos; of `path` the file name alone counts.
        report: counts what was changed and dropped.

    Raises:
        ValueError: a record that is broken.
    """
    return crop_samples(_moments(annotations), videos, report)


def _moments(file: Path) -> Iterator[tuple[str, tuple[Moment, Span | None]]]:
    numbering = Numbering()
    for where, _, record in json_records(file):
        try:
            video = Path(field(record, "path", text)).name
            query, answer = field(record, "question", text), field(record, "answer", _seconds_of_answer)
            crop = crop_of(record, "start", "end")
            item = Moment(numbering.next_of(file_stem(video)), video, query, answer), crop
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        yield where, item


def crop_of(record: Any, start_key: str, end_key: str) -> Span | None:
    """The part of the video in seconds, None where both keys are null or missing.

    Raises:
        ValueError: one without the other, or a part of no length.
    """
    start, end = field(record, start_key, number, default=None), field(record, end_key, number, default=None)
    if start is None and end is None:
        return None
    if start is None or end is None or not 0 <= start < end:
        refuse(f"{start_key} to {end_key}", (start, end), "both null, or seconds with 0 <= start < end")
    return start, end


def _seconds_of_answer(value: Any, name: str) -> Span:
    found = ANSWER.fullmatch(text(value, name))
    if found is None or len(value) > 100:
        refuse(name, value, 'a text such as "13.4-28.1"')
    return float(found[1]), float(found[2])
