"""Difficulty estimates: by hand, as files, and Time-R1's real ones through every way of choosing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.data.difficulty import (
    Difficulty,
    DifficultyControl,
    difficulty_of,
    read_difficulties,
    write_difficulties,
)
from tests.helpers import assert_close

shares = st.floats(0, 1)
ids = st.text("abcé/ 0", min_size=1).filter(str.strip)
estimates = st.dictionaries(ids, st.builds(Difficulty, shares, shares, st.integers(1, 8)), min_size=1)


def test_an_estimate_by_hand() -> None:
    found = difficulty_of([0.2, 0.4, 0.9])
    assert_close([found.mean, found.spread], [0.5, math.sqrt((0.09 + 0.01 + 0.16) / 3)], atol=1e-12)
    assert difficulty_of([0.5]) == Difficulty(0.5, 0.0, 1)
    for bad in ([], [1.1], [-0.1], [math.nan]):
        with pytest.raises(ValueError, match=r"rewards in \[0, 1\]"):
            difficulty_of(bad)


@pytest.mark.parametrize(
    ("difficulty", "kept"),
    [
        (Difficulty(0.0, 0.3, 8), False),
        (Difficulty(0.01, 0.3, 8), True),
        (Difficulty(0.7, 0.3, 8), True),
        (Difficulty(0.71, 0.3, 8), False),
        (Difficulty(0.5, 0.05, 8), True),
        (Difficulty(0.5, 0.049, 8), False),
        (Difficulty(0.5, 0.0, 1), True),  # a single rollout tells no spread
    ],
)
def test_the_band_and_the_spread(difficulty: Difficulty, kept: bool) -> None:
    assert DifficultyControl().keeps(difficulty) is kept


@given(known=estimates, seed=st.integers(0, 9), epoch=st.integers(0, 9), center=st.none() | shares)
def test_what_is_chosen_is_kept_once_in_order_and_the_same_again(
    known: dict[str, Difficulty], seed: int, epoch: int, center: float | None
) -> None:
    control = DifficultyControl(num_questions=3, center=center)
    kept = [id_ for id_, difficulty in known.items() if control.keeps(difficulty)]
    if not kept:
        with pytest.raises(ValueError, match="none has a mean reward above 0"):
            control.choose(known, seed, 0)
        assert control.choose(known, seed, epoch + 1) == control.nearest(known)
        return
    chosen = control.choose(known, seed, epoch)
    assert chosen == control.choose(known, seed, epoch)
    assert chosen == [id_ for id_ in kept if id_ in set(chosen)] and len(chosen) == min(3, len(kept))


def test_an_even_choice_goes_from_the_easiest_to_the_hardest() -> None:
    known = {f"q{i}": Difficulty(i / 10, 0.2, 8) for i in (3, 1, 7, 2, 5, 6, 4)}
    chosen = DifficultyControl(num_questions=3).choose(known, 0, 0)
    assert sorted(chosen) == ["q1", "q4", "q7"]


def test_another_epoch_draws_others_and_the_bell_prefers_its_center() -> None:
    known = {f"q{i}": Difficulty(0.05 + 0.6 * (i % 100) / 100, 0.2, 8) for i in range(2000)}
    control = DifficultyControl(center=0.3, width=0.05, num_questions=200)
    first, second = (control.choose(known, 0, epoch) for epoch in (0, 1))
    assert first != second and set(first) & set(second)
    means = [known[id_].mean for id_ in first]
    assert abs(np.mean(means) - 0.3) < 0.02 and 0.03 < np.std(means) < 0.08


def test_a_bell_that_no_question_lies_under_draws_the_nearest() -> None:
    known = {f"q{i}": Difficulty(0.4 + i / 1000, 0.2, 8) for i in range(200)}
    chosen = DifficultyControl(center=0.0, width=0.001, num_questions=5).choose(known, 0, 0)
    assert chosen[0] == "q0" and len(set(chosen)) == 5 and max(int(id_[1:]) for id_ in chosen) < 200


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"above": 0.7}, "above 0.7 must lie below up_to 0.7"),
        ({"up_to": 1.1}, "up_to 1.1, both in"),
        ({"above": math.nan}, "above nan must lie below"),
        ({"width": 0.0}, "width must be at least 0.001"),
        ({"width": math.nan}, "width must be at least 0.001"),
        ({"center": math.nan}, "center nan must be null or lie in"),
        ({"center": 30.0}, "center 30.0 must be null or lie in"),
        ({"least_spread": math.nan}, "least_spread nan must lie in"),
        ({"num_questions": 0}, "num_questions must be at least 1"),
    ],
)
def test_a_control_that_makes_no_sense_is_refused(keys: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DifficultyControl(**keys)  # type: ignore[arg-type]


@given(known=estimates)
def test_files_give_back_what_was_written(
    known: dict[str, Difficulty], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("d") / "difficulty.jsonl"
    write_difficulties(file, known)
    assert read_difficulties(file) == known and list(read_difficulties(file)) == list(known)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "mean": 1.5, "spread": 0, "num_rollouts": 8}', r"d.jsonl:1: mean is 1.5: it must be a number in"),
        ('{"id": "a", "mean": 0.5, "spread": 0, "num_rollouts": 0}', "d.jsonl:1: num_rollouts"),
        ('{"id": "a", "mean": 0.5, "spread": 0}', "d.jsonl:1: .*num_rollouts"),
        ('{"id": "a", "mean": NaN, "spread": 0, "num_rollouts": 1}', "d.jsonl:1: "),
    ],
)
def test_a_wrong_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        read_difficulties(tmp_path / "d.jsonl")


def test_time_r1s_real_difficulties(real_data: Path) -> None:
    """`train_2k5.json`: one greedy answer's IoU in percent; counts and means worked out from the raw file."""
    records = json.loads((real_data / "annotations" / "tvgbench" / "train_2k5.json").read_text())
    raw = [record["difficulty"] / 100 for record in records]
    known = {str(i): Difficulty(mean, 0.0, 1) for i, mean in enumerate(raw)}
    assert len(known) == 2500 and abs(np.mean(raw) - 0.344) < 5e-4
    band = DifficultyControl().choose(known, 0, 0)
    assert len(band) == sum(1 for mean in raw if 0 < mean <= 0.7) == 2428
    assert_close(np.mean([known[id_].mean for id_ in band]), np.mean([mean for mean in raw if mean <= 0.7]), atol=1e-12)

    even = DifficultyControl(num_questions=1000).choose(known, 0, 0)
    falling = sorted((mean for mean in raw if 0 < mean <= 0.7), reverse=True)
    expected = [falling[round(i * (len(falling) - 1) / 999)] for i in range(1000)]
    assert_close(sorted((known[id_].mean for id_ in even), reverse=True), expected, atol=1e-12)

    # The expected mean of a draw with replacement; 600 of 2500 without differ little, and their mean by its error.
    bell = DifficultyControl(up_to=1.0, center=0.3, width=0.2, num_questions=600)
    drawn = [np.mean([known[id_].mean for id_ in bell.choose(known, seed, 0)]) for seed in range(20)]
    weights = np.exp(-((np.array(raw) - 0.3) ** 2) / 0.08)
    assert abs(np.mean(drawn) - np.average(raw, weights=weights)) < 0.01
    assert np.mean(drawn) < np.mean(raw) - 0.02


def test_the_nearest_to_the_band_are_told_by_hand() -> None:
    """First those whose rollouts differ, then by the distance from the band on either side, then by spread."""
    estimates = {
        "alike": Difficulty(0.75, 0.0, 8),
        "far": Difficulty(0.95, 0.3, 8),
        "below": Difficulty(0.05, 0.1, 8),
        "near": Difficulty(0.72, 0.1, 8),
        "near and wide": Difficulty(0.72, 0.2, 8),
    }
    order = ["near and wide", "near", "below", "far", "alike"]
    for count in range(1, 6):
        found = DifficultyControl(above=0.1, num_questions=count).nearest(estimates)
        assert set(found) == set(order[:count]) and found == [id_ for id_ in estimates if id_ in found]
