"""TVG-R1's, Video-STR's and their neighbours' terms on hand-worked cases."""

from __future__ import annotations

import cmath
import json
import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.answers import Answer, graph, time_pair
from stvg_lightning.cli.binding import RecipeError, bind
from stvg_lightning.rewards import (
    GraphEdges,
    GraphNodes,
    LengthBonus,
    OnTasks,
    RewardContext,
    RewardTerm,
    WeightedSum,
    answer_by_kind,
    boundary_iou,
    grounded_time,
    segment_match,
    temporal_iou,
    time_pair_format,
)
from stvg_lightning.rewards.segment_match import global_match, local_match
from stvg_lightning.tubes import Truth
from stvg_lightning.tubes.scene_graph import GraphFrame, Node, SceneGraph, all_edges, scene_graph_to_json
from tests.helpers import assert_close

BOX = (0.0, 0.0, 10.0, 10.0)


def truth_of(task: str = "temporal", **fields: Any) -> Truth:
    return Truth(**({"id": "v", "query": "q", "fps": 10.0, "num_frames": 200, "width": 64, "height": 48,
                     "span_frames": (40, 80), "task": task} | fields))  # fmt: skip


def score(term: RewardTerm, answer: Answer, truth: Truth, context: RewardContext | None = None) -> float | None:
    (value,) = term([answer], truth, context or RewardContext())
    return value


TVG: dict[str, Any] = {
    "time": {"use": "stvg_lightning.rewards.temporal_iou", "weight": 0.9, "tasks": ["temporal"]},
    "grounding": {"use": "stvg_lightning.rewards.grounded_time", "weight": 0.2},
    "accuracy": {"use": "stvg_lightning.rewards.answer_by_kind", "weight": 0.7, "tasks": ["choice"]},
    "format": {"use": "stvg_lightning.rewards.time_pair_format", "weight": 0.1},
}


@pytest.mark.parametrize(
    ("task", "text", "expected"),
    [
        ("temporal", "<think>t</think> <time>[4.0, 8.0]</time>", 0.9 + 0.1),
        ("temporal", "<think>t</think> <time>[6.0, 10.0]</time>", 0.9 * 2 / 6 + 0.1),
        ("temporal", "<think>t</think> <time>[8.0, 4.0]</time>", 0.1),
        ("temporal", "<think>t</think> <time>[4.0, 8.0]", 0.0),
        ("temporal", "<time>[4.0, 8.0]</time>", 0.9),
        ("choice", r"<think>(A)?</think> <time>[4.0, 8.0]</time> \boxed{B}", 0.7 + 0.1 + 0.2),
        ("choice", r"<think>t</think> <time>[6.0, 8.0]</time> \boxed{B}", 0.7 + 0.1 + 0.2 * 0.5),
        ("choice", r"<think>t</think> <time>[6.0, 8.0]</time> \boxed{A}", 0.1 + 0.2 * 0.5),
        ("choice", "<think>t</think> <time>[6.0, 8.0]</time> (B)", 0.2 * 0.5),
        ("choice", r"<think>t</think> \boxed{B}", 0.7),
        ("choice", "", 0.0),
        ("choice", r"<think>Perhaps \boxed{B}</think> <time>[4.0, 8.0]</time> \boxed{A}", 0.1 + 0.2),
        ("choice", r"<think>Perhaps \boxed{A}</think> <time>[4.0, 8.0]</time> \boxed{A} no \boxed{B}", 1.0),
        ("choice", r"<think>Perhaps \boxed{B}, and <time>[4.0, 8.0]</time> \boxed{B}", 0.2),
    ],
)
def test_tvg_r1s_rewards_by_task(task: str, text: str, expected: float) -> None:
    rewards = bind(WeightedSum, TVG, "rewards")
    truth = truth_of(task, answer="B" if task == "choice" else None)
    (rewarded,) = rewards.score([time_pair.read(text)], truth)
    assert_close(rewarded.total, expected, atol=1e-9)
    assert (rewarded.terms["time"] is None) is (task == "choice")
    assert (rewarded.terms["accuracy"] is None) is (task == "temporal")


