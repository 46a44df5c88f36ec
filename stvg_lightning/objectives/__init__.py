"""Floor 2: policy-gradient objectives as pure functions of tensors. They see no text and no boxes."""

from stvg_lightning.objectives.advantages import group_centered, group_normalized
from stvg_lightning.objectives.aggregation import (
    BatchTotals,
    fixed_length_sum,
    sequence_mean_token_mean,
    token_mean,
)
from stvg_lightning.objectives.algorithms import dapo, dr_grpo, grpo, gspo, ppo
from stvg_lightning.objectives.critic import Critic, moments_of, whitened
from stvg_lightning.objectives.divergences import DIVERGENCES, k1, k2, k3
from stvg_lightning.objectives.objective import Divergence, Objective, ObjectiveStatistics
from stvg_lightning.objectives.ratios import sequence_log_ratios, token_log_ratios
from stvg_lightning.objectives.surrogates import clipped, unclipped

__all__ = [
    "DIVERGENCES",
    "BatchTotals",
    "Critic",
    "Divergence",
    "Objective",
    "ObjectiveStatistics",
    "clipped",
    "dapo",
    "dr_grpo",
    "fixed_length_sum",
    "group_centered",
    "group_normalized",
    "grpo",
    "gspo",
    "k1",
    "k2",
    "k3",
    "moments_of",
    "ppo",
    "sequence_log_ratios",
    "sequence_mean_token_mean",
    "token_log_ratios",
    "token_mean",
    "unclipped",
    "whitened",
]
