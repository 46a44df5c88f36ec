"""Floor 2: reward terms, one file each, and their weighted sum. They see answers and truths, never a model."""

from stvg_lightning.rewards.base import (
    RewardContext,
    RewardedAnswer,
    RewardError,
    RewardTerm,
    WeightedSum,
    reward,
)
from stvg_lightning.rewards.continuous_spatial import continuous_spatial
from stvg_lightning.rewards.coupled_object_id import CoupledObjectId
from stvg_lightning.rewards.format import well_formed
from stvg_lightning.rewards.loading import load_object, load_term
from stvg_lightning.rewards.object_id import ObjectId
from stvg_lightning.rewards.temporal_iou import temporal_iou

__all__ = [
    "CoupledObjectId",
    "ObjectId",
    "RewardContext",
    "RewardError",
    "RewardTerm",
    "RewardedAnswer",
    "WeightedSum",
    "continuous_spatial",
    "load_object",
    "load_term",
    "reward",
    "temporal_iou",
    "well_formed",
]
