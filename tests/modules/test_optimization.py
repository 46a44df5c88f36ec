"""The learning rate's schedule and the statistics of rewards, by hand."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.modules.optimization import NonFiniteLoss, Optimization, check_finite, make_optimizer, rate_factor
from stvg_lightning.modules.reward_statistics import reward_values
from stvg_lightning.modules.trainer import checkpoint_interval
from stvg_lightning.rewards import RewardedAnswer, RewardError
from tests.helpers import assert_close


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Optimization(schedule="constant"), [1.0] * 5),
        (Optimization(schedule="linear"), [1.0, 0.75, 0.5, 0.25, 0.0]),
        (Optimization(schedule="cosine"), [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0.0]),
        (Optimization(schedule="linear", warmup_share=0.5), [0.5, 1.0, 1.0, 0.5, 0.0]),
        (Optimization(schedule="constant", warmup_share=1.0), [0.25, 0.5, 0.75, 1.0, 1.0]),
    ],
)
def test_rates_by_hand(settings: Optimization, expected: list[float]) -> None:
    assert_close([rate_factor(step, 4, settings) for step in range(5)], expected)


@given(st.sampled_from(["constant", "linear", "cosine"]), st.floats(0, 1), st.integers(1, 300), st.integers(0, 400))
def test_rates_stay_between_0_and_1(schedule: str, warmup_share: float, max_steps: int, step: int) -> None:
    assert 0 <= rate_factor(step, max_steps, Optimization(schedule=schedule, warmup_share=warmup_share)) <= 1


def test_the_optimiser_holds_what_is_trained_and_follows_the_schedule() -> None:
    frozen, trained = torch.nn.Parameter(torch.ones(2), requires_grad=False), torch.nn.Parameter(torch.ones(3))
    made = make_optimizer([frozen, trained], Optimization(0.5, "linear", weight_decay=0.1), max_steps=4)
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    (group,) = optimizer.param_groups
    assert group["params"] == [trained] and group["weight_decay"] == 0.1
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert_close(rates, [0.5, 0.375, 0.25, 0.125])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_named_with_its_step(value: float) -> None:
    with pytest.raises(NonFiniteLoss, match="step 17"):
        check_finite(torch.tensor(value), 17)
    assert check_finite(torch.tensor(1e30), 17) is None


@pytest.mark.parametrize(
    "bad", [{"learning_rate": 0.0}, {"schedule": "square"}, {"warmup_share": 1.5}, {"learning_rate": math.nan}]
)
def test_impossible_optimisations_are_refused(bad: dict) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(bad))):
        Optimization(**bad)


def rewarded(*values: float | None) -> list[RewardedAnswer]:
    return [RewardedAnswer({"a": value, "b": 0.7, "c": None}, 0.0) for value in values]


def test_means_and_spreads_of_terms() -> None:
    found = reward_values(rewarded(0.0, 1.0, None, 0.5), all_gather=lambda tensor: tensor)
    assert found.keys() == {"reward/a", "reward/a_spread", "reward/b", "reward/b_spread"}
    assert_close(found["reward/a"], 0.5)
    assert_close(found["reward/a_spread"], statistics.pstdev([0.0, 1.0, 0.5]))
    assert_close((found["reward/b"], found["reward/b_spread"]), (0.7, 0.0))


def test_notes_must_have_the_same_names_for_every_answer() -> None:
    answers = [RewardedAnswer({"a": 1.0}, 1.0, {"a/empty": 0.0}), RewardedAnswer({"a": 1.0}, 1.0, {})]
    with pytest.raises(RewardError, match=r"the same names for every answer: \['a/empty'\] here"):
        reward_values(answers, all_gather=lambda tensor: tensor)


def test_terms_are_the_same_on_every_process() -> None:
    own, other = rewarded(None, None), rewarded(0.25, 0.75, 1.0)
    sums: list[torch.Tensor] = []
    for answers in (own, other):
        reward_values(answers, all_gather=lambda tensor: sums.append(tensor) or tensor)
    first, second = (reward_values(answers, lambda _: torch.stack(sums)) for answers in (own, other))
    assert first == second
    assert_close(first["reward/a"], 2 / 3)
    assert_close(first["reward/a_spread"], statistics.pstdev([0.25, 0.75, 1.0]))


@pytest.mark.parametrize(("every", "updates", "expected"), [(20, 1, 20), (20, 3, 21), (2, 8, 8), (16, 8, 16)])
def test_checkpoints_come_after_whole_rollouts(every: int, updates: int, expected: int) -> None:
    assert checkpoint_interval(every, updates) == expected
