"""A synthetic world: short videos of moving shapes with every truth known, deterministic from a seed."""

from stvg_lightning.data.synthetic.asked import asked_samples, source_of
from stvg_lightning.data.synthetic.samples import make_sample, split_seeds
from stvg_lightning.data.synthetic.scene import Action, Scene, Thing, WorldSettings, make_scene

__all__ = [
    "Action",
    "Scene",
    "Thing",
    "WorldSettings",
    "asked_samples",
    "make_sample",
    "make_scene",
    "source_of",
    "split_seeds",
]
