"""Answers with a scene graph in the thought: `<think>... <graph>{...}</graph> ...</think><answer>...</answer>`.

Video-STR (arXiv 2510.10976) lets a model write where things are before it answers; it prints no format, and the one
here is ours (`tubes/scene_graph.py`), with positions on a grid of ten by ten as SpaceR's map has them. The answer is a
letter or a number.
"""

from __future__ import annotations

import json
from json import JSONDecodeError
from typing import Any

from stvg_lightning.answers.answer import Answer
from stvg_lightning.answers.questions import chosen_letter, stated_number
from stvg_lightning.answers.reading import between, is_row_of_tags, last_answer
from stvg_lightning.answers.view import View
from stvg_lightning.tubes import Truth
from stvg_lightning.tubes.json_values import strict_json
from stvg_lightning.tubes.scene_graph import SceneGraph, read_scene_graph, scene_graph_to_json

TASKS = ("choice", "numeric")
LONGEST_GRAPH = 200_000
"""Characters of a graph that are read."""

SCHEMA = (
    '{"frames": [{"t": seconds, "nodes": [{"name": kind, "id": number, "pos": [x, y]}, ...], '
    '"edges": [{"a": id, "b": id, "dist": distance, "angle": degrees}, ...]}, ...]}'
)


def instruction(truth: Truth, view: View | None = None) -> str:
    """The question put to the model; the schema holds no digits that a model could copy.

    Where the truth knows a graph, the times and kinds that it is about are told, as SpaceR tells its categories;
    nothing else of it is.

    Raises:
        ValueError: a task other than `choice` and `numeric`.
    """
    _check_task(truth)
    wanted = "Answer with the letter alone." if truth.task == "choice" else "Answer with a number alone."
    lines = [
        truth.query,
        f"Think inside <think></think>. There, write where things are inside <graph></graph>, as {SCHEMA}, with "
        "positions on a grid of ten by ten.",
    ]
    graph = _graph_of(truth)
    if graph is not None and graph.frames:
        times = ", ".join(f"{frame.seconds:g}" for frame in graph.frames)
        kinds = sorted({node.name for frame in graph.frames for node in frame.nodes})
        lines.append(f"Write it for the times {times} (in seconds) and for {', '.join(kinds)}.")
    return "\n".join([*lines, f"Then answer inside <answer></answer>. {wanted}"])


def holds_answer(truth: Truth) -> bool:
    """Whether a truth knows its letter or number."""
    return truth.answer is not None


def write(truth: Truth, thought: str = "", view: View | None = None) -> str:
    """A gold answer: thought, graph where one is known, and the letter or number.

    Raises:
        ValueError: another task, or a truth without its answer.
    """
    _check_task(truth)
    if truth.answer is None:
        raise ValueError(f"truth {truth.id!r} has no answer to write")
    graph = _graph_of(truth)
    told = "" if graph is None else f"<graph>{json.dumps(scene_graph_to_json(graph))}</graph>"
    answer = f"({truth.answer})" if truth.task == "choice" else f"{truth.answer:g}"
    return f"<think>{thought.replace('{target}', '')}{told}</think><answer>{answer}</answer>"


def read(text: str, view: View | None = None) -> Answer:
    """Read a completion; whatever it holds, nothing is raised, in time proportional to its length.

    Returns:
        The answer; its `graph` is None where no JSON could be read between the tags.

    Example:
        >>> answer = read('<think><graph>{"frames": []}</graph></think><answer>(B)</answer>')
        >>> answer.graph, answer.well_formed, answer.problems
        (SceneGraph(frames=()), True, ())
    """
    thought, problems, graph = between(text, "think"), list[str](), None
    written = between(thought or "", "graph")
    if written is None:
        problems.append("no <graph>...</graph> in the thought")
    else:
        graph, found = _read_graph(written)
        problems.extend(found)
    content = last_answer(text)
    if content is None:
        problems.append("no <answer>...</answer>")
    elif chosen_letter(text) is None and stated_number(text) is None:
        problems.append(f"neither a letter nor a number: {content[:40]!r}")
    return Answer(
        text,
        thought=thought,
        well_formed=is_row_of_tags(text, "think", "answer"),
        problems=tuple(problems),
        names_objects=False,
        graph=graph,
    )


def _read_graph(written: str) -> tuple[SceneGraph | None, tuple[str, ...]]:
    if len(written) > LONGEST_GRAPH:
        return None, (f"the graph has {len(written)} characters: more than {LONGEST_GRAPH} are not read",)
    try:
        value: Any = strict_json(written)
    except (ValueError, JSONDecodeError, RecursionError) as error:
        return None, (f"the graph is no JSON: {str(error)[:100]}",)
    return read_scene_graph(value)


def _graph_of(truth: Truth) -> SceneGraph | None:
    """The truth's graph.

    Raises:
        ValueError: it cannot be read.
    """
    if truth.graph is None:
        return None
    graph, problems = read_scene_graph(truth.graph)
    if problems:
        raise ValueError(f"truth {truth.id!r}: graph: {problems[0]}")
    return graph


def _check_task(truth: Truth) -> None:
    if truth.task not in TASKS:
        raise ValueError(
            f"truth {truth.id!r}: answers with a graph know the tasks {', '.join(TASKS)}, not {truth.task!r}"
        )
