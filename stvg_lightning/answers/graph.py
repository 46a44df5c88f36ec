"""Answers with a scene graph in the thought: `<think>... <graph>{...}</graph> ...</think><answer>...</answer>`.

Video-STR (arXiv 2510.10976) lets a model write where things are before it answers; it prints no format, and the one
here is ours (`tubes/scene_graph.py`), with positions on a grid of ten by ten as SpaceR's map has them. The answer is a
letter, a number, a time `[start, end]`, or boxes `[{"t": seconds, "box": [x1, y1, x2, y2]}, ...]`, as JSON lists; where
the graph is in lines, boxes are too, `seconds. [x1, y1, x2, y2]`, one to a line; a JSON
list is read there too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from json import JSONDecodeError
from typing import Any, Literal, get_args

from stvg_lightning.answers.answer import Answer
from stvg_lightning.answers.coordinates import Coordinates, scales_of, words_of
from stvg_lightning.answers.graph_words import plane_words, wanted_words
from stvg_lightning.answers.questions import chosen_letter, stated_number
from stvg_lightning.answers.reading import between, is_row_of_tags, last_answer, last_between
from stvg_lightning.answers.view import Frames, View
from stvg_lightning.tubes import Box, Span, Truth
from stvg_lightning.tubes.choices import check_choice
from stvg_lightning.tubes.json_values import is_number, shortest_number, strict_json
from stvg_lightning.tubes.scene_graph import SceneGraph, read_scene_graph, scene_graph_to_json

_NUMBER = r"(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)"
_LINE = re.compile(rf"{_NUMBER}\s{{0,9}}:(.*)", re.ASCII)
_TIMED_BOX = re.compile(
    rf"{_NUMBER} ?[.:] ?\[ ?{_NUMBER} ?, ?{_NUMBER} ?, ?{_NUMBER} ?, ?{_NUMBER} ?\][ ,;]*", re.ASCII
)
_NODE = re.compile(rf"([^\s,\[\]][^,\[\]]{{0,98}}?) \[{_NUMBER}, {_NUMBER}\]", re.ASCII)

TASKS = ("choice", "numeric", "temporal", "spatial")
LONGEST_GRAPH = 200_000
"""Characters of a graph, or of a list of boxes, that are read."""

LARGEST_FRAME = 10**9
Form = Literal["full", "nodes", "lines"]
"""`full`: JSON of nodes and edges. `nodes`: the same without edges. `lines`: nodes in few tokens, a line a time, and
boxes that are asked for likewise."""

NODES = '{"frames": [{"t": seconds, "nodes": [{"name": kind, "id": number, "pos": [x, y]}, ...]'
EDGES = ', "edges": [{"a": id, "b": id, "dist": distance, "angle": degrees}, ...]'
SCHEMAS = {
    "full": f"{NODES}{EDGES}}}, ...]}}",
    "nodes": f"{NODES}}}, ...]}}",
    "lines": "one line for each time, seconds: kind [x, y], kind [x, y], ...",
}
BOXES = '[{"t": seconds, "box": [x, y, x, y]}, ...]'
BOX_LINES = "one line for each time, seconds. [x, y, x, y]"
WANTED = {
    "choice": "Answer with the letter alone.",
    "numeric": "Answer with a number alone.",
    "temporal": "Answer with [start, end], in seconds.",
}


@dataclass(frozen=True)
class GraphAnswers:
    """How graphs and answers are asked for.

    Attributes:
        form: how the graph is written; of edges that are not, rewards work distance and angle out from the nodes.
        coordinates: what the corners of boxes are counted in.

    Raises:
        ValueError: an unknown form, or unknown coordinates.
    """

    form: Form = "full"
    coordinates: Coordinates = "input"

    def __post_init__(self) -> None:
        check_choice("form", self.form, get_args(Form))
        check_choice("coordinates", self.coordinates, get_args(Coordinates))

    def instruction(self, truth: Truth, view: View | None = None) -> str:
        """The question put to the model; the schema holds no digits that a model could copy.

        Where the truth knows a graph, its plane and the times and kinds that it is about are told (`graph_words.py`);
        nothing else of it is, and nothing of the answer.

        Raises:
            ValueError: another task than `TASKS`, or a question for boxes without the frames that are shown.
        """
        _check_task(truth)
        lines = [
            truth.query,
            "Think inside <think></think>. There, write where things are inside <graph></graph>, as "
            f"{SCHEMAS[self.form]}, with positions on a grid of ten by ten.",
        ]
        graph = _graph_of(truth)
        if graph is not None:
            lines += [plane_words(truth.graph, self.form == "full"), wanted_words(truth, graph)]
        boxes = BOX_LINES if self.form == "lines" else f"{BOXES}, one box for each time that is asked about"
        wanted = WANTED.get(truth.task) or (
            f"Answer with {boxes}, corners in {words_of(self.coordinates, _frames_of(truth, view))}."
        )
        return "\n".join([*filter(None, lines), f"Then answer inside <answer></answer>. {wanted}"])

    def holds_answer(self, truth: Truth) -> bool:
        """Whether a truth knows its letter, number, time or boxes."""
        if truth.task == "temporal":
            return truth.span_seconds is not None
        return bool(truth.boxes_xyxy) if truth.task == "spatial" else truth.answer is not None

    def write(self, truth: Truth, thought: str = "", view: View | None = None) -> str:
        """A gold answer: thought, graph where one is known, and the letter, number, time or boxes.

        Raises:
            ValueError: another task, or a truth without its answer.
        """
        _check_task(truth)
        if not self.holds_answer(truth):
            raise ValueError(f"truth {truth.id!r} has no answer to write")
        graph = _graph_of(truth)
        told = "" if graph is None else f"<graph>{_graph_text(graph, self.form)}</graph>"
        return (
            f"<think>{thought.replace('{target}', '')}{told}</think><answer>{self._answer_text(truth, view)}</answer>"
        )

    def read(self, text: str, view: View | None = None) -> Answer:
        """Read a completion; whatever it holds, nothing is raised, in time proportional to its length.

        Returns:
            The answer; its `graph` is None where no JSON could be read between the tags.

        Example:
            >>> answer = read('<think><graph>{"frames": []}</graph></think><answer>(B)</answer>')
            >>> answer.graph, answer.well_formed, answer.problems
            (SceneGraph(frames=()), True, ())
        """
        thought, problems, graph = between(text, "think"), list[str](), None
        written = last_between(thought or "", "graph")
        if written is None:
            problems.append("no <graph>...</graph> in the thought")
        else:
            graph, found = _read_graph(written, self.form)
            problems.extend(found)
        content = last_answer(text)
        span, boxes = None, None
        if content is None:
            problems.append("no <answer>...</answer>")
        elif content.lstrip().startswith("["):
            span, boxes, found = self._read_list(content, view)
            problems.extend(found)
        elif self.form == "lines" and _TIMED_BOX.search(content):
            boxes, found = self._read_boxes(_timed_boxes(content), view)
            problems.extend(found)
        elif chosen_letter(content) is None and stated_number(content) is None:
            problems.append(f"neither a letter nor a number: {content[:40]!r}")
        return Answer(
            text,
            span_seconds=span,
            boxes_xyxy=boxes,
            thought=thought,
            well_formed=is_row_of_tags(text, "think", "answer"),
            problems=tuple(problems),
            names_objects=False,
            graph=graph,
            reply=content or "",
        )

    def _answer_text(self, truth: Truth, view: View | None) -> str:
        if truth.task == "choice":
            return f"({truth.answer})"
        if truth.task == "numeric":
            return f"{truth.answer:g}"
        if truth.task == "temporal":
            assert truth.span_seconds is not None
            return json.dumps([round(second, 2) for second in truth.span_seconds])
        scale_x, scale_y = scales_of(self.coordinates, _frames_of(truth, view))
        boxes = [
            {
                "t": shortest_number(round(frame / truth.fps, 2)),
                "box": [round(side / scale) for side, scale in zip(box, (scale_x, scale_y) * 2)],
            }
            for frame, box in sorted(truth.boxes_xyxy.items())
        ]
        return "\n".join(f"{box['t']}. {box['box']}" for box in boxes) if self.form == "lines" else json.dumps(boxes)

    def _read_list(self, content: str, view: View | None) -> tuple[Span | None, dict[int, Box] | None, tuple[str, ...]]:
        """A time or boxes, and what could not be read."""
        try:
            value = _json_of(content)
        except ValueError as error:
            return None, None, (f"the answer is no JSON list: {error}",)
        if len(value) == 2 and all(is_number(item) for item in value):
            return (float(value[0]), float(value[1])), None, ()
        return None, *self._read_boxes(value, view)

    def _read_boxes(self, items: Sequence[Any], view: View | None) -> tuple[dict[int, Box] | None, tuple[str, ...]]:
        """Boxes of records `{"t", "box"}`, and what could not be read."""
        if view is None or view.frames is None:
            return None, ("boxes cannot be read without the frames that were shown",)
        boxes, problems = dict[int, Box](), list[str]()
        for item in items:
            frame_and_box = self._box_of(item, view.frames)
            if frame_and_box is None:
                problems.append(f"a box needs a time, and [x, y, x, y] with an area: {repr(item)[:60]}")
            else:
                boxes.setdefault(*frame_and_box)
        return boxes or None, tuple(problems)

    def _box_of(self, item: Any, frames: Frames) -> tuple[int, Box] | None:
        corners = item.get("box") if isinstance(item, dict) else None
        if not isinstance(corners, list) or len(corners) != 4 or not all(map(is_number, corners)):
            return None
        if not is_number(item.get("t")) or not 0 <= item["t"] * frames.fps < LARGEST_FRAME:
            return None
        scale_x, scale_y = scales_of(self.coordinates, frames)
        x1, y1, x2, y2 = map(float, corners)
        if not x1 < x2 or not y1 < y2:
            return None
        return round(item["t"] * frames.fps), (x1 * scale_x, y1 * scale_y, x2 * scale_x, y2 * scale_y)


def _graph_text(graph: SceneGraph, form: Form) -> str:
    """A graph as a model is to write it: whole numbers without a point, and edges only where they are asked for."""
    record = scene_graph_to_json(graph)
    for frame in record["frames"]:
        frame["t"] = shortest_number(frame["t"])
        for node in frame["nodes"]:
            node["pos"] = [shortest_number(value) for value in node["pos"]]
        if form != "full":
            del frame["edges"]
    if form != "lines":
        return json.dumps(record)
    lines = []
    for frame in record["frames"]:
        nodes = ", ".join(f"{node['name']} {node['pos']}" for node in frame["nodes"])
        lines.append(f"{frame['t']}: {nodes}")
    return "\n".join(lines)


def _read_graph(written: str, form: Form) -> tuple[SceneGraph | None, tuple[str, ...]]:
    if len(written) > LONGEST_GRAPH:
        return None, (f"the graph has {len(written)} characters: more than {LONGEST_GRAPH} are not read",)
    if form == "lines":
        return _read_lines(written)
    try:
        value: Any = strict_json(written)
    except (ValueError, JSONDecodeError, RecursionError) as error:
        return None, (f"the graph is no JSON: {str(error)[:100]}",)
    return read_scene_graph(value)


def _read_lines(written: str) -> tuple[SceneGraph, tuple[str, ...]]:
    """A graph in lines; nodes are numbered as they stand."""
    frames, problems = list[dict[str, Any]](), list[str]()
    for line in filter(None, map(str.strip, written.splitlines())):
        found = _LINE.fullmatch(line)
        if found is None:
            problems.append(f"a line needs seconds: kind [x, y], ...: {line[:60]!r}")
            continue
        nodes = [
            {"name": node[1], "id": number, "pos": [float(node[2]), float(node[3])]}
            for number, node in enumerate(_NODE.finditer(found[2]), start=1)
        ]
        if left := _NODE.sub("", found[2]).strip(" ,"):
            problems.append(f"no kind [x, y]: {left[:60]!r}")
        frames.append({"t": float(found[1]), "nodes": nodes})
    graph, more = read_scene_graph({"frames": frames})
    return graph, (*problems, *more)


def _timed_boxes(content: str) -> list[Any]:
    """A record `{"t", "box"}` of each box, in lines or in a row; what is left between them comes last, as it is."""
    records = list[Any]()
    for found in _TIMED_BOX.finditer(content):
        seconds, *corners = map(float, found.groups())
        records.append({"t": seconds, "box": corners})
    return [*records, *filter(None, map(str.strip, _TIMED_BOX.sub("", content).splitlines()))]


def _json_of(content: str) -> Sequence[Any]:
    """The list that an answer is.

    Raises:
        ValueError: no list, or too long a text.
    """
    if len(content) > LONGEST_GRAPH:
        raise ValueError(f"{len(content)} characters: more than {LONGEST_GRAPH} are not read")
    try:
        value = strict_json(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(str(error)[:100]) from None
    assert isinstance(value, list), content[:9]
    return value


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


def _frames_of(truth: Truth, view: View | None) -> Frames:
    if view is None or view.frames is None:
        raise ValueError(f"truth {truth.id!r} asks for boxes: the frames that are shown must be known")
    return view.frames


def _check_task(truth: Truth) -> None:
    if truth.task not in TASKS:
        raise ValueError(
            f"truth {truth.id!r}: answers with a graph know the tasks {', '.join(TASKS)}, not {truth.task!r}"
        )


_PLAIN = GraphAnswers()
instruction, holds_answer, write, read = _PLAIN.instruction, _PLAIN.holds_answer, _PLAIN.write, _PLAIN.read
