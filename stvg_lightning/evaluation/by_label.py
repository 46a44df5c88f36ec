"""Rows apart by their labels: scores for each task and each scene of a benchmark that tells them (STI-Bench)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stvg_lightning.evaluation.protocols import EvaluationProtocol

Rows = Sequence[Mapping[str, Any]]


def by_label(rows: Rows) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """Label -> its value -> the rows that bear it; values ascend, rows without a label are in none.

    Example:
        >>> rows = [{"labels": {"Task": "size"}}, {"labels": {"Task": "motion"}}, {}]
        >>> {value: len(found) for value, found in by_label(rows)["Task"].items()}
        {'motion': 1, 'size': 1}
    """
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in rows:
        for label, value in row.get("labels", {}).items():
            found.setdefault(label, {}).setdefault(value, []).append(row)
    return {label: dict(sorted(values.items())) for label, values in found.items()}


def label_means(protocols: Iterable[EvaluationProtocol], rows: Mapping[str, Rows]) -> dict[str, Any]:
    """Protocol -> label -> value -> metric -> mean, with `num_questions`; empty where no row bears a label."""
    means = {
        protocol.name: {
            label: {value: {**protocol.means(found), "num_questions": len(found)} for value, found in values.items()}
            for label, values in by_label(rows[protocol.name]).items()
        }
        for protocol in protocols
    }
    return {name: labels for name, labels in means.items() if labels}
