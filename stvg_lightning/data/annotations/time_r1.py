"""Time-R1's training set (`train_2k5.json`): 2,500 moments with the difficulty that a model found them to have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stvg_lightning.data.annotations.conversions import Numbering, file_stem
from stvg_lightning.data.annotations.records import field, json_records, number, seconds_pair, text
from stvg_lightning.data.annotations.temporal import Moment, crop_samples
from stvg_lightning.data.annotations.tvgbench import crop_of
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.report import Report
from stvg_lightning.tubes import Sample, Span

EASIER = "the difficulty lies outside the wished range"


def read(
    annotations: Path,
    videos: VideoFolder,
    report: Report,
    least_difficulty: float | None = None,
    most_difficulty: float | None = None,
) -> Iterator[Sample]:
    """Samples of the task `temporal`, ids `<video>/<n>`.

    Converted: `timestamp` in seconds to frames; it counts from `video_start`, where a record gives a part of its
    video (665 do): the part is cut out, unless the file is the part already, as some names say. Spans that end after
    their video (34; 14 more by binary rounding alone) are clamped. Dropped: reversed and empty spans, missing videos.

    Args:
        annotations: `train_2k5.json`.
        videos: the videos; of `video` the file name alone counts.
        report: counts what was changed and dropped.
        least_difficulty: drop easier moments (0 to 100, as the file gives it).
        most_difficulty: drop harder ones.

    Raises:
        ValueError: a record that is broken.
    """
    limits = least_difficulty, most_difficulty
    return crop_samples(_moments(annotations, limits, report), videos, report)


def _moments(
    file: Path, limits: tuple[float | None, float | None], report: Report
) -> Iterator[tuple[str, tuple[Moment, Span | None]]]:
    numbering = Numbering()
    least, most = limits
    for where, _, record in json_records(file):
        try:
            video = Path(field(record, "video", text)).name
            query, span = field(record, "sentence", text), field(record, "timestamp", seconds_pair)
            item = (
                Moment(numbering.next_of(file_stem(video)), video, query, span),
                crop_of(record, "video_start", "video_end"),
            )
            difficulty = field(record, "difficulty", number, default=0.0)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if (least is not None and difficulty < least) or (most is not None and difficulty > most):
            report.dropped(EASIER, where, f"{difficulty:g}")
            continue
        yield where, item
