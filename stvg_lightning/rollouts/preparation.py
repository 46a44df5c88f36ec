"""From a stored sample to what a model reads: decode, draw the markers, resize, ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from stvg_lightning.answers import Answer, AnswerLanguage, Frames, View
from stvg_lightning.data.video import VideoSampling, decode_frames, shown_frames
from stvg_lightning.prompting import MarkedClip, Markers, draw_markers
from stvg_lightning.tubes import Clip, Sample, Truth


@runtime_checkable
class Encoder(Protocol):
    """What makes prompts of clips: `PromptEncoder` for models of this package, `ChatEncoder` for servers."""

    @property
    def side_multiple(self) -> int:
        """Both sides of a frame become multiples of this many pixels."""

    @property
    def frames_per_step(self) -> int:
        """Frames that the model merges into one step of time."""

    def encode(self, clip: Clip, instruction: str, height: int, width: int) -> Any:
        """The prompt for one question about a clip, its frames resized."""


@dataclass(frozen=True)
class Example:
    """A question as a model reads it, with its truth, its gold answer, and where its objects were marked.

    `prompt` is what the encoder made: an `EncodedPrompt`, or a `ChatPrompt` for a server. `gold` is None where the
    truth does not hold the answer, as in a question of a user's own. `video` is the encoded file or its path, for
    another model that reads frames of its own; None where nobody asked for it.
    """

    truth: Truth
    prompt: Any
    gold: str | None
    marked_seconds: Mapping[int, tuple[float, ...]]
    video: bytes | Path | None = None


@dataclass(frozen=True)
class Preparation:
    """How samples become examples: the same for training, evaluation and prediction.

    `keeps_video` hands the encoded video on, beside what the model reads.
    """

    encoder: Encoder
    video: VideoSampling
    markers: Markers
    language: AnswerLanguage
    keeps_video: bool = False

    def __post_init__(self) -> None:
        told, own = self.video.side_multiple, self.encoder.side_multiple
        if told not in (None, own):
            raise ValueError(
                f"video.side_multiple is {told}, but this model's frames have sides that are multiples of {own}"
            )

    def marked_clip(self, sample: Sample) -> MarkedClip:
        """Decode a sample's frames at the sampling rate and draw the markers, at the original size.

        Raises:
            UnreadableVideo: the video cannot be decoded.
        """
        return self._marked_clip(sample, self._shown_frames(sample.truth))

    def view(self, truth: Truth) -> View:
        """How the model sees a truth's question: the kind of marker, the frames and their size; nothing is decoded."""
        return View(self.markers.kind, self._shown_frames(truth), self.markers.draw)

    def __call__(self, sample: Sample) -> Example:
        """Prepare one sample.

        Raises:
            UnreadableVideo: the video cannot be decoded.
        """
        truth = sample.truth
        frames = self._shown_frames(truth)
        marked, view = self._marked_clip(sample, frames), View(self.markers.kind, frames, self.markers.draw)
        instruction = self.language.instruction(truth, view)
        prompt = self.encoder.encode(marked.clip, instruction, frames.height, frames.width)
        video = sample.video if self.keeps_video else None
        return Example(truth, prompt, self._gold(sample, view), marked.marked_seconds, video)

    def _gold(self, sample: Sample, view: View) -> str | None:
        if sample.response:
            return sample.response
        if not self.language.holds_answer(sample.truth):
            return None
        return self.language.write(sample.truth, sample.thought, view)

    def read(self, text: str, truth: Truth) -> Answer:
        """Read a completion in the answer language, as an answer to a truth's question."""
        return self.language.read(text, self.view(truth))

    def _shown_frames(self, truth: Truth) -> Frames:
        return shown_frames(truth, self.video, self.encoder.side_multiple, self.encoder.frames_per_step)

    def _marked_clip(self, sample: Sample, frames: Frames) -> MarkedClip:
        return draw_markers(decode_frames(sample.video, frames.indices, sample.truth.fps), sample, self.markers)
