"""The synthetic world: deterministic, its splits apart, and every truth of it recomputed from the scene."""

from __future__ import annotations

import math
import re
from functools import cache
from itertools import islice, pairwise

import numpy as np
import pytest

from stvg_lightning.data.synthetic import Scene, WorldSettings, make_sample, make_scene, split_seeds
from stvg_lightning.data.synthetic.drawing import draw_scene
from stvg_lightning.data.synthetic.samples import SPLITS
from stvg_lightning.data.synthetic.sentences import choose_description, unambiguous_descriptions
from stvg_lightning.data.video import VideoSampling, decode_frames, probe_video, sampled_frame_indices
from stvg_lightning.tubes import Sample, decode_mask
from tests.helpers import assert_close

COLORS = {"red", "green", "blue", "yellow", "purple", "cyan"}
SHAPES = {"circle", "square", "triangle", "cross"}
SEEDS = range(200, 300)


@cache
def scene_of(seed: int) -> Scene:
    return make_scene(seed)


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Scene, Sample]]:
    """A few scenes with their samples."""
    return [(scene_of(seed), make_sample(seed)) for seed in SEEDS[:10]]


def test_a_seed_decides_everything() -> None:
    first, again, other = make_sample(7), make_sample(7), make_sample(8)
    assert first == again and first.video == again.video
    assert first.video != other.video and first.truth.query != other.truth.query


def test_settings_change_the_world() -> None:
    small = make_sample(7, WorldSettings(frame_size=64, fps=4.0))
    assert (small.truth.width, small.truth.height, small.truth.fps) == (64, 64, 4.0)
    assert probe_video(small.video).num_frames == small.truth.num_frames


def test_splits_never_share_a_seed() -> None:
    # A split's seeds are one run of numbers: its ends tell all.
    ranges = []
    for split in SPLITS:
        for seed in (0, 1, 999):
            seeds = split_seeds(split, 999_999, seed)
            first = next(seeds)
            assert list(islice(seeds, 3)) == [first + 1, first + 2, first + 3]
            ranges.append((first, first + 999_998))
    ranges.sort()
    assert all(end < start for (_, end), (start, _) in pairwise(ranges))


@pytest.mark.parametrize(("split", "num_samples", "seed"), [("dev", 1, 0), ("test", 1_000_000, 0), ("test", 1, 1000)])
def test_impossible_splits_are_refused(split: str, num_samples: int, seed: int) -> None:
    with pytest.raises(ValueError, match=r"dev|1,000"):
        split_seeds(split, num_samples, seed)


def events_that_fit(sentence: str, scene: Scene) -> list[tuple[int, tuple[int, int]]]:
    """`(object id, span)` of everything in a scene that a sentence may speak of, read word by word."""
    match = re.fullmatch(r"the (?:(\w+) )??(\w+?)( that)? ((?:moves|grows|shrinks|blinks).*?)( first| last)?", sentence)
    assert match, sentence
    color, noun, that, deed, turn = match.groups()
    if color is None and noun in COLORS:
        color, noun = noun, "thing"
    assert bool(that) == bool(turn) and noun in SHAPES | {"thing"} and color in COLORS | {None}, sentence
    fitting = []
    for thing in scene.things:
        if color not in (None, thing.color) or noun not in ("thing", thing.shape):
            continue
        fitting += [(thing.object_id, (a.start_frame, a.end_frame)) for a in thing.actions if a.kind == deed]
    if not turn:
        return fitting
    starts = [span[0] for _, span in fitting]
    chosen = min(starts) if turn == " first" else max(starts)
    assert min(starts) != max(starts), "first and last need two times"
    return [event for event in fitting if event[1][0] == chosen]


def test_every_sentence_fits_one_event_and_that_is_the_truth() -> None:
    for seed in SEEDS:
        scene = scene_of(seed)
        for description, event in unambiguous_descriptions(scene):
            span = event.action.start_frame, event.action.end_frame
            assert events_that_fit(description.sentence(), scene) == [(event.thing.object_id, span)], seed


