"""What a question tells of the scene graph that it asks for: times, kinds and the plane, and nothing of the answer."""

from __future__ import annotations

from typing import Any

from stvg_lightning.tubes import Truth
from stvg_lightning.tubes.json_values import is_number
from stvg_lightning.tubes.scene_graph import SceneGraph

ASKED, PLANE, CORNER, UNIT = "asked", "plane", "corner", "unit_per_cell"
"""Keys of a graph in JSON beside its frames: the kinds to be told, and how the grid lies on which plane."""


def wanted_words(truth: Truth, graph: SceneGraph) -> str:
    """For which times and kinds the graph is to be written, as SpaceR tells its categories.

    Kinds are those under `asked`. A graph of old names none: of a question of number nothing is listed then, since
    things may be counted by it, and of a question of time no times are, since they may be its answer.
    """
    record: Any = truth.graph
    kinds = record.get(ASKED)
    is_told = isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds)
    parts = []
    if graph.frames and (is_told or truth.task != "temporal"):
        parts.append(f"the times {', '.join(f'{frame.seconds:g}' for frame in graph.frames)} (in seconds)")
    if not is_told:
        shown = {node.name for frame in graph.frames for node in frame.nodes}
        kinds = [] if truth.task == "numeric" else sorted(shown)
    if kinds:
        parts.append(", ".join(kinds))
    return f"Write it for {' and for '.join(parts)}." if parts else ""


def plane_words(record: Any, with_angles: bool) -> str:
    """How the grid lies, as far as the graph knows: where it begins, how wide a cell is, where angles count from."""
    plane, corner, unit = (record.get(key) for key in (PLANE, CORNER, UNIT))
    cell = f", a cell {unit:.3g} metres wide" if is_number(unit) and unit > 0 else ""
    if plane == "picture":
        words = "The grid begins at the picture's upper left corner, x to the right, y down; its longer side is ten."
    elif plane == "camera":
        words = f"The grid lies on the ground, x to the camera's right, y away from it{cell}."
        if isinstance(corner, list) and len(corner) == 2 and all(map(is_number, corner)) and cell:
            x, y = (round(-value / unit, 3) + 0.0 for value in corner)
            words += f" The camera stands at [{x:g}, {y:g}]."
    elif plane == "floor":
        words = f"The grid lies on the floor and holds all things, y to the left of x as seen from above{cell}."
    else:
        return ""
    return f"{words} Angles are degrees from x towards y." if with_angles else words
