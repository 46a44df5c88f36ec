"""The consistency reward: one box for each cell of the answered time, in both lists (STVG-o1, equation 4)."""

from __future__ import annotations

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import reward
from stvg_lightning.rewards.box_lists import lists_of
from stvg_lightning.tubes import Truth


@reward(needs=("box_lists",))
def box_consistency(answer: Answer, truth: Truth) -> float:
    """1 where the indices of every list are exactly the answered first to last, each once and ascending; otherwise 0.

    A reversed time has no such indices and earns 0.
    """
    lists = lists_of(answer)
    if lists.cells is None or lists.cells[1] < lists.cells[0]:
        return 0.0
    first, last = lists.cells
    return float(
        all(
            len(boxes) == last - first + 1 and all(i == j for (i, _), j in zip(boxes, range(first, last + 1)))
            for boxes in lists.written
        )
    )