def test_samples_say_what_their_scenes_hold(drawn: list[tuple[Scene, Sample]]) -> None:
    for scene, sample in drawn:
        truth = sample.truth
        assert events_that_fit(truth.query, scene) == [(truth.object_id, truth.span_frames)]
        thing = {t.object_id: t for t in scene.things}[truth.object_id]
        assert f"The {thing.color} {thing.shape} is number {{target}}." in sample.thought
        start, end = (frame / truth.fps for frame in truth.span_frames)
        assert f"from {start:.2f} to {end:.2f}." in sample.thought
        assert sample.categories == {t.object_id: t.shape for t in scene.things}


def test_spans_lie_inside_their_videos() -> None:
    for seed in SEEDS:
        scene = scene_of(seed)
        for thing in scene.things:
            ends = [(action.start_frame, action.end_frame) for action in thing.actions]
            assert all(0 < start < end < scene.num_frames for start, end in ends)
            assert all(0.75 <= (end - start) / scene.settings.fps <= 1.75 for start, end in ends)
            assert all(after - before >= 4 for (_, before), (after, _) in pairwise(ends))


def test_boxes_are_those_of_the_masks(drawn: list[tuple[Scene, Sample]]) -> None:
    for _, sample in drawn:
        truth = sample.truth
        for object_id, rles in sample.masks.items():
            assert rles.keys() == truth.tracks[object_id].keys()
            for frame, rle in rles.items():
                mask = decode_mask(rle)
                rows, columns = np.nonzero(mask)
                box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                assert truth.tracks[object_id][frame] == box
        span = range(*truth.span_frames)
        assert truth.boxes_xyxy == {f: truth.tracks[truth.object_id][f] for f in span}


def test_masks_are_of_what_is_seen(drawn: list[tuple[Scene, Sample]]) -> None:
    scene, _ = drawn[0]
    frames, masks = draw_scene(scene)
    covered = np.sum([stack for stack in masks.values()], axis=0)
    assert covered.max() == 1, "a pixel belongs to one thing"
    for thing in scene.things:
        mask = masks[thing.object_id]
        assert mask.any(axis=(1, 2)).all()
        for frame in range(scene.num_frames):
            colors = np.unique(frames[frame][mask[frame]], axis=0)
            assert len(colors) == 1, "a thing has one colour"
            rows, columns = np.nonzero(mask[frame])
            center = columns.mean() + 0.5, rows.mean() + 0.5
            assert math.dist(center, thing.centers_xy[frame]) < 0.4 * thing.radii[frame]


def test_the_video_shows_the_scene(drawn: list[tuple[Scene, Sample]]) -> None:
    for scene, sample in drawn[:3]:
        frames, _ = draw_scene(scene)
        indices = sampled_frame_indices(scene.num_frames, scene.settings.fps, VideoSampling(fps=2.0))
        clip = decode_frames(sample.video, indices, scene.settings.fps)
        difference = np.abs(clip.frames.astype(int) - frames[list(indices)].astype(int)).mean()
        assert difference < 6.0, "no more than what the codec loses"


def test_things_do_what_their_actions_say() -> None:
    for seed in SEEDS:
        for thing in scene_of(seed).things:
            acting = np.zeros(len(thing.radii), dtype=bool)
            for action in thing.actions:
                first, last = action.start_frame - 1, action.end_frame - 1
                acting[action.start_frame : action.end_frame] = True
                moved = thing.centers_xy[last] - thing.centers_xy[first]
                growth = thing.radii[last] / thing.radii[first]
                direction = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}
                if action.kind.startswith("moves"):
                    axis, sign = direction[action.kind.split()[1]]
                    assert moved[axis] * sign > 20 and moved[1 - axis] == 0 and growth == 1
                else:
                    assert (moved == 0).all()
                    assert growth == pytest.approx({"grows": 1.45, "shrinks": 1 / 1.45}.get(action.kind, 1.0))
                dark = ~thing.lit[action.start_frame : action.end_frame]
                assert dark.any() == (action.kind == "blinks")
            still = ~acting[1:]
            assert (np.diff(thing.centers_xy, axis=0)[still] == 0).all()
            assert thing.lit[~acting].all() and np.allclose(np.diff(thing.radii)[still], 0)


