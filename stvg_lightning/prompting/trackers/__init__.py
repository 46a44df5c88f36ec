"""Trackers, one file each; a recipe names one by its dotted path. What each needs is imported when it is loaded."""

from stvg_lightning.prompting.trackers.meta_sam2 import MetaSam2
from stvg_lightning.prompting.trackers.transformers_sam2 import TransformersSam2

__all__ = ["MetaSam2", "TransformersSam2"]
