"""Lines of plain columns, as trackers' benchmarks write them: each value checked, each error with file and line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stvg_lightning.tubes.json_values import refuse

LARGEST = 10**9


@dataclass(frozen=True)
class Columns:
    """A line of a file: where it stands, and its values."""

    where: str
    values: list[str]

    def number(self, index: int, name: str) -> float:
        """A finite number.

        Raises:
            ValueError: something else; it begins with file and line, as all errors here.
        """
        try:
            value = float(self.values[index])
        except ValueError:
            value = math.nan
        if not abs(value) <= LARGEST:
            self.refuse(name, self.values[index], "a finite number")
        return value

    def whole(self, index: int, name: str, least: int) -> int:
        """A whole number of at least `least`, which may be written as 12.0."""
        value = self.number(index, name)
        if value != int(value) or value < least:
            self.refuse(name, self.values[index], f"a whole number of at least {least}")
        return int(value)

    def refuse(self, name: str, value: object, allowed: str) -> None:
        """Refuse a value of this line."""
        try:
            refuse(name, value, allowed)
        except ValueError as error:
            raise ValueError(f"{self.where}: {error}") from None


def columns_of(file: Path, least: int, separator: str | None) -> Iterator[Columns]:
    """The lines of a file that are not blank.

    Args:
        file: a text file.
        least: columns that each must have.
        separator: between them; None is any blanks.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not UTF-8, or a line of too few columns.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no annotation file at {file}")
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{file}:{number}"
            try:
                text = line.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise ValueError(f"{where}: not UTF-8: {error.reason}") from None
            if not text.strip():
                continue
            values = [value.strip() for value in text.split(separator)]
            if len(values) < least:
                raise ValueError(f"{where}: {len(values)} columns: at least {least} are needed")
            yield Columns(where, values)
