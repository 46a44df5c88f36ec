"""Means and spreads of reward terms over the answers of all processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from stvg_lightning.rewards import RewardedAnswer, RewardError


def reward_values(
    rewarded: Sequence[RewardedAnswer], all_gather: Callable[[Tensor], Tensor], device: torch.device | str = "cpu"
) -> dict[str, float]:
    """Each term's mean and spread over the answers to which it applies, and the means of what terms note.

    Every process gets the same names, also where a term applies to none of its own questions: what is
    logged over processes must have the same names everywhere.

    Args:
        rewarded: this process's answers, at least one.
        all_gather: stacks the tensors of all processes.
        device: where `all_gather` wants its tensors.

    Returns:
        `reward/NAME` and `reward/NAME_spread` (the population's standard deviation); a term that applies
        to no answer anywhere is left out. `reward/NAME/NOTE` for notes.
    """
    names, notes = list(rewarded[0].terms), list(rewarded[0].notes)
    given = [[value for answer in rewarded if (value := answer.terms[name]) is not None] for name in names]
    if any(answer.notes.keys() != rewarded[0].notes.keys() for answer in rewarded):
        raise RewardError(
            f"the notes of a reward term must have the same names for every answer: {notes} here, not there"
        )
    given += [[answer.notes[name] for answer in rewarded] for name in notes]
    own = [[len(values), sum(values), sum(value * value for value in values)] for values in given]
    sums = all_gather(torch.tensor(own, dtype=torch.float64, device=device)).reshape(-1, len(given), 3).sum(dim=0)
    values = {}
    for name, (count, total, squares) in zip([*names, *notes], sums.tolist(), strict=True):
        if not count:
            continue
        mean = total / count
        values[f"reward/{name}"] = mean
        if name in names:
            values[f"reward/{name}_spread"] = max(squares / count - mean * mean, 0.0) ** 0.5
    return values
