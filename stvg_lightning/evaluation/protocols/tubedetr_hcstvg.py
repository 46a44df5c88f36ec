"""TubeDETR's evaluator of HC-STVG.

As its evaluator of VidSTG, with two traits of its own: every video is taken to last 20 seconds, so that 100 frames
are sampled whatever its rate; and HC-STVG's `st_frame`, which counts from 1, is used as if it counted from 0, so that
the true tube lies one frame late. A perfect prediction, counted from 0, therefore does not reach 1. Videos of fewer
than 100 frames are refused, as there. (github.com/antoyang/TubeDETR, datasets/hcstvg_eval.py)
"""

from __future__ import annotations

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.overlap import compare_tubes
from stvg_lightning.evaluation.protocols._tubedetr import METRICS, sampled_frames, scored
from stvg_lightning.evaluation.protocols.protocol import Row

__all__ = ["METRICS", "TASKS", "score"]

TASKS = ("stvg",)
SAMPLED_FPS = 5
VIDEO_SECONDS = 20
DELAY_FRAMES = 1


def score(case: Case) -> Row:
    """tIoU, vIoU and gt_vIoU, with what they are made of."""
    num_frames = case.truth.num_frames
    rate = SAMPLED_FPS / (num_frames / VIDEO_SECONDS)
    if rate > 1:
        raise ValueError(f"its video has {num_frames} frames, and {SAMPLED_FPS * VIDEO_SECONDS} are to be taken")
    start, end = case.true_frames
    late = {frame + DELAY_FRAMES: box for frame, box in case.truth.boxes_xyxy.items() if start <= frame < end}
    overlap = compare_tubes(case.boxes_xyxy, late)
    true = start + DELAY_FRAMES, end + DELAY_FRAMES
    return scored(overlap, case.span_frames, true, sampled_frames(num_frames, rate))
