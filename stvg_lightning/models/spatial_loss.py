"""What the spatial grounding module learns from: the track that fits best is the described one, all others are not.

The track is chosen by the lowest matching cost ("Hungarian" in the paper: with one true track it is a minimum), a
mean over the frames with a true box. The paper does not print its costs: Deformable DETR's are taken, class 2, L1 5,
GIoU 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from stvg_lightning.models.spatial_grounding import Candidates
from stvg_lightning.models.spatial_tracks import box_cost, centers_and_sizes, corners
from stvg_lightning.tubes.boxes import paired_box_giou

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
CLASS_COST = 2.0


@dataclass(frozen=True)
class SpatialLoss:
    """The three parts of SARL-STG's spatial loss, each a mean over the frames with a true box."""

    l1: Float[Tensor, ""]
    giou: Float[Tensor, ""]
    focal: Float[Tensor, ""]


def spatial_loss(
    candidates: Candidates, true_xyxy: Float[Tensor, "frames 4"], has_box: Bool[Tensor, " frames"]
) -> SpatialLoss:
    """The loss of one sub-clip.

    A frame without a true box says nothing: the described thing may be seen in it, and nobody has drawn it.

    Args:
        candidates: what the module found.
        true_xyxy: the true boxes, as shares of the frame's sides; anything where there is none.
        has_box: in which frames there is a true box, in one at least.
    """
    logits, boxes = candidates.logits[has_box], candidates.boxes_cxcywh[has_box]
    true = true_xyxy[has_box].to(boxes)
    track = int(track_costs(Candidates(logits, boxes), true).argmin())
    is_described = torch.zeros_like(logits)
    is_described[:, track] = 1.0
    return SpatialLoss(
        l1=(boxes[:, track] - centers_and_sizes(true)).abs().sum(dim=-1).mean(),
        giou=(1 - paired_box_giou(corners(boxes[:, track]), true)).mean(),
        focal=focal_loss(logits, is_described).sum(dim=-1).mean(),
    )


@torch.no_grad()
def track_costs(candidates: Candidates, true_xyxy: Float[Tensor, "frames 4"]) -> Float[Tensor, " candidates"]:
    """The mean over frames of each track's cost; every frame has a true box."""
    boxes = box_cost(candidates.boxes_cxcywh, centers_and_sizes(true_xyxy)[:, None])
    return (CLASS_COST * class_cost(candidates.logits) + boxes).mean(dim=0)


def class_cost(logits: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """What it costs to call a candidate the described one: its focal loss as that, less its loss as any other."""
    return focal_loss(logits, torch.ones_like(logits)) - focal_loss(logits, torch.zeros_like(logits))


def focal_loss(logits: Float[Tensor, "*batch"], targets: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The sigmoid focal loss (arXiv 1708.02002, equation 5) with alpha 0.25 and gamma 2."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    of_the_truth = probability * targets + (1 - probability) * (1 - targets)
    weight = FOCAL_ALPHA * targets + (1 - FOCAL_ALPHA) * (1 - targets)
    return weight * (1 - of_the_truth) ** FOCAL_GAMMA * cross_entropy
