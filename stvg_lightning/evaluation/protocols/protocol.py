"""What a protocol is: a module that scores one answer, and says which figures come out of the rows."""

from __future__ import annotations

import difflib
import importlib
import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stvg_lightning.evaluation.bootstrap import Interval, mean_intervals, paired_differences
from stvg_lightning.evaluation.case import Case
from stvg_lightning.tubes import TASKS, Truth

Row = dict[str, Any]
Share = Callable[[Mapping[str, Any]], float | None]
"""From a row to what it adds to a mean, or None where it has no such score."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """One way to score: a module of `evaluation/protocols`.

    Attributes:
        name: the module's name.
        summary: its first sentence.
        tasks: the tasks of the truths that it scores.
        score: case -> its row, every intermediate in it.
        metrics: metric -> the share that a row adds to its mean.
    """

    name: str
    summary: str
    tasks: tuple[str, ...]
    score: Callable[[Case], Row]
    metrics: Mapping[str, Share]

    def row(self, case: Case) -> Row:
        """The row of one case, with its id, and with its labels where it has any.

        Raises:
            ValueError: a task that the protocol does not score, or a truth that lacks what it compares with.
        """
        truth = case.truth
        if truth.task not in self.tasks:
            raise ValueError(
                f"truth {truth.id!r} is of task {truth.task!r}: protocol {self.name} scores {', '.join(self.tasks)}"
            )
        try:
            return {"id": truth.id, **labels_of(truth), **self.score(case)}
        except ValueError as error:
            raise ValueError(f"truth {truth.id!r}, protocol {self.name}: {error}") from None

    def means(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Metric -> its mean over the rows that have it; a metric that no row has is left out.

        Example:
            >>> load_protocol("time_r1").means([{"tIoU": 0.5}, {"tIoU": 0.25}])["m_tIoU"]
            0.375
        """
        found = {}
        for name, share_of in self.metrics.items():
            shares = [share for row in rows if (share := share_of(row)) is not None]
            if shares:
                found[name] = math.fsum(shares) / len(shares)  # whatever the order of the rows
        return found

    def shares(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
        """Metric -> sample id -> what the row adds to its mean; a metric that no row has is left out.

        Raises:
            ValueError: two rows of one id.
        """
        ids = [row["id"] for row in rows]
        if len(set(ids)) < len(ids):
            raise ValueError(f"two rows have the id {next(id_ for id_ in ids if ids.count(id_) > 1)!r}")
        found = {}
        for name, share_of in self.metrics.items():
            of_rows = {id_: share for id_, row in zip(ids, rows) if (share := share_of(row)) is not None}
            if of_rows:
                found[name] = of_rows
        return found

    def intervals(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Interval, int]]:
        """Metric -> its mean with a 95 % bootstrap interval, and the number of rows that have it."""
        shares = {name: list(of_rows.values()) for name, of_rows in self.shares(rows).items()}
        return {
            name: (interval, len(shares[name]))
            for name, interval in zip(shares, mean_intervals(list(shares.values())), strict=True)
        }

    def differences(
        self, rows: Sequence[Mapping[str, Any]], earlier: Sequence[Mapping[str, Any]]
    ) -> dict[str, Interval]:
        """Metric -> the mean of `rows - earlier`, sample by sample, with its 95 % bootstrap interval.

        A metric that only one of the two has for the same samples is left out, as the share of right ids where one
        answers in ids and the other in boxes.

        Raises:
            ValueError: rows of different samples.
        """
        if alone := {row["id"] for row in rows} ^ {row["id"] for row in earlier}:
            raise ValueError(f"{len(alone)} samples are in one of the two only, such as {sorted(alone)[0]!r}")
        after, before = self.shares(rows), self.shares(earlier)
        names = [name for name in after if after[name].keys() == before.get(name, {}).keys()]
        columns = [paired_differences(after[name], before[name]) for name in names]
        return dict(zip(names, mean_intervals(columns), strict=True))


def labels_of(truth: Truth) -> Row:
    """A row's `labels`, nothing where there are none."""
    return {"labels": dict(truth.labels)} if truth.labels else {}


def protocol_names() -> list[str]:
    """The names that `load_protocol` knows."""
    package = importlib.import_module("stvg_lightning.evaluation.protocols")
    return [module.name for module in pkgutil.iter_modules(package.__path__) if _is_protocol(module.name)]


def load_protocol(name: str) -> EvaluationProtocol:
    """The protocol of a name.

    Raises:
        ValueError: there is none; the nearest is named.
    """
    names = protocol_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
        raise ValueError(f"there is no protocol {name!r}: did you mean {near[0]!r}? There are {', '.join(names)}")
    module = importlib.import_module(f"stvg_lightning.evaluation.protocols.{name}")
    assert set(module.TASKS) <= set(TASKS), module.TASKS
    summary = (module.__doc__ or "").partition(".")[0].replace("\n", " ")
    return EvaluationProtocol(name, summary, module.TASKS, module.score, module.METRICS)


def share(name: str) -> Share:
    """The value of a column, as it is."""
    return lambda row: None if row[name] is None else float(row[name])


def above(name: str, threshold: float) -> Share:
    """1 where a column's value lies strictly above a threshold."""
    return lambda row: None if row[name] is None else float(row[name] > threshold)


def at_least(name: str, threshold: float) -> Share:
    """1 where a column's value reaches a threshold."""
    return lambda row: None if row[name] is None else float(row[name] >= threshold)


def recalls(name: str, thresholds: Sequence[float], passes: Callable[[str, float], Share] = above) -> dict[str, Share]:
    """`name@threshold` for each threshold."""
    return {f"{name}@{threshold:g}": passes(name, threshold) for threshold in thresholds}


def _is_protocol(name: str) -> bool:
    return not name.startswith("_") and name != "protocol"
