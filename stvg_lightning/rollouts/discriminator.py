"""The spatial grounding module at work: where the described thing is in the frames of answered times.

In GRPO it is SARL-STG's spatial discriminator: frozen, its boxes reach the rewards as data. In prediction it gives an
answer of time its tube. All answers to one question share their frames, which are decoded and read once.
"""

from __future__ import annotations

import resource
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import torch
from jaxtyping import Float
from torch import Tensor

from stvg_lightning.answers import Answer
from stvg_lightning.data.clips import ClipSampling
from stvg_lightning.data.video import decode_frames
from stvg_lightning.models.spatial_grounding import SpatialGrounder
from stvg_lightning.tubes import Box, Truth, Tube, span_seconds_to_frames
from stvg_lightning.tubes.grid import interpolated

KEPT_CLIPS = 4096
"""Sub-clips whose boxes are remembered, the latest ones: a time that was answered before costs nothing again."""

Clip = tuple[int, ...]


@dataclass
class Cost:
    """What the discriminator has cost since it was last asked.

    `memory_mib` is what it needed beside what was held before: on a GPU exactly, on a CPU by how much the largest
    memory of the process grew, which is 0 where another part had needed more.
    """

    seconds: float = 0.0
    memory_mib: float = 0.0
    num_clips: int = 0
    num_read: int = 0

    def per_rollout(self, num_rollouts: int) -> dict[str, float]:
        """What trainings log: seconds for each completion, memory, and the share of sub-clips that were not known."""
        return {
            "discriminator/seconds_per_rollout": self.seconds / max(num_rollouts, 1),
            "discriminator/memory_mib": self.memory_mib,
            "discriminator/read_share": self.num_read / max(self.num_clips, 1),
        }


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
        started, held = perf_counter(), self._start_memory()
        clips = [self._clip(answer, truth) for answer in answers]
        wanted = dict.fromkeys(clip for clip in clips if clip)
        unknown = [clip for clip in wanted if (truth.id, truth.query, clip) not in self._kept]
        if unknown:
            for clip, tube in zip(unknown, self._find(unknown, truth, video, video_tokens), strict=True):
                self._kept[truth.id, truth.query, clip] = tube
        found = [self._kept[truth.id, truth.query, clip] if clip else None for clip in clips]
        while len(self._kept) > KEPT_CLIPS:
            self._kept.popitem(last=False)
        self._add_cost(perf_counter() - started, held, len(wanted), len(unknown))
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

    def _start_memory(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated() / 2**20
        return _largest_memory_mib()

    def _add_cost(self, seconds: float, held_mib: float, num_clips: int, num_read: int) -> None:
        peak = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else _largest_memory_mib()
        cost = self.cost
        self.cost = Cost(
            cost.seconds + seconds,
            max(cost.memory_mib, peak - held_mib),
            cost.num_clips + num_clips,
            cost.num_read + num_read,
        )


def located(answer: Answer, truth: Truth, tube: Tube | None) -> Answer:
    """An answer with a box in every frame of its time, on straight lines between those of a tube."""
    if tube is None or answer.span_seconds is None:
        return answer
    span = span_seconds_to_frames(answer.span_seconds, truth.fps, truth.num_frames)
    return replace(answer, boxes_xyxy=interpolated(tube, span))


def _largest_memory_mib() -> float:
    """The most memory that the process has held so far, as Linux counts it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
