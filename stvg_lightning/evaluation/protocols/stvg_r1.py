"""STVG-R1's released evaluation.

Seconds become frames as `int(t * fps)`, and both ends count: vIoU is the sum of IoU over the frames in both spans,
over the length of the hull, one frame more than its difference; spans that share one frame or none score 0. The boxes
are those of the answered object's track, in whole pixels without the last column and row, mended where it has none as
the released code does (`repair.py`). HC-STVG's `st_frame`, which counts from 1, is used as if it counted from 0, so
that the true boxes lie one frame late. tIoU is the intersection in seconds over the hull. An answer without object or
time scores 0 in both. Recall counts values that reach the threshold. (github.com/XiaowZhang00/stvg-r1, evaluate.py)
"""

from __future__ import annotations

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.overlap import FrameSpan, compare_tubes, hull, shared_span
from stvg_lightning.evaluation.protocols._temporal import hull_iou
from stvg_lightning.evaluation.protocols.protocol import Row, at_least, recalls, share
from stvg_lightning.evaluation.repair import repaired_track
from stvg_lightning.evaluation.scoring import missing_parts
from stvg_lightning.tubes import Box, Span, Tube

TASKS = ("stvg",)
THRESHOLDS = (0.3, 0.5, 0.7)
METRICS = {
    "m_tIoU": share("tIoU"),
    **recalls("tIoU", THRESHOLDS, at_least),
    "m_vIoU": share("vIoU"),
    **recalls("vIoU", THRESHOLDS, at_least),
    "id_accuracy": share("object_id_correct"),
}
DELAY_FRAMES = 1


def score(case: Case) -> Row:
    """tIoU and vIoU, with what they are made of."""
    truth, answer = case.truth, case.answer
    row: Row = {"tIoU": 0.0, "vIoU": 0.0, "iou_sum": 0.0, "num_hull": 0, "object_id_correct": case.names_the_target}
    if answer.span_seconds is None or missing_parts(answer, truth):
        return row
    row["tIoU"] = hull_iou(answer.span_seconds, case.true_seconds)
    predicted, true = _frames(answer.span_seconds, truth.fps), _frames(case.true_seconds, truth.fps)
    both, whole = shared_span(predicted, true), hull(predicted, true)
    row["num_hull"] = whole[1] - whole[0]
    if both[1] - both[0] > 1:
        row["iou_sum"] = compare_tubes(_predicted_tube(case, both, predicted), _late(case)).iou_sum(both)
        row["vIoU"] = row["iou_sum"] / row["num_hull"]
    return row


def _frames(span_seconds: Span, fps: float) -> FrameSpan:
    """The frames from `int(start * fps)` to `int(end * fps)`, the last one included, as `[start, end)`."""
    return int(span_seconds[0] * fps), int(span_seconds[1] * fps) + 1


def _late(case: Case) -> Tube:
    """The true boxes where the released code looks for them."""
    start, end = case.true_frames
    return {frame + DELAY_FRAMES: box for frame, box in case.truth.boxes_xyxy.items() if start <= frame < end}


def _predicted_tube(case: Case, both: FrameSpan, predicted: FrameSpan) -> Tube:
    """The answer's own boxes, or the track of its first object, repaired."""
    if case.answer.boxes_xyxy is not None:
        return case.answer.boxes_xyxy
    repair = case.repair or "code"
    tracks = {
        object_id: {frame: _inclusive(box) for frame, box in track.items()}
        for object_id, track in case.truth.tracks.items()
    }
    frames = predicted if repair == "paper" else both
    return repaired_track(case.answer.object_ids[0], tracks, frames, repair, frames_asked=_late(case))


def _inclusive(box: Box) -> Box:
    """From its first to its last pixel, as a box is made of a mask there."""
    x1, y1, x2, y2 = box
    return x1, y1, x2 - 1, y2 - 1
