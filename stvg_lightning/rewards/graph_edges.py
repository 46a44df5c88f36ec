"""Video-STR's edge reward: distances and directions between things are as they were (arXiv 2510.10976)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import RewardContext
from stvg_lightning.rewards.graph_nodes import (
    check_frames_and_gate,
    frame_pairs,
    matched_nodes,
    passes_gate,
    true_graph,
)
from stvg_lightning.tubes import Truth
from stvg_lightning.tubes.choices import check_choice
from stvg_lightning.tubes.scene_graph import Edge, GraphFrame, SceneGraph, edge_between

AngleReference = Literal["absolute", "relative"]


@dataclass(frozen=True)
class GraphEdges:
    """How well the edges of a written graph fit the true ones, in [0, 1].

    Nodes are matched as in `GraphNodes`. A true edge scores the mean of `max(0, 1 - |d - d'| / d')` and of its
    direction's score; one whose nodes are not both matched scores 0. An edge that was not written is worked out from
    the written positions. Edges are averaged over a frame, frames over the graph.

    A direction scores `(1 + cos(angle - angle')) / 2`. `absolute` compares it as it is. `relative` compares, for every
    other true edge at one of its two nodes, the angle between both: a scene seen from another side keeps it, which the
    paper claims of its reward. An edge that no other one meets then scores its distance alone, and so does an edge
    shorter than `least_distance`, which rounding alone may turn.

    Attributes:
        angle: `absolute` or `relative`.
        least_distance: by which a distance's error is divided at least; what positions of one decimal tell apart.
        seconds_apart: see `GraphNodes`.
        gate: see `GraphNodes`.

    Raises:
        ValueError: an unknown reference of angles, or a number out of range.
    """

    angle: AngleReference = "absolute"
    seconds_apart: float = 1.0
    gate: float | None = 0.5
    least_distance: float = 0.1
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        check_choice("angle", self.angle, get_args(AngleReference))
        check_frames_and_gate(self.seconds_apart, self.gate)
        if not 0 < self.least_distance < math.inf:
            raise ValueError(f"least_distance {self.least_distance} must be above 0")

    def __call__(self, answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float | None]:
        """The reward of each answer; None where the truth knows no graph with an edge."""
        true = true_graph(truth)
        frames = () if true is None else tuple(frame for frame in true.frames if frame.edges)
        if not frames:
            return [None] * len(answers)
        return [self._score(answer, truth, SceneGraph(frames)) for answer in answers]

    def _score(self, answer: Answer, truth: Truth, true: SceneGraph) -> float:
        if answer.graph is None or not passes_gate(answer, truth, self.gate):
            return 0.0
        pairs = frame_pairs(answer.graph, true, self.seconds_apart)
        return sum(0.0 if written is None else self._frame(written, meant) for written, meant in pairs) / len(pairs)

    def _frame(self, written: GraphFrame, meant: GraphFrame) -> float:
        found = written_edges(written, meant)
        scores = []
        for edge in meant.edges:
            predicted = found.get(edge)
            if predicted is None:
                scores.append(0.0)
                continue
            off = abs(predicted.distance - edge.distance) / max(edge.distance, self.least_distance)
            parts = [max(0.0, 1 - off)]
            is_long = edge.distance >= self.least_distance
            direction = self._direction(edge, predicted, found) if is_long else None
            parts += [] if direction is None else [direction]
            scores.append(sum(parts) / len(parts))
        return sum(scores) / len(scores)

    def _direction(self, edge: Edge, predicted: Edge, found: Mapping[Edge, Edge]) -> float | None:
        if self.angle == "absolute":
            return _alike(predicted.angle_degrees - edge.angle_degrees)
        scores = []
        for other, other_predicted in found.items():
            for node in {edge.a, edge.b} & {other.a, other.b} if self._may_meet(other, edge) else ():
                true = _angle_from(node, edge) - _angle_from(node, other)
                written = _angle_of(edge, predicted, node) - _angle_of(other, other_predicted, node)
                scores.append(_alike(written - true))
        return sum(scores) / len(scores) if scores else None

    def _may_meet(self, other: Edge, edge: Edge) -> bool:
        return other != edge and other.distance >= self.least_distance


def written_edges(written: GraphFrame, meant: GraphFrame) -> dict[Edge, Edge]:
    """True edge -> the written one between the matched nodes, in the true one's direction; missing nodes have none."""
    match = {true.id: predicted for predicted, true in matched_nodes(written, meant)}
    stated: dict[tuple[int, int], Edge] = {}
    for edge in reversed(written.edges):
        stated[edge.b, edge.a] = Edge(edge.b, edge.a, edge.distance, edge.angle_degrees + 180)
        stated[edge.a, edge.b] = edge
    found = {}
    for edge in meant.edges:
        if edge.a in match and edge.b in match:
            first, second = match[edge.a], match[edge.b]
            found[edge] = stated.get((first.id, second.id)) or edge_between(first, second)
    return found


def _angle_of(edge: Edge, predicted: Edge, node: int) -> float:
    """The written direction of an edge as seen from one of its true nodes."""
    return predicted.angle_degrees + (0 if edge.a == node else 180)


def _angle_from(node: int, edge: Edge) -> float:
    return edge.angle_degrees + (0 if edge.a == node else 180)


def _alike(degrees: float) -> float:
    """1 for the same direction, 0 for the opposite one."""
    return (1 + math.cos(math.radians(degrees))) / 2
