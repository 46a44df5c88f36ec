"""The losses of the spatial module and of the tiny detector, against other people's programs and naive loops."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torchvision.ops import box_convert, generalized_box_iou, sigmoid_focal_loss

from stvg_lightning.models.detection_loss import (
    CLASS_WEIGHT,
    GIOU_WEIGHT,
    L1_WEIGHT,
    Detections,
    PhraseTargets,
    all_detections,
    detection_loss,
)
from stvg_lightning.models.spatial_grounding import Candidates
from stvg_lightning.models.spatial_loss import (
    CLASS_COST,
    class_cost,
    focal_loss,
    spatial_loss,
    track_costs,
)
from stvg_lightning.models.spatial_tracks import GIOU_COST, L1_COST
from tests.helpers import assert_close
from tests.small_detectors import random_grounder

FRAMES, TRACKS = 5, 4


def boxes_cxcywh(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, 4, generator=generator) * 0.4 + 0.2


@pytest.fixture
def candidates() -> Candidates:
    logits = torch.randn(FRAMES, TRACKS, generator=torch.Generator().manual_seed(7))
    return Candidates(logits.requires_grad_(), boxes_cxcywh(FRAMES, TRACKS).requires_grad_())


TRUE = box_convert(boxes_cxcywh(FRAMES, seed=1), "cxcywh", "xyxy")


def test_focal_loss_is_torchvisions() -> None:
    logits = torch.linspace(-6, 6, 40)
    for target in (0.0, 1.0):
        targets = torch.full_like(logits, target)
        assert_close(focal_loss(logits, targets), sigmoid_focal_loss(logits, targets), atol=1e-6)


def naive_costs(candidates: Candidates, true: torch.Tensor) -> list[float]:
    costs = []
    for track in range(TRACKS):
        total = 0.0
        for frame in range(len(true)):
            logit, box = candidates.logits[frame, track], candidates.boxes_cxcywh[frame, track]
            p = logit.sigmoid().item()
            positive = -0.25 * (1 - p) ** 2 * torch.tensor(p).log().item()
            negative = -0.75 * p**2 * torch.tensor(1 - p).log().item()
            l1 = (box - box_convert(true[frame], "xyxy", "cxcywh")).abs().sum().item()
            giou = generalized_box_iou(box_convert(box, "cxcywh", "xyxy")[None], true[frame][None]).item()
            total += 2 * (positive - negative) + 5 * l1 - 2 * giou
        costs.append(total / len(true))
    return costs


def test_costs_of_tracks(candidates: Candidates) -> None:
    assert (CLASS_COST, L1_COST, GIOU_COST) == (2, 5, 2)
    assert_close(track_costs(candidates, TRUE), naive_costs(candidates, TRUE), atol=1e-5)
    assert class_cost(torch.tensor(3.0)) < 0 < class_cost(torch.tensor(-3.0))


def test_the_loss_of_the_cheapest_track(candidates: Candidates) -> None:
    costs = naive_costs(candidates, TRUE)
    track = costs.index(min(costs))
    loss = spatial_loss(candidates, TRUE, torch.ones(FRAMES, dtype=torch.bool))
    l1 = giou = focal = 0.0
    for frame in range(FRAMES):
        box = candidates.boxes_cxcywh[frame, track]
        l1 += (box - box_convert(TRUE[frame], "xyxy", "cxcywh")).abs().sum() / FRAMES
        giou += (1 - generalized_box_iou(box_convert(box, "cxcywh", "xyxy")[None], TRUE[frame][None])[0, 0]) / FRAMES
        for other in range(TRACKS):
            target = torch.tensor(float(other == track))
            focal += sigmoid_focal_loss(candidates.logits[frame, other], target) / FRAMES
    assert_close([loss.l1, loss.giou, loss.focal], torch.stack([l1, giou, focal]), atol=1e-5)


def test_one_track_for_the_whole_clip(candidates: Candidates) -> None:
    """A track that fits one frame perfectly and the others badly is not the described one."""
    boxes = boxes_cxcywh(FRAMES, 2).detach()
    true = box_convert(boxes[:, 1], "cxcywh", "xyxy")
    boxes[1:, 0] = boxes[1:, 1]
    boxes[0, 0], boxes[0, 1] = torch.tensor([0.9, 0.9, 0.05, 0.05]), boxes[0, 1] + 0.001
    loss = spatial_loss(Candidates(torch.zeros(FRAMES, 2), boxes), true, torch.ones(FRAMES, dtype=torch.bool))
    assert loss.l1 < 0.01


def test_frames_without_a_box_say_nothing(candidates: Candidates) -> None:
    has_box = torch.tensor([True, False, True, False, False])
    loss = spatial_loss(candidates, TRUE, has_box)
    (loss.l1 + loss.giou + loss.focal).backward()
    for tensor in (candidates.logits, candidates.boxes_cxcywh):
        assert tensor.grad[~has_box].abs().max() == 0 < tensor.grad[has_box].abs().max()
    known = Candidates(candidates.logits[has_box], candidates.boxes_cxcywh[has_box])
    alone = spatial_loss(known, TRUE[has_box], torch.ones(2, dtype=torch.bool))
    assert_close([loss.l1, loss.giou, loss.focal], [alone.l1, alone.giou, alone.focal])


def naive_detection_loss(found: Detections, targets: list[PhraseTargets], is_text: torch.Tensor) -> torch.Tensor:
    total, num_things = torch.zeros(()), sum(len(target.boxes_xyxy) for target in targets)
    for frame, target in enumerate(targets):
        best, chosen = float("inf"), None
        num_candidates, num_tokens = found.logits.shape[1:]
        for assigned in permutations(range(num_candidates), len(target.boxes_xyxy)):
            cost = 0.0
            for thing, row in enumerate(assigned):
                box, true = found.boxes_cxcywh[frame, row], target.boxes_xyxy[thing]
                words = class_cost(found.logits[frame, row])[target.is_phrase[thing]].mean().item()
                l1 = (box - box_convert(true, "xyxy", "cxcywh")).abs().sum().item()
                giou = generalized_box_iou(box_convert(box, "cxcywh", "xyxy")[None], true[None]).item()
                cost += CLASS_COST * words + L1_COST * l1 - GIOU_COST * giou
            if cost < best:
                best, chosen = cost, assigned
        for row in range(num_candidates):
            for token in range(num_tokens):
                if is_text[frame, token]:
                    positive = row in chosen and bool(target.is_phrase[chosen.index(row), token])
                    value = sigmoid_focal_loss(found.logits[frame, row, token], torch.tensor(float(positive)))
                    total = total + CLASS_WEIGHT * value
        for thing, row in enumerate(chosen):
            box, true = found.boxes_cxcywh[frame, row], target.boxes_xyxy[thing]
            giou = generalized_box_iou(box_convert(box, "cxcywh", "xyxy")[None], true[None])[0, 0]
            total = (
                total + L1_WEIGHT * (box - box_convert(true, "xyxy", "cxcywh")).abs().sum() + GIOU_WEIGHT * (1 - giou)
            )
    return total / num_things


def phrase_targets() -> list[PhraseTargets]:
    two = torch.tensor([[False, True, True, False, False], [False, False, False, True, False]])
    none = PhraseTargets(torch.zeros(0, 4), torch.zeros(0, 5, dtype=torch.bool))
    return [PhraseTargets(TRUE[:2], two), none, PhraseTargets(TRUE[2:3], two[:1])]


def test_all_phrases_of_all_frames() -> None:
    generator = torch.Generator().manual_seed(5)
    found = Detections(torch.randn(3, 4, 5, generator=generator), boxes_cxcywh(3, 4, seed=6))
    is_text = torch.tensor([[True] * 5, [True] * 4 + [False], [True] * 3 + [False] * 2])
    found.logits[~is_text[:, None].expand_as(found.logits)] = -torch.inf
    expected = naive_detection_loss(found, phrase_targets(), is_text)
    assert_close(detection_loss(found, phrase_targets(), is_text), expected, atol=1e-4)


def test_the_proposals_learn_too() -> None:
    """In transformers' own loss they do not."""
    grounder = random_grounder(24)
    detector = grounder.module.detector
    phrase = grounder.phrase("the cross")
    pixels = grounder.pixels(torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8))
    input_ids = phrase.input_ids.expand(3, -1)
    is_text = torch.ones_like(input_ids, dtype=torch.bool)
    found = all_detections(detector, pixels, input_ids, is_text)
    assert len(found) == 1 + detector.config.decoder_layers
    output = detector(pixels, input_ids)
    assert_close(found[-1].boxes_cxcywh, output.pred_boxes, atol=1e-5)
    assert_close(found[-1].logits, output.logits[..., : input_ids.shape[1]], atol=1e-4)
    detection_loss(found[0], phrase_targets(), is_text).backward()
    for part in (
        detector.model.enc_output,
        detector.model.encoder_output_bbox_embed.layers[-1],
        detector.model.encoder,
    ):
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())
