"""Floor 2: reward terms, one file each, and their weighted sum. They see answers and truths, never a model."""

from stvg_lightning.rewards.answer_by_kind import answer_by_kind
from stvg_lightning.rewards.base import (
    RewardContext,
    RewardedAnswer,
    RewardError,
    RewardTerm,
    WeightedSum,
    reward,
)
from stvg_lightning.rewards.boundary_iou import boundary_iou
from stvg_lightning.rewards.box_consistency import box_consistency
from stvg_lightning.rewards.box_lists import BoxAgreement
from stvg_lightning.rewards.box_spatial import BoxSpatial
from stvg_lightning.rewards.box_think import BoxThink
from stvg_lightning.rewards.continuous_spatial import continuous_spatial
from stvg_lightning.rewards.coupled_object_id import CoupledObjectId
from stvg_lightning.rewards.dynamic_spatio_temporal import DynamicSpatioTemporal
from stvg_lightning.rewards.format import well_formed
from stvg_lightning.rewards.graph_edges import GraphEdges
from stvg_lightning.rewards.graph_nodes import GraphNodes
from stvg_lightning.rewards.grounded_time import grounded_time
from stvg_lightning.rewards.index_temporal_iou import IndexTemporalIoU
from stvg_lightning.rewards.length_bonus import LengthBonus
from stvg_lightning.rewards.loading import load_object, load_term
from stvg_lightning.rewards.object_id import ObjectId
from stvg_lightning.rewards.on_tasks import OnTasks
from stvg_lightning.rewards.order_bonus import OrderBonus
from stvg_lightning.rewards.overlong import OverlongPenalty
from stvg_lightning.rewards.segment_match import segment_match
from stvg_lightning.rewards.temporal_iou import temporal_iou
from stvg_lightning.rewards.time_pair_format import time_pair_format
from stvg_lightning.rewards.timestamps_in_thought import TimestampsInThought

__all__ = [
    "BoxAgreement",
    "BoxSpatial",
    "BoxThink",
    "CoupledObjectId",
    "DynamicSpatioTemporal",
    "GraphEdges",
    "GraphNodes",
    "IndexTemporalIoU",
    "LengthBonus",
    "ObjectId",
    "OnTasks",
    "OrderBonus",
    "OverlongPenalty",
    "RewardContext",
    "RewardError",
    "RewardTerm",
    "RewardedAnswer",
    "TimestampsInThought",
    "WeightedSum",
    "answer_by_kind",
    "boundary_iou",
    "box_consistency",
    "continuous_spatial",
    "grounded_time",
    "load_object",
    "load_term",
    "reward",
    "segment_match",
    "temporal_iou",
    "time_pair_format",
    "well_formed",
]
