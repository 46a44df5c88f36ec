"""What a model's text says, once read: one type for every answer language."""

from __future__ import annotations

from dataclasses import dataclass

from stvg_lightning.tubes import Span, Tube


@dataclass(frozen=True)
class Answer:
    """A completion as an answer language reads it. What is missing or unreadable is None or empty.

    Attributes:
        text: the completion, unchanged.
        span_seconds: predicted `(start, end)` in seconds, as written; perhaps reversed or outside the video.
        object_ids: predicted object ids in the order written.
        boxes_xyxy: predicted frame -> box, in pixels of the original frame, for languages that answer in boxes.
        thought: the reasoning, without its tags.
        well_formed: whether the text keeps the language's template from its first to its last character.
        problems: one sentence for each thing that could not be read.
    """

    text: str
    span_seconds: Span | None = None
    object_ids: tuple[int, ...] = ()
    boxes_xyxy: Tube | None = None
    thought: str | None = None
    well_formed: bool = False
    problems: tuple[str, ...] = ()
