"""Bootstrap intervals: how far a mean, or the difference of two, could move with other videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_DRAWS_AT_ONCE = 2_000_000
"""Drawn indices held in memory at a time: 16 MB of them, and as many values."""

PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float], seed: int = 0, num_resamples: int = 10_000) -> Interval:
    """The mean of values, with the 2.5th and 97.5th percentile of its bootstrap distribution.

    Args:
        values: one for each sample, finite.
        seed: of the resampling; the same seed gives the same interval.
        num_resamples: how often as many values as there are get drawn with replacement.

    Raises:
        ValueError: no values, one that is not finite, or no resamples.

    Example:
        >>> mean_interval([0.5, 0.5, 0.5])
        Interval(mean=0.5, low=0.5, high=0.5)
    """
    return mean_intervals([values], seed, num_resamples)[0]


def mean_intervals(columns: Sequence[Sequence[float]], seed: int = 0, num_resamples: int = 10_000) -> list[Interval]:
    """`mean_interval` of several columns; those of one length are resampled together, in little more time than one.

    Args:
        columns: values, all finite, one for each sample.
        seed: of the resampling.
        num_resamples: number of draws.

    Raises:
        ValueError: as `mean_interval`.
    """
    arrays = [np.asarray(values, dtype=np.float64) for values in columns]
    for array in arrays:
        if array.ndim != 1 or len(array) == 0 or not np.isfinite(array).all():
            raise ValueError(f"an interval needs at least one value, and all finite; there are {array.size} values")
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, not {num_resamples}")
    intervals: dict[int, Interval] = {}
    for length in {len(array) for array in arrays}:
        places = [place for place, array in enumerate(arrays) if len(array) == length]
        means = _resampled_means(np.stack([arrays[place] for place in places], axis=1), seed, num_resamples)
        for place, (low, high) in zip(places, np.percentile(means, PERCENTILES, axis=0).T, strict=True):
            intervals[place] = Interval(float(arrays[place].mean()), float(low), float(high))
    return [intervals[place] for place in range(len(arrays))]


def paired_difference_interval(
    first: Mapping[str, float], second: Mapping[str, float], seed: int = 0, num_resamples: int = 10_000
) -> Interval:
    """The mean of `first - second` over the same samples, with its 95 % bootstrap interval.

    Samples are drawn with both their values: what makes a video hard for both falls out of the difference.

    Args:
        first: sample id -> value.
        second: sample id -> value, of the same ids in any order.
        seed: of the resampling; the order of the ids does not matter.
        num_resamples: number of draws.

    Raises:
        ValueError: ids that only one of the two has; and as `mean_interval`.

    Example:
        >>> paired_difference_interval({"a": 0.75, "b": 0.5}, {"b": 0.25, "a": 0.5}).mean
        0.25
    """
    return mean_interval(paired_differences(first, second), seed, num_resamples)


def paired_differences(first: Mapping[str, float], second: Mapping[str, float]) -> list[float]:
    """`first - second` of each sample id, in the order of the ids.

    Raises:
        ValueError: ids that only one of the two has.
    """
    alone = sorted(first.keys() ^ second.keys())
    if alone:
        raise ValueError(f"{len(alone)} ids are in one of the two only, such as {alone[0]!r}: they cannot be paired")
    return [first[key] - second[key] for key in sorted(first)]


def _resampled_means(values: NDArray[np.float64], seed: int, num_resamples: int) -> NDArray[np.float64]:
    """The means of each resample, (resamples, columns), of values (samples, columns)."""
    rng = np.random.default_rng(seed)
    num_samples = len(values)
    means = np.empty((num_resamples, values.shape[1]))
    at_once = max(1, MAX_DRAWS_AT_ONCE // num_samples)
    for start in range(0, num_resamples, at_once):
        stop = min(start + at_once, num_resamples)
        drawn = rng.integers(0, num_samples, size=(stop - start, num_samples))
        drawn += num_samples * np.arange(stop - start)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=(stop - start) * num_samples).reshape(-1, num_samples)
        means[start:stop] = counts @ values / num_samples
    return means
