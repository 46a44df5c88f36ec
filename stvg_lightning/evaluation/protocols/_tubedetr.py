"""What TubeDETR's two evaluators share: frames sampled at 5 a second, and scores over these alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stvg_lightning.evaluation.metrics import temporal_iou_frames
from stvg_lightning.evaluation.overlap import Frames, FrameSpan, TubeOverlap, hull, shared_span
from stvg_lightning.evaluation.protocols.protocol import Row, recalls, share

MAX_FRAMES = 200
METRICS = {
    "m_tIoU": share("tIoU"),
    "m_vIoU": share("vIoU"),
    **recalls("vIoU", (0.3, 0.5)),
    "m_gt_vIoU": share("gt_vIoU"),
    **recalls("gt_vIoU", (0.3, 0.5)),
}


def sampled_frames(num_frames: int, rate: float, first_frame: int = 0) -> Frames:
    """The frames that TubeDETR reads of a video: those in which `int(frame * rate)` changes, at most 200, evenly.

    The first frame of a video is always read, the last one never.

    Args:
        num_frames: of the video.
        rate: sampled frames for each frame of the video, in (0, 1].
        first_frame: the number of the video's first frame in the one that it was cut from, by which is sampled.

    Returns:
        Frames as the video itself counts them, from 0.

    Example:
        >>> sampled_frames(20, 0.25).tolist(), sampled_frames(20, 0.25, first_frame=3).tolist()
        ([0, 4, 8, 12, 16], [0, 1, 5, 9, 13, 17])
    """
    least = int(first_frame * rate)
    num_sampled = 1 + int((first_frame + max(num_frames - 2, 0)) * rate) - least
    numbers: Sequence[int] = range(num_sampled)
    if num_sampled > MAX_FRAMES:
        numbers = [index * num_sampled // MAX_FRAMES for index in range(MAX_FRAMES)]
    frames = [max(_first_frame_of(least + number, rate), first_frame) - first_frame for number in numbers]
    return np.array(frames, dtype=np.int64)


def _first_frame_of(number: int, rate: float) -> int:
    """The first frame with `int(frame * rate) == number`, in the arithmetic of floats that the evaluator uses."""
    frame = math.ceil(number / rate)
    while frame > 0 and int((frame - 1) * rate) >= number:
        frame -= 1
    while int(frame * rate) < number:
        frame += 1
    return frame


def scored(overlap: TubeOverlap, predicted: FrameSpan, true: FrameSpan, frames: Frames) -> Row:
    """tIoU on all frames, vIoU and gt_vIoU on the sampled ones.

    Args:
        overlap: the predicted tube compared with the true one.
        predicted: `[start, end)`.
        true: `[start, end)`.
        frames: the sampled ones, ascending.
    """
    in_both, in_true = _inside(frames, shared_span(predicted, true)), _inside(frames, true)
    num_union = len(_inside(frames, hull(predicted, true)))
    iou_sum = overlap.iou_sum_at(in_both)
    return {
        "tIoU": temporal_iou_frames(predicted, true),
        "vIoU": iou_sum / max(num_union, 1),
        "gt_vIoU": overlap.iou_sum_at(in_true) / max(len(in_true), 1),
        "iou_sum": iou_sum,
        "num_sampled": len(frames),
        "num_shared": len(in_both),
        "num_union": num_union,
    }


def _inside(frames: Frames, span: FrameSpan) -> Frames:
    return frames[(frames >= span[0]) & (frames < span[1])]
