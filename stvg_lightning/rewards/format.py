"""The format reward: the answer language's template is kept (STVG-R1, section 3.3; STVG-o1, equation 3)."""

from __future__ import annotations

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import reward
from stvg_lightning.tubes import Truth


@reward
def well_formed(answer: Answer, truth: Truth) -> float:
    """1 where the text is the template's pairs of tags, in order, and nothing else; otherwise 0.

    `id_span`: one `<think>...</think>` and one `<answer>...</answer>`. Other languages say in their `read` what they
    ask for; `BoxChain` asks for its tags alone, whatever stands between them: other terms look at that.
    """
    return float(answer.well_formed)
