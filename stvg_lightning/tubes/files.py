"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside a file, to be written in its stead: after the block it takes the file's place.

    When the block raises, when it is killed or when the disk is full, the file is what it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all; one that holds the text already is left alone."""
    if path.is_file() and path.read_text() == text:
        return
    with replacing(path) as beside:
        beside.write_text(text)
