"""The dynamic spatio-temporal reward of SARL-STG: place counts the more, the better the time fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import RewardContext
from stvg_lightning.rewards.temporal_iou import temporal_iou
from stvg_lightning.tubes import Truth, Tube, span_seconds_to_frames
from stvg_lightning.tubes.boxes import tube_ious
from stvg_lightning.tubes.choices import check_choice
from stvg_lightning.tubes.grid import interpolated

DynamicMode = Literal["power", "scale", "fixed", "temporal"]


@dataclass(frozen=True)
class DynamicSpatioTemporal:
    """`tIoU + tIoU^alpha * sIoU`, where sIoU is that of a spatial discriminator's boxes on the answered time.

    The discriminator, a model that is trained before and then frozen, finds boxes in the frames of the answered time;
    they come in `context.discriminator_boxes`. sIoU is their mean IoU with the true boxes, over the frames inside
    both spans that have both (supplement, section 1.3); see `discriminator_siou`.

    Attributes:
        alpha: see `mode`; 2 in the paper.
        mode: `power` is the printed formula. `scale` is `tIoU + alpha * tIoU * sIoU`: the paper's row for alpha 0
            equals its row "temporal only", which fits this form, where the printed one gives `tIoU + sIoU`. `fixed`
            is `tIoU + tIoU * sIoU`, what both are with alpha 1; `temporal` is tIoU alone, whatever alpha.

    Raises:
        ValueError: a negative alpha, or an unknown mode.
    """

    alpha: float = 2.0
    mode: DynamicMode = "power"
    low: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if not self.alpha >= 0:
            raise ValueError(f"alpha must be at least 0, not {self.alpha}")
        check_choice("mode", self.mode, get_args(DynamicMode))

    @property
    def needs_discriminator(self) -> bool:
        return self.mode != "temporal"

    @property
    def high(self) -> float:
        return 1 + self._place_weight(1.0)

    def __call__(self, answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float | None]:
        """The reward of each answer.

        A question without true boxes, or of time alone, is rewarded by tIoU. An answer whose time cannot be read
        earns 0, and so does the place of one for which the discriminator was not run.

        Raises:
            ValueError: there is no discriminator, but true boxes to compare its boxes with.
        """
        overlaps = temporal_iou(answers, truth, context)
        tubes = context.discriminator_boxes
        if tubes is None:
            if self.needs_discriminator and truth.has_place:
                raise ValueError(
                    "place is rewarded by a spatial discriminator's boxes, and there are none: give each completion "
                    "its boxes_xyxy, or reward time alone (mode: temporal)"
                )
            tubes = [None] * len(answers)
        rewards: list[float | None] = []
        for answer, overlap, tube in zip(answers, overlaps, tubes, strict=True):
            if overlap is None:
                rewards.append(None)
            else:
                place = discriminator_siou(answer, truth, tube) if truth.has_place else 0.0
                rewards.append(overlap + self._place_weight(overlap) * place)
        return rewards

    def _place_weight(self, overlap: float) -> float:
        """What sIoU is multiplied by at a temporal IoU."""
        weights = {
            # 0 ** 0 is 1: without any overlap in time there is no place to compare, whatever alpha.
            "power": overlap**self.alpha if overlap > 0 else 0.0,
            "scale": self.alpha * overlap,
            "fixed": overlap,
            "temporal": 0.0,
        }
        return weights[self.mode]


def discriminator_siou(answer: Answer, truth: Truth, tube: Tube | None) -> float:
    """Mean IoU of a discriminator's boxes with the true ones, over the frames inside both spans that have both.

    Where the spans meet between two frames that the discriminator has read, its boxes there are on the straight line
    between them.

    Returns:
        IoU in [0, 1]; 0 where the spans share no frame with a true box.
    """
    if not tube or answer.span_seconds is None or truth.span_frames is None:
        return 0.0
    start, end = span_seconds_to_frames(answer.span_seconds, truth.fps, truth.num_frames)
    shared = range(max(start, truth.span_frames[0]), min(end, truth.span_frames[1]))
    known = [frame for frame in shared if frame in truth.boxes_xyxy]
    read = [frame for frame in known if frame in tube]
    if known and not read:
        tube, read = interpolated(tube, (start, end)), known
    return float(tube_ious(tube, truth.boxes_xyxy, read).mean()) if read else 0.0
