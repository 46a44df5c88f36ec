"""Charades-STA: when does what a sentence says happen; the official text files and Time-R1's JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stvg_lightning.data.annotations.conversions import Numbering
from stvg_lightning.data.annotations.records import number
from stvg_lightning.data.annotations.temporal import (
    Moment,
    durations_of,
    moment_samples,
    moments_of_dictionary,
)
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.report import Report
from stvg_lightning.tubes import Sample


def read(annotations: Path, videos: VideoFolder, report: Report, durations: Path | None = None) -> Iterator[Sample]:
    """Samples of the task `temporal`, ids `<video>/<n>`, the same from the text as from Time-R1's JSON.

    Converted: seconds to the frames of the video's own rate (6 to 30 a second). Many spans end after their video
    (562 of the test file's 3,720): they are clamped to the video's own length, and counted. Dropped: reversed and
    empty spans, missing videos.

    Args:
        annotations: a text file of lines `VIDEO START END##SENTENCE`, or a JSON file as Time-R1 writes it.
        videos: the videos, `<VIDEO>.mp4`.
        report: counts what was changed and dropped.
        durations: the official `charades.json` (video -> `duration`), beside the text file: a video whose own
            length is another is counted. Time-R1's JSON holds the durations itself.

    Raises:
        ValueError: a line or record that is broken.
    """
    if annotations.suffix == ".json":
        moments = moments_of_dictionary(annotations)
    else:
        moments = _moments_of_lines(annotations, {} if durations is None else durations_of(durations))
    return moment_samples(moments, videos, report)


def _moments_of_lines(file: Path, durations_seconds: dict[str, float]) -> Iterator[tuple[str, Moment]]:
    if not file.is_file():
        raise FileNotFoundError(f"there is no annotation file at {file}")
    numbering = Numbering()
    with file.open("rb") as lines:
        for index, line in enumerate(lines, start=1):
            where = f"{file}:{index}"
            try:
                text = line.decode("utf-8-sig").strip()
                if text:
                    yield where, _moment_of_line(text, numbering, durations_seconds)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None


def _moment_of_line(line: str, numbering: Numbering, durations_seconds: dict[str, float]) -> Moment:
    times, separator, words = line.partition("##")
    parts = times.split()
    if not separator or len(parts) != 3:
        raise ValueError(f"the line is {line[:60]!r}: it must be VIDEO START END##SENTENCE")
    video, *span = parts
    try:
        start, end = (number(float(seconds), "a time") for seconds in span)
    except ValueError:
        raise ValueError(f"the times are {span}: they must be finite numbers of seconds") from None
    return Moment(numbering.next_of(video), video, words, (start, end), durations_seconds.get(video))
