"""Answers after a scene graph: the forms of the graph, and answers of time and place."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.answers import Frames, GraphAnswers, View
from stvg_lightning.answers.graph import Form
from stvg_lightning.answers.records import answer_from_json, answer_to_json
from stvg_lightning.evaluation import score_answer
from stvg_lightning.rewards import RewardContext, answer_by_kind
from stvg_lightning.tubes import Truth
from stvg_lightning.tubes.scene_graph import GraphFrame, Node, SceneGraph, all_edges, scene_graph_to_json

NODES = (Node("red ball", 3, (1.5, 2.0)), Node("dog", 7, (9.0, 0.0)))
GRAPH = SceneGraph((GraphFrame(0.5, NODES, all_edges(NODES)), GraphFrame(2.0, NODES[:1], ())))
FRAMES = Frames((0, 5, 10, 15), 50, 25, 200, 100, fps=10.0, num_frames=20)
VIEW = View(frames=FRAMES)


def truth_of(task: Any, **fields: Any) -> Truth:
    graph = scene_graph_to_json(GRAPH)
    return Truth(**({"id": "a", "query": "Where is the dog?", "fps": 10.0, "num_frames": 20, "width": 200,
                     "height": 100, "task": task, "graph": graph} | fields))  # fmt: skip


PLACE = truth_of("spatial", boxes_xyxy={5: (20.0, 40.0, 60.0, 80.0), 10: (40.0, 40.0, 80.0, 80.0)})
TIME = truth_of("temporal", span_frames=(5, 12))


@pytest.mark.parametrize("form", ["full", "nodes", "lines"])
def test_each_form_is_read_back(form: Form) -> None:
    language = GraphAnswers(form)
    text = language.write(TIME, "", VIEW)
    assert text.endswith("<answer>[0.5, 1.2]</answer>") and ("edges" in text) is (form == "full")
    answer = language.read(text, VIEW)
    assert answer.span_seconds == (0.5, 1.2) and answer.problems == () and answer.well_formed
    assert answer.graph is not None and answer.graph.frames[0].seconds == 0.5
    for written, true in zip(answer.graph.frames, GRAPH.frames, strict=True):
        assert [(n.name, n.position) for n in written.nodes] == [(n.name, n.position) for n in true.nodes]
    assert (answer.graph == GRAPH) is (form == "full")
    asked = language.instruction(TIME, VIEW)
    assert "[start, end]" in asked and ("edges" in asked) is (form == "full")
    assert not any(character.isdigit() for character in asked)


def test_what_is_told_of_a_graph() -> None:
    language = GraphAnswers("nodes")
    record = scene_graph_to_json(GRAPH)
    of_old = {task: language.instruction(truth_of(task, graph=record)) for task in ("choice", "numeric", "temporal")}
    assert "Write it for the times 0.5, 2 (in seconds) and for dog, red ball.\n" in of_old["choice"]
    assert "Write it for the times 0.5, 2 (in seconds).\n" in of_old["numeric"]  # names could be counted
    assert "Write it for dog, red ball.\n" in of_old["temporal"]  # times could be the answer
    for task in ("choice", "numeric", "temporal"):
        asked = language.instruction(truth_of(task, graph=record | {"asked": ["ball"]}))
        assert "Write it for the times 0.5, 2 (in seconds) and for ball.\n" in asked


@pytest.mark.parametrize(
    ("plane", "words"),
    [
        ({}, "ten by ten.\nWrite"),
        ({"plane": "picture"}, "picture's upper left corner, x to the right, y down; its longer side is ten.\nWrite"),
        ({"plane": "camera", "corner": [-40.0, 0.0], "unit_per_cell": 8.0},
         "x to the camera's right, y away from it, a cell 8 metres wide. The camera stands at [5, 0].\nWrite"),
        ({"plane": "camera", "unit_per_cell": 2.5}, "y away from it, a cell 2.5 metres wide.\nWrite"),
        ({"plane": "floor", "corner": [1.0, 2.0], "unit_per_cell": 0.7},
         "holds all things, y to the left of x as seen from above, a cell 0.7 metres wide.\nWrite"),
    ],
)  # fmt: skip
def test_how_the_grid_lies_is_told(plane: dict[str, Any], words: str) -> None:
    truth = truth_of("choice", graph=scene_graph_to_json(GRAPH) | plane)
    assert words in GraphAnswers("nodes").instruction(truth)
    angles = "Angles are degrees from x towards y."
    assert (angles in GraphAnswers("full").instruction(truth)) is bool(plane)
    assert angles not in GraphAnswers("lines").instruction(truth)


def test_lines_by_hand() -> None:
    language = GraphAnswers("lines")
    assert "<graph>0.5: red ball [1.5, 2], dog [9, 0]\n2: red ball [1.5, 2]</graph>" in language.write(TIME, "", VIEW)
    answer = language.read("<think><graph>1: a [2, 3], b 4\nno line\n</graph></think><answer>(A)</answer>")
    assert answer.graph == SceneGraph((GraphFrame(1.0, (Node("a", 1, (2.0, 3.0)),), ()),))
    assert answer.problems == ("no kind [x, y]: 'b 4'", "a line needs seconds: kind [x, y], ...: 'no line'")


@pytest.mark.parametrize(
    "name", ["3d printer", "caf\u00e9 table", "\u6905\u5b50", "#1 seat", "o'neill's bag", "u-turn sign (old)", "a: b"]
)
@pytest.mark.parametrize("form", ["full", "nodes", "lines"])
def test_names_of_any_letters_are_read_back(name: str, form: Form) -> None:
    nodes = (Node(name, 1, (1.0, 2.5)), Node("dog", 2, (3.0, 4.0)), Node(name, 3, (0.0, 9.0)))
    graph = SceneGraph((GraphFrame(0.5, nodes, ()), GraphFrame(1.0, (), ())))
    truth = truth_of("choice", answer="B", graph=scene_graph_to_json(graph))
    language = GraphAnswers(form)
    answer = language.read(language.write(truth, "", VIEW), VIEW)
    assert answer.graph == graph and answer.problems == ()


@pytest.mark.parametrize("aside", ["I write <graph></graph>. ", "<graph>{}</graph>", "In <graph> I say: "])
def test_the_last_graph_of_a_thought_counts(aside: str) -> None:
    text = GraphAnswers().write(truth_of("choice", answer="B"), aside, VIEW)
    answer = GraphAnswers().read(text, VIEW)
    assert answer.graph == GRAPH and answer.problems == ()


def test_boxes_are_written_in_the_pixels_that_are_shown() -> None:
    language = GraphAnswers()
    text = language.write(PLACE, "", VIEW)
    assert text.endswith('<answer>[{"t": 0.5, "box": [5, 10, 15, 20]}, {"t": 1, "box": [10, 10, 20, 20]}]</answer>')
    answer = language.read(text, VIEW)
    assert answer.boxes_xyxy == PLACE.boxes_xyxy and answer.well_formed and not answer.problems
    assert answer_by_kind([answer], PLACE, RewardContext()) == [pytest.approx(1.0)]
    assert answer_from_json(answer_to_json(answer)).boxes_xyxy == PLACE.boxes_xyxy
    asked = language.instruction(PLACE, VIEW)
    assert "50 wide and 25 high" in asked and '[{"t": seconds, "box": [x, y, x, y]}, ...]' in asked
    half = language.read('<answer>[{"t": 0.5, "box": [5, 10, 15, 20]}]</answer>', VIEW)
    assert answer_by_kind([half], PLACE, RewardContext()) == [pytest.approx(0.5)]
    assert score_answer(half, PLACE)["gt_vIoU"] == pytest.approx(0.5)
    late = language.read('<answer>[{"t": 0.8, "box": [5, 10, 15, 20]}]</answer>', VIEW)
    assert answer_by_kind([late], PLACE, RewardContext()) == [0.0]


@pytest.mark.parametrize("coordinates", ["input", "norm1000", "original"])
def test_boxes_are_read_back_in_any_coordinates(coordinates: Any) -> None:
    language = GraphAnswers(coordinates=coordinates)
    found = language.read(language.write(PLACE, "", VIEW), VIEW).boxes_xyxy or {}
    assert found.keys() == PLACE.boxes_xyxy.keys()
    assert all(found[frame] == pytest.approx(box) for frame, box in PLACE.boxes_xyxy.items())


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("[", "the answer is no JSON list"),
        ("[1, 2] and more", "the answer is no JSON list"),
        ("[" * 50_000, "the answer is no JSON list"),
        ("[" + "1," * 150_000, "more than 200000 are not read"),
        ("[NaN, 2]", "the answer is no JSON list"),
        ("[1, 2, 3]", "a box needs a time, and [x, y, x, y] with an area: 3"),
        ('[{"t": 1}]', "a box needs a time"),
        ('[{"t": 1, "box": [1, 2, 3]}]', "a box needs a time"),
        ('[{"t": 1, "box": [3, 2, 1, 4]}]', "a box needs a time"),
        ('[{"t": -1, "box": [1, 2, 3, 4]}]', "a box needs a time"),
        ('[{"t": 1e300, "box": [1, 2, 3, 4]}]', "a box needs a time"),
        ('[{"t": true, "box": [1, 2, 3, 4]}]', "a box needs a time"),
        ("elsewhere", "neither a letter nor a number"),
    ],
)
def test_lists_that_are_wrong_are_told_and_never_raised(written: str, problem: str) -> None:
    answer = GraphAnswers().read(f"<think><graph>{{}}</graph></think><answer>{written}</answer>", VIEW)
    assert problem in answer.problems[-1] and answer.boxes_xyxy is None and answer.span_seconds is None
    assert score_answer(answer, PLACE)["unreadable"] and answer_by_kind([answer], PLACE, RewardContext()) == [0.0]


def test_in_lines_boxes_are_lines_too() -> None:
    language = GraphAnswers(form="lines")
    text = language.write(PLACE, "", VIEW)
    assert text.endswith("<answer>0.5. [5, 10, 15, 20]\n1. [10, 10, 20, 20]</answer>")
    asked = language.instruction(PLACE, VIEW)
    assert "Answer with one line for each time, seconds. [x, y, x, y], corners in pixels" in asked
    answer = language.read(text, VIEW)
    assert answer.boxes_xyxy == PLACE.boxes_xyxy and answer.well_formed
    assert not answer.problems
    broken = language.read("<answer>0.5. [5, 10, 15, 20]\n1. [10, 10, 20]\n1.0. [20, 10, 10, 20]</answer>", VIEW)
    assert broken.boxes_xyxy == {5: PLACE.boxes_xyxy[5]}
    assert [problem for problem in broken.problems if "a box needs a time" in problem] == list(broken.problems[-2:])
    for row in (
        "0.5. [5, 10, 15, 20], 1. [10, 10, 20, 20]",
        "0.5: [5,10,15,20]; 1: [10,10,20,20]",
        "0.5. [5.0, 10, 15, 20],\n1. [10, 10, 20, 20],",
    ):
        found = language.read(f"<answer>{row}</answer>", VIEW)
        assert found.boxes_xyxy == PLACE.boxes_xyxy and not any("a box" in problem for problem in found.problems)
    listed = language.read(GraphAnswers().write(PLACE, "", VIEW), VIEW)
    assert listed.boxes_xyxy == PLACE.boxes_xyxy
    for other in ("(B) [see graph]", "3 [metres]"):
        assert not any("box" in problem for problem in language.read(f"<answer>{other}</answer>", VIEW).problems)
    assert GraphAnswers().read(text, VIEW).boxes_xyxy is None


def test_of_two_boxes_at_a_time_the_first_counts() -> None:
    text = '<answer>[{"t": 1, "box": [1, 2, 3, 4]}, {"t": 1, "box": [5, 6, 7, 8]}]</answer>'
    assert GraphAnswers(coordinates="original").read(text, VIEW).boxes_xyxy == {10: (1.0, 2.0, 3.0, 4.0)}


def test_boxes_need_the_frames_that_are_shown() -> None:
    answer = GraphAnswers().read('<answer>[{"t": 1, "box": [1, 2, 3, 4]}]</answer>')
    assert answer.boxes_xyxy is None and "frames that were shown" in answer.problems[-1]
    with pytest.raises(ValueError, match="asks for boxes: the frames that are shown must be known"):
        GraphAnswers().instruction(PLACE)
    with pytest.raises(ValueError, match="asks for boxes"):
        GraphAnswers().write(PLACE)


def test_what_a_truth_lacks_is_not_written() -> None:
    language = GraphAnswers()
    for truth in (truth_of("spatial"), truth_of("temporal"), truth_of("choice"), truth_of("numeric")):
        assert not language.holds_answer(truth)
        with pytest.raises(ValueError, match="has no answer to write"):
            language.write(truth, "", VIEW)
    assert language.holds_answer(PLACE) and language.holds_answer(TIME)


@given(st.text(max_size=200), st.sampled_from(["full", "nodes", "lines"]))
def test_no_text_makes_reading_raise(text: str, form: Form) -> None:
    for written in (text, f"<think><graph>{text}</graph></think><answer>[{text}</answer>"):
        answer = GraphAnswers(form).read(written, VIEW)
        assert answer.text == written
        for box in (answer.boxes_xyxy or {}).values():
            assert all(map(math.isfinite, box))
