"""Box answers with a bounding-box chain of thought (STVG-o1, arXiv 2511.21375, Figure 2 and equations 1 and 2).

    <time> 5 - 7 </time> <think_bbox> 5. [271, 30, 395, 212], ... </think_bbox> <pred_bbox> 5. [...], ... </pred_bbox>

The first list of boxes is the thought, the second one the answer; a cell is what an index counts, a second or a sampled
frame (`tubes/grid.py`). The paper prints neither its instruction nor the
unit of its indices nor the frame of its coordinates: those here are ours, and keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from stvg_lightning.answers.answer import Answer, BoxLists, first_of_each
from stvg_lightning.answers.coordinates import Coordinates, scales_of, words_of
from stvg_lightning.answers.reading import between, is_row_of_tags
from stvg_lightning.answers.view import Frames, View
from stvg_lightning.tubes import Box, Truth, span_seconds_to_frames
from stvg_lightning.tubes.choices import check_choice
from stvg_lightning.tubes.grid import IndexSpan, TimeGrid, interpolated

IndexUnit = Literal["second", "frame"]

LONGEST_NUMBER = 9
"""Digits of the longest number that is read; it keeps hostile texts cheap to read."""

MOST_BOXES = 1000
"""Boxes read from one list; a text that repeats itself may hold more."""

_NUMBER = rf"(-?[0-9]{{1,{LONGEST_NUMBER}}}(?:\.[0-9]{{0,{LONGEST_NUMBER}}})?)"
_ENTRY = re.compile(
    rf"([0-9]{{1,{LONGEST_NUMBER}}}) ?[.:] ?\[ ?{_NUMBER} ?, ?{_NUMBER} ?, ?{_NUMBER} ?, ?{_NUMBER} ?\][ ,;]*",
    re.ASCII,
)
_SPAN = re.compile(rf"([0-9]{{1,{LONGEST_NUMBER}}}) ?(?:-|\u2013|to) ?([0-9]{{1,{LONGEST_NUMBER}}})", re.ASCII)


@dataclass(frozen=True)
class BoxChain:
    """The answer language of STVG-o1.

    Attributes:
        index_unit: what `5.` counts: whole seconds, or the frames that the model is shown, from 0.
        coordinates: pixels of the frames as the model reads them, thousandths of their sides, or pixels of the
            original video.
        think: whether a list of boxes to think with is asked for and read; the paper's ablation leaves it out.

    Raises:
        ValueError: an unknown unit or frame of coordinates.
    """

    index_unit: IndexUnit = "second"
    coordinates: Coordinates = "input"
    think: bool = True

    def __post_init__(self) -> None:
        check_choice("index_unit", self.index_unit, get_args(IndexUnit))
        check_choice("coordinates", self.coordinates, get_args(Coordinates))

    def instruction(self, truth: Truth, view: View) -> str:
        """The question put to the model; the lines that show the format hold no digits that a model could copy.

        Args:
            truth: gives the query; nothing else of it is told.
            view: the frames that the model is shown.

        Raises:
            ValueError: another task than `stvg`, or a view without frames.
        """
        _check_task(truth)
        frames = _frames(view)
        unit = "whole seconds" if self.index_unit == "second" else "frames of this video, counted from zero"
        each = "second" if self.index_unit == "second" else "frame"
        entry = f"[{each}]. [x1, y1, x2, y2]"
        thinking = "First find a box for each, then look again and correct it. " if self.think else ""
        return "\n".join(
            [
                f'Find the time during which this happens, and where it is seen: "{truth.query}"',
                f"Give the first and the last {each} of it in {unit}, and one box for every {each} between them. "
                f"{thinking}Boxes are corners in {words_of(self.coordinates, frames)}.",
                f"Answer in this format: <time> [first] - [last] </time> {self._lists(f'{entry}, ...')}",
            ]
        )

    def holds_answer(self, truth: Truth) -> bool:
        """Whether a truth knows span and boxes, so that `write` can write them."""
        return truth.span_frames is not None and bool(truth.boxes_xyxy)

    def write(self, truth: Truth, thought: str, view: View) -> str:
        """A gold answer: the true boxes in both lists, corners rounded to whole numbers.

        Args:
            truth: holds a span and boxes; where a cell's own frame has no box, the nearest one's counts.
            thought: not told: the boxes are the thought.
            view: the frames that the model is shown.

        Raises:
            ValueError: another task than `stvg`, a truth without span or boxes, or a view without frames.
        """
        _check_task(truth)
        if truth.span_frames is None or not self.holds_answer(truth):
            raise ValueError(f"truth {truth.id!r} has no span_frames or no boxes_xyxy to write")
        grid, scale_x, scale_y = self._grid_and_scales(_frames(view))
        cells = grid.cells_of(truth.span_frames)
        entries = ", ".join(
            f"{index}. [{x1 / scale_x:.0f}, {y1 / scale_y:.0f}, {x2 / scale_x:.0f}, {y2 / scale_y:.0f}]"
            for index, (x1, y1, x2, y2) in grid.boxes_of(truth.boxes_xyxy, cells).items()
        )
        return f"<time> {cells[0]} - {cells[1]} </time> {self._lists(entries)}"

    def read(self, text: str, view: View) -> Answer:
        """Read a completion; whatever it holds, nothing is raised, in time proportional to its length.

        Of every pair of tags the first counts. A reversed box is a problem and counts as missing; one that reaches
        out of the frame is taken as it is. The answer's boxes fill the answered time: on straight lines between
        those that were written.

        Args:
            text: the completion.
            view: the frames that the model was shown.

        Returns:
            The answer; its `box_lists` hold what was written, its `boxes_xyxy` a box for every frame.

        Raises:
            ValueError: a view without frames.
        """
        frames = _frames(view)
        grid, scale_x, scale_y = self._grid_and_scales(frames)
        problems: list[str] = []
        cells = _read_cells(text, problems)
        lists = {
            tag: tuple(
                (index, (x1 * scale_x, y1 * scale_y, x2 * scale_x, y2 * scale_y))
                for index, (x1, y1, x2, y2) in _read_list(text, tag, problems)
            )
            for tag in self._list_tags
        }
        box_lists = BoxLists(grid, cells, lists.get("think_bbox"), lists["pred_bbox"])
        return Answer(
            text,
            span_seconds=None if cells is None else grid.seconds_of(cells),
            boxes_xyxy=_filled(box_lists),
            thought=between(text, "think_bbox") if self.think else None,
            well_formed=is_row_of_tags(text, "time", *self._list_tags),
            problems=tuple(problems),
            box_lists=box_lists,
            names_objects=False,
        )

    @property
    def _list_tags(self) -> tuple[str, ...]:
        return ("think_bbox", "pred_bbox") if self.think else ("pred_bbox",)

    def _lists(self, entries: str) -> str:
        return " ".join(f"<{tag}> {entries} </{tag}>" for tag in self._list_tags)

    def _grid_and_scales(self, frames: Frames) -> tuple[TimeGrid, float, float]:
        """What indices count, and the original pixels in one written unit of x and of y."""
        if self.index_unit == "second":
            grid = TimeGrid.of_seconds(frames.fps, frames.num_frames)
        else:
            grid = TimeGrid.of_frames(frames.indices, frames.fps, frames.num_frames)
        return grid, *scales_of(self.coordinates, frames)


def _read_cells(text: str, problems: list[str]) -> IndexSpan | None:
    content = between(text, "time")
    if content is None:
        problems.append("no <time>...</time>")
        return None
    match = _SPAN.fullmatch(" ".join(content.split()))
    if match is None:
        problems.append(f"no two whole numbers joined by a dash in {content[:40]!r}")
        return None
    return int(match[1]), int(match[2])


def _read_list(text: str, tag: str, problems: list[str]) -> Iterator[tuple[int, Box]]:
    """Index and box of every entry, as written and in that order."""
    content = between(text, tag)
    if content is None:
        problems.append(f"no <{tag}>...</{tag}>")
        return
    position, content = 0, " ".join(content.split())
    for _ in range(MOST_BOXES):
        match = _ENTRY.match(content, position)
        if match is None:
            break
        x1, y1, x2, y2 = (float(match[group]) for group in range(2, 6))
        if x1 <= x2 and y1 <= y2:
            yield int(match[1]), (x1, y1, x2, y2)
        else:
            problems.append(f"the box is reversed: {match[0].rstrip(' ,;')!r} of <{tag}>")
        position = match.end()
    if position < len(content):
        problems.append(f"no box follows in <{tag}> at {content[position : position + 40]!r}")


def _filled(lists: BoxLists) -> dict[int, Box] | None:
    """Original frame -> box, for every frame of the answered time; None where no box was written in it."""
    if lists.cells is None:
        return None
    grid, (first, last) = lists.grid, lists.cells
    boxes = first_of_each(lists.predicted)
    written = {grid.starts_frames[i]: box for i, box in boxes.items() if first <= i <= min(last, grid.num_cells - 1)}
    answered = span_seconds_to_frames(grid.seconds_of(lists.cells), grid.fps, grid.num_frames)
    return interpolated(written, answered) if written else None


def _frames(view: View) -> Frames:
    if view.frames is None:
        raise ValueError(
            "answers in boxes count the frames that a model is shown, and these are not known here: name a recipe "
            "that tells them, with video.side_multiple where no model is loaded (`stvg score --recipe`)"
        )
    return view.frames


def _check_task(truth: Truth) -> None:
    if truth.task != "stvg":
        raise ValueError(f"truth {truth.id!r}: answers in boxes know the task stvg, not {truth.task!r}")
