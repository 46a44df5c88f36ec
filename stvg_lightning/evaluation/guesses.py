"""Constant guesses: what can be scored without looking at a video, and what every model should beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stvg_lightning.answers import Answer
from stvg_lightning.evaluation.overlap import FrameSpan
from stvg_lightning.tubes import Box, Sample, Span, Truth

GuessedSpan = Literal["whole_video", "middle_half"]


@dataclass(frozen=True)
class ConstantGuess:
    """Always the same time, and in it the object with the largest boxes; of lettered candidates always the first.

    Where no objects are tracked, the place is the whole frame, which is the largest box there is.

    Attributes:
        span: the time that is guessed.
    """

    span: GuessedSpan = "whole_video"

    def prepare(self, sample: Sample) -> Truth:
        """The question; nothing is decoded."""
        return sample.truth

    def answer(self, prepared: Sequence[Truth]) -> list[Answer]:
        """A guess for each question."""
        return [self._guess(truth) for truth in prepared]

    def _guess(self, truth: Truth) -> Answer:
        if truth.task in ("choice", "numeric"):
            guess = "A" if truth.task == "choice" else "0"
            return Answer(guess, reply=guess)
        span_seconds = None if truth.task == "spatial" else self._span_seconds(truth)
        if truth.task == "temporal":
            return Answer("", span_seconds)
        if truth.tracks:
            return Answer("", span_seconds, (largest_object(truth, self._span_frames(truth)),))
        whole = (0.0, 0.0, float(truth.width), float(truth.height))
        boxes = dict.fromkeys(range(truth.num_frames), whole)
        return Answer("", span_seconds, boxes_xyxy=boxes, names_objects=False)

    def _span_seconds(self, truth: Truth) -> Span:
        end = truth.duration_seconds
        return (0.0, end) if self.span == "whole_video" else (end / 4, 3 * end / 4)

    def _span_frames(self, truth: Truth) -> FrameSpan:
        end = truth.num_frames
        return (0, end) if self.span == "whole_video" else (end // 4, max(3 * end // 4, end // 4 + 1))


def largest_object(truth: Truth, span_frames: FrameSpan) -> int:
    """The object whose boxes cover the most over some frames; the lowest id of equal ones.

    Args:
        truth: with tracks.
        span_frames: `[start, end)`.

    Example:
        >>> small, large = {0: (0.0, 0.0, 1.0, 1.0)}, {0: (0.0, 0.0, 2.0, 2.0)}
        >>> largest_object(Truth("a", "q", 1.0, 1, 9, 9, tracks={1: small, 4: large}), (0, 1))
        4
    """
    start, end = span_frames
    covered = {
        object_id: sum(_area(box) for frame, box in track.items() if start <= frame < end)
        for object_id, track in sorted(truth.tracks.items())
    }
    return max(covered, key=lambda object_id: covered[object_id])


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
