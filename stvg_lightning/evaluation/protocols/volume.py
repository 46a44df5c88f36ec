"""The scores that SARL-STG's supplement prints: vIoU as a ratio of volumes.

vIoU is the shared area of both boxes, summed over the frames in both spans, over their united area, summed over the
frames in either: large boxes weigh more, and no other evaluator of STVG computes it so (section 1.3). What an area is
the supplement leaves open; it is counted as the VidVRD challenge's viou, the same ratio, counts it: in whole pixels,
the last column and row included. sIoU is the mean over the frames in both spans. Recall counts values that reach the
threshold. (github.com/xdshang/VidVRD-helper, evaluation/common.py)
"""

from __future__ import annotations

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.metrics import spatial_iou, temporal_iou_frames, volume_iou
from stvg_lightning.evaluation.overlap import compare_tubes
from stvg_lightning.evaluation.protocols.protocol import Row, at_least, recalls, share
from stvg_lightning.tubes import Tube

TASKS = ("stvg",)
METRICS = {
    "m_tIoU": share("tIoU"),
    "m_sIoU": share("sIoU"),
    "m_vIoU": share("vIoU"),
    **recalls("vIoU", (0.3, 0.5), at_least),
}


def score(case: Case) -> Row:
    """tIoU, sIoU and the ratio of volumes, with both volumes."""
    predicted, true = case.span_frames, case.true_frames
    pixels = compare_tubes(*(_with_last_pixels(tube) for tube in (case.boxes_xyxy, case.truth.boxes_xyxy)))
    shared_volume, united_volume = pixels.volumes(predicted, true)
    return {
        "tIoU": temporal_iou_frames(predicted, true),
        "sIoU": spatial_iou(case.overlap, predicted, true),
        "vIoU": volume_iou(pixels, predicted, true),
        "shared_volume": shared_volume,
        "united_volume": united_volume,
    }


def _with_last_pixels(tube: Tube) -> Tube:
    """Boxes that end after their last pixel."""
    return {frame: (x1, y1, x2 + 1, y2 + 1) for frame, (x1, y1, x2, y2) in tube.items()}
