"""Every named protocol: the figures of the field's own programs, plain loops that say the same, and their traits."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stvg_lightning.answers import Answer
from stvg_lightning.evaluation import Case
from stvg_lightning.evaluation.protocols import load_protocol, protocol_names
from stvg_lightning.evaluation.protocols._tubedetr import sampled_frames
from stvg_lightning.tubes import Box, Truth
from tests.evaluation import golden
from tests.helpers import assert_close

BOX: Box = (0.0, 0.0, 10.0, 10.0)
HALF: Box = (0.0, 0.0, 10.0, 5.0)
ROUNDED = 5.1e-7


@pytest.mark.parametrize("protocol", golden.GOLDEN_VIOU)
@pytest.mark.parametrize("place", range(len(golden.PREDICTIONS)))
def test_the_golden_table(protocol: str, place: int) -> None:
    name = list(golden.PREDICTIONS)[place]
    row = load_protocol(protocol).row(golden.case(name))
    assert_close(row["vIoU"], golden.GOLDEN_VIOU[protocol][place], atol=ROUNDED)
    json.dumps(row, allow_nan=False)


def test_the_golden_tables_other_figures() -> None:
    def figures(protocol: str, name: str) -> dict[str, float]:
        loaded = load_protocol(protocol)
        row = loaded.row(golden.case(name))
        return {**row, **loaded.means([row])}

    assert_close(figures("tubedetr_hcstvg", "perfect")["tIoU"], 0.990050, atol=ROUNDED)
    assert_close(figures("tubedetr_vidstg", "end one short")["tIoU"], 0.995, atol=ROUNDED)
    assert_close(figures("llava_st", "perfect")["tIoU"], 0.98732, atol=1e-5)
    # A value of exactly 0.5 is above no threshold of 0.5; CG-STVG's missing frame lifts it over.
    assert figures("hcstvg", "first half")["vIoU@0.5"] == figures("tubedetr_vidstg", "first half")["vIoU@0.5"] == 0
    assert figures("cgstvg_hcstvg", "first half")["vIoU@0.5"] == 1
    assert figures("volume", "first half")["vIoU@0.5"] == 1
    # gt_vIoU says nothing of time.
    assert figures("tubedetr_vidstg", "whole video")["gt_vIoU"] == figures("canonical", "whole video")["gt_vIoU"] == 1


def test_a_perfect_prediction_scores_exactly_1_in_the_canonical_protocol() -> None:
    row = load_protocol("canonical").row(golden.case("perfect"))
    assert [row[name] for name in ("tIoU", "sIoU", "vIoU", "gt_vIoU")] == [1.0] * 4


def test_protocols_are_found_by_name() -> None:
    assert len(protocol_names()) == 16
    for name in protocol_names():
        protocol = load_protocol(name)
        assert protocol.name == name and len(protocol.summary) > 20 and protocol.metrics
    with pytest.raises(ValueError, match=r"no protocol 'hcstgv': did you mean 'hcstvg'.*tubedetr_hcstvg"):
        load_protocol("hcstgv")
    with pytest.raises(ValueError, match="no protocol 'protocol'"):
        load_protocol("protocol")


tubes = st.dictionaries(
    st.integers(0, 119),
    st.tuples(st.floats(0, 40), st.floats(0, 40), st.floats(1, 40), st.floats(1, 40)).map(
        lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
    ),
    max_size=40,
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Two tubes of a video of 120 frames, with holes, and two spans."""
    start, predicted_start = draw(st.integers(0, 118)), draw(st.integers(0, 118))
    span = start, draw(st.integers(start + 1, 119))
    predicted = predicted_start, draw(st.integers(predicted_start + 1, 119))
    fps = draw(st.sampled_from([5.0, 6.1, 25.0, 29.97]))
    truth = Truth("a", "q", fps, 120, 80, 80, span, draw(tubes) | {start: BOX})
    answer = Answer("", (predicted[0] / fps, predicted[1] / fps), (), draw(tubes), names_objects=False)
    return Case(answer, truth)


