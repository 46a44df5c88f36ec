r"""TVG-R1's format reward: the template of `time_pair`, and a boxed letter where one is asked for."""

from __future__ import annotations

import re

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import reward
from stvg_lightning.tubes import Truth

_BOXED = re.compile(r"\\boxed\{[^{}]{0,1000}\}")


@reward
def time_pair_format(answer: Answer, truth: Truth) -> float:
    r"""1 where the template is kept; for a question of choice `\boxed{...}` must stand behind the time as well."""
    if truth.task != "choice":
        return float(answer.well_formed)
    behind = answer.text.rpartition("</time>")[2]
    return float(answer.well_formed and _BOXED.search(behind) is not None)
