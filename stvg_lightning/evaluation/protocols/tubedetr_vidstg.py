"""TubeDETR's evaluator of VidSTG.

It looks at 5 frames a second alone, taken by `int(frame * 5 / fps)` on absolute frame numbers, at most 200 of them:
vIoU is the sum of IoU over the sampled frames in both spans, over the number of sampled frames in their hull. tIoU
is that of the spans in frames, ends left out. gt_vIoU is the mean over the sampled true frames, whatever time was
answered. Recall counts values above the threshold. Videos below 5 frames a second are refused, as there. Where both
spans are disjoint, the hull's gap counts too, to no effect: vIoU is 0. (github.com/antoyang/TubeDETR,
datasets/vidstg_eval.py, as corrected in May 2022)
"""

from __future__ import annotations

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.protocols._tubedetr import METRICS, sampled_frames, scored
from stvg_lightning.evaluation.protocols.protocol import Row

__all__ = ["METRICS", "TASKS", "score"]

TASKS = ("stvg",)
SAMPLED_FPS = 5


def score(case: Case) -> Row:
    """tIoU, vIoU and gt_vIoU, with what they are made of."""
    truth = case.truth
    rate = SAMPLED_FPS / truth.fps
    if rate > 1:
        raise ValueError(f"its video has {truth.fps:g} frames a second, and {SAMPLED_FPS} are to be taken")
    frames = sampled_frames(truth.num_frames, rate, truth.first_frame)
    return scored(case.overlap, case.span_frames, case.true_frames, frames)
