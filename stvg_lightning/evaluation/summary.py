"""Several models' rows as one dictionary of means, differences and intervals: what `summary.json` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from stvg_lightning.evaluation.bootstrap import Interval, mean_interval, paired_difference_interval
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
    values = {metric: metric_values(rows, metric) for metric in METRICS}
    return {
        metric: _entry(mean_interval(list(of_id.values()), seed, num_resamples))
        for metric, of_id in values.items()
        if of_id
    }


def difference_summary(after: Rows, before: Rows, seed: int = 0, num_resamples: int = 10_000) -> dict[str, Any]:
    """Metric -> `{"mean", "ci95": [low, high]}` of `after - before`, sample by sample.

    Raises:
        ValueError: the rows are of different samples.
    """
    entries = {}
    for metric in METRICS:
        first, second = metric_values(after, metric), metric_values(before, metric)
        if first or second:
            entries[metric] = _entry(paired_difference_interval(first, second, seed, num_resamples))
    return entries


def _entry(interval: Interval) -> dict[str, Any]:
    return {"mean": interval.mean, "ci95": [interval.low, interval.high]}
