"""What the rewards of STVG-o1 share: its lists of boxes against the truth on the same grid (equations 6 and 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from stvg_lightning.answers.answer import Answer, BoxLists, WrittenBoxes, first_of_each
from stvg_lightning.tubes import Box, Truth
from stvg_lightning.tubes.boxes import paired_box_giou
from stvg_lightning.tubes.choices import check_choice
from stvg_lightning.tubes.grid import IndexSpan

L1Reduce = Literal["sum", "mean"]
MissingBox = Literal["worst", "zero"]


@dataclass(frozen=True)
class BoxAgreement:
    """`R_spa`: the mean of GIoU less L1 over the cells that the answered and the true time share (equation 7).

    The paper gives neither the unit of L1 nor what a missing box costs: both are ours, and keys.

    Attributes:
        giou: whether GIoU counts.
        l1: whether the L1 distance counts. Corners are divided by the frame's width and height, and the distance is
            clamped to the largest inside the frame: 4 for `sum`, 1 for `mean`.
        l1_reduce: `sum` of the four differences, at most 4, or their `mean`, at most 1.
        missing: a shared cell without a box scores the `worst` a cell can, or makes the whole list `zero`.
        floor: the least that a list scores; none in the paper. With 0, bad boxes at the right time cost no more than
            missing the time, which scores 0.

    Raises:
        ValueError: neither GIoU nor L1, an unknown `l1_reduce` or `missing`, or a floor above 0.
    """

    giou: bool = True
    l1: bool = True
    l1_reduce: L1Reduce = "sum"
    missing: MissingBox = "worst"
    floor: float | None = None

    def __post_init__(self) -> None:
        if not self.giou and not self.l1:
            raise ValueError("a spatial reward needs giou, l1, or both")
        check_choice("l1_reduce", self.l1_reduce, get_args(L1Reduce))
        check_choice("missing", self.missing, get_args(MissingBox))
        if self.floor is not None and not self.floor <= 0:
            raise ValueError(f"floor must be at most 0, what missing the time scores, not {self.floor}")

    @property
    def worst(self) -> float:
        """What a cell without a box scores."""
        return -float(self.giou) - self.l1 * self.largest_l1

    @property
    def least(self) -> float:
        """What a list scores at least."""
        return self.worst if self.floor is None else max(self.worst, self.floor)

    @property
    def best(self) -> float:
        """What a cell with the true box scores."""
        return float(self.giou)

    @property
    def largest_l1(self) -> float:
        return 4.0 if self.l1_reduce == "sum" else 1.0

    def of(self, boxes: WrittenBoxes, lists: BoxLists, truth: Truth) -> float:
        """The agreement of one list of boxes with the truth; 0 where the times share no cell."""
        true_boxes = shared_truth(lists, truth)
        if not true_boxes:
            return 0.0
        written = first_of_each(boxes)
        shared = [index for index in true_boxes if index in written]
        if self.missing == "zero" and len(shared) < len(true_boxes):
            return 0.0
        scores = self._scores([written[i] for i in shared], [true_boxes[i] for i in shared], truth)
        mean = (scores + self.worst * (len(true_boxes) - len(shared))) / len(true_boxes)
        return mean if self.floor is None else max(mean, self.floor)

    def _scores(self, written: list[Box], true: list[Box], truth: Truth) -> float:
        """The sum over pairs of boxes."""
        if not written:
            return 0.0
        first, second = (torch.tensor(boxes, dtype=torch.float64) for boxes in (written, true))
        sides = torch.tensor([truth.width, truth.height] * 2, dtype=torch.float64)
        distances = ((first - second) / sides).abs().sum(dim=-1)
        if self.l1_reduce == "mean":
            distances = distances / 4
        scores = self.giou * paired_box_giou(first, second) - self.l1 * distances.clamp(max=self.largest_l1)
        return float(scores.sum())


def true_cells(lists: BoxLists, truth: Truth) -> IndexSpan:
    """The true span on an answer's grid.

    Raises:
        ValueError: a truth without a span.
    """
    if truth.span_frames is None:
        raise ValueError(f"truth {truth.id!r} of task {truth.task!r} has no span_frames")
    return lists.grid.cells_of(truth.span_frames)


def shared_truth(lists: BoxLists, truth: Truth) -> dict[int, Box]:
    """Index -> true box, for the cells in both the answered and the true time (`T_cap`, equation 6).

    Raises:
        ValueError: a truth without a span or without boxes.
    """
    first, last = true_cells(lists, truth)
    if not truth.boxes_xyxy:
        raise ValueError(f"truth {truth.id!r} of task {truth.task!r} has no boxes_xyxy")
    if lists.cells is None:
        return {}
    shared = max(first, lists.cells[0]), min(last, lists.cells[1])
    return lists.grid.boxes_of(truth.boxes_xyxy, shared)


def lists_of(answer: Answer) -> BoxLists:
    """The lists of an answer.

    Raises:
        ValueError: the answer was read in a language without lists of boxes.
    """
    if answer.box_lists is None:
        raise ValueError("this reward needs answers in lists of boxes: answer: stvg_lightning.answers.BoxChain")
    return answer.box_lists
