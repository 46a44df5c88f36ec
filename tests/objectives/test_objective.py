"""The loss: by hand, against naive loops written from the papers' equations, and split into micro-batches."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from stvg_lightning.objectives import (
    BatchTotals,
    Objective,
    ObjectiveStatistics,
    clipped,
    dapo,
    dr_grpo,
    fixed_length_sum,
    grpo,
    gspo,
    k1,
    k2,
    k3,
    ppo,
    sequence_log_ratios,
    sequence_mean_token_mean,
    token_log_ratios,
    token_mean,
    unclipped,
)
from tests.helpers import assert_close

ALGORITHMS = {"grpo": grpo, "dapo": dapo, "dr_grpo": dr_grpo, "gspo": gspo, "ppo": ppo}
LENGTHS = (5, 1, 3, 5, 2, 4, 1, 5)
MAX_TOKENS = 9


def batch(seed: int = 0, spread: float = 0.3) -> dict[str, Tensor]:
    """Log-probabilities of eight answers whose ratios leave the clipping range in both directions."""
    generator = torch.Generator().manual_seed(seed)
    shape = len(LENGTHS), max(LENGTHS)

    def noise() -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    log_probs = -noise().abs() - 0.1
    return {
        "log_probs": log_probs.requires_grad_(),
        "old_log_probs": log_probs.detach() + spread * noise(),
        "reference_log_probs": log_probs.detach() + spread * noise(),
        "advantages": torch.randn(shape[0], generator=generator, dtype=torch.float64),
        "mask": torch.arange(shape[1]) < torch.tensor(LENGTHS)[:, None],
    }


def rows(tensors: dict[str, Tensor], chosen: slice) -> dict[str, Tensor]:
    return {name: tensor[chosen] for name, tensor in tensors.items()}


def naive_loss(name: str, objective: Objective, tensors: dict[str, Tensor], sign: float = 1.0) -> Tensor:
    """Each algorithm's equation, one number at a time; `sign` turns that of the divergence, to see the tests fail."""
    low, high = 1 - objective.clip_low, 1 + objective.clip_high
    per_answer = []
    for i, length in enumerate(LENGTHS):
        log_ratios = [tensors["log_probs"][i, t] - tensors["old_log_probs"][i, t] for t in range(length)]
        if name == "gspo":
            log_ratios = [sum(log_ratios) / length] * length
        terms = []
        for t in range(length):
            advantage = tensors["advantages"][i] if tensors["advantages"].ndim == 1 else tensors["advantages"][i, t]
            ratio = log_ratios[t].exp()
            cut = ratio if low <= ratio <= high else torch.tensor(low if ratio < low else high, dtype=torch.float64)
            surrogate = ratio * advantage if ratio * advantage <= cut * advantage else cut * advantage
            gap = tensors["reference_log_probs"][i, t] - tensors["log_probs"][i, t]
            terms.append(surrogate - sign * objective.beta * (gap.exp() - gap - 1))
        per_answer.append(terms)
    num_tokens = sum(LENGTHS)
    if name in ("grpo", "gspo"):
        return -sum(sum(terms) / len(terms) for terms in per_answer) / len(per_answer)
    total = -sum(sum(terms) for terms in per_answer)
    return total / (len(per_answer) * MAX_TOKENS) if name == "dr_grpo" else total / num_tokens


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("beta", [0.0, 0.04, 0.5])
def test_the_loss_against_a_naive_loop(name: str, beta: float) -> None:
    objective, tensors = ALGORITHMS[name](beta=beta), batch()
    loss, statistics = objective.loss(**tensors, totals=BatchTotals.of(tensors["mask"], MAX_TOKENS))
    assert_close(loss, naive_loss(name, objective, tensors), atol=1e-10)
    assert_close(statistics.loss, statistics.policy_loss + beta * statistics.kl, atol=1e-12)
    assert statistics.kl > 0 and statistics.clip_fraction > 0


