"""What Grounding DINO learns phrases from (arXiv 2303.05499): all phrases of a frame and their boxes, one to one.

transformers' own loss leaves the encoder's proposals without a gradient (their boxes are detached before it, its
scores never reach it): good for tuning, not for training from nothing (LOG.md). Here proposals are matched like
every decoder layer's candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from transformers import GroundingDinoForObjectDetection

from stvg_lightning.models.spatial_loss import CLASS_COST, class_cost, focal_loss
from stvg_lightning.models.spatial_tracks import box_cost, centers_and_sizes, corners
from stvg_lightning.tubes.boxes import paired_box_giou

Detector = GroundingDinoForObjectDetection
"""What a detector is to the floors above, which do not import transformers."""

CLASS_WEIGHT, L1_WEIGHT, GIOU_WEIGHT = 2.0, 5.0, 2.0


@dataclass(frozen=True)
class PhraseTargets:
    """The described things of one frame.

    `is_phrase` tells for each thing which tokens of the text belong to a phrase that describes it.
    """

    boxes_xyxy: Float[Tensor, "things 4"]
    is_phrase: Bool[Tensor, "things tokens"]

    def to(self, device: torch.device | str) -> PhraseTargets:
        """The same targets on a device."""
        return PhraseTargets(self.boxes_xyxy.to(device), self.is_phrase.to(device))


@dataclass(frozen=True)
class Detections:
    """What one part of the detector found: scores of every candidate for every token, and boxes."""

    logits: Float[Tensor, "frames candidates tokens"]
    boxes_cxcywh: Float[Tensor, "frames candidates 4"]


def all_detections(
    detector: GroundingDinoForObjectDetection,
    pixels: Float[Tensor, "frames 3 height width"],
    input_ids: Int[Tensor, "frames tokens"],
    is_text: Bool[Tensor, "frames tokens"],
) -> list[Detections]:
    """The encoder's proposals, then the candidates of every layer of the decoder."""
    output = detector.model(pixels, input_ids, attention_mask=is_text.long(), return_dict=True)
    num_tokens = input_ids.shape[1]
    found = [Detections(output.enc_outputs_class[..., :num_tokens], output.enc_outputs_coord_logits.sigmoid())]
    references = [output.init_reference_points, *output.intermediate_reference_points.unbind(1)]
    for layer, hidden in enumerate(output.intermediate_hidden_states.unbind(1)):
        logits = detector.class_embed[layer](hidden, output.encoder_last_hidden_state_text, is_text)
        start = torch.special.logit(references[layer], eps=1e-5)
        found.append(Detections(logits[..., :num_tokens], (detector.bbox_embed[layer](hidden) + start).sigmoid()))
    return found


def detection_loss(
    found: Detections, targets: list[PhraseTargets], is_text: Bool[Tensor, "frames tokens"]
) -> Float[Tensor, ""]:
    """The loss of one part: focal over tokens, L1 and GIoU over matched boxes, all by the number of things."""
    num_things = max(sum(len(each.boxes_xyxy) for each in targets), 1)
    logits = found.logits.masked_fill(~is_text[:, None], 0.0)
    positive = torch.zeros_like(logits)
    boxes, true = [], []
    for frame, target in enumerate(targets):
        rows, columns = _match(logits[frame], found.boxes_cxcywh[frame], target)
        positive[frame, rows] = target.is_phrase[columns].to(positive)
        boxes.append(found.boxes_cxcywh[frame, rows])
        true.append(target.boxes_xyxy[columns])
    matched, expected = torch.cat(boxes), torch.cat(true)
    focal = focal_loss(logits, positive).mul(is_text[:, None]).sum()
    l1 = (matched - centers_and_sizes(expected)).abs().sum()
    giou = (1 - paired_box_giou(corners(matched), expected)).sum()
    return (CLASS_WEIGHT * focal + L1_WEIGHT * l1 + GIOU_WEIGHT * giou) / num_things


@torch.no_grad()
def _match(
    logits: Float[Tensor, "candidates tokens"], boxes: Float[Tensor, "candidates 4"], target: PhraseTargets
) -> tuple[Int[Tensor, " things"], Int[Tensor, " things"]]:
    """Which candidate is which thing: the cheapest assignment."""
    share = target.is_phrase.to(logits) / target.is_phrase.sum(dim=1, keepdim=True).clamp(min=1)
    cost = CLASS_COST * class_cost(logits) @ share.T + box_cost(
        boxes[:, None], centers_and_sizes(target.boxes_xyxy)[None]
    )
    rows, columns = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(rows, device=logits.device), torch.as_tensor(columns, device=logits.device)
