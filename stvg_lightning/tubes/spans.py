"""Temporal spans: half-open intervals `[start, end)` in seconds or in frames, and their overlap."""

from __future__ import annotations

import math

Span = tuple[float, float]


def span_length(span: Span) -> float:
    """Length of a span, 0 for an empty or reversed one, in the span's own unit."""
    return max(0.0, span[1] - span[0])


def span_intersection(first: Span, second: Span) -> Span:
    """The part two spans share; `end <= start` where they share nothing."""
    return max(first[0], second[0]), min(first[1], second[1])


def span_iou(predicted: Span, true: Span) -> float:
    """Temporal IoU of two continuous intervals (STVG-R1, equation 4).

    Args:
        predicted: `(start, end)`, any real numbers; a reversed span counts as empty.
        true: `(start, end)` in the same unit.

    Returns:
        Intersection over true union (not the hull) in [0, 1]; 0 where both are empty.

    Example:
        >>> span_iou((4.0, 8.0), (6.0, 10.0))
        0.3333333333333333
    """
    shared = span_length(span_intersection(predicted, true))
    union = span_length(predicted) + span_length(true) - shared
    return shared / union if union > 0 else 0.0


def span_seconds_to_frames(span_seconds: Span, fps: float, num_frames: int) -> tuple[int, int]:
    """The frames shown during a span of seconds, as a half-open frame range inside the video.

    Frame `i` is shown during `[i / fps, (i + 1) / fps)`. A frame belongs to the range when its
    midpoint lies in the span; a span with `end > start` keeps at least the frame it starts in.

    Args:
        span_seconds: `(start, end)` in seconds, not necessarily inside the video.
        fps: frames per second, above 0.
        num_frames: number of frames in the video.

    Returns:
        `(start, end)` in frames with `0 <= start <= end <= num_frames`; empty where the span is
        reversed, empty, or outside the video.

    Example:
        >>> span_seconds_to_frames((0.5, 1.0), fps=8.0, num_frames=16)
        (4, 8)
    """
    start_seconds, end_seconds = span_seconds
    duration_seconds = num_frames / fps
    if not start_seconds < end_seconds or end_seconds <= 0 or start_seconds >= duration_seconds:
        return 0, 0
    start_seconds, end_seconds = max(start_seconds, 0.0), min(end_seconds, duration_seconds)
    # 1e-6 of a frame absorbs the binary rounding of seconds such as 0.3 * 30.
    start = math.ceil(start_seconds * fps - 0.5 - 1e-6)
    end = math.ceil(end_seconds * fps - 0.5 - 1e-6)
    if start >= end:
        start = min(int(start_seconds * fps + 1e-6), num_frames - 1)
        end = start + 1
    return start, min(end, num_frames)


def span_frames_to_seconds(span_frames: tuple[int, int], fps: float) -> Span:
    """Seconds during which the frames `[start, end)` are shown."""
    return span_frames[0] / fps, span_frames[1] / fps