def both_gradients(name: str, tensors: dict[str, Tensor], sign: float = 1.0) -> tuple[Tensor, Tensor]:
    """Of the package's loss and of the naive one, by the same log-probabilities."""
    objective, gradients = ALGORITHMS[name](beta=0.1), []
    for naive in (False, True):
        given = tensors | {"log_probs": tensors["log_probs"].detach().clone().requires_grad_()}
        totals = BatchTotals.of(given["mask"], MAX_TOKENS)
        loss = naive_loss(name, objective, given, sign) if naive else objective.loss(**given, totals=totals)[0]
        loss.backward()
        gradients.append(given["log_probs"].grad)
    return gradients[0], gradients[1]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_gradient_against_that_of_a_naive_loop(name: str) -> None:
    ours, naive = both_gradients(name, batch(seed=5))
    assert_close(ours, naive, atol=1e-10)
    wrong = both_gradients(name, batch(seed=5), sign=-1.0)[1]
    assert (ours - wrong).abs().max() > 1e-3, "the test sees a wrong sign"
    flipped = batch(seed=5)
    flipped["advantages"] = -flipped["advantages"]
    assert (ours - both_gradients(name, flipped)[1]).abs().max() > 1e-3, "of either part"


def test_advantages_of_tokens_against_a_naive_loop() -> None:
    tensors = batch(seed=6)
    generator = torch.Generator().manual_seed(6)
    tensors["advantages"] = torch.randn(tensors["mask"].shape, generator=generator, dtype=torch.float64)
    loss, _ = ppo(beta=0.1).loss(**tensors)
    assert_close(loss, naive_loss("ppo", ppo(beta=0.1), tensors), atol=1e-10)
    ours, naive = both_gradients("ppo", tensors)
    assert_close(ours, naive, atol=1e-10)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_gradient_against_finite_differences(name: str) -> None:
    objective, tensors = ALGORITHMS[name](beta=0.1), batch(seed=3)
    totals = BatchTotals.of(tensors["mask"], MAX_TOKENS)
    objective.loss(**tensors, totals=totals)[0].backward()
    step, log_probs = 1e-6, tensors["log_probs"].detach()
    for i, t in ((0, 0), (2, 1), (5, 3), (7, 4), (4, 2)):
        either = []
        for sign in (1, -1):
            moved = log_probs.clone()
            moved[i, t] += sign * step
            either.append(float(objective.loss(**(tensors | {"log_probs": moved}), totals=totals)[0]))
        expected = (either[0] - either[1]) / (2 * step)
        assert_close(tensors["log_probs"].grad[i, t], expected, atol=1e-8)
    assert tensors["log_probs"].grad[4, 2] == 0, "a token outside the mask has no gradient"


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_add_up_to_the_whole(name: str, size: int) -> None:
    objective, tensors = ALGORITHMS[name](beta=0.04), batch()
    totals = BatchTotals.of(tensors["mask"], MAX_TOKENS)
    whole, whole_statistics = objective.loss(**tensors, totals=totals)
    whole.backward()
    whole_gradient, tensors["log_probs"].grad = tensors["log_probs"].grad.clone(), None
    sums = dict.fromkeys((field.name for field in fields(ObjectiveStatistics)), 0.0)
    for start in range(0, len(LENGTHS), size):
        part = rows(tensors, slice(start, start + size))
        width = int(part["mask"].sum(dim=1).max())
        part = {key: value[:, :width] if value.ndim == 2 else value for key, value in part.items()}
        loss, statistics = objective.loss(**part, totals=totals)
        loss.backward()
        for key in sums:
            sums[key] += getattr(statistics, key)
    assert_close(tensors["log_probs"].grad, whole_gradient, atol=1e-14)
    for key, value in sums.items():
        assert_close(value, getattr(whole_statistics, key), atol=1e-14)
    assert_close(sums["loss"], whole, atol=1e-14)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_first_update_is_the_plain_policy_gradient(name: str) -> None:
    tensors = batch()
    tensors["old_log_probs"] = tensors["log_probs"].detach().clone()
    totals = BatchTotals.of(tensors["mask"], MAX_TOKENS)
    loss, statistics = ALGORITHMS[name](beta=0.0).loss(**tensors, totals=totals)
    assert_close(statistics.ratio_mean, 1.0, atol=1e-12)
    assert statistics.clip_fraction == 0
    loss.backward()
    weights = {
        "grpo": [1 / (8 * n) for n in LENGTHS],
        "gspo": [1 / (8 * n) for n in LENGTHS],
        "dapo": [1 / sum(LENGTHS)] * 8,
        "ppo": [1 / sum(LENGTHS)] * 8,
        "dr_grpo": [1 / (8 * MAX_TOKENS)] * 8,
    }[name]
    expected = -(tensors["advantages"] * torch.tensor(weights, dtype=torch.float64))[:, None] * tensors["mask"]
    assert_close(tensors["log_probs"].grad, expected, atol=1e-12)


