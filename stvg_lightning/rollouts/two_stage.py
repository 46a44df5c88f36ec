"""The zero-shot baseline of STVG-R1's section 4.2: first when, then where, frame by frame, with nothing drawn.

Any model that grounds a phrase in a picture can be scored so, trained for it or not. "+VisualPrompt" in the paper's
tables is the same model asked once, about a video with object ids drawn into it: `ModelPredictor` with markers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from stvg_lightning.answers import Answer, FrameBox, Frames
from stvg_lightning.data.clips import ClipSampling
from stvg_lightning.data.video import UnreadableVideo, decode_frames, resized_size
from stvg_lightning.rollouts.preparation import Example, Preparation
from stvg_lightning.tubes import Box, Clip, Sample, Span, Truth, Tube, span_seconds_to_frames
from stvg_lightning.tubes.grid import interpolated


@runtime_checkable
class Completes(Protocol):
    """A model or a server that completes prompts: `ModelPredictor`, `EndpointPredictor`."""

    def texts(self, prompts: Sequence[Any]) -> list[str]:
        """The completion of each prompt."""


@dataclass(frozen=True)
class TwoStagePredictor:
    """Asks for the time; then, in single frames of it, for a box.

    As in the paper, only frames of the answered time that lie in the true one are asked about: vIoU counts no other
    box. A frame between two that were asked about has the box on the line between theirs, one of the answered time
    beyond them the nearest box, so that scores which count all predicted frames count these too; a frame nearest to one
    in which no box was found has none. Outside the answered time there are no boxes: gt_vIoU, which would count them,
    is that of the answered time alone.

    Attributes:
        completes: the model or server.
        preparation: how the video is shown for the first question, without markers, in a language that tells times.
        frame_box: how a box is asked for.
        frames: which frames of the time are asked about. The paper does not say how many: ours is 2 a second.
        batch_size: frames asked about at once.

    Raises:
        ValueError: a preparation that draws markers.
    """

    completes: Completes
    preparation: Preparation
    frame_box: FrameBox = field(default_factory=FrameBox)
    frames: ClipSampling = field(default_factory=ClipSampling)
    batch_size: int = 8

    def __post_init__(self) -> None:
        if self.preparation.markers.draw:
            raise ValueError("two stages ask about a video without markers: markers.draw must be false")

    def prepare(self, sample: Sample) -> tuple[Sample, Example | None]:
        """The first question; none where only the place is asked for.

        Raises:
            ValueError: a question of another kind than time and place.
            UnreadableVideo: the video cannot be decoded.
        """
        truth = sample.truth
        if truth.task not in ("stvg", "temporal", "spatial"):
            raise ValueError(f"truth {truth.id!r} is of task {truth.task!r}: two stages find a time and a place")
        if truth.task == "spatial":
            return sample, None
        return sample, self.preparation(replace(sample, truth=replace(truth, task="temporal")))

    def answer(self, prepared: Sequence[tuple[Sample, Example | None]]) -> list[Answer]:
        """The answers of both stages, the second one's boxes in frames of the original video."""
        asked = [example for _, example in prepared if example is not None]
        times = iter(self.completes.texts([example.prompt for example in asked]) if asked else ())
        answers = []
        for sample, example in prepared:
            answer = Answer("") if example is None else self.preparation.read(next(times), example.truth)
            answers.append(answer if sample.truth.task == "temporal" else self._with_boxes(answer, sample))
        return answers

    def _with_boxes(self, answer: Answer, sample: Sample) -> Answer:
        answered, to_ask = _answered_and_asked(answer.span_seconds, sample.truth)
        placed = replace(answer, object_ids=(), names_objects=False)
        if to_ask[0] >= to_ask[1]:
            return placed
        try:
            asked, found = self._boxes(sample, to_ask)
        except UnreadableVideo as error:
            return replace(placed, problems=(*placed.problems, f"the video cannot be read: {error}"))
        if not found:
            return replace(placed, problems=(*placed.problems, "no box was read in any frame"))
        return replace(placed, boxes_xyxy=between_frames(asked, found, answered))

    def _boxes(self, sample: Sample, span_frames: tuple[int, int]) -> tuple[tuple[int, ...], dict[int, Box]]:
        """The frames asked about, and the boxes found in some of them."""
        truth = sample.truth
        asked = self.frames.frames_of(span_frames, truth.fps, truth.num_frames)
        clip = decode_frames(sample.video, asked, truth.fps)
        found = {}
        for frame, text in zip(asked, self._texts(clip, truth), strict=True):
            if (box := self.frame_box.read(text, self._shown(frame, truth))) is not None:
                found[frame] = box
        return asked, found

    def _texts(self, clip: Clip, truth: Truth) -> Iterator[str]:
        """What is answered about each frame of a clip."""
        for first in range(0, len(clip.frames), self.batch_size):
            places = range(first, min(first + self.batch_size, len(clip.frames)))
            yield from self.completes.texts([self._prompt(clip, place, truth) for place in places])

    def _prompt(self, clip: Clip, place: int, truth: Truth) -> Any:
        """The question about one frame, which is shown as often as the model merges frames into one."""
        encoder = self.preparation.encoder
        frames = self._shown(clip.frame_indices[place], truth)
        still = Clip(np.repeat(clip.frames[place : place + 1], len(frames.indices), axis=0), frames.indices, clip.fps)
        return encoder.encode(still, self.frame_box.instruction(truth.query, frames), frames.height, frames.width)

    def _shown(self, frame: int, truth: Truth) -> Frames:
        encoder, sampling = self.preparation.encoder, self.preparation.video
        times = encoder.frames_per_step
        height, width = resized_size(truth.height, truth.width, times, sampling, encoder.side_multiple, times)
        return Frames((frame,) * times, width, height, truth.width, truth.height, truth.fps, truth.num_frames)


def between_frames(asked: Sequence[int], found: Tube, span_frames: tuple[int, int]) -> dict[int, Box]:
    """A box for every frame of a span whose nearest asked frame has one, on straight lines between those found.

    Args:
        asked: ascending frames, at least one.
        found: box of each asked frame in which there is one, at least one.
        span_frames: `[start, end)`.

    Example:
        >>> sorted(between_frames((0, 4, 8), {0: (0.0, 0.0, 1.0, 1.0), 8: (8.0, 0.0, 9.0, 1.0)}, (0, 10)))
        [0, 1, 2, 7, 8, 9]
    """
    nearest = np.abs(np.subtract.outer(np.arange(*span_frames), np.asarray(asked))).argmin(axis=1)
    filled = interpolated(found, span_frames)
    return {frame: box for (frame, box), place in zip(filled.items(), nearest) if asked[place] in found}


def _answered_and_asked(span_seconds: Span | None, truth: Truth) -> tuple[tuple[int, int], tuple[int, int]]:
    """The answered frames, and those of them that lie in the true time; for a question of place all true frames."""
    true = truth.span_frames or (0, truth.num_frames)
    if truth.task == "spatial":
        return true, true
    if span_seconds is None:
        return (0, 0), (0, 0)
    start, end = span_seconds_to_frames(span_seconds, truth.fps, truth.num_frames)
    return (start, end), (max(start, true[0]), min(end, true[1]))


__all__ = ["Completes", "TwoStagePredictor", "between_frames"]
