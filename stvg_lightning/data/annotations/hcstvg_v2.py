"""HC-STVG version 2, refusing records of the other; `hcstvg` reads both and merges them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from stvg_lightning.data.annotations import hcstvg
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.report import Report
from stvg_lightning.tubes import Sample


def read(annotations: Path, videos: VideoFolder, report: Report, without: Sequence[str] = ()) -> Iterator[Sample]:
    """Samples of a file of version 2; what is converted and dropped stands at `hcstvg.read`."""
    return hcstvg.read(annotations, videos, report, without=without, version="v2")
