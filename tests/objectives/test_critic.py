"""PPO's critic against naive loops: generalised advantages, the clipped value loss, and their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stvg_lightning.objectives import BatchTotals, Critic, moments_of, ppo, whitened
from tests.helpers import assert_close

LENGTHS = (4, 1, 3)


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    mask = torch.arange(4) < torch.tensor(LENGTHS)[:, None]
    return torch.tensor([1.5, -0.5, 0.25], dtype=torch.float64), values, mask


@pytest.mark.parametrize(("discount", "gae_lambda"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (1.0, 0.0)])
def test_advantages_are_sums_of_surprises(discount: float, gae_lambda: float) -> None:
    rewards, values, mask = batch()
    found = Critic(discount, gae_lambda).advantages(rewards, values, mask)
    for row, length in enumerate(LENGTHS):
        surprises = []
        for token in range(length):
            last = token + 1 == length
            following = 0.0 if last else values[row, token + 1].item()
            surprises.append(last * rewards[row].item() + discount * following - values[row, token].item())
        for token in range(length):
            expected = sum(
                (discount * gae_lambda) ** (later - token) * surprises[later] for later in range(token, length)
            )
            assert_close(found[row, token], expected, atol=1e-12)
    assert found[~mask].abs().max() == 0


def test_limits_by_hand() -> None:
    rewards, values, mask = batch()
    reward_alone = Critic(gae_lambda=1.0).advantages(rewards, values, mask)
    assert_close((reward_alone + values)[mask], rewards[:, None].expand(3, 4)[mask], atol=1e-12)
    one_step = Critic(gae_lambda=0.0).advantages(rewards, values, mask)
    assert_close(one_step[0, 1], values[0, 2] - values[0, 1], atol=1e-12)


def naive_value_loss(critic: Critic, values: Tensor, old: Tensor, returns: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for row, length in enumerate(LENGTHS):
        for token in range(length):
            value, before, target = values[row, token], float(old[row, token]), float(returns[row, token])
            near = value if abs(value - before) <= critic.value_clip else torch.tensor(
                before + critic.value_clip if value > before else before - critic.value_clip, dtype=torch.float64
            )  # fmt: skip
            total = total + max((value - target) ** 2, (near - target) ** 2) / 2
    return critic.value_weight * total / sum(LENGTHS)


def test_the_value_loss_and_its_gradient() -> None:
    critic = Critic(value_clip=0.3, value_weight=0.7)
    _, old, mask = batch()
    values = (old + 0.5 * torch.randn(3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)).detach()
    returns = old + torch.randn(3, 4, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    loss = critic.value_loss(ours, old, returns, mask, BatchTotals.of(mask))
    naive = naive_value_loss(critic, theirs, old, returns)
    assert_close(loss, naive, atol=1e-12)
    loss.backward()
    naive.backward()
    assert_close(ours.grad, theirs.grad, atol=1e-12)
    held = ours.grad[mask]
    assert (held == 0).any() and (held != 0).any(), "the test needs clipped and free values"


def test_values_that_moved_too_far_teach_nothing_where_that_is_better() -> None:
    critic, mask = Critic(value_clip=0.2), torch.ones(1, 1, dtype=torch.bool)
    for value, has_gradient in ((1.1, True), (1.5, False), (0.5, True)):
        values = torch.tensor([[value]], requires_grad=True)
        old, returns = torch.tensor([[1.0]]), torch.tensor([[2.0]])
        critic.value_loss(values, old, returns, mask, BatchTotals.of(mask)).backward()
        assert bool(values.grad.abs().max() > 0) is has_gradient


def test_whitening_over_parts() -> None:
    _, values, mask = batch()
    parts = [moments_of(values[:1], mask[:1]), moments_of(values[1:], mask[1:])]
    found = whitened(values, parts[0] + parts[1], 0.0)
    held = values[mask]
    assert_close(found[mask], (held - held.mean()) / held.std(unbiased=False), atol=1e-12)
    nothing = torch.zeros(1, 2)
    assert torch.equal(whitened(nothing, moments_of(nothing, nothing == 0), 1e-8), nothing)


def test_ppo_weighs_each_token() -> None:
    generator = torch.Generator().manual_seed(1)
    _, _, mask = batch()
    log_probs, old, advantages = (torch.randn(3, 4, generator=generator, dtype=torch.float64) * 0.3 for _ in range(3))
    objective = ppo(beta=0.0)
    loss, _ = objective.loss(log_probs, old, None, advantages, mask)
    total = 0.0
    for row, length in enumerate(LENGTHS):
        for token in range(length):
            ratio, advantage = (log_probs - old)[row, token].exp().item(), advantages[row, token].item()
            total -= min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
    assert_close(loss, total / sum(LENGTHS), atol=1e-12)
    assert objective.critic == Critic() and objective.critic.value_clip == 0.2


@pytest.mark.parametrize(
    "wrong",
    [{"discount": 0.0}, {"discount": 1.1}, {"gae_lambda": -0.1}, {"value_clip": -1.0}, {"value_weight": float("nan")}],
)
def test_numbers_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Critic(**wrong)
