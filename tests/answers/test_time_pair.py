"""Pairs of times, boxed letters, and scene graphs in a thought: written and read back, and any other text."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.answers import graph, time_pair
from stvg_lightning.answers.questions import chosen_letter
from stvg_lightning.tubes import Truth
from stvg_lightning.tubes.scene_graph import (
    Edge,
    GraphFrame,
    Node,
    SceneGraph,
    all_edges,
    read_scene_graph,
    scene_graph_to_json,
)

FRAME = GraphFrame(3.0, (Node("chair", 1, (2.0, 5.0)), Node("dog", 2, (2.0, 9.0))), (Edge(1, 2, 4.0, 90.0),))


def truth_of(task: str, **fields: object) -> Truth:
    return Truth("a", "the man sits", 10.0, 200, 64, 48, (52, 104), task=task, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["stvg", "temporal", "choice"])
def test_a_gold_pair_is_read_back(task: str) -> None:
    truth = truth_of(task, answer="B" if task == "choice" else None)
    assert time_pair.holds_answer(truth)
    text = time_pair.write(truth, "He sits down at 5.2.")
    answer = time_pair.read(text)
    assert (answer.span_seconds, answer.well_formed, answer.problems) == ((5.2, 10.4), True, ())
    assert answer.thought == "He sits down at 5.2." and chosen_letter(answer.reply) == (
        "B" if task == "choice" else None
    )
    assert not any(character.isdigit() for character in time_pair.instruction(truth))


@pytest.mark.parametrize(
    ("text", "span", "well_formed"),
    [
        ("<think>a</think> <time>[5.2, 10.4]</time>", (5.2, 10.4), True),
        ("<think>a</think> so <time> [5,10] </time> and more", (5.0, 10.0), True),
        ("<think>a</think><time>[10.4, 5.2]</time>", (10.4, 5.2), True),
        ("<think>a</think><time>5.2, 10.4</time>", None, True),
        ("<think>a</think><time>[5.2]</time>", None, True),
        ("<think>a</think><time>[5.2, 10.4, 11]</time>", None, True),
        ("<think>a</think><time>[NaN, Infinity]</time>", None, True),
        ("<think>a</think><time>[-1, 2]</time>", None, True),
        ('<think>a</think><time>["5", "6"]</time>', None, True),
        ("<think><time>[1, 2]</time></think> <time>[5.2, 10.4]</time>", (5.2, 10.4), True),
        ("<time>[5.2, 10.4]</time>", (5.2, 10.4), False),
        ("so <think>a</think><time>[5.2, 10.4]</time>", (5.2, 10.4), False),
        ("<think>a</think><time>[5.2, 10.4]", None, False),
        ("", None, False),
    ],
)
def test_pairs_as_models_write_them(text: str, span: tuple[float, float] | None, well_formed: bool) -> None:
    answer = time_pair.read(text)
    assert (answer.span_seconds, answer.well_formed) == (span, well_formed)
    assert bool(answer.problems) is (span is None)


@given(text=st.text() | st.lists(st.sampled_from(["<think>", "</think>", "<time>", "</time>", "[1, 2]"])).map("".join))
def test_any_text_is_read(text: str) -> None:
    assert time_pair.read(text).text == graph.read(text).text == text
    assert (time_pair.read(text).span_seconds is None) == bool(time_pair.read(text).problems)


def test_what_pairs_do_not_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="stvg, temporal, choice, not 'spatial'"):
        time_pair.instruction(truth_of("spatial"))
    with pytest.raises(ValueError, match="no span or no letter"):
        time_pair.write(truth_of("choice"))
    with pytest.raises(ValueError, match="holds a tag"):
        time_pair.write(truth_of("temporal"), "<time>")


@pytest.mark.parametrize(("task", "gold"), [("choice", "C"), ("numeric", 2.5)])
def test_a_gold_graph_is_read_back(task: str, gold: str | float) -> None:
    truth = truth_of(task, answer=gold, graph=scene_graph_to_json(SceneGraph((FRAME,))))
    answer = graph.read(graph.write(truth, "A dog behind a chair."))
    assert answer.graph == SceneGraph((FRAME,)) and answer.well_formed and answer.problems == ()
    asked = graph.instruction(truth)
    assert ("chair, dog" in asked) is (task == "choice") and "the times 3 (in seconds)" in asked and "pos" in asked
    assert "ten by ten" in graph.instruction(truth_of(task, answer=gold))
    with pytest.raises(ValueError, match="choice, numeric, temporal, spatial, not 'stvg'"):
        graph.instruction(truth_of("stvg"))
    with pytest.raises(ValueError, match="graph: the graph is no object"):
        graph.instruction(truth_of(task, answer=gold, graph=[1]))


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("{", "the graph is no JSON"),
        ("[]", "no object with a list of frames"),
        ('{"frames": [{"nodes": []}]}', "a frame without a time t"),
        ('{"frames": [{"t": NaN}]}', "the graph is no JSON"),
        ('{"frames": [{"t": 1, "nodes": {"a": 1}}]}', "nodes and edges must be lists"),
        ('{"frames": [{"t": 1, "nodes": [{"name": "a", "id": 1, "pos": [1]}]}]}', "a node needs name, id and pos"),
        ('{"frames": [{"t": 1, "nodes": [{"name": "a", "id": true, "pos": [1, 2]}]}]}', "a node needs name, id"),
        (
            '{"frames": [{"t": 1, "nodes": [], "edges": [{"a": 1, "b": 2, "dist": 1, "angle": 0}]}]}',
            "an edge needs dist, angle and the ids a and b of two nodes",
        ),
        ("[" * 50_000, "the graph is no JSON"),
        ("x" * 300_000, "more than 200000 are not read"),
    ],
)
def test_a_graph_that_is_wrong_is_told_and_never_raised(written: str, problem: str) -> None:
    answer = graph.read(f"<think><graph>{written}</graph></think><answer>(B)</answer>")
    assert problem in answer.problems[0] and answer.well_formed


def test_a_graph_of_any_size_is_read_in_little_time() -> None:
    nodes = [{"name": "a", "id": i, "pos": [i, i]} for i in range(5000)]
    huge = json.dumps({"frames": [{"t": i, "nodes": nodes[:40]} for i in range(100)]})
    begun = time.process_time()
    found = graph.read(f"<think><graph>{huge}</graph></think><answer>1</answer>")
    assert time.process_time() - begun < 2 and found.graph is not None and len(found.graph.frames) == 64
    read, problems = read_scene_graph({"frames": [{"t": 0, "nodes": nodes}]})
    assert len(read.frames[0].nodes) == 200 and "only the first are read" in problems[0]


def test_edges_of_all_pairs() -> None:
    assert all_edges(FRAME.nodes) == FRAME.edges
