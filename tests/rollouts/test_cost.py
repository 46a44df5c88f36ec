"""What parts of a step are said to have cost."""

from __future__ import annotations

from time import perf_counter, sleep

import pytest
import torch

from stvg_lightning.rollouts.cost import Phase
from tests.helpers import needs_gpu


def test_a_phase_ends_before_what_comes_next() -> None:
    started = perf_counter()
    phase = Phase(torch.device("cpu"))
    sleep(0.02)
    phase.end()
    whole = perf_counter() - started
    sleep(0.05)
    assert 0.02 <= phase.seconds <= whole and started <= phase.started <= started + whole


@needs_gpu
def test_a_phase_s_end_is_not_waited_for() -> None:
    device = torch.device("cuda")
    phase = Phase(device)
    torch.cuda._sleep(200_000_000)  # some tenths of a second
    phase.end()
    asked = perf_counter() - phase.started
    torch.cuda._sleep(200_000_000)
    torch.cuda.synchronize()
    whole = perf_counter() - phase.started
    assert asked < phase.seconds
    assert phase.seconds == pytest.approx(whole / 2, rel=0.2)
