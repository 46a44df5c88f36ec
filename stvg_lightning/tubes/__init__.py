"""Floor 0: spans, boxes, masks and samples. Every other package speaks in these types; they import nothing of ours."""

from stvg_lightning.tubes.box_tube import BoxTube
from stvg_lightning.tubes.boxes import (
    Box,
    box_areas,
    box_intersections,
    box_iou_matrix,
    box_overlap_matrix,
    paired_box_iou,
)
from stvg_lightning.tubes.masks import (
    Rle,
    box_mask,
    check_counts,
    decode_mask,
    encode_mask,
    mask_area,
    mask_box,
    mask_center,
    mask_overlaps,
    rle_box,
    rle_center,
    union_of_masks,
)
from stvg_lightning.tubes.sample import TASKS, Clip, Sample, Task, Truth, Tube
from stvg_lightning.tubes.spans import (
    Span,
    span_frames_to_seconds,
    span_intersection,
    span_iou,
    span_length,
    span_seconds_to_frames,
)

__all__ = [
    "TASKS",
    "Box",
    "BoxTube",
    "Clip",
    "Rle",
    "Sample",
    "Span",
    "Task",
    "Truth",
    "Tube",
    "box_areas",
    "box_intersections",
    "box_iou_matrix",
    "box_mask",
    "box_overlap_matrix",
    "check_counts",
    "decode_mask",
    "encode_mask",
    "mask_area",
    "mask_box",
    "mask_center",
    "mask_overlaps",
    "paired_box_iou",
    "rle_box",
    "rle_center",
    "span_frames_to_seconds",
    "span_intersection",
    "span_iou",
    "span_length",
    "span_seconds_to_frames",
    "union_of_masks",
]