def iou(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (areas - width * height)


def inside(tube: dict[int, Box], span: tuple[int, int]) -> dict[int, Box]:
    return {frame: box for frame, box in tube.items() if span[0] <= frame < span[1]}


@given(cases())
@settings(deadline=None)
def test_hcstvg_against_dictionaries_of_frames(case: Case) -> None:
    predicted, true = case.span_frames, case.true_frames
    submitted, annotated = inside(case.boxes_xyxy, predicted), inside(case.truth.boxes_xyxy, true)
    found = [iou(submitted[frame], annotated[frame]) for frame in annotated if frame in submitted]
    length = max(predicted[1] - 1, true[1] - 1) - min(predicted[0], true[0]) + 1
    row = load_protocol("hcstvg").row(case)
    assert_close([row["vIoU"], row["tIoU"]], [sum(found) / length, len(found) / length], atol=1e-9)


@given(cases(), st.sampled_from(["tubedetr_vidstg", "tubedetr_hcstvg"]))
@settings(deadline=None)
def test_tubedetr_against_a_loop_over_sampled_frames(case: Case, protocol: str) -> None:
    truth, late = case.truth, int(protocol == "tubedetr_hcstvg")
    rate = 5 / (truth.num_frames / 20) if late else 5 / truth.fps
    frames = [0]
    for frame in range(0, truth.num_frames - 1):
        if int(frames[-1] * rate) < int(frame * rate):
            frames.append(frame)
    start, end = case.true_frames[0] + late, case.true_frames[1] + late
    annotated = {frame + late: box for frame, box in inside(truth.boxes_xyxy, case.true_frames).items()}
    predicted = case.span_frames
    union = [frame for frame in frames if min(start, predicted[0]) <= frame < max(end, predicted[1])]
    both = [frame for frame in frames if max(start, predicted[0]) <= frame < min(end, predicted[1])]
    seen = [frame for frame in frames if start <= frame < end]
    found = {frame: iou(case.boxes_xyxy[frame], annotated[frame]) for frame in seen
             if frame in case.boxes_xyxy and frame in annotated}  # fmt: skip
    row = load_protocol(protocol).row(case)
    assert_close(row["vIoU"], sum(found.get(frame, 0.0) for frame in both) / max(len(union), 1), atol=1e-9)
    assert_close(row["gt_vIoU"], sum(found.values()) / max(len(seen), 1), atol=1e-9)


@given(
    st.integers(1, 3000), st.floats(5, 61) | st.sampled_from([5.0, 10.0, 24.0, 25.0, 29.97, 30.0]), st.integers(0, 5000)
)
@settings(deadline=None)
def test_tubedetrs_frames_against_its_loop(num_frames: int, fps: float, first: int) -> None:
    """It goes through the frames of a part of a video by their numbers in the whole one."""
    rate = 5 / fps
    frames = [first]
    for frame in range(first, first + num_frames - 1):
        if int(frames[-1] * rate) < int(frame * rate):
            frames.append(frame)
    if len(frames) > 200:
        frames = [frames[index * len(frames) // 200] for index in range(200)]
    assert sampled_frames(num_frames, rate, first).tolist() == [frame - first for frame in frames]


@given(cases())
@settings(deadline=None)
def test_cgstvg_against_sets_of_frames(case: Case) -> None:
    predicted, (start, end) = case.span_frames, case.true_frames
    annotated = inside(case.truth.boxes_xyxy, (start, end))
    found = {frame: iou(case.boxes_xyxy[frame], box) for frame, box in annotated.items() if frame in case.boxes_xyxy}
    for protocol, last in (("cgstvg_hcstvg", end - 1), ("cgstvg_vidstg", min(end, 119))):
        row = load_protocol(protocol).row(case)
        union = set(range(min(start, predicted[0]), max(last, predicted[1])))
        both = set(range(max(start, predicted[0]), min(last, predicted[1])))
        assert_close(row["vIoU"], sum(found.get(frame, 0.0) for frame in both) / max(len(union), 1), atol=1e-9)
    assert_close(
        load_protocol("cgstvg_hcstvg").row(case)["gt_vIoU"], sum(found.values()) / max(len(annotated), 1), atol=1e-9
    )


def truth_of(span: tuple[int, int] = (2, 6), num_frames: int = 10, **fields: object) -> Truth:
    boxes = {frame: BOX for frame in range(*span)}
    return Truth(**({"id": "v", "query": "q", "fps": 5.0, "num_frames": num_frames, "width": 20, "height": 20,
                     "span_frames": span, "boxes_xyxy": boxes} | fields))  # fmt: skip


def said(span_frames: tuple[int, int], boxes: dict[int, Box], fps: float = 5.0) -> Answer:
    return Answer("", (span_frames[0] / fps, span_frames[1] / fps), (), boxes, names_objects=False)


def test_cgstvg_vidstg_counts_a_box_after_the_end() -> None:
    all_boxes = {frame: BOX for frame in range(10)}
    track = {**all_boxes, 6: HALF}
    case = Case(said((2, 6), all_boxes), truth_of(object_id=1, tracks={1: track}))
    row = load_protocol("cgstvg_vidstg").row(case)
    # Four frames of IoU 1 and, at the end frame, the track's half box; without a track the last box once more.
    assert_close([row["vIoU"], row["gt_vIoU"]], [1.0, 4.5 / 5], atol=1e-12)
    assert load_protocol("cgstvg_vidstg").row(Case(said((2, 6), all_boxes), truth_of()))["gt_vIoU"] == 1.0
    assert_close(load_protocol("cgstvg_vidstg").row(Case(said((2, 6), track), truth_of()))["gt_vIoU"], 4.5 / 5)
    # A span that ends with its video loses its last frame, and gets no box more.
    at_end = load_protocol("cgstvg_vidstg").row(Case(said((6, 10), all_boxes), truth_of((6, 10))))
    assert_close([at_end["tIoU"], at_end["vIoU"], at_end["gt_vIoU"]], [3 / 4, 3 / 4, 1.0], atol=1e-12)


@pytest.mark.parametrize("name", ["10__Gvp-cj3bmIY", "1_aMYcLyh9OhU.mkv"])
def test_cgstvg_leaves_two_videos_out(name: str) -> None:
    protocol = load_protocol("cgstvg_hcstvg")
    rows = [protocol.row(Case(Answer(""), truth_of(id=id_))) for id_ in (name, "other")]
    assert rows[0]["vIoU"] is None and rows[1]["vIoU"] == 0.0
    assert protocol.means([rows[0], {**rows[1], "vIoU": 0.5}])["m_vIoU"] == 0.5


def test_llava_st_by_hand() -> None:
    """199 frames, of which every second one is read, numbers 0, 2, ..., 198; a frame of 99 x 198 pixels."""
    truth = truth_of((10, 20), 199, width=99, height=198, boxes_xyxy={f: (10.0, 20.0, 30.0, 40.0) for f in range(199)})
    answer = said((12, 20), {f: (10.4, 20.9, 30.4, 41.1) for f in range(12, 20)})
    row = load_protocol("llava_st").row(Case(answer, truth))
    # Bins are 1 pixel wide and 2 high: the box comes back as (10, 20, 30, 42), IoU 400 / 440 in frames 12 to 18.
    assert (row["num_shared"], row["num_union"]) == (4, 5)
    assert_close([row["sIoU"], row["vIoU"]], [10 / 11, 4 / 5 * 10 / 11], atol=1e-12)
    # Frames 10 to 19 of 0 to 198 are 0.051 to 0.096; frames 12 to 19 are bins 6 to round(9.5) = 10.
    assert_close(row["tIoU"], (0.096 - 0.06061) / (0.10101 - 0.051), atol=1e-9)
    assert load_protocol("llava_st").row(Case(replace(answer, span_seconds=None), truth))["tIoU"] == 0.0
    spatial = load_protocol("llava_st").row(Case(answer, replace(truth, task="spatial")))
    assert spatial["tIoU"] is None and spatial["num_union"] == 5
    with pytest.raises(ValueError, match="'v', protocol llava_st: its video has 1 frame"):
        load_protocol("llava_st").row(Case(answer, truth_of((0, 1), 1)))


def test_videos_that_tubedetr_cannot_sample_are_refused() -> None:
    slow, short = truth_of(fps=4.9), truth_of(num_frames=99)
    with pytest.raises(ValueError, match=r"4\.9 frames a second, and 5"):
        load_protocol("tubedetr_vidstg").row(Case(Answer(""), slow))
    with pytest.raises(ValueError, match="99 frames, and 100"):
        load_protocol("tubedetr_hcstvg").row(Case(Answer(""), short))


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ((2.0, 6.0), 1.0),
        ((4.0, 8.0), 2 / 6),
        ((6.0, 8.0), 0.0),
        ((4.0, 1.0), 0.0),  # as "0:04 to 1:12" is read
        (None, 0.0),
    ],
)
def test_temporal_protocols_by_hand(predicted: tuple[float, float] | None, expected: float) -> None:
    case = Case(Answer("", predicted), truth_of((10, 30), 50, task="temporal"))
    for protocol in ("time_r1", "timezero", "v_star"):
        assert_close(load_protocol(protocol).row(case)["tIoU"], expected, atol=1e-12)


def test_a_threshold_that_is_reached_counts_or_not() -> None:
    case = Case(Answer("", (2.0, 4.0)), truth_of((10, 30), 50, task="temporal"))  # 2 of 4 seconds
    figures = {name: load_protocol(name).means([load_protocol(name).row(case)]) for name in ("time_r1", "timezero")}
    assert [figures[name]["tIoU@0.5"] for name in figures] == [0.0, 1.0]
    assert [figures[name]["tIoU@0.3"] for name in figures] == [1.0, 1.0]


def test_a_span_without_length_is_no_nan() -> None:
    empty = truth_of(span_frames=(10, 10), annotated_seconds=(2.0, 2.0), num_frames=50, task="temporal", boxes_xyxy={})
    for name in ("time_r1", "timezero", "v_star", "canonical"):
        protocol = load_protocol(name)
        row = protocol.row(Case(Answer("", (2.0, 2.0)), empty))
        assert row["tIoU"] == 0.0 and all(math.isfinite(mean) for mean in protocol.means([row]).values())


def test_a_truth_that_ends_after_its_video_is_not_clamped_by_the_evaluators() -> None:
    """Charades 5INX3: annotated until 46.0 s, a video of 44.67 s; an answer cannot reach 1."""
    truth = truth_of(fps=30.0, num_frames=1340, span_frames=(975, 1340), annotated_seconds=(32.5, 46.0), boxes_xyxy={},
                     task="temporal")  # fmt: skip
    best = Case(Answer("", (32.5, 1340 / 30)), truth)
    assert_close(load_protocol("time_r1").row(best)["tIoU"], (1340 / 30 - 32.5) / 13.5, atol=1e-12)
    assert load_protocol("canonical").row(best)["tIoU"] == 1.0
    assert_close(truth.span_seconds, (32.5, 1340 / 30), atol=1e-12)


def test_stvg_r1_by_hand() -> None:
    """Frames 2 to 6 of both count, seven with the true end; the true boxes lie a frame late."""
    tracks = {1: {frame: BOX for frame in range(10)}, 2: {frame: (0.0, 0.0, 11.0, 6.0) for frame in range(10)}}
    boxes = {frame: (0.0, 0.0, 9.0, 9.0) for frame in range(2, 7)}
    truth = truth_of((2, 7), boxes_xyxy=boxes, object_id=1, tracks=tracks)
    row = load_protocol("stvg_r1").row(Case(Answer("", (0.4, 1.2), (1,)), truth))
    # 0.4 s and 1.2 s are frames 2 and 6, 1.4 s is frame 7: 5 frames shared, 6 in the hull. The track's box without its
    # last row and column is the true one, which begins in frame 3.
    assert (row["num_hull"], row["iou_sum"], row["object_id_correct"]) == (6, 4.0, True)
    assert_close([row["tIoU"], row["vIoU"]], [4 / 5, 4 / 6], atol=1e-12)
    wrong = load_protocol("stvg_r1").row(Case(Answer("", (0.4, 1.2), (2,)), truth))
    assert_close(wrong["iou_sum"], 4 * 45 / (81 + 50 - 45), atol=1e-12)
    touching = load_protocol("stvg_r1").row(Case(Answer("", (0.0, 0.4), (1,)), truth))  # one frame shared: none
    assert touching["vIoU"] == 0.0
    for unread in (Answer("", (0.4, 1.2)), Answer("", None, (1,))):
        assert load_protocol("stvg_r1").row(Case(unread, truth))["tIoU"] == 0.0


def test_v_star_counts_annotated_frames_alone() -> None:
    truth = truth_of((0, 10), boxes_xyxy={0: BOX, 5: BOX})
    row = load_protocol("v_star").row(Case(said((0, 5), {0: HALF, 1: BOX, 2: BOX}), truth))
    assert_close([row["sIoU"], row["tIoU"]], [0.5 / 2, 0.5], atol=1e-12)
    assert [row[f"AP@{threshold}"] for threshold in (0.3, 0.5, 0.7)] == [0.5, 0.5, 0.0]


def test_refcoco_and_sti_bench_by_hand() -> None:
    image = truth_of((0, 1), 1, task="spatial")
    protocol = load_protocol("refcoco")
    rows = [protocol.row(Case(said((0, 1), boxes), image)) for boxes in ({0: HALF}, {0: (0.0, 0.0, 4.9, 10.0)}, {})]
    assert protocol.means(rows) == {"accuracy": 1 / 3, "m_IoU": pytest.approx((0.5 + 0.49) / 3)}
    question = truth_of(task="choice", answer="C", boxes_xyxy={})
    texts = {"(C)": 1, "Answer: c": 1, "Option C": 1, "C is correct": 1, "It is C": 1, "(A) or (C)": 0, "D.": 0, "": 0,
             "Ans = 'C'": 1, "Answer: Certainly (A)": 0, "Answer: Certainly": 1, "it is c": 0}  # fmt: skip
    for text, correct in texts.items():
        assert load_protocol("sti_bench").row(Case(Answer(text), question))["correct"] == bool(correct), text


def test_tasks_that_a_protocol_does_not_score_are_refused() -> None:
    with pytest.raises(ValueError, match=r"truth 'v' is of task 'temporal': protocol hcstvg scores stvg"):
        load_protocol("hcstvg").row(Case(Answer(""), truth_of(task="temporal")))


@given(cases())
@settings(deadline=None, max_examples=25)
def test_the_order_of_samples_changes_nothing_and_all_scores_lie_in_0_to_1(case: Case) -> None:
    others = [golden.case(name) for name in golden.PREDICTIONS]
    for name in ("canonical", "hcstvg", "tubedetr_hcstvg", "cgstvg_vidstg", "llava_st", "volume", "stvg_r1"):
        protocol = load_protocol(name)
        rows = [protocol.row(each) for each in (case, *others)]
        shuffled = list(np.random.default_rng(0).permutation(len(rows)))
        assert protocol.means(rows) == protocol.means([rows[index] for index in shuffled])
        assert all(0 <= mean <= 1 + 1e-12 for mean in protocol.means(rows).values())
