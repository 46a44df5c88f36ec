"""What a model's text says, once read: one type for every answer language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stvg_lightning.tubes import Box, Rle, Span, Tube
from stvg_lightning.tubes.grid import IndexSpan, TimeGrid
from stvg_lightning.tubes.scene_graph import SceneGraph

WrittenBoxes = tuple[tuple[int, Box], ...]
"""Index on a grid and box in pixels of the original frame, in the order written; an index may stand twice."""


@dataclass(frozen=True)
class BoxLists:
    """Boxes as they were written, one for each cell of a time grid (STVG-o1).

    Attributes:
        grid: what the indices count.
        cells: the answered first and last index, perhaps reversed or after the video; None where unreadable.
        think: the boxes to think with; None where the language has none.
        predicted: the boxes of the answer.
    """

    grid: TimeGrid
    cells: IndexSpan | None
    think: WrittenBoxes | None
    predicted: WrittenBoxes

    @property
    def written(self) -> tuple[WrittenBoxes, ...]:
        """The lists that the language has, in the order written."""
        return (self.predicted,) if self.think is None else (self.think, self.predicted)


@dataclass(frozen=True)
class Answer:
    """A completion as an answer language reads it. What is missing or unreadable is None or empty.

    Attributes:
        text: the completion, unchanged.
        span_seconds: predicted `(start, end)` in seconds, as written; perhaps reversed or outside the video.
        object_ids: predicted object ids in the order written.
        names_objects: whether the language answers with object ids at all.
        boxes_xyxy: predicted frame -> box, in pixels of the original frame, for languages that answer in boxes.
        thought: the reasoning, without its tags.
        well_formed: whether the text keeps the language's template from its first to its last character.
        problems: one sentence for each thing that could not be read.
        box_lists: what a language with lists of boxes read, as it was written.
        masks: predicted frame -> mask of all that is meant, for predictions that come with masks.
        graph: the scene graph in the thought, for languages that ask for one.
        reply: what of the text answers a question of choice or of number; empty where the language finds none, so that
            nothing that was merely thought counts.
    """

    text: str
    span_seconds: Span | None = None
    object_ids: tuple[int, ...] = ()
    boxes_xyxy: Tube | None = None
    thought: str | None = None
    well_formed: bool = False
    problems: tuple[str, ...] = ()
    box_lists: BoxLists | None = None
    names_objects: bool = True
    masks: Mapping[int, Rle] | None = None
    graph: SceneGraph | None = None
    reply: str = ""


def first_of_each(boxes: WrittenBoxes) -> dict[int, Box]:
    """Index -> box; of an index that stands twice the first one counts."""
    return dict(reversed(boxes))