def test_a_term_routed_by_task_keeps_what_else_it_has() -> None:
    class Stateful:
        low, high, needs = 0.0, 1.0, ("box_lists",)

        def __call__(self, answers: Any, truth: Truth, context: RewardContext) -> list[float]:
            return [1.0] * len(answers)

        def state_dict(self) -> dict[str, int]:
            return {"seen": 3}

    routed = OnTasks(Stateful(), ("choice",))
    assert WeightedSum({"own": (routed, 1.0)}).state_dict() == {"own": {"seen": 3}} and routed.needs == ("box_lists",)
    assert not hasattr(OnTasks(temporal_iou, ("choice",)), "state_dict")
    with pytest.raises(ValueError, match="task 'stgv' is unknown"):
        OnTasks(temporal_iou, ("stgv",))
    with pytest.raises(ValueError, match="tasks is empty"):
        OnTasks(temporal_iou, ())
    with pytest.raises(RecipeError, match=r"rewards\.time: task 'time' is unknown"):
        bind(WeightedSum, {"time": TVG["time"] | {"tasks": ["time"]}}, "rewards")
    with pytest.raises(RecipeError, match=r"rewards\.time\.tasks: a list is expected"):
        bind(WeightedSum, {"time": TVG["time"] | {"tasks": "temporal"}}, "rewards")


@pytest.mark.parametrize(
    ("task", "fields", "text", "expected"),
    [
        ("choice", {"answer": "B"}, "<answer>(B)</answer>", 1.0),
        ("choice", {"answer": "B"}, "<answer>(A)</answer>", 0.0),
        ("choice", {"answer": "B"}, "<think>(B)</think><answer>(A)", 0.0),
        ("choice", {"answer": "B"}, "(B)", 0.0),
        ("numeric", {"answer": 10.0}, "<answer>9</answer>", 0.9),
        ("numeric", {"answer": 10.0}, "<answer>16</answer>", 0.0),
        ("numeric", {"answer": 10.0}, "<answer>none</answer>", 0.0),
        ("numeric", {"answer": 10.0}, '<think><graph>{"frames": [{"t": 10', 0.0),
    ],
)
def test_answers_by_kind(task: str, fields: dict[str, Any], text: str, expected: float) -> None:
    assert_close(score(answer_by_kind, graph.read(text), truth_of(task, **fields)), expected, atol=1e-9)


def test_answers_of_time_and_place_by_kind() -> None:
    assert_close(score(answer_by_kind, Answer("", (6.0, 10.0)), truth_of()), 2 / 6, atol=1e-9)
    boxes = dict.fromkeys(range(4), BOX)
    place = truth_of("spatial", boxes_xyxy=boxes, tracks={3: dict.fromkeys(range(2), BOX)})
    assert score(answer_by_kind, Answer("", boxes_xyxy={0: BOX, 1: (5.0, 0.0, 15.0, 10.0)}), place) == pytest.approx(
        (1 + 1 / 3) / 4, abs=1e-6
    )
    assert score(answer_by_kind, Answer("", object_ids=(3,)), place) == pytest.approx(0.5, abs=1e-6)
    assert score(answer_by_kind, Answer(""), place) == 0.0
    with pytest.raises(ValueError, match="'v' of task 'stvg' has no letter, number, time or place"):
        answer_by_kind([Answer("")], truth_of("stvg"), RewardContext())


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((4.0, 8.0), 1.0),
        ((6.0, 10.0), 2 / 6 * (1 - 2 / 20) * (1 - 2 / 20)),
        ((0.0, 20.0), 4 / 20 * (1 - 4 / 20) * (1 - 12 / 20)),
        ((4.0, 100.0), 0.0),  # its end is off by more than the video's 20 seconds
        ((8.0, 4.0), 0.0),
        (None, 0.0),
    ],
)
def test_both_ends_are_weighed(span: tuple[float, float] | None, expected: float) -> None:
    assert_close(score(boundary_iou, Answer("", span), truth_of()), expected, atol=1e-9)
    assert score(boundary_iou, Answer("", span), truth_of("choice", answer="A")) is None


def test_a_grounded_question_alone_has_a_time_that_shows_it() -> None:
    assert score(grounded_time, Answer("", (4.0, 6.0)), truth_of("choice", answer="A")) == 0.5
    assert score(grounded_time, Answer("", (4.0, 6.0)), truth_of()) is None
    assert score(grounded_time, Answer("", (4.0, 6.0)), truth_of("choice", answer="A", span_frames=None)) is None


def test_a_letter_must_stand_behind_the_time() -> None:
    truth = truth_of("choice", answer="B")
    early = time_pair.read(r"<think>\boxed{B}</think> <time>[1, 2]</time>")
    assert score(time_pair_format, early, truth) == 0.0 and score(time_pair_format, early, truth_of()) == 1.0


