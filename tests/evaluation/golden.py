"""One video under every evaluator: what each of the field's own programs prints for seven predictions.

A video of 20 seconds, 500 frames of 640 x 360 pixels; the target is seen in frames [100, 300) and drifts.
"""

from __future__ import annotations

from collections.abc import Callable

from stvg_lightning.answers import Answer
from stvg_lightning.evaluation import Case
from stvg_lightning.tubes import Box, Truth

FPS = 25.0


def moving_box(frame: int) -> Box:
    x, y = 50 + 0.8 * frame, 60 + 0.2 * frame
    return x, y, x + 80, y + 120


def box_to_the_right(frame: int) -> Box:
    x1, y1, x2, y2 = moving_box(frame)
    return x1 + 10, y1, x2 + 10, y2


def box_that_doubles(frame: int) -> Box:
    x1, y1, x2, y2 = moving_box(frame)
    return (x1, y1, x2, y2) if frame < 200 else (x1 - 40, y1 - 60, x2 + 40, y2 + 60)


PREDICTIONS: dict[str, tuple[tuple[int, int], Callable[[int], Box]]] = {
    "perfect": ((100, 300), moving_box),
    "end one short": ((100, 299), moving_box),
    "box +10": ((100, 300), box_to_the_right),
    "2nd half 4x": ((100, 300), box_that_doubles),
    "time +37": ((137, 337), moving_box),
    "first half": ((100, 200), moving_box),
    "whole video": ((0, 500), moving_box),
}

GOLDEN_VIOU = {
    "hcstvg": (1.0, 0.995, 0.777778, 0.625, 0.687764, 0.5, 0.4),
    "tubedetr_vidstg": (1.0, 1.0, 0.777778, 0.625, 0.666667, 0.5, 0.4),
    "tubedetr_hcstvg": (0.929311, 0.929311, 0.722812, 0.574693, 0.685956, 0.452741, 0.390787),
    "cgstvg_hcstvg": (0.995, 1.0, 0.773889, 0.62375, 0.683544, 0.502513, 0.398),
    "llava_st": (0.945444, 0.945444, 0.768341, 0.597606, 0.643547, 0.472525, 0.378178),
    "volume": (1.0, 0.995, 0.780220, 0.403317, 0.687764, 0.5, 0.4),
}
"""Protocol -> the vIoU of each prediction, in the order of `PREDICTIONS`, rounded to six decimals."""


def truth() -> Truth:
    boxes = {frame: moving_box(frame) for frame in range(100, 300)}
    return Truth("golden", "a man", FPS, 500, 640, 360, (100, 300), boxes)


def case(name: str) -> Case:
    """A prediction beside the truth."""
    span, box_at = PREDICTIONS[name]
    boxes = {frame: box_at(frame) for frame in range(*span)}
    answer = Answer("", (span[0] / FPS, span[1] / FPS), (), boxes, names_objects=False)
    return Case(answer, truth())
