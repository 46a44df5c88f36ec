"""The temporal reward of STVG-o1: overlap of the answered and the true indices (equation 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import RewardContext
from stvg_lightning.rewards.box_lists import lists_of, true_cells
from stvg_lightning.tubes import Truth, span_iou
from stvg_lightning.tubes.choices import check_choice
from stvg_lightning.tubes.grid import index_span_iou

Interval = Literal["inclusive", "continuous"]


@dataclass(frozen=True)
class IndexTemporalIoU:
    """IoU of the answered and the true first and last index; 0 where no time could be read.

    Attributes:
        interval: `inclusive` counts indices, `5 - 7` being three, as the paper's `|T_cap|` does (equation 7);
            `continuous` takes the numbers for the ends of intervals, `5 - 7` being two long and `5 - 5` nothing: with
            it an answer of one index earns 0, even the right one.

    Raises:
        ValueError: an unknown interval.
    """

    interval: Interval = "inclusive"
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0
    needs: ClassVar[tuple[str, ...]] = ("box_lists",)

    def __post_init__(self) -> None:
        check_choice("interval", self.interval, get_args(Interval))

    def __call__(self, answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float | None]:
        """The reward of each answer."""
        return [self._overlap(answer, truth) for answer in answers]

    def _overlap(self, answer: Answer, truth: Truth) -> float:
        lists = lists_of(answer)
        true = true_cells(lists, truth)
        if lists.cells is None:
            return 0.0
        if self.interval == "inclusive":
            return index_span_iou(lists.cells, true)
        (start, end), (true_start, true_end) = lists.cells, true
        return span_iou((float(start), float(end)), (float(true_start), float(true_end)))
