"""The stages that recipes name, one class each; their fields are recipe keys."""

from stvg_lightning.cli.stages.evaluate import Evaluate
from stvg_lightning.cli.stages.pretrain import TinyPretraining
from stvg_lightning.cli.stages.report import Report
from stvg_lightning.cli.stages.shards import SyntheticShards
from stvg_lightning.cli.stages.training import GroupRelativePolicyOptimization, SupervisedFineTuning

__all__ = [
    "Evaluate",
    "GroupRelativePolicyOptimization",
    "Report",
    "SupervisedFineTuning",
    "SyntheticShards",
    "TinyPretraining",
]
