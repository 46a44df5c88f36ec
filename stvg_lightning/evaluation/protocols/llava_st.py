"""LLaVA-ST's evaluator of ST-Align.

The model tells times and corners in 100 bins, so predictions are put into bins first: 100 frames spread evenly over
the video, `round(i / 99 * (n - 1))`; corners as `round(99 * x / width)`, read back and rounded to whole pixels. sIoU
is the mean over the sampled frames that both tubes have, vIoU the sum of IoU over these divided by the number of
sampled frames that either has. tIoU is that of the spans with their last frames included, as shares of the video, the
true one rounded to three decimals and the predicted one in bins; an answer without a time is the span [0, 0]. Recall
counts values that reach the threshold. For a question of place alone there is no tIoU. A perfect prediction does not
reach 1, because of the bins. (github.com/appletea233/LLaVA-ST, inference/src/metrics.py)
"""

from __future__ import annotations

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.overlap import FrameSpan, compare_tubes
from stvg_lightning.evaluation.protocols.protocol import Row, at_least, recalls, share
from stvg_lightning.tubes import Box, Truth, Tube

TASKS = ("stvg", "spatial")
THRESHOLDS = (0.3, 0.5, 0.7)
METRICS = {
    "m_tIoU": share("tIoU"),
    **recalls("tIoU", THRESHOLDS, at_least),
    "m_sIoU": share("sIoU"),
    **recalls("sIoU", THRESHOLDS, at_least),
    "m_vIoU": share("vIoU"),
    **recalls("vIoU", THRESHOLDS, at_least),
}
NUM_BINS = 100
LAST_BIN = NUM_BINS - 1


def score(case: Case) -> Row:
    """tIoU, sIoU and vIoU on the sampled frames, with their numbers."""
    truth, predicted = case.truth, case.span_frames
    if truth.num_frames < 2:
        raise ValueError("its video has 1 frame, and times are shares of what lies between the first and the last")
    sampled = {round(index / LAST_BIN * (truth.num_frames - 1)) for index in range(NUM_BINS)}
    true_tube = {frame: truth.boxes_xyxy[frame] for frame in _held(sampled, case.true_frames, truth.boxes_xyxy)}
    predicted_tube = {
        frame: _in_bins(case.boxes_xyxy[frame], truth) for frame in _held(sampled, predicted, case.boxes_xyxy)
    }
    iou_sum = float(compare_tubes(predicted_tube, true_tube).ious.sum())
    num_shared, num_union = len(predicted_tube.keys() & true_tube), len(predicted_tube.keys() | true_tube)
    return {
        "tIoU": None if truth.task == "spatial" else _temporal_iou(predicted, case.true_frames, truth.num_frames),
        "sIoU": iou_sum / max(num_shared, 1),
        "vIoU": iou_sum / max(num_union, 1),
        "iou_sum": iou_sum,
        "num_shared": num_shared,
        "num_union": num_union,
    }


def _held(sampled: set[int], span: FrameSpan, tube: Tube) -> list[int]:
    """The sampled frames inside a span in which a tube has a box."""
    return [frame for frame in sorted(sampled) if span[0] <= frame < span[1] and frame in tube]


def _in_bins(box: Box, truth: Truth) -> Box:
    """A box as it comes back from bins, in whole pixels; corners outside the frame move to its edge."""
    x1, y1, x2, y2 = (
        float(round(min(max(round(LAST_BIN * corner / side), 0), LAST_BIN) / LAST_BIN * side))
        for corner, side in zip(box, (truth.width, truth.height) * 2)
    )
    return x1, y1, x2, y2


def _temporal_iou(predicted: FrameSpan, true: FrameSpan, num_frames: int) -> float:
    """IoU over the hull, of the predicted span in bins and the true one in thousandths of the video."""
    true_start, true_end = (round(frame / (num_frames - 1), 3) for frame in (true[0], true[1] - 1))
    start, end = (0.0, 0.0)
    if predicted[0] < predicted[1]:
        start, end = (
            round(round(LAST_BIN * frame / (num_frames - 1)) / LAST_BIN, 5)
            for frame in (predicted[0], predicted[1] - 1)
        )
    hull = max(end, true_end) - min(start, true_start)
    return max(min(end, true_end) - max(start, true_start), 0.0) / hull if hull else 0.0
