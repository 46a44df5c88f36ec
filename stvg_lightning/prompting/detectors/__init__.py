"""Detectors, one file each; a recipe names one by its dotted path. What each needs is imported when it is loaded."""

from stvg_lightning.prompting.detectors.grounding_dino import GroundingDino
from stvg_lightning.prompting.detectors.rt_detr import RtDetr
from stvg_lightning.prompting.detectors.yolo import Yolo

__all__ = ["GroundingDino", "RtDetr", "Yolo"]
