"""The rule that tells a new thing from those that are tracked already (STVG-R1, sections 3.2 and 4.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from stvg_lightning.tubes import Box, Rle, box_iou_matrix, box_overlap_matrix, mask_area, mask_overlaps, rle_box
from stvg_lightning.tubes.choices import check_choice


@dataclass(frozen=True)
class Judgement:
    """What becomes of the detections of one frame: the places of the new ones, and the tracked ids they replace."""

    new: tuple[int, ...]
    replaced: tuple[int, ...] = ()


@dataclass(frozen=True)
class NewInstanceRule:
    """A detection is new only if it overlaps nothing that is tracked in its frame.

    "A detection is treated as a new instance only if its IoU with all tracked objects is below 0.4 and its overlap
    ratio with all tracked objects is below 0.6" (section 4.1). The overlap ratio is what two things share, as a share
    of the smaller one, as in Algorithm 1 of appendix A.5.

    Attributes:
        iou: the IoU, in [0, 1], from which on a detection is something tracked.
        overlap: the overlap ratio from which on it is.
        compare: `boxes` compares the detection with the boxes around the tracked masks (the paper: "its geometric
            overlap"); `masks` its mask with theirs (the released code).
        swallowing: a detection of a low IoU but a high overlap ratio that is larger than the thing it covers is
            refused like any other (`refuse`, the paper), or takes its place under a new number (`replace`, the code).

    Raises:
        ValueError: a share outside [0, 1], or an unknown choice.
    """

    iou: float = 0.4
    overlap: float = 0.6
    compare: Literal["boxes", "masks"] = "boxes"
    swallowing: Literal["refuse", "replace"] = "refuse"

    def __post_init__(self) -> None:
        for name in ("iou", "overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {getattr(self, name)}")
        check_choice("compare", self.compare, ("boxes", "masks"))
        check_choice("swallowing", self.swallowing, ("refuse", "replace"))

    def judge(self, boxes_xyxy: Sequence[Box], masks: Sequence[Rle] | None, tracked: Mapping[int, Rle]) -> Judgement:
        """Which detections of one frame are new; they are compared with what is tracked, not with each other.

        Args:
            boxes_xyxy: the detections' boxes in pixels.
            masks: their masks; needed where masks are compared.
            tracked: object id -> mask in this frame; empty masks are passed over.
        """
        seen = {object_id: rle for object_id, rle in sorted(tracked.items()) if mask_area(rle)}
        if not seen or not boxes_xyxy:
            return Judgement(tuple(range(len(boxes_xyxy))))
        ious, overlaps, is_larger = self._compared(boxes_xyxy, masks, list(seen.values()))
        ids = np.array(list(seen))
        new: list[int] = []
        replaced: set[int] = set()
        for place in range(len(boxes_xyxy)):
            if (ious[place] >= self.iou).any():
                continue
            covered = overlaps[place] >= self.overlap
            swallows = covered & is_larger[place]
            if covered.any() and not (self.swallowing == "replace" and (swallows == covered).all()):
                continue
            new.append(place)
            replaced.update(ids[swallows].tolist())
        return Judgement(tuple(new), tuple(sorted(replaced)))

    def _compared(
        self, boxes_xyxy: Sequence[Box], masks: Sequence[Rle] | None, seen: Sequence[Rle]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """IoU, overlap ratio, and whether the detection is the larger one; each (detections, tracked)."""
        if self.compare == "masks":
            assert masks is not None and len(masks) == len(boxes_xyxy), "masks are compared"
            ious, overlaps = mask_overlaps(masks, seen)
            areas = np.array([mask_area(rle) for rle in masks])
            return ious, overlaps, areas[:, None] > np.array([mask_area(rle) for rle in seen])[None]
        found = torch.tensor(boxes_xyxy, dtype=torch.float64)
        known = torch.tensor([rle_box(rle) for rle in seen], dtype=torch.float64)
        sides, known_sides = found[:, 2:] - found[:, :2], known[:, 2:] - known[:, :2]
        is_larger = sides.prod(-1)[:, None] > known_sides.prod(-1)[None]
        return box_iou_matrix(found, known).numpy(), box_overlap_matrix(found, known).numpy(), is_larger.numpy()
