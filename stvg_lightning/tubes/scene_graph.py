"""Scene graphs: where things are at a few times, how far apart, and in which direction (Video-STR, arXiv 2510.10976).

As JSON: `{"frames": [{"t": 3.0, "nodes": [{"name": "chair", "id": 1, "pos": [2, 5]}], "edges": [{"a": 1, "b": 2,
"dist": 3.2, "angle": 90.0}]}]}`. Positions lie on a plane, in units of the graph's own; angles are degrees of the line
from `a` to `b`, counted from the first axis to the second, and read without whole turns. The paper prints no format:
this one is ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stvg_lightning.tubes.json_values import is_number

MOST_NODES = 200
"""Things in one frame; a text that repeats itself may list more."""

MOST_FRAMES = 64
LONGEST_NAME = 100


@dataclass(frozen=True)
class Node:
    """A thing at a place: its kind, its number within the frame, and its position."""

    name: str
    id: int
    position: tuple[float, float]


@dataclass(frozen=True)
class Edge:
    """The distance and, in degrees, the direction from one node to another, by their numbers."""

    a: int
    b: int
    distance: float
    angle_degrees: float


@dataclass(frozen=True)
class GraphFrame:
    """The graph of one moment."""

    seconds: float
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    @property
    def node_of(self) -> dict[int, Node]:
        """Number -> node; of a number that stands twice the first."""
        return {node.id: node for node in reversed(self.nodes)}


@dataclass(frozen=True)
class SceneGraph:
    """Frames in the order of time."""

    frames: tuple[GraphFrame, ...]


def read_scene_graph(value: Any) -> tuple[SceneGraph, tuple[str, ...]]:
    """The graph that a JSON value stands for, and what of it could not be read, one sentence each.

    Nothing is raised: a node, edge or frame that is broken is left out and told.

    Example:
        >>> graph, problems = read_scene_graph({"frames": [{"t": 1, "nodes": [{"name": "a", "id": 1, "pos": [0, 2]}]}]})
        >>> graph.frames[0].nodes, problems
        ((Node(name='a', id=1, position=(0.0, 2.0)),), ())
    """
    problems: list[str] = []
    listed = value.get("frames") if isinstance(value, Mapping) else None
    if not isinstance(listed, list):
        return SceneGraph(()), ("the graph is no object with a list of frames",)
    frames = [frame for frame in (_frame(item, problems) for item in listed[:MOST_FRAMES]) if frame is not None]
    if len(listed) > MOST_FRAMES:
        problems.append(f"{len(listed)} frames: those after the first {MOST_FRAMES} are not read")
    return SceneGraph(tuple(sorted(frames, key=lambda frame: frame.seconds))), tuple(problems)


def scene_graph_to_json(graph: SceneGraph) -> dict[str, Any]:
    """The JSON object of a graph.

    Example:
        >>> frame = GraphFrame(1.0, (Node("a", 1, (0.0, 2.0)),), ())
        >>> scene_graph_to_json(SceneGraph((frame,)))
        {'frames': [{'t': 1.0, 'nodes': [{'name': 'a', 'id': 1, 'pos': [0.0, 2.0]}], 'edges': []}]}
    """
    return {
        "frames": [
            {
                "t": frame.seconds,
                "nodes": [{"name": node.name, "id": node.id, "pos": list(node.position)} for node in frame.nodes],
                "edges": [{"a": e.a, "b": e.b, "dist": e.distance, "angle": e.angle_degrees} for e in frame.edges],
            }
            for frame in graph.frames
        ]
    }


def edge_between(first: Node, second: Node) -> Edge:
    """Distance and direction from one node to another.

    Example:
        >>> edge_between(Node("a", 1, (0.0, 0.0)), Node("b", 2, (0.0, 2.0)))
        Edge(a=1, b=2, distance=2.0, angle_degrees=90.0)
    """
    dx, dy = (after - before for before, after in zip(first.position, second.position))
    return Edge(first.id, second.id, math.hypot(dx, dy), math.degrees(math.atan2(dy, dx)))


def all_edges(nodes: tuple[Node, ...]) -> tuple[Edge, ...]:
    """An edge for every pair of nodes, from the one that stands first."""
    return tuple(edge_between(a, b) for i, a in enumerate(nodes) for b in nodes[i + 1 :])


def _frame(item: Any, problems: list[str]) -> GraphFrame | None:
    if not isinstance(item, Mapping) or not is_number(item.get("t")):
        problems.append(f"a frame without a time t: {_excerpt(item)}")
        return None
    nodes, edges = (item.get(key, []) for key in ("nodes", "edges"))
    if not isinstance(nodes, list) or not isinstance(edges, list):
        problems.append(f"nodes and edges must be lists: {_excerpt(item)}")
        return None
    if max(len(nodes), len(edges) ** 0.5) > MOST_NODES:
        problems.append(f"{len(nodes)} nodes and {len(edges)} edges: only the first are read")
    read = tuple(node for node in (_node(each, problems) for each in nodes[:MOST_NODES]) if node is not None)
    known = {node.id for node in read}
    return GraphFrame(float(item["t"]), read, tuple(_edges(edges[: MOST_NODES**2], known, problems)))


def _node(item: Any, problems: list[str]) -> Node | None:
    position = item.get("pos") if isinstance(item, Mapping) else None
    if (
        not isinstance(position, list)
        or len(position) != 2
        or not all(is_number(value) for value in position)
        or not isinstance(item.get("name"), str)
        or not _is_id(item.get("id"))
    ):
        problems.append(f"a node needs name, id and pos [x, y]: {_excerpt(item)}")
        return None
    return Node(item["name"].strip().lower()[:LONGEST_NAME], item["id"], (float(position[0]), float(position[1])))


def _edges(items: list[Any], known: set[int], problems: list[str]) -> Iterator[Edge]:
    for item in items:
        fits = isinstance(item, Mapping) and all(is_number(item.get(key)) for key in ("dist", "angle"))
        if not fits or not (_is_id(item.get("a")) and _is_id(item.get("b"))) or not {item["a"], item["b"]} <= known:
            problems.append(f"an edge needs dist, angle and the ids a and b of two nodes: {_excerpt(item)}")
        else:
            yield Edge(item["a"], item["b"], float(item["dist"]), math.fmod(item["angle"], 360.0))


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _excerpt(item: Any) -> str:
    return repr(item)[:60]
