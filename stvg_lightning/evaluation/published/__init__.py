"""Figures that papers print, to stand beside ours: a CSV file for each table, a line for each model and benchmark.

Values are in percent as printed; a cell that the paper leaves open is empty. Every line names its source, and a note
says how the row was made or where a paper contradicts itself. TVG-R1's tables are not transcribed yet; SARL-STG's and
Video-STR's main figures are from a secondary source, not checked against the papers, and say so. Each paper has its own
evaluator: compare with `protocols`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

MAIN_TABLES = (
    "stvg_r1/table_01",
    "stvg_r1/table_02",
    "stvg_r1/table_03",
    "stvg_r1/table_04",
    "stvg_o1/results",
    "sarl_stg/main_results",
    "video_str/results",
)
"""The tables that compare methods; all others are ablations."""

WORDS = ("model", "benchmark", "source", "note")
"""Columns that hold words; every other column is a metric."""


@dataclass(frozen=True)
class PublishedRow:
    """One model on one benchmark, as printed.

    Attributes:
        model: as the paper calls it.
        benchmark: a name of `benchmarks.py`, or another set's where we do not have it.
        percent: metric -> value as printed; what is not in percent says so in its note.
        source: paper and table.
        note: what a reader must know beside the figures; often empty.
        table: the file that holds it.
    """

    model: str
    benchmark: str
    percent: Mapping[str, float]
    source: str
    note: str
    table: str


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Every row of every table, papers and tables in the order of their names."""
    return tuple(_all_rows())


def published_on(benchmark: str, with_ablations: bool = False) -> list[PublishedRow]:
    """The rows of one benchmark: of the tables that compare methods, or of all.

    Example:
        >>> best = max(published_on("mevis"), key=lambda row: row.percent["J&F"])
        >>> best.model, best.percent["J&F"], best.source
        ('STVG-R1', 47.3, 'STVG-R1 (arXiv:2602.11730), Table 3')
    """
    rows = [row for row in published_rows() if row.benchmark == benchmark]
    return [row for row in rows if with_ablations or row.table in MAIN_TABLES]


def _all_rows() -> Iterator[PublishedRow]:
    papers = sorted((entry for entry in files(__name__).iterdir() if entry.is_dir()), key=lambda entry: entry.name)
    for paper in papers:
        for file in sorted(paper.iterdir(), key=lambda entry: entry.name):
            if not file.name.endswith(".csv"):
                continue
            table = f"{paper.name}/{file.name.removesuffix('.csv')}"
            for record in csv.DictReader(file.read_text(encoding="utf-8").splitlines()):
                words = [record[name] for name in WORDS]
                percent = {name: float(value) for name, value in record.items() if name not in WORDS and value}
                model, benchmark, source, note = words
                yield PublishedRow(model, benchmark, percent, source, note, table)
