"""The coupled spatial reward, an ablation: the object counts as much as the time fits (STVG-R1, appendix A.9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import RewardContext
from stvg_lightning.rewards.object_id import Presence, check_presence, object_id_reward
from stvg_lightning.rewards.temporal_iou import temporal_iou
from stvg_lightning.tubes import Truth


@dataclass(frozen=True)
class CoupledObjectId:
    """`r_s * r_t`: the object reward times the temporal IoU; stands in for `ObjectId` in the sum.

    Attributes:
        presence: `paper` or `code`, as in `ObjectId`.
    """

    presence: Presence = "paper"
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        check_presence(self.presence)

    @property
    def needs_markers(self) -> bool:
        return self.presence == "paper"

    def __call__(self, answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float | None]:
        """The reward of each answer; `r_s` alone where no time is asked, None where no object is."""
        overlaps = temporal_iou(answers, truth, context)
        rewards: list[float | None] = []
        for answer, overlap in zip(answers, overlaps, strict=True):
            match = object_id_reward(answer, truth, context, self.presence)
            rewards.append(match if match is None or overlap is None else match * overlap)
        return rewards
