"""The floor of a step by hand."""

from __future__ import annotations

from dataclasses import replace

import torch

from stvg_lightning.models.flops import ModelShape, TowerShape, measured_flops_per_second
from stvg_lightning.modules.floor import StepWork, device_flops_per_second, floor_values
from tests.helpers import assert_close

# Two for a token, eight for a pair, four for a scored token; the tower two for a patch.
FROZEN = TowerShape(1, 0, 0, 0, 0, patches_per_token=4)
SHAPE = ModelShape(1, 0, 1, 2, 2, trains_weights=True, tower=FROZEN)
GROUP = (3, [2, 1])
# Shared: four tokens, 6 + 4 pairs, three scored. Repeated: five and four tokens, 15 + 10 pairs.
SHARED = 2 * 4 + 8 * 10 + 4 * 3
REPEATED = 2 * 9 + 8 * 25 + 4 * 3
PREFILL = 2 * 3 + 8 * 6 + 4 * 1


def test_a_step_by_hand() -> None:
    work = StepWork(
        rolled_out=[GROUP, GROUP], learned=[GROUP], patches=10, learned_patches=4, updates=2, has_reference=True
    )
    assert work.tokens() == 2 * 4 + 2 * 2 * 4
    assert work.tokens(repeated=True) == 2 * (4 + 3) + 2 * 2 * 9
    assert work.update_flops(SHAPE) == 2 * (1 + 3) * SHARED
    assert work.update_flops(SHAPE, repeated=True) == 2 * (1 + 3) * REPEATED
    assert work.flops(SHAPE) == 20 + 2 * SHARED + 8 * SHARED
    assert work.flops(SHAPE, repeated=True) == 20 + 2 * (SHARED + PREFILL) + 8 * REPEATED
    values = floor_values(work, SHAPE, flops_per_second=1e4, step_seconds=0.5, update_seconds=0.25)
    assert_close(values["floor/utilisation"], (20 + 10 * SHARED) / 5e3)
    assert_close(values["floor/update_utilisation_repeated"], 8 * REPEATED / 2.5e3)
    assert_close(values["floor/tflops"] * 1e12, 20 + 10 * SHARED, atol=1e-5)
    assert len(values) == 8
    assert work.prefill_flops(SHAPE) == 20 + 2 * PREFILL


def test_without_a_reference_there_is_one_pass_fewer() -> None:
    work = StepWork([GROUP], [GROUP], 0, 0, 1, has_reference=False)
    assert work.tokens() == 4 + 4 and work.update_flops(SHAPE) == 3 * SHARED


def test_a_critic_asks_for_one_pass_more_however_many_updates() -> None:
    work = StepWork([GROUP], [GROUP], 0, 0, 3, has_reference=False, has_critic=True)
    # What it reads gives values, not logits: the three scored tokens do not go through the head.
    assert work.tokens() == 4 + (3 + 1) * 4 and work.update_flops(SHAPE) == 3 * 3 * SHARED + SHARED - 4 * 3


def test_a_trained_tower_goes_along_in_every_pass_of_an_update() -> None:
    # Three weights a patch, one of them an adapter's and one of the stem, and two a token of four patches.
    shape = replace(SHAPE, tower=TowerShape(3, 2, 1, 0, stem_weights=1, patches_per_token=4))
    work = StepWork([GROUP, GROUP], [GROUP], patches=16, learned_patches=8, updates=2, has_reference=True)
    forward = 2 * (3 * 8 + 2 * 2)
    training = 2 * forward - 2 * 8 + 2 * 8
    assert work.update_flops(shape) == 2 * (1 + 3) * SHARED + 2 * (forward + training)
    assert work.flops(shape) == 2 * forward + 2 * SHARED + work.update_flops(shape)
    assert work.update_flops(shape, repeated=True) - work.update_flops(shape) == 2 * (1 + 3) * (REPEATED - SHARED)


def test_the_device_s_arithmetic_is_told_or_measured() -> None:
    cpu = torch.device("cpu")
    assert device_flops_per_second(989, cpu, torch.float32) == 989e12
    assert device_flops_per_second(None, cpu, torch.float32) > 1e8


def test_measuring_the_device_draws_nothing_of_a_training_s_noise() -> None:
    measured_flops_per_second.cache_clear()
    before = torch.random.get_rng_state()
    assert measured_flops_per_second("cpu", torch.float32) > 1e8
    assert torch.equal(torch.random.get_rng_state(), before)
