"""STI-Bench: questions of choice about sizes, distances and motions in a part of a video; it has no boxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stvg_lightning.data.annotations.conversions import samples_of, seconds_in_video, truth_of
from stvg_lightning.data.annotations.records import field, name_text, number, sentence, table, text
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.report import Report
from stvg_lightning.tubes import Sample
from stvg_lightning.tubes.json_values import read_text, refuse, strict_json

LABELS = ("Task", "Scene")
"""Columns by which scores are told apart; a file may lack them."""


def read(annotations: Path, videos: VideoFolder, report: Report) -> Iterator[Sample]:
    """Samples of the task `choice`, ids `<video>/<ID>`, the answer a letter.

    Converted: `time_start` to `time_end`, in seconds, to a span in frames, and told in the query, which lists the
    candidates one a line, "(A) ..."; `Candidates` is read as a table or as the JSON text of one. `Task` and `Scene` are
    kept as labels. Dropped: missing
    videos, parts that are reversed, empty or after the video.

    Args:
        annotations: `qa.parquet`; reading it needs pyarrow (`pip install "stvg-lightning[parquet]"`).
        videos: the videos, named in `Video`.
        report: counts what was changed and dropped.

    Raises:
        ValueError: no pyarrow, a file that is no parquet, or a row that is broken.
    """

    def convert(where: str, row: Any) -> Sample:
        name = field(row, "Video", text)
        video = videos.find(name)
        info = videos.facts(video)
        start, end = field(row, "time_start", number), field(row, "time_end", number)
        span = seconds_in_video((start, end), info, where, report)
        choices = field(row, "Candidates", _choices)
        answer = field(row, "Answer", text).strip()
        if answer not in choices:
            refuse("Answer", answer, f"one of {', '.join(choices)}")
        lines = [f"From {start:g} s to {end:g} s. {field(row, 'Question', sentence)}"]
        query = "\n".join(lines + [f"({letter}) {words}" for letter, words in choices.items()])
        identity = f"{Path(name).stem}/{field(row, 'ID', name_text)}"
        labels = {label: words for label in LABELS if (words := field(row, label, _label, ""))}
        truth = truth_of(identity, query, info, span_frames=span, task="choice", answer=answer, labels=labels)
        return Sample(truth, video, source=where)

    rows = ((f"{annotations}[{index}]", row) for index, row in enumerate(_rows(annotations)))
    return samples_of(rows, convert, report)


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file, a batch of them in memory."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no annotation file at {file}")
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ValueError(
            f'{file} is a parquet file, and pyarrow is not installed: pip install "stvg-lightning[parquet]"'
        ) from None
    try:
        for batch in parquet.ParquetFile(file).iter_batches(1024):
            yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise ValueError(f"{file} cannot be read as parquet: {error}") from None


def _label(value: Any, name: str) -> str:
    return read_text(value, name, may_be_empty=True).strip()


def _choices(value: Any, name: str) -> dict[str, str]:
    """Letter -> words of a choice."""
    choices = strict_json(value) if isinstance(value, str) else value
    found = {letter: text(words, name) for letter, words in table(choices, name).items() if words is not None}
    if not found:
        refuse(name, value, 'choices, {"A": "...", "B": "..."}')
    return found
