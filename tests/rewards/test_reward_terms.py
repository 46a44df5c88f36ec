"""Each term against hand-worked cases, and rewards against metrics on random tubes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stvg_lightning.answers import Answer
from stvg_lightning.evaluation import score_answer
from stvg_lightning.rewards import (
    CoupledObjectId,
    ObjectId,
    RewardContext,
    RewardTerm,
    continuous_spatial,
    temporal_iou,
    well_formed,
)
from stvg_lightning.tubes import Truth
from tests.helpers import assert_close

BOX = (0.0, 0.0, 10.0, 10.0)
SHIFTED = (5.0, 0.0, 15.0, 10.0)
TRACKS = {3: {frame: BOX for frame in range(40, 81)}, 4: {frame: SHIFTED for frame in range(100)}}


def truth_of(task: str = "stvg", **fields: object) -> Truth:
    defaults = {
        "id": "v", "query": "q", "fps": 10.0, "num_frames": 100, "width": 64, "height": 48, "span_frames": (40, 80),
        "boxes_xyxy": {frame: BOX for frame in range(40, 80)}, "object_id": 3, "tracks": TRACKS, "task": task,
    }  # fmt: skip
    return Truth(**(defaults | fields))


def score(term: RewardTerm, answer: Answer, truth: Truth, context: RewardContext | None = None) -> float | None:
    (value,) = term([answer], truth, context or RewardContext())
    return value


def said(span: tuple[float, float] | None = None, *object_ids: int) -> Answer:
    return Answer("", span, object_ids)


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((4.0, 8.0), 1.0),
        ((4.0, 6.0), 0.5),
        ((2.0, 6.0), 2 / 6),
        ((0.0, 10.0), 0.4),
        ((8.0, 9.0), 0.0),
        ((8.0, 4.0), 0.0),
        ((4.0, 12.0), 0.5),
        (None, 0.0),
    ],
)
def test_temporal_iou(span: tuple[float, float] | None, expected: float) -> None:
    for task in ("stvg", "temporal"):
        assert_close(score(temporal_iou, said(span), truth_of(task)), expected, atol=1e-12)
    assert score(temporal_iou, said(span), truth_of("spatial")) is None
    assert score(temporal_iou, said(span), truth_of("choice")) is None


def test_well_formed() -> None:
    assert score(well_formed, Answer("", well_formed=True), truth_of()) == 1.0
    assert score(well_formed, Answer("", well_formed=False), truth_of("temporal")) == 0.0


@pytest.mark.parametrize(
    ("answer", "paper", "code"),
    [
        (said((4.0, 8.0), 3), 1.0, 1.0),
        (said((4.0, 8.0), 4), 0.0, 0.0),
        (said((4.0, 8.0), 3, 4), 0.0, 0.0),
        (said((4.0, 8.0)), 0.0, 0.0),
        (said(None, 3), 0.0, 1.0),
        # The track of object 3 runs from frame 40 (4.0 s) to frame 80 (8.0 s): both ends count.
        (said((0.0, 4.0), 3), 1.0, 1.0),
        (said((0.0, 3.99), 3), 0.0, 1.0),
        (said((8.0, 9.0), 3), 1.0, 1.0),
        (said((8.01, 9.0), 3), 0.0, 1.0),
        (said((8.0, 4.0), 3), 0.0, 1.0),
        # Between two frames nothing is seen.
        (said((4.01, 4.09), 3), 0.0, 1.0),
    ],
)
def test_object_id(answer: Answer, paper: float, code: float) -> None:
    assert score(ObjectId(), answer, truth_of()) == paper
    assert score(ObjectId("code"), answer, truth_of()) == code


def test_labels_drawn_decide_over_tracks() -> None:
    drawn = RewardContext(marked_seconds={3: (6.0, 6.5)})
    assert score(ObjectId(), said((4.0, 6.0), 3), truth_of(), drawn) == 1.0
    assert score(ObjectId(), said((4.0, 5.9), 3), truth_of(), drawn) == 0.0
    assert score(ObjectId(), said((6.6, 8.0), 3), truth_of(), drawn) == 0.0
    assert score(ObjectId(), said((4.0, 8.0), 3), truth_of(), RewardContext(marked_seconds={})) == 0.0
    assert score(ObjectId("code"), said((4.0, 8.0), 3), truth_of(), RewardContext(marked_seconds={})) == 1.0


def test_object_id_by_task() -> None:
    assert score(ObjectId(), said(None, 3), truth_of("spatial", span_frames=None)) == 1.0
    assert score(ObjectId(), said(None, 4), truth_of("spatial")) == 0.0
    assert score(ObjectId(), said((4.0, 8.0), 3), truth_of("temporal")) is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (said((4.0, 8.0), 3), 1.0),
        (said((4.0, 6.0), 3), 0.5),
        (said((4.0, 6.0), 4), 0.0),
        (said((0.0, 3.0), 3), 0.0),
        (said(None, 3), 0.0),
    ],
)
def test_coupled(answer: Answer, expected: float) -> None:
    assert_close(score(CoupledObjectId(), answer, truth_of()), expected, atol=1e-12)


def test_coupled_by_task() -> None:
    assert score(CoupledObjectId(), said(None, 3), truth_of("spatial")) == 1.0
    assert score(CoupledObjectId(), said((4.0, 8.0), 3), truth_of("temporal")) is None
    # The released code has no presence test: 0.1 s of the true 4, between frames.
    assert_close(score(CoupledObjectId("code"), said((4.01, 4.09), 3), truth_of()), 0.02, atol=1e-12)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (said((4.0, 8.0), 3), 1.0),
        (said((4.0, 4.1), 3), 1.0),
        (said((0.0, 10.0), 3), 1.0),
        (said((4.0, 8.0), 4), 1 / 3),
        (said((0.0, 3.0), 3), 0.0),
        (said((4.0, 8.0), 9), 0.0),
        (said((4.0, 8.0), 3, 4), 0.0),
        (said(None, 3), 0.0),
    ],
)
def test_continuous_spatial(answer: Answer, expected: float) -> None:
    assert_close(score(continuous_spatial, answer, truth_of()), expected, atol=1e-12)


def test_continuous_spatial_counts_frames_with_a_true_box_only() -> None:
    sparse = truth_of(boxes_xyxy={40: BOX, 60: SHIFTED}, tracks={3: {40: BOX}, 4: {40: BOX, 60: BOX}})
    assert_close(score(continuous_spatial, said((4.0, 8.0), 3), sparse), 0.5, atol=1e-12)
    assert_close(score(continuous_spatial, said((4.0, 8.0), 4), sparse), (1 + 1 / 3) / 2, atol=1e-12)
    assert score(continuous_spatial, said((5.0, 5.5), 3), sparse) == 0.0
    spatial = truth_of("spatial", span_frames=None)
    assert_close(score(continuous_spatial, said(None, 4), spatial), 1 / 3, atol=1e-12)
    assert score(continuous_spatial, said(None, 3), truth_of("temporal")) is None


@pytest.mark.parametrize(
    ("term", "missing"),
    [
        (temporal_iou, {"span_frames": None}),
        (ObjectId(), {"object_id": None}),
        (continuous_spatial, {"boxes_xyxy": {}}),
        (continuous_spatial, {"span_frames": None}),
    ],
)
def test_an_incomplete_truth_is_refused_by_name(term: RewardTerm, missing: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="'v'"):
        score(term, said((4.0, 8.0), 3), truth_of(**missing))


def test_options_are_checked() -> None:
    for term in (ObjectId, CoupledObjectId):
        with pytest.raises((ValueError, TypeError), match=r"paper.*code"):
            term("both")


corners = st.integers(0, 8).map(float)
random_boxes = st.tuples(corners, corners, corners, corners)
tubes = st.dictionaries(st.integers(0, 19), random_boxes, min_size=1)


frames_and_more = st.tuples(st.integers(0, 19), st.integers(1, 20))


@given(tubes, tubes, frames_and_more, frames_and_more)
@settings(deadline=None)
def test_rewards_agree_with_metrics(
    true: dict, track: dict, predicted: tuple[int, int], true_start_and_length: tuple[int, int]
) -> None:
    start, length = true_start_and_length
    truth = Truth("v", "q", 5.0, 20, 8, 8, (start, min(start + length, 20)), true, 1, {1: track})
    answer = Answer("", (predicted[0] / 5, predicted[1] / 5), (1,))
    row = score_answer(answer, truth)
    assert_close(score(temporal_iou, answer, truth), row["tIoU"], atol=1e-9)
    assert_close(score(continuous_spatial, answer, truth), row["sIoU"], atol=1e-9)
