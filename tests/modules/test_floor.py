"""The floor of a step by hand."""

from __future__ import annotations

import torch

from stvg_lightning.models.flops import ModelShape
from stvg_lightning.modules.floor import StepWork, device_flops_per_second, floor_values
from tests.helpers import assert_close

# Two weights a token, eight for a pair, four for a scored token; the tower two for a patch.
SHAPE = ModelShape(1, 0, 1, 2, 2, 1, 0, 4, trains_weights=True)
GROUP = (3, [2, 1])
# Shared: four tokens, 6 + 4 pairs, three scored. Repeated: five and four tokens, 15 + 10 pairs.
SHARED = 2 * 4 + 8 * 10 + 4 * 3
REPEATED = 2 * 9 + 8 * 25 + 4 * 3
PREFILL = 2 * 3 + 8 * 6 + 4 * 1


def test_a_step_by_hand() -> None:
    work = StepWork(rolled_out=[GROUP, GROUP], learned=[GROUP], patches=10, updates=2, has_reference=True)
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


def test_without_a_reference_there_is_one_pass_fewer() -> None:
    work = StepWork([GROUP], [GROUP], 0, 1, has_reference=False)
    assert work.tokens() == 4 + 4 and work.update_flops(SHAPE) == 3 * SHARED


def test_the_device_s_arithmetic_is_told_or_measured() -> None:
    cpu = torch.device("cpu")
    assert device_flops_per_second(989, cpu, torch.float32) == 989e12
    assert device_flops_per_second(None, cpu, torch.float32) > 1e8
