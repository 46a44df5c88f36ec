"""From a stored sample to what a model reads: decode, draw the markers, resize, ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from stvg_lightning.answers.answer import Answer
from stvg_lightning.data.video import VideoSampling, decode_frames, resized_size, sampled_frame_indices
from stvg_lightning.models.prompts import EncodedPrompt, PromptEncoder
from stvg_lightning.prompting import MarkedClip, Markers, draw_markers
from stvg_lightning.tubes import Sample, Truth


@runtime_checkable
class AnswerLanguage(Protocol):
    """What `answers` modules offer: an instruction, a gold answer, and a reader."""

    instruction: Callable[..., str]
    write: Callable[..., str]
    read: Callable[..., Answer]


@dataclass(frozen=True)
class Example:
    """A question as a model reads it, with its truth, its gold answer, and where its objects were marked.

    `gold` is None where the truth does not hold the answer, as in a question of a user's own.
    """

    truth: Truth
    prompt: EncodedPrompt
    gold: str | None
    marked_seconds: Mapping[int, tuple[float, ...]]


@dataclass(frozen=True)
class Preparation:
    """How samples become examples: the same for training, evaluation and prediction."""

    encoder: PromptEncoder
    video: VideoSampling
    markers: Markers
    language: AnswerLanguage

    def marked_clip(self, sample: Sample) -> MarkedClip:
        """Decode a sample's frames at the sampling rate and draw the markers, at the original size.

        Raises:
            UnreadableVideo: the video cannot be decoded.
        """
        truth = sample.truth
        indices = sampled_frame_indices(truth.num_frames, truth.fps, self.video, self.encoder.frames_per_step)
        return draw_markers(decode_frames(sample.video, indices, truth.fps), sample, self.markers)

    def __call__(self, sample: Sample) -> Example:
        """Prepare one sample.

        Raises:
            UnreadableVideo: the video cannot be decoded.
        """
        truth = sample.truth
        marked = self.marked_clip(sample)
        height, width = resized_size(
            truth.height,
            truth.width,
            len(marked.clip.frames),
            self.video,
            self.encoder.side_multiple,
            self.encoder.frames_per_step,
        )
        # Without markers to see, a question of time must not speak of them.
        asked = truth if self.markers.draw else replace(truth, tracks={})
        instruction = self.language.instruction(asked, self.markers.kind)
        prompt = self.encoder.encode(marked.clip, instruction, height, width)
        return Example(truth, prompt, self._gold(sample), marked.marked_seconds)

    def _gold(self, sample: Sample) -> str | None:
        truth = sample.truth
        lacks_time = truth.task != "spatial" and truth.span_frames is None
        lacks_object = truth.task != "temporal" and truth.object_id is None
        if lacks_time or lacks_object:
            return None
        return self.language.write(truth, sample.thought, self.markers.kind)

    def read(self, text: str) -> Answer:
        """Read a completion in the answer language."""
        return self.language.read(text, self.markers.kind)
