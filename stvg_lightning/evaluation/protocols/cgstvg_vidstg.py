"""CG-STVG's evaluator of VidSTG, which TA-STVG uses too.

VidSTG's end frame is exclusive already and is used as it is, but for a span that ends with its video, which loses its
last frame. gt_vIoU counts one box more than the span has frames: the one at the end frame, taken from the track, or
else the last one again. vIoU counts all frames, over the hull; recall counts values above the threshold. A frame
without a predicted box adds 0; CG-STVG itself stops there. (github.com/HengLan/CGSTVG,
datasets/evaluation/vidstg_eval.py)
"""

from __future__ import annotations

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.overlap import compare_tubes
from stvg_lightning.evaluation.protocols._cgstvg import METRICS, scored
from stvg_lightning.evaluation.protocols.protocol import Row
from stvg_lightning.tubes import Truth, Tube

__all__ = ["METRICS", "TASKS", "score"]

TASKS = ("stvg",)


def score(case: Case) -> Row:
    """tIoU, vIoU and gt_vIoU, with what they are made of."""
    start, end = case.true_frames
    overlap = compare_tubes(case.boxes_xyxy, _with_one_more(case.truth, start, end))
    return scored(overlap, case.span_frames, (start, min(end, case.truth.num_frames - 1)))


def _with_one_more(truth: Truth, start: int, end: int) -> Tube:
    """The true boxes, and one at the end frame where the video still has one."""
    tube = {frame: box for frame, box in truth.boxes_xyxy.items() if start <= frame < end}
    if end >= truth.num_frames or not tube:
        return tube
    track = {} if truth.object_id is None else truth.tracks.get(truth.object_id, {})
    return {**tube, end: track.get(end, tube[max(tube)])}
