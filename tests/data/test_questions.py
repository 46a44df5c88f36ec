"""Questions made of tracks and 3-D boxes: every answer is worked out again, by a plain program that reads the words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from stvg_lightning.answers import Frames, GraphAnswers, View
from stvg_lightning.answers.graph import Form
from stvg_lightning.data.questions import (
    KINDS,
    Place,
    Question,
    QuestionSettings,
    Source,
    Thing,
    questions_of,
    truth_of_question,
)
from stvg_lightning.data.questions.over_time import STAYS
from stvg_lightning.data.questions.source import Plane
from stvg_lightning.data.questions.where import bearing_word
from stvg_lightning.data.synthetic import WorldSettings, asked_samples, make_scene, source_of
from stvg_lightning.rewards import GraphEdges, GraphNodes, RewardContext, answer_by_kind
from stvg_lightning.tubes import Truth
from stvg_lightning.tubes.scene_graph import read_scene_graph

NAMES = ("car", "dog", "red ball", "tree", "man", "van")
FPS, NUM_FRAMES = 8.0, 48

Seen = dict[float, list[tuple[str, tuple[float, float], list[float]]]]
"""Seconds -> name, place and size of what is seen."""


def random_source(seed: int, plane: Plane) -> Source:
    """Some things on straight ways, seen in parts of the video, some of one name."""
    rng = np.random.default_rng(seed)
    side = 200.0 if plane == "picture" else 30.0
    things = []
    for index in range(int(rng.integers(2, 8))):
        first = 0 if plane == "floor" else int(rng.integers(0, NUM_FRAMES - 8) * (rng.random() < 0.7))
        last = 1 if plane == "floor" else int(rng.integers(first + 4, NUM_FRAMES + 1))
        begin, end = rng.uniform(0, side, 2), rng.uniform(0, side, 2)
        end = begin if rng.random() < 0.3 else end
        places = {}
        w, h, z = (float(v) for v in (rng.uniform(10, 40, 3) if plane == "picture" else rng.uniform(1, 9, 3)))
        size = (w, h) if plane == "picture" else (max(w, h), min(w, h), z)
        for frame in range(first, last):
            x, y = (float(v) for v in begin + (end - begin) * frame / NUM_FRAMES)
            box = None if plane == "floor" else (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            places[frame] = Place((x, y), size, box)
        things.append(Thing(index + 1, str(rng.choice(NAMES)), places))
    return Source(f"s{seed}", FPS, NUM_FRAMES, tuple(things), plane, (0.0, 0.0), side, is_still=plane == "floor")


def seen_in_tracks(source: Source) -> Seen:
    return {
        round(frame / source.fps, 2): [
            (t.name, t.places[frame].center, list(t.places[frame].size)) for t in source.things if frame in t.places
        ]
        for frame in range(source.num_frames)
    }


def seen_in_graph(graph: Any) -> Seen:
    cell = graph["unit_per_cell"]
    return {
        frame["t"]: [(n["name"], (n["pos"][0] * cell, n["pos"][1] * cell), n["size"]) for n in frame["nodes"]]
        for frame in graph["frames"]
    }


def lines_of(query: str) -> tuple[str, dict[str, str]]:
    asked, *lines = query.split("\n")
    return asked, {line[1]: line[4:] for line in lines}


def worked_out(query: str, seen: Seen, plane: str, cell: float) -> str | float:
    """What the words ask for, told from places alone: the text of a candidate, or a number."""
    asked, options = lines_of(query)

    def place(name: str, time: float) -> tuple[float, float]:
        (found,) = [position for other, position, _ in seen[time] if other == name]
        return found

    def time_of(text: str) -> float:
        return 0.0 if asked.startswith("In this scene") else float(text)

    if found := re.fullmatch(r'(?:At (\S+) s|In this scene), how many things of the kind "(.+)" are there\?', asked):
        return float(sum(name == found[2] for name, _, _ in seen[time_of(found[1])]))
    if found := re.fullmatch(r"At (\S+) s, in which direction from the (.+) does the (.+) mainly lie\?", asked):
        a, b = place(found[2], float(found[1])), place(found[3], float(found[1]))
        return heading(b[0] - a[0], b[1] - a[1], plane)
    if found := re.fullmatch(
        r"In this scene, standing at the (.+) and facing the (.+), where does the (.+) lie\?", asked
    ):
        here, there, goal = (complex(*place(found[i], 0.0)) for i in (1, 2, 3))
        turned = (goal - here) / (there - here)  # ahead is the real axis, left the imaginary one
        if abs(turned.imag) > abs(turned.real):
            return "left" if turned.imag > 0 else "right"
        return "ahead" if turned.real > 0 else "behind"
    if found := re.fullmatch(r"(?:At (\S+) s|In this scene), which of these lies nearest to the (.+)\?", asked):
        time = time_of(found[1])
        return min(options.values(), key=lambda o: math.dist(place(o[4:], time), place(found[2], time)))
    if found := re.fullmatch(
        r"(?:At (\S+) s|In this scene), how many metres along the ground lie between the centres of the (.+) and of "
        r"the (.+)\?", asked,
    ):  # fmt: skip
        return math.dist(place(found[2], time_of(found[1])), place(found[3], time_of(found[1])))
    if found := re.fullmatch(r"At (\S+) s, which of these is the largest in the picture\?", asked):
        sizes = {f"the {name}": size[0] * size[1] for name, _, size in seen[float(found[1])]}
        return max(options.values(), key=sizes.__getitem__)
    if found := re.fullmatch(r"(?:At (\S+) s|In this scene), how many metres (high|long) is the (.+)\?", asked):
        (size,) = [size for name, _, size in seen[time_of(found[1])] if name == found[3]]
        return size[2] if found[2] == "high" else size[0]
    if asked == "In which order do these come into the picture?":
        names = options["A"].split(", ")
        first = {n: min(t for t, things in seen.items() if any(f"the {o}" == n for o, _, _ in things)) for n in names}
        return ", ".join(sorted(names, key=first.__getitem__))
    if found := re.fullmatch(
        r"From (\S+) s to (\S+) s, (?:seen from the camera, )?where does the (.+) mainly move\?", asked
    ):
        a, b = place(found[3], float(found[1])), place(found[3], float(found[2]))
        if math.dist(a, b) <= 0.15 * cell:
            return STAYS
        return heading(b[0] - a[0], b[1] - a[1], plane)
    if found := re.fullmatch(r"How far apart,.* are the places of the (.+) at (\S+) s and at (\S+) s\?", asked):
        apart = math.dist(place(found[1], float(found[2])), place(found[1], float(found[3])))
        return apart / cell if plane == "picture" else apart
    raise AssertionError(asked)


def heading(dx: float, dy: float, plane: str) -> str:
    if abs(dx) > abs(dy):
        return "right" if dx > 0 else "left"
    if plane == "picture":
        return "down" if dy > 0 else "up"
    return "farther from the camera" if dy > 0 else "nearer to the camera"


def said(question: Question) -> str | float | None:
    """The answer in words: what stands behind its letter, or the number."""
    if question.task == "choice":
        return lines_of(question.query)[1][str(question.answer)]
    return question.answer


def all_questions(plane: Plane, seeds: range, **settings: Any) -> Iterator[tuple[Source, Question]]:
    for seed in seeds:
        source = random_source(seed, plane)
        for question in questions_of(source, QuestionSettings(**({"per_kind": 2} | settings))):
            yield source, question


EXPECTED = {
    "picture": set(KINDS),
    "camera": set(KINDS),
    "floor": {"counting", "relative_direction", "relative_distance", "object_size"},
}


@pytest.mark.parametrize("decimals", [0, 1, 2])
@pytest.mark.parametrize("plane", ["picture", "camera", "floor"])
def test_every_answer_follows_from_the_tracks_and_from_the_graph_alone(plane: Plane, decimals: int) -> None:
    kinds = Counter[str]()
    for source, question in all_questions(plane, range(60), decimals=decimals):
        kinds[question.kind] += 1
        cell = source.unit_per_cell
        assert question.graph["unit_per_cell"] == cell and 1 <= len(question.graph["frames"]) <= 4
        if question.kind == "localisation":
            check_place(source, question, decimals)
            continue
        for seen, off in ((seen_in_tracks(source), 0.006), (seen_in_graph(question.graph), 1.5 * 10**-decimals)):
            found = worked_out(question.query, seen, plane, cell)
            if isinstance(found, float) and isinstance(question.answer, float):
                unit = 1.0 if plane == "picture" else cell
                assert abs(found - question.answer) <= max(off * unit, 0.006), (question, found)
            else:
                assert found == said(question), (question, found)
    # On whole numbers, directions from a point of view would turn too far.
    expected = EXPECTED[plane] - ({"relative_direction"} if (plane, decimals) == ("floor", 0) else set())
    assert set(kinds) == expected, kinds
    assert min(kinds.values()) >= 5, kinds


def check_place(source: Source, question: Question, decimals: int) -> None:
    """Boxes and times of presence, against the tracks and the graph."""
    (thing,) = question.about
    assert f"the {thing.name} " in question.query
    seen = seen_in_graph(question.graph)
    if question.task == "temporal":
        first, end = question.span_frames or (0, 0)
        assert sorted(thing.places) == list(range(first, end))
        shown = [any(name == thing.name for name, _, _ in things) for things in seen.values()]
        assert sorted(shown) == [False, True]
        return
    times = [float(text) for text in re.findall(r"at (\S+) s", question.query)]
    assert times == [round(frame / FPS, 2) for frame in question.boxes_xyxy]
    for frame, (x1, y1, x2, y2) in question.boxes_xyxy.items():
        assert (x1, y1, x2, y2) == thing.places[frame].box_xyxy
        ((x, y),) = [place for name, place, _ in seen[round(frame / FPS, 2)] if name == thing.name]
        off = source.unit_per_cell * 10**-decimals
        assert abs(x - (x1 + x2) / 2) <= off and abs(y - (y1 + y2) / 2) <= off


@pytest.mark.parametrize("plane", ["picture", "camera", "floor"])
def test_letters_are_balanced_and_candidates_differ(plane: Plane) -> None:
    places: dict[int, list[int]] = {}
    for _, question in all_questions(plane, range(150)):
        if question.task == "choice":
            _, options = lines_of(question.query)
            assert len(set(options.values())) == len(options) >= 2 and question.answer in options
            places.setdefault(len(options), []).append("ABCDE".index(str(question.answer)))
    for num_options, found in places.items():
        for place in range(num_options):
            expected = len(found) / num_options
            assert abs(found.count(place) - expected) < 4 * math.sqrt(expected) + 1, (num_options, place, len(found))


def things_at(*places: tuple[str, int, int]) -> Source:
    things = tuple(
        Thing(i, name, dict.fromkeys(range(NUM_FRAMES), Place((float(x), float(y)), (4.0, 4.0))))
        for i, (name, x, y) in enumerate(places, start=1)
    )
    return Source("v", FPS, NUM_FRAMES, things, "picture", (0.0, 0.0), 100.0)


def kinds_asked(source: Source, **settings: Any) -> set[str]:
    return {question.kind for question in questions_of(source, QuestionSettings(**settings))}


def test_what_is_not_clear_is_not_asked() -> None:
    assert "relative_direction" in kinds_asked(things_at(("a", 10, 10), ("b", 60, 20)))
    assert "relative_direction" not in kinds_asked(things_at(("a", 10, 10), ("b", 50, 45)))  # between right and down
    assert "relative_direction" not in kinds_asked(things_at(("a", 10, 10), ("a", 60, 20)))  # which a?
    near = things_at(("a", 10, 10), ("b", 20, 10), ("c", 10, 30))
    assert "relative_distance" in kinds_asked(near, per_kind=5)
    tie = things_at(("a", 50, 50), ("b", 20, 50), ("c", 80, 51))
    assert not any("nearest to the a" in question.query for question in questions_of(tie, QuestionSettings(per_kind=9)))
    assert "object_size" not in kinds_asked(near)  # all of one size
    assert "appearance_order" not in kinds_asked(near)  # all there from the first
    assert "displacement" not in kinds_asked(near)
    still = [QuestionSettings(kinds=("motion",), seed=seed) for seed in range(30)]
    assert {said(question) for settings in still for question in questions_of(near, settings)} == {STAYS}
    assert kinds_asked(replace(near, things=())) == set()


def test_names_that_several_bear_are_counted() -> None:
    source = things_at(("a", 10, 10), ("a", 60, 20), ("a", 80, 80))
    (question,) = questions_of(source, QuestionSettings(kinds=("counting",)))
    assert question.answer == 3.0 and len(question.graph["frames"][0]["nodes"]) == 3
    assert kinds_asked(source) == {"counting"}
    assert kinds_asked(source, most_things=2) == set()


def kinds_limited(source: Source, settings: QuestionSettings) -> set[str]:
    limited = set[str]()
    assert list(questions_of(source, settings, limited)) == list(questions_of(source, settings))
    return limited


def test_kinds_that_the_limits_of_graphs_leave_questions_out_of_are_told() -> None:
    three = things_at(("a", 10, 10), ("a", 60, 20), ("a", 80, 80))
    for most_things, limited in ((2, {"counting"}), (3, set())):
        assert kinds_limited(three, QuestionSettings(("counting",), most_things=most_things)) == limited
    moving = source_of(make_scene(3, WorldSettings(min_things=1, max_things=1)))
    kinds = ("motion", "displacement", "counting")
    assert kinds_limited(moving, QuestionSettings(kinds, most_frames=1)) == {"motion", "displacement"}


def test_a_kind_is_told_though_another_question_took_the_place() -> None:
    source = things_at(("a", 10, 10), ("a", 60, 20), ("a", 80, 80), ("b", 30, 70))
    settings = QuestionSettings(("counting",), per_kind=2, most_things=2)
    assert {question.answer for question in questions_of(source, settings)} == {1.0}
    assert kinds_limited(source, settings) == {"counting"}


def test_the_same_seed_asks_the_same_and_another_seed_something_else() -> None:
    source = random_source(7, "picture")
    first, again = (list(questions_of(source, QuestionSettings(per_kind=3))) for _ in range(2))
    other = list(questions_of(source, QuestionSettings(per_kind=3, seed=1)))
    assert [q.query for q in first] == [q.query for q in again] != [q.query for q in other]
    assert len({q.query.partition("\n")[0] for q in first}) == len(first)


def test_graphs_hold_names_whole_or_not_at_all() -> None:
    for source, question in all_questions("picture", range(40), most_things=3):
        for frame in question.graph["frames"]:
            assert len(frame["nodes"]) <= 3
            for name in {node["name"] for node in frame["nodes"]}:
                there = sum(t.name == name and frame["frame"] in t.places for t in source.things)
                assert there == sum(node["name"] == name for node in frame["nodes"])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kinds": ("motion", "colour")}, "kind 'colour' is unknown"),
        ({"kinds": ()}, "kinds is empty"),
        ({"per_kind": 0}, "per_kind 0 must lie in 1 to 1000"),
        ({"most_frames": 5}, "most_frames 5 must lie in 1 to 4"),
        ({"decimals": -1}, "decimals -1 must lie in 0 to 2"),
    ],
)
def test_settings_out_of_range_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuestionSettings(**keys)


@pytest.mark.parametrize(
    ("degrees", "word"), [(29.0, "ahead"), (-31.0, None), (90.0, "left"), (-90.0, "right"), (-151.0, "behind")]
)
def test_bearings(degrees: float, word: str | None) -> None:
    assert bearing_word(degrees) == word


def video_truth(source: Source) -> Truth:
    return Truth(source.id, "", source.fps, source.num_frames, 200, 200)


@pytest.mark.parametrize("form", ["full", "nodes", "lines"])
def test_gold_answers_earn_all_that_there_is(form: Form) -> None:
    language = GraphAnswers(form, coordinates="original")
    kinds = set()
    for seed in range(30):
        source = random_source(seed, "picture")
        for question in questions_of(source):
            truth = truth_of_question(question, video_truth(source), question.kind)
            view = View(frames=Frames.untouched(truth))
            answer = language.read(language.write(truth, "", view), view)
            assert answer.problems == () and answer.well_formed
            (right,) = answer_by_kind([answer], truth, RewardContext())
            least = 0.7 if question.task in ("spatial", "numeric") else 0.98  # corners are whole pixels
            assert right is not None and right >= least, (question, right)
            assert GraphNodes()([answer], truth, RewardContext()) == [pytest.approx(1.0)]
            edge_score = GraphEdges()([answer], truth, RewardContext())
            assert edge_score in ([None], [pytest.approx(1.0, abs=0.02)])
            kinds.add((question.kind, truth.labels["kind"]))
    assert kinds == {(kind, kind) for kind in KINDS}


def test_the_drawn_world_is_asked_about_in_turn() -> None:
    kinds = ("relative_direction", "counting")
    settings = QuestionSettings(kinds=kinds, most_things=2, most_frames=1)
    world = WorldSettings(max_things=2)
    samples = list(asked_samples("test", 8, 0, world, settings))
    assert [sample.truth.labels["kind"] for sample in samples] == [*kinds] * 4
    for sample in samples:
        graph, problems = read_scene_graph(sample.truth.graph)
        assert not problems and len(graph.frames) == 1 and len(graph.frames[0].nodes) <= 2
    again = list(asked_samples("test", 8, 0, world, settings))
    assert [sample.truth for sample in samples] == [sample.truth for sample in again]
    assert samples[0].video == again[0].video
    other = list(asked_samples("test", 8, 1, world, settings))
    assert [sample.truth.query for sample in samples] != [sample.truth.query for sample in other]
    with pytest.raises(ValueError, match="10 scenes have only 0 questions of the kinds appearance_order"):
        list(asked_samples("test", 2, 0, world, QuestionSettings(kinds=("appearance_order",))))


NUMBERS = re.compile(r"[0-9]+(?:\.[0-9]+)?")


@pytest.mark.parametrize("plane", ["picture", "camera", "floor"])
def test_no_prompt_tells_the_answer(plane: Plane) -> None:
    """No number of an answer of time or number stands in the prompt, unless the question itself told it."""
    language = GraphAnswers(coordinates="original")
    counted = Counter[str]()
    for source, question in all_questions(plane, range(120)):
        truth = truth_of_question(question, video_truth(source), question.kind)
        asked = language.instruction(truth, View(frames=Frames.untouched(truth)))
        if question.task not in ("numeric", "temporal"):
            continue
        counted[question.kind] += 1
        answers = {question.answer} if question.span_frames is None else set(truth.span_seconds or ())
        # How wide a cell is may be as many metres by chance.
        told = NUMBERS.findall(re.sub(r"a cell \S+ metres wide\.( The camera stands at .*\.)?", "", asked))
        in_query = [float(text) for text in NUMBERS.findall(question.query)]
        for answer in answers - set(in_query):
            assert answer not in map(float, told), asked
    assert counted["counting"] > 100 and (plane == "floor" or counted["localisation"] > 30)


def test_the_kinds_that_a_prompt_tells_do_not_count_what_is_asked_about() -> None:
    language, told_of = GraphAnswers("lines"), dict[float, set[int]]()
    for seed in range(200):
        source = source_of(make_scene(seed))
        for question in questions_of(source, QuestionSettings(kinds=("counting",))):
            asked = language.instruction(truth_of_question(question, video_truth(source), "a"))
            (told,) = re.findall(r"Write it for the times .* and for (.*)\.", asked)
            assert f'of the kind "{told}" ' in question.query
            assert {node["name"] for node in question.graph["frames"][0]["nodes"]} == {told}
            assert isinstance(question.answer, float) and len(question.graph["frames"][0]["nodes"]) == question.answer
            told_of.setdefault(question.answer, set()).add(told.count(",") + 1)
    assert len(told_of) >= 3 and all(numbers == {1} for numbers in told_of.values())


def test_the_time_of_presence_is_told_by_no_time_of_the_graph() -> None:
    """One of two times lies within, and a guess of which is right half the time."""
    earlier = Counter[bool]()
    for _, question in all_questions("picture", range(400), kinds=("localisation",)):
        if question.span_frames is not None:
            first, end = question.span_frames
            inside = [first < frame < end for frame in question.frames]
            assert sorted(inside) == [False, True] and not {first, end} & set(question.frames)
            earlier[inside[0]] += 1
    assert min(earlier.values()) > 50


def test_questions_of_more_moments_than_a_graph_may_show_are_not_asked() -> None:
    for most_frames in (1, 2):
        found = [question for _, question in all_questions("picture", range(60), most_frames=most_frames)]
        assert all(len(question.graph["frames"]) == len(question.frames) <= most_frames for question in found)
        kinds = {question.kind for question in found}
        assert ({"motion", "displacement", "appearance_order"} & kinds == set()) is (most_frames == 1)


def test_things_that_stay_are_not_the_answer_to_most_questions_of_motion() -> None:
    answers = Counter(
        said(question)
        for seed in range(400)
        for question in questions_of(source_of(make_scene(seed)), QuestionSettings(kinds=("motion",)))
    )
    assert set(answers) == {STAYS, "left", "right", "up", "down"}
    assert max(answers.values()) < 0.35 * sum(answers.values()), answers


def test_things_of_the_world_stand_where_they_are_drawn_and_count_by_look() -> None:
    scene = make_scene(3)
    source = source_of(scene)
    for thing in scene.things:
        (mine,) = [other for other in source.things if other.id == thing.object_id]
        assert mine.places[5].center == tuple(thing.centers_xy[5])
        assert mine.counts_as == (thing.shape, f"{thing.color} thing")


MotionWord = Literal["left", "right", "up", "down"]


@pytest.mark.parametrize("word", ["left", "right", "up", "down"])
def test_the_worlds_deeds_are_the_motions_that_are_asked_about(word: MotionWord) -> None:
    """What a scene's schedule says a thing does is what a question over that time has for its answer."""
    found = 0
    for seed in range(200):
        scene = make_scene(seed, WorldSettings(max_things=2))
        for question in questions_of(source_of(scene), QuestionSettings(kinds=("motion",), per_kind=4)):
            first, last = question.frames
            deeds = [
                action.kind
                for thing in scene.things
                if thing.object_id == question.about[0].id
                for action in thing.actions
                if action.start_frame <= last and action.end_frame > first + 1
            ]
            if deeds == [f"moves {word}"]:
                found += 1
                assert said(question) == word
    assert found >= 20
