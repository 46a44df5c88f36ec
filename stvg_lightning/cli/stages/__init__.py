"""The stages that recipes name, one class each; their fields are recipe keys."""

from stvg_lightning.cli.stages.curation import Curation
from stvg_lightning.cli.stages.difficulty import EstimateDifficulty
from stvg_lightning.cli.stages.evaluate import Evaluate
from stvg_lightning.cli.stages.pretrain import TinyDetectorPretraining, TinyPretraining
from stvg_lightning.cli.stages.prompts import ObjectPrompts
from stvg_lightning.cli.stages.rejection import RejectionSampling
from stvg_lightning.cli.stages.report import Report
from stvg_lightning.cli.stages.shards import SyntheticShards
from stvg_lightning.cli.stages.training import (
    GroupRelativePolicyOptimization,
    JointFineTuning,
    SupervisedFineTuning,
)

__all__ = [
    "Curation",
    "EstimateDifficulty",
    "Evaluate",
    "GroupRelativePolicyOptimization",
    "JointFineTuning",
    "ObjectPrompts",
    "RejectionSampling",
    "Report",
    "SupervisedFineTuning",
    "SyntheticShards",
    "TinyDetectorPretraining",
    "TinyPretraining",
]