def test_a_wished_length_pays_only_right_answers_in_company() -> None:
    truth = truth_of("choice", answer="B")
    right, wrong = Answer("(B)", reply="(B)"), Answer("(A)", reply="(A)")
    context = RewardContext(completion_tokens=(320, 512, 319, 513, 400))
    assert LengthBonus()([right, right, right, right, wrong], truth, context) == [1.0, 1.0, 0.0, 0.0, 0.0]
    alone = RewardContext(completion_tokens=(400, 400))
    assert LengthBonus()([right, wrong], truth, alone) == [0.0, 0.0]
    assert LengthBonus()([right], truth, RewardContext()) == [None]
    with pytest.raises(ValueError, match="least_tokens 600 must lie in 1 to most_tokens 512"):
        LengthBonus(least_tokens=600)


def test_segments_by_hand() -> None:
    # Shared 2 of 4 + 4 covered; IoU 2/6, the enclosure is the union.
    assert_close(score(segment_match, Answer("", (6.0, 10.0)), truth_of()), 0.5 + (1 + 2 / 6) / 2, atol=1e-9)
    assert_close(score(segment_match, Answer("", (4.0, 8.0)), truth_of()), 2.0, atol=1e-9)
    # Two seconds between them: enclosure 8 of which 6 are covered.
    assert_close(score(segment_match, Answer("", (10.0, 12.0)), truth_of()), (1 - 2 / 8) / 2, atol=1e-9)
    assert score(segment_match, Answer(""), truth_of()) == 0.0
    assert_close(global_match([(0.0, 2.0), (1.0, 4.0)], [(2.0, 6.0)]), 2 * 2 / 8, atol=1e-12)
    assert_close(local_match([(4.0, 6.0), (0.0, 2.0)], [(0.0, 2.0)]), 0.5, atol=1e-12)
    assert local_match([], []) == global_match([], []) == 0.0


CHAIRS = (Node("chair", 1, (0.0, 0.0)), Node("chair", 2, (4.0, 0.0)), Node("dog", 3, (0.0, 3.0)))


def graph_truth(*frames: GraphFrame, answer: str = "B") -> Truth:
    return truth_of("choice", answer=answer, graph=scene_graph_to_json(SceneGraph(frames)))


def drawn(*frames: GraphFrame, letter: str = "B") -> Answer:
    text = json.dumps(scene_graph_to_json(SceneGraph(frames)))
    return graph.read(f"<think><graph>{text}</graph></think><answer>({letter})</answer>")


def frame(seconds: float, *nodes: Node, edges: bool = True) -> GraphFrame:
    return GraphFrame(seconds, nodes, all_edges(nodes) if edges else ())


TRUE = frame(1.0, *CHAIRS)
DIAGONAL = 10 * math.sqrt(2)


def moved(node: Node, dx: float, dy: float = 0.0) -> Node:
    return replace(node, position=(node.position[0] + dx, node.position[1] + dy))


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (CHAIRS, 1.0),
        ((moved(CHAIRS[0], 1.0), *CHAIRS[1:]), (2 * (2 - 1 / DIAGONAL) / 2 + 1) / 3),
        (CHAIRS[1:], (2 * 1 / 2 + 1) / 3),  # a chair is missing
        ((*CHAIRS, Node("chair", 9, (9.0, 9.0))), (2 * 2 / 3 + 1) / 3),  # a chair too many
        ((*CHAIRS, Node("cat", 9, (9.0, 9.0))), 1.0),  # another kind costs nothing
        ((replace(CHAIRS[0], name="sofa"), CHAIRS[1]), (2 * 1 / 2 + 0) / 3),
        ((replace(CHAIRS[2], name=" DOG "),), 1 / 3),
        ((), 0.0),
    ],
)
def test_nodes_by_hand(nodes: tuple[Node, ...], expected: float) -> None:
    assert_close(score(GraphNodes(), drawn(frame(1.0, *nodes)), graph_truth(TRUE)), expected, atol=1e-9)


def test_the_nearest_pair_is_matched_first() -> None:
    true = frame(1.0, Node("a", 1, (0.0, 0.0)), Node("a", 2, (3.0, 0.0)))
    written = frame(1.0, Node("a", 1, (2.0, 0.0)), Node("a", 2, (10.0, 0.0)))
    # 2 is nearest to 3 (apart 1), so that 10 is left with 0, apart 10.
    expected = ((1 - 1 / DIAGONAL) + (1 - 10 / DIAGONAL)) / 2
    assert_close(score(GraphNodes(), drawn(written), graph_truth(true)), expected, atol=1e-9)