def test_a_better_answer_becomes_likelier() -> None:
    log_probs = torch.tensor([[-1.0, -1.0], [-1.0, -1.0]], requires_grad=True)
    mask = torch.ones(2, 2, dtype=torch.bool)
    loss, _ = grpo(beta=0.0).loss(log_probs, log_probs.detach(), None, torch.tensor([1.0, -1.0]), mask)
    loss.backward()
    assert (log_probs.grad[0] < 0).all() and (log_probs.grad[1] > 0).all()


def test_kl_pulls_towards_the_reference() -> None:
    log_probs = torch.tensor([[-1.0, -3.0]], requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    loss, statistics = grpo(beta=1.0).loss(
        log_probs, log_probs.detach(), torch.tensor([[-2.0, -2.0]]), torch.zeros(1), mask
    )
    loss.backward()
    assert log_probs.grad[0, 0] > 0 > log_probs.grad[0, 1]
    # exp(-1) + 1 - 1 and exp(1) - 1 - 1, halved.
    assert_close(statistics.kl, (math.exp(-1) + math.e - 2) / 2)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_stands_outside_the_mask_has_no_influence(name: str) -> None:
    objective, tensors = ALGORITHMS[name](beta=0.04), batch()
    totals = BatchTotals.of(tensors["mask"], MAX_TOKENS)
    expected, _ = objective.loss(**tensors, totals=totals)
    for junk in (math.inf, -math.inf, math.nan, 1e4):
        spoilt = {
            key: value.detach().masked_fill(~tensors["mask"], junk) if key.endswith("log_probs") else value
            for key, value in tensors.items()
        }
        spoilt["log_probs"].requires_grad_()
        loss, statistics = objective.loss(**spoilt, totals=totals)
        loss.backward()
        assert_close(loss, expected, atol=1e-14)
        assert torch.isfinite(spoilt["log_probs"].grad).all() and torch.isfinite(statistics.kl)


def test_clipping_by_hand() -> None:
    ratios = torch.tensor([[0.5, 0.9, 1.1, 1.5], [0.5, 0.9, 1.1, 1.5], [0.5, 0.9, 1.1, 1.5]])
    surrogate, was_clipped = clipped(ratios, torch.tensor([[2.0], [-2.0], [0.0]]), 0.2, 0.3)
    assert_close(surrogate, [[1.0, 1.8, 2.2, 2.6], [-1.6, -1.8, -2.2, -3.0], [0.0] * 4])
    assert was_clipped.tolist() == [[False, False, False, True], [True, False, False, False], [False] * 4]
    surrogate, was_clipped = unclipped(ratios, torch.tensor([[2.0], [-2.0], [0.0]]), 0.2, 0.3)
    assert_close(surrogate, [[1.0, 1.8, 2.2, 3.0], [-1.0, -1.8, -2.2, -3.0], [0.0] * 4])
    assert not was_clipped.any()


def test_clipping_cuts_the_gradient_where_it_says() -> None:
    tensors = batch(spread=0.6)
    objective = grpo(beta=0.0)
    loss, statistics = objective.loss(**tensors)
    loss.backward()
    num_zero = int(((tensors["log_probs"].grad == 0) & tensors["mask"]).sum())
    assert num_zero > 0
    assert_close(statistics.clip_fraction, num_zero / sum(LENGTHS), atol=1e-12)


def test_ratios_by_hand() -> None:
    log_probs = torch.tensor([[-1.0, -2.0, -9.0], [-1.0, -1.0, -1.0]], requires_grad=True)
    old = torch.tensor([[-2.0, -5.0, -1.0], [-1.5, -1.0, -4.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert_close(token_log_ratios(log_probs, old, mask), [[1.0, 3.0, 0.0], [0.5, 0.0, 3.0]])
    means = sequence_log_ratios(log_probs, old, mask)
    assert_close(means, [[2.0, 2.0, 0.0], [3.5 / 3] * 3])
    means[0, 0].backward()
    assert_close(log_probs.grad, [[0.5, 0.5, 0.0], [0.0] * 3])


def test_a_sequence_without_tokens_adds_nothing() -> None:
    log_probs = torch.full((2, 3), -1.0)
    mask = torch.tensor([[False] * 3, [True] * 3])
    assert_close(sequence_log_ratios(log_probs, log_probs - 1, mask), [[0.0] * 3, [1.0] * 3])
    assert_close(sequence_mean_token_mean(log_probs, mask, BatchTotals.of(mask)), -0.5)


def test_divergences_by_hand() -> None:
    log_probs, reference = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -1.0]])
    assert_close(k1(log_probs, reference), [[0.5, -1.0]])
    assert_close(k2(log_probs, reference), [[0.125, 0.5]])
    assert_close(k3(log_probs, reference), [[math.exp(-0.5) - 0.5, math.e - 2]])


def test_divergences_estimate_the_kl() -> None:
    policy, reference = (torch.tensor(p, dtype=torch.float64) for p in ([0.5, 0.3, 0.2], [0.2, 0.5, 0.3]))
    true_kl = float((policy * (policy / reference).log()).sum())
    for estimator in (k1, k3):
        values = estimator(policy.log()[None], reference.log()[None])[0]
        assert_close((policy * values).sum(), true_kl, atol=1e-12)
    assert (k3(policy.log()[None], reference.log()[None]) >= 0).all()


def test_aggregation_by_hand() -> None:
    values = torch.tensor([[1.0, 2.0, 100.0], [6.0, 0.0, 3.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    totals = BatchTotals.of(mask, max_tokens=4)
    assert totals == BatchTotals(2, 5, 4)
    assert_close(sequence_mean_token_mean(values, mask, totals), (1.5 + 3.0) / 2)
    assert_close(token_mean(values, mask, totals), 12 / 5)
    assert_close(fixed_length_sum(values, mask, totals), 12 / 8)
    assert BatchTotals.of(mask).max_tokens == 3


def test_the_presets_are_the_papers() -> None:
    def numbers(objective: Objective) -> tuple[float, float, float]:
        return objective.clip_low, objective.clip_high, objective.beta

    assert Objective() == grpo()
    assert numbers(grpo()) == (0.2, 0.2, 0.04)
    assert numbers(dapo()) == (0.2, 0.28, 0.0)
    assert numbers(dr_grpo()) == (0.2, 0.2, 0.0)
    assert numbers(gspo()) == (3e-4, 4e-4, 0.0)
    assert numbers(ppo()) == (0.2, 0.2, 0.04)


def test_the_divergence_is_chosen_by_name() -> None:
    tensors = batch()
    for name, function in (("k1", k1), ("k2", k2), ("k3", k3)):
        _, statistics = grpo(divergence=name).loss(**tensors)
        values = function(tensors["log_probs"].detach(), tensors["reference_log_probs"])
        expected = sequence_mean_token_mean(values, tensors["mask"], BatchTotals.of(tensors["mask"]))
        assert_close(statistics.kl, expected, atol=1e-12)


def test_a_reference_is_needed_only_with_beta() -> None:
    tensors = batch() | {"reference_log_probs": None}
    loss, statistics = dapo().loss(**tensors)
    assert statistics.kl == 0
    assert_close(loss, dapo().loss(**batch())[0], atol=1e-14)
    with pytest.raises(ValueError, match=r"beta is 0\.04"):
        grpo().loss(**tensors)


@pytest.mark.parametrize(
    "bad", [{"clip_low": 1.0}, {"clip_low": -0.1}, {"clip_high": -0.1}, {"beta": -1.0}, {"beta": math.nan}]
)
def test_numbers_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Objective(**bad)


def test_unknown_divergences_and_empty_totals_are_refused() -> None:
    with pytest.raises((ValueError, TypeError), match=r"k1.*k2.*k3"):
        Objective(divergence="k4")
    for bad in ((0, 5, 4), (2, 0, 4), (2, 5, 0)):
        with pytest.raises(ValueError, match="above 0"):
            BatchTotals(*bad)


def test_two_processes_with_averaged_gradients_equal_one() -> None:
    objective, tensors = dapo(), batch()
    whole, _ = objective.loss(**tensors)
    totals = BatchTotals.of(tensors["mask"])
    share = BatchTotals(totals.num_sequences / 2, totals.num_tokens / 2, totals.max_tokens)
    halves = [objective.loss(**rows(tensors, part), totals=share)[0] for part in (slice(0, 3), slice(3, 8))]
    assert_close(sum(halves) / 2, whole, atol=1e-14)
