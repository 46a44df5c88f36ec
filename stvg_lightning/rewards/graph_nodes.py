"""Video-STR's node reward: things are where they were said to be (as SpaceR scores its map, `extract_map.py`)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.answer_by_kind import answer_accuracy
from stvg_lightning.rewards.base import RewardContext
from stvg_lightning.tubes import Truth
from stvg_lightning.tubes.scene_graph import GraphFrame, Node, SceneGraph, read_scene_graph

Pairs = list[tuple[Node, Node]]


@dataclass(frozen=True)
class GraphNodes:
    """How near the nodes of a written graph lie to the true ones, in [0, 1].

    In each true frame, nodes of a kind are matched nearest first; a pair scores `max(0, 1 - d / (side * sqrt(2)))`, a
    kind the sum of its pairs over the larger of both its counts, and a frame the mean of its true kinds, weighted by
    how many things of each there are. Kinds that are not there cost nothing, as in SpaceR. Frames are averaged; a true
    frame's counterpart is the written one nearest in time, no further than `seconds_apart`.

    Attributes:
        side: of the square on which positions lie, in their own units.
        seconds_apart: how far a written frame's time may be off.
        gate: a graph counts only with an accuracy of the answer above this; 0.5 is SpaceR's for numbers, and letters
            are right or wrong. None counts every graph.

    Raises:
        ValueError: a side that is not above 0, times apart below 0, or a gate outside [0, 1].
    """

    side: float = 10.0
    seconds_apart: float = 1.0
    gate: float | None = 0.5
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.side < math.inf:
            raise ValueError(f"side {self.side} must be above 0")
        check_frames_and_gate(self.seconds_apart, self.gate)

    def __call__(self, answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float | None]:
        """The reward of each answer; None where the truth knows no graph."""
        true = true_graph(truth)
        if true is None:
            return [None] * len(answers)
        return [self._score(answer, truth, true) for answer in answers]

    def _score(self, answer: Answer, truth: Truth, true: SceneGraph) -> float:
        if answer.graph is None or not passes_gate(answer, truth, self.gate):
            return 0.0
        pairs = frame_pairs(answer.graph, true, self.seconds_apart)
        return sum(0.0 if written is None else self._frame(written, meant) for written, meant in pairs) / len(pairs)

    def _frame(self, written: GraphFrame, meant: GraphFrame) -> float:
        counts = by_kind(written.nodes)
        matched: dict[str, float] = defaultdict(float)
        for predicted, true in matched_nodes(written, meant):
            apart = math.dist(predicted.position, true.position)
            matched[true.name] += max(0.0, 1 - apart / (self.side * math.sqrt(2)))
        total = 0.0
        for kind, nodes in by_kind(meant.nodes).items():
            total += len(nodes) * matched[kind] / max(len(nodes), len(counts.get(kind, ())))
        return total / len(meant.nodes)


def check_frames_and_gate(seconds_apart: float, gate: float | None) -> None:
    """Refuse what no graph could be held against.

    Raises:
        ValueError: seconds apart below 0, or a gate outside [0, 1].
    """
    if not seconds_apart >= 0:
        raise ValueError(f"seconds_apart {seconds_apart} must be at least 0")
    if gate is not None and not 0 <= gate <= 1:
        raise ValueError(f"gate {gate} must be null or lie in [0, 1]")


def true_graph(truth: Truth) -> SceneGraph | None:
    """The truth's graph, without frames that show nothing; None where there is none left.

    Raises:
        ValueError: a graph that cannot be read.
    """
    if truth.graph is None:
        return None
    graph, problems = read_scene_graph(truth.graph)
    if problems:
        raise ValueError(f"truth {truth.id!r}: graph: {problems[0]}")
    frames = tuple(frame for frame in graph.frames if frame.nodes)
    return SceneGraph(frames) if frames else None


def passes_gate(answer: Answer, truth: Truth, gate: float | None) -> bool:
    """Whether the answer is right enough for its graph to count: graphs must not pay for themselves."""
    return gate is None or answer_accuracy(answer, truth) > gate


def frame_pairs(
    written: SceneGraph, true: SceneGraph, seconds_apart: float
) -> list[tuple[GraphFrame | None, GraphFrame]]:
    """Each true frame behind the written one nearest in time, or None where none is near enough."""
    pairs: list[tuple[GraphFrame | None, GraphFrame]] = []
    for frame in true.frames:
        nearest = min(written.frames, key=lambda other: abs(other.seconds - frame.seconds), default=None)
        is_near = nearest is not None and abs(nearest.seconds - frame.seconds) <= seconds_apart + 1e-9
        pairs.append((nearest if is_near else None, frame))
    return pairs


def matched_nodes(written: GraphFrame, meant: GraphFrame) -> Pairs:
    """Written and true nodes of a kind, the nearest pair first, each node once."""
    found: Pairs = []
    predicted = by_kind(written.nodes)
    for kind, nodes in by_kind(meant.nodes).items():
        distances = sorted(
            (math.dist(first.position, second.position), i, j)
            for i, first in enumerate(predicted.get(kind, ()))
            for j, second in enumerate(nodes)
        )
        used_predicted, used_true = set[int](), set[int]()
        for _, i, j in distances:
            if i not in used_predicted and j not in used_true:
                used_predicted.add(i)
                used_true.add(j)
                found.append((predicted[kind][i], nodes[j]))
    return found


def by_kind(nodes: Sequence[Node]) -> dict[str, list[Node]]:
    """Kind -> its nodes, in order."""
    kinds: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        kinds[node.name].append(node)
    return dict(kinds)