def test_frames_are_averaged_and_found_by_their_times() -> None:
    truth = graph_truth(TRUE, replace(TRUE, seconds=5.0))
    assert score(GraphNodes(), drawn(replace(TRUE, seconds=1.9)), truth) == 0.5
    assert score(GraphNodes(), drawn(replace(TRUE, seconds=2.1)), truth) == 0.0
    assert score(GraphNodes(seconds_apart=3.0), drawn(replace(TRUE, seconds=3.0)), truth) == 1.0
    assert score(GraphEdges(), drawn(TRUE), truth) == 0.5


def test_a_graph_counts_only_with_a_right_answer_unless_the_gate_is_open() -> None:
    wrong = drawn(TRUE, letter="A")
    for term in (GraphNodes(), GraphEdges()):
        assert score(term, wrong, graph_truth(TRUE)) == 0.0
        assert score(replace(term, gate=None), wrong, graph_truth(TRUE)) == 1.0
    numeric = replace(graph_truth(TRUE), task="numeric", answer=10.0)
    for number, expected in ((7.0, 0.0), (7.5, 1.0)):  # relative accuracy 0.5 and 0.6
        answer = replace(drawn(TRUE), reply=f"{number}")
        assert score(GraphNodes(), answer, numeric) == expected


@pytest.mark.parametrize("term", [GraphNodes(), GraphEdges(), GraphEdges(angle="relative")])
def test_without_a_true_graph_the_terms_do_not_apply_and_without_a_written_one_they_are_0(term: Any) -> None:
    assert score(term, drawn(TRUE), truth_of("choice", answer="B")) is None
    assert score(term, drawn(TRUE), graph_truth(GraphFrame(1.0, (), ()))) is None
    for text in ("<answer>(B)</answer>", "<think><graph>{</graph></think><answer>(B)</answer>"):
        assert score(term, graph.read(text), graph_truth(TRUE)) == 0.0
    assert score(term, drawn(), graph_truth(TRUE)) == 0.0
    with pytest.raises(ValueError, match="'v': graph: a node needs"):
        term([Answer("")], truth_of("choice", answer="B", graph={"frames": [{"t": 0, "nodes": [1]}]}), RewardContext())


def test_edges_by_hand() -> None:
    """Two things 4 apart, in the direction of the first axis."""
    true = frame(0.0, Node("a", 1, (0.0, 0.0)), Node("b", 2, (4.0, 0.0)))
    cases = {
        (4.0, 0.0): 1.0,
        (3.0, 0.0): (0.75 + 1) / 2,
        (0.0, 4.0): (1 + 0.5) / 2,
        (-4.0, 0.0): (1 + 0) / 2,
        (12.0, 0.0): (0 + 1) / 2,  # three times as far
    }
    for place, expected in cases.items():
        written = frame(0.0, Node("a", 7, (0.0, 0.0)), Node("b", 5, place))
        assert_close(score(GraphEdges(), drawn(written), graph_truth(true)), expected, atol=1e-9)
        without = replace(written, edges=())
        assert_close(score(GraphEdges(), drawn(without), graph_truth(true)), expected, atol=1e-9)
    half = frame(0.0, Node("a", 1, (0.0, 0.0)))
    assert score(GraphEdges(), drawn(half), graph_truth(true)) == 0.0


def test_an_edge_may_be_written_from_either_end_and_counts_as_it_is_written() -> None:
    true = frame(0.0, Node("a", 1, (0.0, 0.0)), Node("b", 2, (4.0, 0.0)))
    (edge,) = true.edges
    backwards = replace(true, edges=(replace(edge, a=2, b=1, angle_degrees=180.0),))
    assert_close(score(GraphEdges(), drawn(backwards), graph_truth(true)), 1.0, atol=1e-9)
    lied = replace(true, edges=(replace(edge, distance=2.0),))
    assert_close(score(GraphEdges(), drawn(lied), graph_truth(true)), (0.5 + 1) / 2, atol=1e-9)


places = st.tuples(st.floats(0, 10), st.floats(0, 10))


