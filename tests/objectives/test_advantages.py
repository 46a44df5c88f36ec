"""Advantages by hand, against the standard library, and in groups without variance."""

from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.objectives import dr_grpo, group_centered, group_normalized, grpo
from tests.helpers import assert_close

groups = st.integers(2, 6).flatmap(
    lambda size: st.lists(st.lists(st.floats(-3, 3), min_size=size, max_size=size), min_size=1, max_size=4)
)


def test_equation_7_by_hand() -> None:
    rewards = torch.tensor([[1.0, 3.0, 2.0, 2.0]], dtype=torch.float64)
    # Mean 2, squares 1, 1, 0, 0: unbiased variance 2/3, of the population 1/2.
    assert_close(group_normalized(rewards, 0.0), [[-1 / (2 / 3) ** 0.5, 1 / (2 / 3) ** 0.5, 0.0, 0.0]])
    assert_close(group_normalized(rewards, 0.0, unbiased=False), [[-(2**0.5), 2**0.5, 0.0, 0.0]])
    assert_close(group_normalized(rewards, 0.5, unbiased=False), [[-1 / (0.5**0.5 + 0.5), 1 / (0.5**0.5 + 0.5), 0, 0]])
    assert_close(group_centered(rewards), [[-1.0, 1.0, 0.0, 0.0]])


@given(groups, st.sampled_from([1e-6, 1e-4, 0.5]))
def test_against_the_standard_library(rewards: list[list[float]], epsilon: float) -> None:
    tensor = torch.tensor(rewards, dtype=torch.float64)
    for group, normalized, centered in zip(
        rewards, group_normalized(tensor, epsilon), group_centered(tensor, epsilon), strict=True
    ):
        mean = statistics.fmean(group)
        assert_close(normalized, [(r - mean) / (statistics.stdev(group) + epsilon) for r in group])
        assert_close(centered, [r - mean for r in group])


@pytest.mark.parametrize("advantage", [group_normalized, group_centered])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 2.7])
@pytest.mark.parametrize("epsilon", [0.0, 1e-4])
def test_equal_rewards_give_exactly_zero(advantage: object, value: float, epsilon: float) -> None:
    rewards = torch.full((2, 7), value)
    assert torch.equal(advantage(rewards, epsilon), torch.zeros(2, 7))


def test_one_group_without_variance_leaves_the_other_alone() -> None:
    advantages = group_normalized(torch.tensor([[0.1, 0.1, 0.1], [0.0, 0.0, 1.0]]), 1e-4)
    assert torch.equal(advantages[0], torch.zeros(3))
    assert advantages[1, 2] > 1 and advantages[1, 0] < 0


def test_groups_of_one_are_refused() -> None:
    for advantage in (group_normalized, group_centered):
        with pytest.raises(ValueError, match="at least two answers a group, not 1"):
            advantage(torch.zeros(3, 1))


def test_objectives_use_their_advantage_and_epsilon() -> None:
    rewards = torch.tensor([[0.0, 2.0], [1.0, 1.5]], dtype=torch.float64)
    assert torch.equal(grpo(advantage_epsilon=0.3).advantages(rewards), group_normalized(rewards, 0.3))
    assert torch.equal(dr_grpo().advantages(rewards), group_centered(rewards))
