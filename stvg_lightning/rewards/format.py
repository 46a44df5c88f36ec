"""The format reward: the template is kept (STVG-R1, section 3.3)."""

from __future__ import annotations

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import reward
from stvg_lightning.tubes import Truth


@reward
def well_formed(answer: Answer, truth: Truth) -> float:
    """1 where the text is one `<think>...</think>` and one `<answer>...</answer>` and nothing else, otherwise 0."""
    return float(answer.well_formed)