def test_looks_alone_are_seldom_enough() -> None:
    scenes = [scene_of(seed) for seed in SEEDS]
    shared_action, several, same_looks = 0, 0, 0
    for scene in scenes:
        looks = [(thing.color, thing.shape) for thing in scene.things]
        assert len(set(looks)) == len(looks)
        colors, shapes = zip(*looks, strict=True)
        same_looks += len(set(colors)) < len(colors) or len(set(shapes)) < len(shapes)
        deeds = [{action.kind for action in thing.actions} for thing in scene.things]
        shared_action += any(a & b for i, a in enumerate(deeds) for b in deeds[:i])
        several += any(len(thing.actions) > 1 for thing in scene.things)
    assert same_looks == len(scenes), "colour alone, or shape alone, never names every thing"
    assert shared_action / len(scenes) > 0.75
    assert several / len(scenes) > 0.6


def test_most_questions_need_the_words_the_time_and_the_place() -> None:
    needs_time, names_all = 0, 0
    for seed in SEEDS:
        scene, query = scene_of(seed), query_of(seed)
        object_id, _ = events_that_fit(query, scene)[0]
        target = {thing.object_id: thing for thing in scene.things}[object_id]
        does_more = len(target.actions) > 1
        deed = next(action.kind for action in target.actions if action.kind in query)
        others_too = any(a.kind == deed for t in scene.things if t is not target for a in t.actions)
        needs_time += does_more or others_too
        names_all += target.color in query and target.shape in query
    assert needs_time > 85, "colour and shape do not give the time, or the deed does not give the thing"
    assert 10 < names_all < 60, "many sentences leave out colour or shape"


def query_of(seed: int) -> str:
    """The query of a sample, without drawing its video."""
    return choose_description(scene_of(seed), np.random.default_rng([seed, 11]))[0].sentence()


def test_queries_are_those_of_the_samples(drawn: list[tuple[Scene, Sample]]) -> None:
    assert [query_of(scene.seed) for scene, _ in drawn] == [sample.truth.query for _, sample in drawn]


def test_the_scene_graph_is_that_of_the_scene(drawn: list[tuple[Scene, Sample]]) -> None:
    for scene, sample in drawn:
        graphs, size = sample.truth.graph["frames"], scene.settings.frame_size
        assert [graph["t"] for graph in graphs] == [float(second) for second in range(len(graphs))]
        assert len(graphs) == math.ceil(scene.num_frames / scene.settings.fps)
        for second, graph in enumerate(graphs):
            frame = 8 * second
            places = {}
            for node, thing in zip(graph["nodes"], scene.things, strict=True):
                assert (node["id"], node["name"]) == (thing.object_id, f"{thing.color} {thing.shape}")
                assert_close(node["pos"], thing.centers_xy[frame] / size, atol=5.1e-5)
                assert node["doing"] == [a.kind for a in thing.actions if a.start_frame <= frame < a.end_frame]
                places[node["id"]] = thing.centers_xy[frame] / size
            pairs = [(a.object_id, b.object_id) for i, a in enumerate(scene.things) for b in scene.things[i + 1 :]]
            assert [(edge["a"], edge["b"]) for edge in graph["edges"]] == pairs
            for edge in graph["edges"]:
                (x1, y1), (x2, y2) = places[edge["a"]], places[edge["b"]]
                assert abs(edge["dist"] - math.hypot(x2 - x1, y2 - y1)) < 3e-4
                radians = math.radians(edge["angle"])
                assert math.cos(radians) * edge["dist"] == pytest.approx(x2 - x1, abs=5e-4)
                assert math.sin(radians) * edge["dist"] == pytest.approx(y1 - y2, abs=5e-4), "y points upwards"


def test_numbers_say_nothing_about_the_things() -> None:
    scenes = [scene_of(seed) for seed in SEEDS]
    ids = [thing.object_id for scene in scenes for thing in scene.things]
    assert set(ids) == set(range(1, 10))
    counts = np.bincount(ids, minlength=10)[1:]
    assert counts.min() > 0.5 * counts.mean()
    assert any([t.object_id for t in s.things] != sorted(t.object_id for t in s.things) for s in scenes)
