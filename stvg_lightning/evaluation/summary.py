"""Several models' rows as one dictionary of means, differences and intervals: what `summary.json` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from stvg_lightning.evaluation.bootstrap import mean_intervals, paired_differences
from stvg_lightning.evaluation.scoring import METRICS, metric_values

Rows = Sequence[Mapping[str, Any]]


def summarise_models(rows_of_model: Mapping[str, Rows], seed: int = 0, num_resamples: int = 10_000) -> dict[str, Any]:
    """Means and paired differences of several models on the same samples.

    Args:
        rows_of_model: model -> its rows from `score_answer`, models in the order of their training.
        seed: of the bootstrap.
        num_resamples: of the bootstrap.

    Returns:
        `{"models": {"base": {"m_vIoU": {"mean": 0.2, "ci95": [0.1, 0.3]}, ...}, "sft": ...},
        "differences": {"sft-base": {...}, ...}}`: each model minus the one before it, over the same
        samples. A metric that no row has is left out.

    Raises:
        ValueError: no models, a model without rows or with two rows of one id, or models whose rows are
            of different samples.
    """
    if not rows_of_model:
        raise ValueError("there are no models to summarise")
    for model, rows in rows_of_model.items():
        if not rows:
            raise ValueError(f"model {model!r} has no rows")
    options = {"seed": seed, "num_resamples": num_resamples}
    models = {model: model_summary(rows, **options) for model, rows in rows_of_model.items()}
    differences = {
        f"{after}-{before}": difference_summary(rows_of_model[after], rows_of_model[before], **options)
        for before, after in pairwise(rows_of_model)
    }
    return {"models": models, "differences": differences}


def model_summary(rows: Rows, seed: int = 0, num_resamples: int = 10_000) -> dict[str, Any]:
    """Metric -> `{"mean", "ci95": [low, high]}` over the rows that have it."""
    values = {metric: list(metric_values(rows, metric).values()) for metric in METRICS}
    return _entries({metric: column for metric, column in values.items() if column}, seed, num_resamples)


def difference_summary(after: Rows, before: Rows, seed: int = 0, num_resamples: int = 10_000) -> dict[str, Any]:
    """Metric -> `{"mean", "ci95": [low, high]}` of `after - before`, sample by sample.

    Raises:
        ValueError: the rows are of different samples.
    """
    differences = {}
    for metric in METRICS:
        first, second = metric_values(after, metric), metric_values(before, metric)
        if first or second:
            differences[metric] = paired_differences(first, second)
    return _entries(differences, seed, num_resamples)


def _entries(columns: Mapping[str, Sequence[float]], seed: int, num_resamples: int) -> dict[str, Any]:
    intervals = mean_intervals(list(columns.values()), seed, num_resamples)
    return {
        metric: {"mean": interval.mean, "ci95": [interval.low, interval.high]}
        for metric, interval in zip(columns, intervals, strict=True)
    }
