"""ActivityNet Captions: sentences about minutes of video, each with the time it is about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stvg_lightning.data.annotations.temporal import moment_samples, moments_of_dictionary
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.report import Report
from stvg_lightning.tubes import Sample


def read(annotations: Path, videos: VideoFolder, report: Report) -> Iterator[Sample]:
    """Samples of the task `temporal`, ids `v_<video>/<n>`.

    Converted: seconds to the frames of the video's own rate; blanks before two thirds of the sentences are taken
    away; spans that end after their video are clamped to its own length. Each is counted. Dropped: reversed spans
    (two in train), empty ones (two in train), missing videos.

    Args:
        annotations: `train.json`, `val_1.json` or `val_2.json`, or Time-R1's file of the same shape.
        videos: files named `v_<id>`, whatever their extension.
        report: counts what was changed and dropped.

    Raises:
        ValueError: a record that is broken.
    """
    return moment_samples(moments_of_dictionary(annotations), videos, report)
