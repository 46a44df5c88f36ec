"""What both evaluators of video masks share: J and F in each frame, from masks as they stand in lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.masks import boundary_accuracy, region_similarity
from stvg_lightning.evaluation.protocols.protocol import Row, share
from stvg_lightning.tubes import Rle, decode_mask

TASKS = ("stvg", "spatial")
METRICS = {"J&F": share("J&F"), "J": share("J"), "F": share("F")}
PIXELS_AT_ONCE = 20_000_000


def scored(case: Case, frames: range) -> Row:
    """Mean J and F over some frames of a video; a frame in which neither shows anything scores 1 in both.

    Where nothing was answered both are 0, even if the target is not in every frame.

    Args:
        case: it must have true masks.
        frames: those that count, at least one.

    Raises:
        ValueError: no true masks, no frames, or an answer in boxes.
    """
    if not case.target_masks:
        raise ValueError("it has no target_masks, nor an object_id with masks")
    if not frames:
        raise ValueError(f"its video has {case.truth.num_frames} frames, and none of them counts")
    if case.answered_masks is None and case.answer.boxes_xyxy:
        raise ValueError("it is answered in boxes, and masks are compared: answer in object ids or masks")
    if case.answered_masks is None:
        return {"J": 0.0, "F": 0.0, "J&F": 0.0, "num_frames": len(frames), "num_shown": len(case.target_masks)}
    answered = case.answered_masks
    shown = sorted(frame for frame in {*answered, *case.target_masks} if frame in frames)
    similarities, accuracies = _frame_scores(answered, case.target_masks, shown, case.truth.height, case.truth.width)
    num_blank = len(frames) - len(shown)
    j, f = (float(values.sum() + num_blank) / len(frames) for values in (similarities, accuracies))
    return {"J": j, "F": f, "J&F": (j + f) / 2, "num_frames": len(frames), "num_shown": len(shown)}


def _frame_scores(
    answered: Mapping[int, Rle], true: Mapping[int, Rle], frames: Sequence[int], height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """J and F of each frame, decoded in portions."""
    at_once = max(1, PIXELS_AT_ONCE // (height * width))
    similarities, accuracies = [np.zeros(0)], [np.zeros(0)]
    for first in range(0, len(frames), at_once):
        portion = frames[first : first + at_once]
        pair = [np.stack([_mask(masks, frame, height, width) for frame in portion]) for masks in (answered, true)]
        similarities.append(region_similarity(*pair))
        accuracies.append(boundary_accuracy(*pair))
    return np.concatenate(similarities), np.concatenate(accuracies)


def _mask(masks: Mapping[int, Rle], frame: int, height: int, width: int) -> np.ndarray:
    return decode_mask(masks[frame]) if frame in masks else np.zeros((height, width), dtype=bool)
