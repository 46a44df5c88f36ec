"""Sub-clips: the frames of a part of a video that a spatial grounding module reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClipSampling:
    """How many frames of a sub-clip are read (SARL-STG: 2 a second, at most 64).

    Attributes:
        fps: frames taken for each second of the video, always the same ones: sub-clips share them.
        max_frames: a longer sub-clip is thinned out evenly.

    Raises:
        ValueError: a number that is not above 0.
    """

    fps: float = 2.0
    max_frames: int = 64

    def __post_init__(self) -> None:
        if not self.fps > 0 or self.max_frames < 1:
            raise ValueError(f"fps {self.fps} must be above 0, and max_frames {self.max_frames} at least 1")

    def frames_of(self, span_frames: tuple[int, int], fps: float, num_frames: int) -> tuple[int, ...]:
        """The frames of a sub-clip, ascending: at least the one in its middle.

        Args:
            span_frames: `[start, end)`, not empty and inside the video.
            fps: the video's own rate.
            num_frames: frames of the video.

        Example:
            >>> ClipSampling(fps=2.0).frames_of((10, 31), fps=10.0, num_frames=100)
            (10, 15, 20, 25, 30)
            >>> ClipSampling(fps=2.0).frames_of((11, 14), fps=10.0, num_frames=100)
            (12,)
        """
        start, end = span_frames
        assert 0 <= start < end <= num_frames, (span_frames, num_frames)
        step = max(fps / self.fps, 1.0)
        grid = range(int(start / step), int(end / step) + 2)
        inside = [frame for frame in (int(index * step + 1e-6) for index in grid) if start <= frame < end]
        if len(inside) > self.max_frames:
            share = len(inside) / self.max_frames
            inside = [inside[int((index + 0.5) * share)] for index in range(self.max_frames)]
        return tuple(inside) or ((start + end) // 2,)


def shifted_span(span_frames: tuple[int, int], shift_frames: int, num_frames: int) -> tuple[int, int]:
    """A span moved by some frames, and kept inside the video at its length.

    Example:
        >>> shifted_span((10, 30), -64, 100), shifted_span((10, 30), 90, 100)
        ((0, 20), (80, 100))
    """
    start, end = span_frames
    moved = min(max(start + shift_frames, 0), num_frames - (end - start))
    return moved, moved + end - start
