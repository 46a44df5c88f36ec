"""The spatial grounding module at work: where the described thing is in the frames of answered times.

In GRPO it is SARL-STG's spatial discriminator: frozen, its boxes reach the rewards as data. In prediction it gives an
answer of time its tube. All answers to one question share their frames, which are decoded and read once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from stvg_lightning.answers import Answer
from stvg_lightning.data.clips import ClipSampling
from stvg_lightning.data.video import decode_frames
from stvg_lightning.models.spatial_grounding import SpatialGrounder
from stvg_lightning.rollouts.cost import Cost, CostWatch
from stvg_lightning.tubes import Box, Truth, Tube, span_seconds_to_frames
from stvg_lightning.tubes.grid import interpolated

KEPT_CLIPS = 4096
"""Sub-clips whose boxes are remembered, the latest ones: a time that was answered before costs nothing again."""

Clip = tuple[int, ...]


@dataclass
class SpatialDiscriminator:
    """Finds the described thing in sub-clips; nothing of it is trained, and nothing flows back through it.

    Attributes:
        grounder: the module and what prepares its input.
        sampling: which frames of a sub-clip are read.
    """

    grounder: SpatialGrounder
    sampling: ClipSampling
    cost: Cost = field(default_factory=Cost)
    _kept: OrderedDict[tuple[str, str, Clip], Tube] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.grounder.module.eval().requires_grad_(False)

    @torch.no_grad()
    def tubes(
        self,
        answers: Sequence[Answer],
        truth: Truth,
        video: bytes | Path,
        video_tokens: Float[Tensor, "tokens width"],
    ) -> list[Tube | None]:
        """For each answer to a question, frame -> box in the frames read of its time.

        Args:
            answers: of any number.
            truth: the question: its sentence, and its video's rate and size. Nothing else of it is looked at.
            video: the encoded file, or its path.
            video_tokens: the language model's tokens of the whole video.

        Returns:
            None for an answer without a time inside the video.

        Raises:
            UnreadableVideo: the video cannot be decoded.
        """
        watch = CostWatch()
        clips = [self._clip(answer, truth) for answer in answers]
        wanted = dict.fromkeys(clip for clip in clips if clip)
        unknown = [clip for clip in wanted if (truth.id, truth.query, clip) not in self._kept]
        if unknown:
            for clip, tube in zip(unknown, self._find(unknown, truth, video, video_tokens), strict=True):
                self._kept[truth.id, truth.query, clip] = tube
        found = [self._kept[truth.id, truth.query, clip] if clip else None for clip in clips]
        while len(self._kept) > KEPT_CLIPS:
            self._kept.popitem(last=False)
        self.cost = self.cost.plus(watch.stop(num_clips=len(wanted), num_new_clips=len(unknown)))
        return found

    def take_cost(self) -> Cost:
        """What it has cost since the last call."""
        taken, self.cost = self.cost, Cost()
        return taken

    def _clip(self, answer: Answer, truth: Truth) -> Clip:
        """The frames to read for an answer; none where it tells no time inside the video."""
        if answer.span_seconds is None:
            return ()
        span = span_seconds_to_frames(answer.span_seconds, truth.fps, truth.num_frames)
        return self.sampling.frames_of(span, truth.fps, truth.num_frames) if span[0] < span[1] else ()

    def _find(
        self, clips: Sequence[Clip], truth: Truth, video: bytes | Path, video_tokens: Tensor
    ) -> list[dict[int, Box]]:
        frames = sorted(set().union(*clips))
        places = {frame: place for place, frame in enumerate(frames)}
        # Nobody else moves the module: it is data to a training, and no part of what is trained.
        self.grounder.module.to(video_tokens.device)
        pictures = torch.from_numpy(decode_frames(video, frames, truth.fps).frames)
        (states,) = self.grounder.read(pictures, truth.query, video_tokens)
        candidates = self.grounder.module.candidates(
            states, [[places[frame] for frame in clip] for clip in clips], [frame / truth.fps for frame in frames]
        )
        size = torch.tensor([truth.width, truth.height] * 2)
        tracks = [(found.best_track().float().cpu().clamp(0, 1) * size).tolist() for found in candidates]
        return [
            {frame: (x1, y1, x2, y2) for frame, (x1, y1, x2, y2) in zip(clip, track, strict=True)}
            for clip, track in zip(clips, tracks, strict=True)
        ]


def located(answer: Answer, truth: Truth, tube: Tube | None) -> Answer:
    """An answer with a box in every frame of its time, on straight lines between those of a tube."""
    if tube is None or answer.span_seconds is None:
        return answer
    span = span_seconds_to_frames(answer.span_seconds, truth.fps, truth.num_frames)
    return replace(answer, boxes_xyxy=interpolated(tube, span))