@given(st.lists(places, min_size=3, max_size=6, unique=True), st.floats(-180, 180))
def test_relative_edges_do_not_depend_on_the_cameras_rotation(
    positions: list[tuple[float, float]], turn: float
) -> None:
    nodes = tuple(Node(f"kind {i}", i, position) for i, position in enumerate(positions))
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    turned = tuple(
        replace(node, position=(cos * node.position[0] - sin * node.position[1],
                                sin * node.position[0] + cos * node.position[1]))
        for node in nodes
    )  # fmt: skip
    if min(math.dist(a.position, b.position) for i, a in enumerate(nodes) for b in nodes[:i]) < 0.1:
        return
    truth = graph_truth(frame(0.0, *nodes))
    assert score(GraphEdges(angle="relative"), drawn(frame(0.0, *turned)), truth) == pytest.approx(1.0, abs=1e-6)
    absolute = score(GraphEdges(), drawn(frame(0.0, *turned)), truth)
    assert absolute == pytest.approx(0.5 + (1 + cos) / 4, abs=1e-6)
    mirrored = tuple(replace(node, position=(-node.position[0], node.position[1])) for node in nodes)
    found = score(GraphEdges(angle="relative"), drawn(frame(0.0, *mirrored)), truth)
    assert found == pytest.approx(mirrored_by_hand([complex(*position) for position in positions]), abs=1e-6)


def mirrored_by_hand(places: list[complex]) -> float:
    """A mirrored scene's score: distances are right, and the angle between two edges has the other sign."""
    scores = []
    for i, j in combinations(range(len(places)), 2):
        at_ends = [(i, j, k) for k in range(len(places)) if k not in (i, j)]
        at_ends += [(j, i, k) for k in range(len(places)) if k not in (i, j)]
        turns = [cmath.phase((places[k] - places[at]) / (places[end] - places[at])) for at, end, k in at_ends]
        scores.append((1 + sum((1 + math.cos(2 * turn)) / 2 for turn in turns) / len(turns)) / 2)
    return sum(scores) / len(scores)


def test_things_at_one_place_have_a_distance_and_no_direction() -> None:
    true = frame(0.0, Node("a", 1, (2.0, 2.0)), Node("b", 2, (2.0, 2.0)))
    for term in (GraphEdges(), GraphEdges(angle="relative")):
        for apart, expected in ((0.0, 1.0), (0.05, 0.5), (0.2, 0.0)):
            written = frame(0.0, Node("a", 1, (2.0, 2.0)), Node("b", 2, (2.0, 2.0 + apart)))
            assert_close(score(term, drawn(written), graph_truth(true)), expected, atol=1e-6)


@pytest.mark.parametrize("reference", ["absolute", "relative"])
def test_numbers_of_any_size_are_scored(reference: Any) -> None:
    huge = [{"a": a, "b": b, "dist": 1e308, "angle": angle} for a, b, angle in ((1, 2, 1e308), (2, 3, -1e308))]
    nodes = [{"name": node.name, "id": node.id, "pos": [1e308, -1e308]} for node in CHAIRS]
    text = json.dumps({"frames": [{"t": 1.0, "nodes": nodes, "edges": huge}]})
    answer = graph.read(f"<think><graph>{text}</graph></think><answer>(B)</answer>")
    assert answer.graph is not None and all(abs(edge.angle_degrees) < 360 for edge in answer.graph.frames[0].edges)
    for term in (GraphEdges(angle=reference), GraphNodes()):
        value = score(term, answer, graph_truth(TRUE))
        assert value is not None and 0 <= value <= 1


@pytest.mark.parametrize(
    ("term", "keys", "message"),
    [
        (GraphNodes, {"side": math.inf}, "side inf must be above 0"),
        (GraphNodes, {"gate": math.nan}, "gate nan must be null or lie in"),
        (GraphEdges, {"gate": 1.5}, "gate 1.5 must be null or lie in"),
        (GraphEdges, {"seconds_apart": math.nan}, "seconds_apart nan must be at least 0"),
        (GraphEdges, {"least_distance": 0.0}, "least_distance 0.0 must be above 0"),
    ],
)
def test_terms_of_graphs_refuse_what_makes_no_sense(term: Any, keys: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        term(**keys)


def test_a_mirrored_scene_is_another_scene() -> None:
    nodes = (Node("a", 1, (0.0, 0.0)), Node("b", 2, (4.0, 0.0)), Node("c", 3, (0.0, 4.0)))
    mirrored = tuple(replace(node, position=(-node.position[0], node.position[1])) for node in nodes)
    # Right angles point the other way round, 180 degrees off; the half ones at b and c are 90 degrees off.
    value = score(GraphEdges(angle="relative"), drawn(frame(0.0, *mirrored)), graph_truth(frame(0.0, *nodes)))
    assert_close(value, (1 + (0.5 * 0 + 0.5 * 0.5)) / 2 * 2 / 3 + (1 + 0.5) / 2 / 3, atol=1e-9)
