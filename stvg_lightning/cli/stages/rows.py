"""Rows made sample by sample: prepared ahead, written as they come, and gone on with after a kill."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset, Subset

from stvg_lightning.data.shards import BadSample, ShardFolder
from stvg_lightning.data.video import UnreadableVideo
from stvg_lightning.rollouts.preparation import Example, Preparation
from stvg_lightning.tubes.files import write_atomically

LOGGER = logging.getLogger("stvg_lightning.data")
SKIPPED = "skipped"
MAX_BAD_SHARE = 0.05

Row = dict[str, Any]


def completed_rows(file: Path, samples: ShardFolder, new_rows: Callable[[int], Iterator[Row]]) -> list[Row]:
    """A row for every good sample: those that an interrupted run has written are kept, the rest are made.

    Args:
        file: where rows are written, one line each, as they come.
        samples: in the order of the rows.
        new_rows: makes the rows from a sample's number on; a bad sample's has the key `skipped` alone.

    Raises:
        ValueError: too many samples are bad.
    """
    num_done = len(_read_lines(file))
    if num_done < len(samples):
        for row in new_rows(num_done):
            with file.open("a") as out:
                out.write(json.dumps(row) + "\n")
    rows = read_rows(file)
    num_bad = len(samples) - len(rows)
    if num_bad > MAX_BAD_SHARE * len(samples):
        raise ValueError(f"{num_bad} of {len(samples)} samples in {samples.directory} are bad, see {file}")
    return rows


def prepared_batches(
    samples: ShardFolder, preparation: Preparation, first: int, batch_size: int, num_workers: int, title: str
) -> Iterator[list[Example | str]]:
    """Samples from a number on, prepared ahead and in batches, under a progress bar; of a bad one what is wrong."""
    remaining = Subset(_Prepared(samples, preparation), range(first, len(samples)))
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task(title, total=len(samples), completed=first)
        for examples in DataLoader(remaining, batch_size, num_workers=num_workers, collate_fn=list):
            yield examples
            progress.advance(task, len(examples))


def read_rows(file: Path) -> list[Row]:
    """The rows in a file, without the samples that were skipped."""
    return [row for row in _read_lines(file) if SKIPPED not in row]


def whole_lines(file: Path) -> list[str]:
    """The lines of a file that grows line by line; one that a kill cut off is dropped from the file."""
    if not file.is_file():
        return []
    lines = file.read_text().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):
        write_atomically(file, "".join(whole))
    return whole


def _read_lines(file: Path) -> list[Row]:
    return [json.loads(line) for line in whole_lines(file)]


class _Prepared(Dataset[Example | str]):
    """Samples by number, prepared when asked for; what a DataLoader's workers work on."""

    def __init__(self, samples: ShardFolder, preparation: Preparation) -> None:
        self.samples, self.preparation = samples, preparation

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Example | str:
        """The prepared sample, or what is wrong with it."""
        try:
            return self.preparation(self.samples[index])
        except (BadSample, UnreadableVideo) as error:
            LOGGER.warning("sample %d of %s skipped: %s", index, self.samples.directory, error)
            return str(error)
