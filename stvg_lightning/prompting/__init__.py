"""Floor 2: object-centric visual prompts, drawn into clips as they are loaded."""

from stvg_lightning.prompting.markers import MarkedClip, Markers, draw_markers, large_enough

__all__ = ["MarkedClip", "Markers", "draw_markers", "large_enough"]
