"""Bootstrap intervals against theory and a naive loop; the summary of several models."""

from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest

from stvg_lightning.evaluation import (
    bootstrap,
    mean_interval,
    paired_difference_interval,
    summarise_models,
)
from tests.helpers import assert_close


def test_the_interval_of_many_values_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    interval = mean_interval(values.tolist(), seed=1)
    error = values.std() / math.sqrt(len(values))
    assert_close(interval.mean, values.mean(), atol=1e-12)
    # A percentile of 10,000 resamples is itself off by about 0.03 standard errors.
    assert abs(interval.low - (values.mean() - 1.96 * error)) < 0.12 * error
    assert abs(interval.high - (values.mean() + 1.96 * error)) < 0.12 * error


def test_the_interval_against_a_naive_loop() -> None:
    values, draw = [0.0, 0.2, 0.9, 1.0, 0.4], random.Random(5)
    means = sorted(statistics.fmean(draw.choices(values, k=5)) for _ in range(20_000))
    interval = mean_interval(values, seed=2, num_resamples=20_000)
    # Means of five such values lie on a grid of 0.02 and more.
    assert abs(interval.low - means[500]) < 0.021 and abs(interval.high - means[19_500]) < 0.021


def test_nine_of_ten_intervals_and_more_hold_the_true_mean() -> None:
    rng = np.random.default_rng(3)
    samples = rng.random((200, 60))
    intervals = [mean_interval(row.tolist(), seed, num_resamples=400) for seed, row in enumerate(samples)]
    share = statistics.fmean(interval.low <= 0.5 <= interval.high for interval in intervals)
    assert 0.89 <= share <= 0.99


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(30).tolist()
    whole = mean_interval(values, num_resamples=1000)
    monkeypatch.setattr(bootstrap, "MAX_DRAWS_AT_ONCE", 7 * 30)
    assert mean_interval(values, num_resamples=1000) == whole
    assert mean_interval(values, seed=1, num_resamples=1000) != whole


def test_values_without_spread_have_no_interval() -> None:
    for values in ([0.25], [0.25] * 9):
        interval = mean_interval(values)
        assert (interval.mean, interval.low, interval.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [math.inf]])
def test_bad_values_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="all finite"):
        mean_interval(values)


def test_paired_differences_are_paired() -> None:
    rng = np.random.default_rng(0)
    hardness = rng.random(50)
    first = {f"v{i}": 0.1 + float(hardness[i]) for i in range(50)}
    second = {f"v{i}": float(hardness[i]) for i in reversed(range(50))}
    interval = paired_difference_interval(first, second)
    assert_close([interval.mean, interval.low, interval.high], [0.1] * 3, atol=1e-12)
    assert_close(paired_difference_interval(second, first).mean, -0.1, atol=1e-12)


def test_ids_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="2 ids are in one of the two only, such as 'b'"):
        paired_difference_interval({"a": 1.0, "b": 1.0}, {"a": 1.0, "c": 1.0})


def rows_of(v_ious: list[float], task: str = "stvg") -> list[dict[str, object]]:
    rows = []
    for index, value in enumerate(v_ious):
        scores = {"tIoU": None if task == "spatial" else value, "sIoU": value, "vIoU": value, "gt_vIoU": value}
        scores |= {"correct": None, "relative_accuracy": None}
        rows.append({"id": f"v{index}", **scores, "object_id_correct": value > 0, "unreadable": False})
    return rows


def test_the_summary_by_hand() -> None:
    models = {"base": rows_of([0.0, 0.2]), "sft": rows_of([0.4, 0.6])[::-1], "grpo": rows_of([0.4, 0.9])}
    summary = summarise_models(models, num_resamples=200)
    assert list(summary["models"]) == ["base", "sft", "grpo"]
    assert list(summary["differences"]) == ["sft-base", "grpo-sft"]
    base, rise = summary["models"]["base"]["m_vIoU"], summary["differences"]["sft-base"]["m_vIoU"]
    assert_close([base["mean"], *base["ci95"]], [0.1, 0.0, 0.2], atol=1e-12)
    assert_close([rise["mean"], *rise["ci95"]], [0.4, 0.4, 0.4], atol=1e-12)
    assert_close(summary["differences"]["grpo-sft"]["vIoU@0.5"]["mean"], 0.0, atol=1e-12)
    assert_close(summary["models"]["grpo"]["vIoU@0.5"]["mean"], 0.5, atol=1e-12)
    assert_close(summary["differences"]["sft-base"]["id_accuracy"]["mean"], 0.5, atol=1e-12)


def test_a_metric_that_no_row_has_is_left_out() -> None:
    summary = summarise_models({"a": rows_of([0.5], "spatial"), "b": rows_of([0.7], "spatial")}, num_resamples=10)
    assert "m_tIoU" not in summary["models"]["a"] and "m_tIoU" not in summary["differences"]["b-a"]
    assert "m_vIoU" in summary["differences"]["b-a"]


def test_models_on_different_samples_are_not_compared() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        summarise_models({"a": rows_of([0.5, 0.1]), "b": rows_of([0.7])}, num_resamples=10)
    with pytest.raises(ValueError, match="'b' has no rows"):
        summarise_models({"a": rows_of([0.5]), "b": []})
    with pytest.raises(ValueError, match="no models"):
        summarise_models({})
