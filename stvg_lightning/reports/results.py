"""The headline table and the paired differences, in words and in rows for a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HEADLINE_METRICS: dict[str, str] = {
    "m_tIoU": "m_tIoU",
    "m_sIoU": "m_sIoU",
    "m_vIoU": "m_vIoU",
    "vIoU@0.3": "vIoU@0.3",
    "vIoU@0.5": "vIoU@0.5",
    "id_accuracy": "id accuracy",
    "accuracy": "accuracy",
    "relative_accuracy": "relative accuracy",
    "unreadable": "unreadable",
}
"""Metric of a summary -> its name on the page, in the order of the columns; m_sIoU only where there is no m_vIoU."""

LOWER_IS_BETTER = frozenset({"unreadable"})
METRIC_WORDS = {"unreadable": "unreadable answers"}
MAIN_METRICS = ("m_vIoU", "m_tIoU", "m_sIoU", "accuracy")
MODEL_NAMES = {"sft": "SFT", "grpo": "GRPO"}

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One figure of the table, in per cent; `mean` is "–" where the model has no such metric."""

    metric: str
    mean: str
    interval: str
    best: bool


@dataclass(frozen=True)
class Difference:
    """One paired difference in words, with its verdict: `gain`, `loss` or `chance`."""

    words: str
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """All differences between two models, led by the main one in a sentence, and the entries behind them."""

    sentence: str
    differences: tuple[Difference, ...]
    entries: Mapping[str, Entry]


def model_name(model: str) -> str:
    """A model's name as it is written on the page: abbreviations in capitals."""
    return MODEL_NAMES.get(model, model)


def headline_metrics(summary: Mapping[str, Any]) -> list[str]:
    """The headline metrics that at least one model has, in the order of the columns."""
    known = {metric for entries in summary["models"].values() for metric in entries}
    return [metric for metric in HEADLINE_METRICS if metric in known and not (metric == "m_sIoU" and "m_vIoU" in known)]


def headline_table(summary: Mapping[str, Any]) -> list[tuple[str, list[Cell]]]:
    """Rows of the headline table: a model's name and its cells, one for each of `headline_metrics`.

    Args:
        summary: `{"models": {model: {metric: {"mean", "ci95": [low, high]}}}, ...}`, values in [0, 1].

    Returns:
        Rows in the order of the summary; every model that reaches a column's best mean is marked, where
        there is more than one model.
    """
    metrics, models = headline_metrics(summary), summary["models"]
    best = {metric: _best_mean(models, metric) for metric in metrics}
    rows = []
    for model, entries in models.items():
        cells = []
        for metric in metrics:
            name, entry = HEADLINE_METRICS[metric], entries.get(metric)
            if entry is None:
                cells.append(Cell(name, "–", "", False))
                continue
            low, high = entry["ci95"]
            is_best = len(models) > 1 and entry["mean"] == best[metric]
            cells.append(Cell(name, _percent(entry["mean"]), f"{_percent(low)} to {_percent(high)}", is_best))
        rows.append((model_name(model), cells))
    return rows


def comparisons(summary: Mapping[str, Any]) -> list[Comparison]:
    """Every pair of models that a summary compares, in its order.

    Raises:
        ValueError: a key of `differences` that does not name two of the summary's models.
    """
    found = []
    for key, entries in summary.get("differences", {}).items():
        after, before = _pair(key, summary["models"])
        kept = {metric: entries[metric] for metric in headline_metrics(summary) if metric in entries}
        differences = tuple(
            Difference(difference_words(metric, entry), verdict(metric, entry)) for metric, entry in kept.items()
        )
        main = next((metric for metric in MAIN_METRICS if metric in kept), None)
        sentence = difference_sentence(after, before, main, kept[main]) if main else _pair_title(after, before)
        found.append(Comparison(sentence, differences, kept))
    return found


def difference_sentence(after: str, before: str, metric: str, entry: Entry) -> str:
    """A paired difference in words, in percentage points.

    Example:
        >>> difference_sentence("grpo", "sft", "m_vIoU", {"mean": 0.042, "ci95": [0.021, 0.063]})
        'GRPO over SFT: +4.2 points of m_vIoU, 95 % interval 2.1 to 6.3'
    """
    return f"{_pair_title(after, before)}: {difference_words(metric, entry)}"


def difference_words(metric: str, entry: Entry) -> str:
    """A paired difference in percentage points, without the models' names.

    Example:
        >>> difference_words("unreadable", {"mean": 0.01, "ci95": [0.0, 0.02]})
        '+1.0 points of unreadable answers, 95 % interval 0.0 to 2.0'
    """
    low, high = (_signed(value).lstrip("+") for value in entry["ci95"])
    name = METRIC_WORDS.get(metric, HEADLINE_METRICS.get(metric, metric))
    return f"{_signed(entry['mean'])} points of {name}, 95 % interval {low} to {high}"


def verdict(metric: str, entry: Entry) -> str:
    """`gain` or `loss` where a difference's interval excludes 0, else `chance`.

    Example:
        >>> [verdict(metric, {"mean": 0.1, "ci95": [0.01, 0.2]}) for metric in ("m_vIoU", "unreadable")]
        ['gain', 'loss']
    """
    low, high = entry["ci95"]
    if low <= 0 <= high:
        return "chance"
    return "gain" if (low > 0) != (metric in LOWER_IS_BETTER) else "loss"


def duration_words(seconds: float) -> str:
    """A duration as a person says it.

    Example:
        >>> duration_words(3.14), duration_words(200.0), duration_words(7325.0)
        ('3.1 s', '3 min 20 s', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _best_mean(models: Mapping[str, Mapping[str, Entry]], metric: str) -> float:
    means = [entries[metric]["mean"] for entries in models.values() if metric in entries]
    return float(min(means) if metric in LOWER_IS_BETTER else max(means))


def _percent(value: float | int) -> str:
    return f"{100 * value:.1f}"


def _signed(value: float | int) -> str:
    """Percentage points with a sign; a true minus, and no minus before a zero."""
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "\u2212")


def _pair(key: str, models: Mapping[str, Any]) -> tuple[str, str]:
    """The two models that a key `after-before` names; their own names may hold hyphens."""
    for after in models:
        before = key.removeprefix(f"{after}-")
        if before != key and before in models:
            return after, before
    raise ValueError(f"difference {key!r} does not name two of the models {', '.join(models)}")


def _pair_title(after: str, before: str) -> str:
    first = model_name(after)
    return f"{first[:1].upper()}{first[1:]} over {model_name(before)}"
