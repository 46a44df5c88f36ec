"""Floor 2: reward terms, one file each, and their weighted sum. They see answers and truths, never a model."""

from stvg_lightning.rewards.base import (
    RewardContext,
    RewardedAnswer,
    RewardError,
    RewardTerm,
    WeightedSum,
    reward,
)
from stvg_lightning.rewards.box_consistency import box_consistency
from stvg_lightning.rewards.box_lists import BoxAgreement
from stvg_lightning.rewards.box_spatial import BoxSpatial
from stvg_lightning.rewards.box_think import BoxThink
from stvg_lightning.rewards.continuous_spatial import continuous_spatial
from stvg_lightning.rewards.coupled_object_id import CoupledObjectId
from stvg_lightning.rewards.dynamic_spatio_temporal import DynamicSpatioTemporal
from stvg_lightning.rewards.format import well_formed
from stvg_lightning.rewards.index_temporal_iou import IndexTemporalIoU
from stvg_lightning.rewards.loading import load_object, load_term
from stvg_lightning.rewards.object_id import ObjectId
from stvg_lightning.rewards.overlong import OverlongPenalty
from stvg_lightning.rewards.temporal_iou import temporal_iou
from stvg_lightning.rewards.timestamps_in_thought import TimestampsInThought

__all__ = [
    "BoxAgreement",
    "BoxSpatial",
    "BoxThink",
    "CoupledObjectId",
    "DynamicSpatioTemporal",
    "IndexTemporalIoU",
    "ObjectId",
    "OverlongPenalty",
    "RewardContext",
    "RewardError",
    "RewardTerm",
    "RewardedAnswer",
    "TimestampsInThought",
    "WeightedSum",
    "box_consistency",
    "continuous_spatial",
    "load_object",
    "load_term",
    "reward",
    "temporal_iou",
    "well_formed",
]
