"""Metrics against hand-worked cases, naive loops and what the public HC-STVG evaluator prints; rows and tables."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stvg_lightning.answers import Answer, View, id_span
from stvg_lightning.answers.questions import relative_accuracy
from stvg_lightning.evaluation import (
    METRICS,
    compare_tubes,
    ground_truth_video_iou,
    metric_values,
    missing_parts,
    predicted_tube,
    recall_at,
    score_answer,
    spatial_iou,
    summarise,
    temporal_iou_frames,
    video_iou,
    volume_iou,
)
from stvg_lightning.tubes import Box, Truth
from tests.helpers import assert_close

BOX: Box = (0.0, 0.0, 10.0, 10.0)
SHIFTED: Box = (5.0, 0.0, 15.0, 10.0)


def moving_box(frame: int) -> Box:
    x, y = 50 + 0.8 * frame, 60 + 0.2 * frame
    return x, y, x + 80, y + 120


def doubled(box: Box) -> Box:
    x1, y1, x2, y2 = box
    half_width, half_height = (x2 - x1) / 2, (y2 - y1) / 2
    return x1 - half_width, y1 - half_height, x2 + half_width, y2 + half_height


def box_to_the_right(frame: int) -> Box:
    x1, y1, x2, y2 = moving_box(frame)
    return x1 + 10, y1, x2 + 10, y2


GOLDEN = [
    ((100, 300), moving_box, 1.0),
    ((100, 299), moving_box, 0.995),
    ((100, 300), box_to_the_right, 0.777778),
    ((100, 300), lambda frame: doubled(moving_box(frame)) if frame >= 200 else moving_box(frame), 0.625),
    ((137, 337), moving_box, 0.687764),
    ((100, 200), moving_box, 0.5),
    ((0, 500), moving_box, 0.4),
]
"""Span, boxes, and the vIoU that HC-STVG's own evaluator gives for a target seen in frames [100, 300) of 500."""


@pytest.mark.parametrize(("span", "box_at", "expected"), GOLDEN)
def test_video_iou_is_that_of_the_official_evaluator(span: tuple[int, int], box_at: object, expected: float) -> None:
    true = {frame: moving_box(frame) for frame in range(100, 300)}
    predicted = {frame: box_at(frame) for frame in range(*span)}
    assert_close(video_iou(compare_tubes(predicted, true), span, (100, 300)), expected)


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ((100, 200), (150, 300), 0.25),
        ((0, 1), (0, 1), 1.0),
        ((0, 1), (1, 2), 0.0),
        ((5, 2), (0, 9), 0.0),
        ((0, 0), (0, 0), 0.0),
    ],
)
def test_temporal_iou(predicted: tuple[int, int], true: tuple[int, int], expected: float) -> None:
    assert_close(temporal_iou_frames(predicted, true), expected, atol=1e-12)


def test_spatial_and_video_iou_by_hand() -> None:
    predicted = {0: BOX, 1: BOX, 2: BOX, 3: BOX}
    true = {1: BOX, 2: SHIFTED, 4: BOX}
    overlap = compare_tubes(predicted, true)
    # Shared frames 1 to 3: IoU 1 and 1/3; frame 3 has no true box. Union: frames 0 to 4.
    assert_close(spatial_iou(overlap, (0, 4), (1, 5)), (1 + 1 / 3) / 2, atol=1e-12)
    assert_close(video_iou(overlap, (0, 4), (1, 5)), (1 + 1 / 3) / 5, atol=1e-12)
    # A frame without a predicted box scores 0, and boxes outside the spans do not count.
    assert_close(spatial_iou(compare_tubes({1: BOX}, true), (0, 4), (1, 5)), 0.5, atol=1e-12)
    assert_close(video_iou(compare_tubes({1: BOX}, true), (0, 4), (1, 5)), 1 / 5, atol=1e-12)
    assert_close(video_iou(overlap, (0, 2), (1, 5)), 1 / 5, atol=1e-12)
    assert spatial_iou(overlap, (0, 1), (1, 5)) == 0.0
    assert video_iou(overlap, (4, 0), (1, 5)) == 0.0
    assert video_iou(compare_tubes({}, {}), (0, 0), (0, 0)) == 0.0
    # Frames 1, 2 and 4 are true ones with a box, of which 4 has no predicted one, whatever time was answered.
    assert_close(ground_truth_video_iou(overlap, (1, 5)), (1 + 1 / 3) / 3, atol=1e-12)
    # Areas of 100 and 50 shared in frames 1 and 2; united: 100 in 0, 100 in 1, 150 in 2, 100 in 3 and 100 in 4.
    assert_close(volume_iou(overlap, (0, 4), (1, 5)), 150 / 550, atol=1e-12)
    assert volume_iou(compare_tubes({}, {}), (0, 4), (1, 5)) == 0.0


@pytest.mark.parametrize(
    ("answered", "expected"), [(10.0, 1.0), (9.0, 0.9), (9.4, 0.9), (9.5, 1.0), (14.9, 0.1), (15.1, 0.0), (-10.0, 0.0)]
)
def test_relative_accuracy_by_hand(answered: float, expected: float) -> None:
    assert_close(relative_accuracy(answered, 10.0), expected, atol=1e-12)
    assert_close(relative_accuracy(-answered, -10.0), expected, atol=1e-12)
    assert relative_accuracy(0.0, 0.0) == 1.0 and relative_accuracy(1e-9, 0.0) == 0.0


def area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def shared_area(a: Box, b: Box) -> float:
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def naive_iou(a: Box, b: Box) -> float:
    shared = shared_area(a, b)
    union = area(a) + area(b) - shared
    return shared / union if union > 0 else 0.0


corners = st.floats(0, 8)
tubes = st.dictionaries(st.integers(0, 14), st.tuples(corners, corners, corners, corners))
spans = st.tuples(st.integers(0, 14), st.integers(0, 14))


@given(tubes, tubes, spans, spans)
@settings(deadline=None)
def test_metrics_against_a_naive_loop(
    predicted: dict[int, Box], true: dict[int, Box], p_span: tuple[int, int], t_span: tuple[int, int]
) -> None:
    in_both = in_either = in_both_with_truth = 0
    total = shared_volume = united_volume = 0.0
    for frame in range(15):
        in_predicted, in_true = p_span[0] <= frame < p_span[1], t_span[0] <= frame < t_span[1]
        in_either += in_predicted or in_true
        p_area = area(predicted[frame]) if in_predicted and frame in predicted else 0.0
        t_area = area(true[frame]) if in_true and frame in true else 0.0
        shared = shared_area(predicted[frame], true[frame]) if p_area and t_area else 0.0
        shared_volume, united_volume = shared_volume + shared, united_volume + p_area + t_area - shared
        if not (in_predicted and in_true):
            continue
        in_both += 1
        in_both_with_truth += frame in true
        if frame in true and frame in predicted:
            total += naive_iou(predicted[frame], true[frame])
    assert_close(temporal_iou_frames(p_span, t_span), in_both / in_either if in_either else 0.0, atol=1e-12)
    overlap, backwards = compare_tubes(predicted, true), compare_tubes(true, predicted)
    assert_close(video_iou(overlap, p_span, t_span), total / in_either if in_either else 0.0, atol=1e-9)
    expected = total / in_both_with_truth if in_both_with_truth else 0.0
    assert_close(spatial_iou(overlap, p_span, t_span), expected, atol=1e-9)
    volume = volume_iou(overlap, p_span, t_span)
    assert_close(volume, shared_volume / united_volume if united_volume else 0.0, atol=1e-9)
    for iou in (video_iou, volume_iou):
        assert 0 <= iou(overlap, p_span, t_span) <= 1 + 1e-12
        assert_close(iou(overlap, p_span, t_span), iou(backwards, t_span, p_span), atol=1e-12)
    assert temporal_iou_frames(p_span, t_span) == temporal_iou_frames(t_span, p_span)


def test_recall_is_strict() -> None:
    assert recall_at([0.5, 0.5000001, 0.4], 0.5) == 1 / 3
    with pytest.raises(ValueError, match="at least one"):
        recall_at([], 0.5)


TRACKS = {3: {frame: BOX for frame in range(100)}, 4: {frame: SHIFTED for frame in range(50, 100)}}


def truth_of(task: str = "stvg", **fields: object) -> Truth:
    defaults = {
        "id": "v", "query": "q", "fps": 10.0, "num_frames": 100, "width": 64, "height": 48, "span_frames": (40, 80),
        "boxes_xyxy": {frame: BOX for frame in range(40, 80)}, "object_id": 3, "tracks": TRACKS, "task": task,
    }  # fmt: skip
    return Truth(**(defaults | fields))


def said(span: tuple[float, float] | None = None, *object_ids: int) -> Answer:
    return Answer("said", span, object_ids)


def test_a_target_without_a_number_is_voted_for() -> None:
    """Where no object overlaps it no id is right; where no object is known nothing can be said, nor of boxes."""

    def is_right(answer: Answer, **fields: object) -> bool | None:
        return score_answer(answer, truth_of(object_id=None, **fields))["object_id_correct"]

    assert [is_right(said((4.0, 6.0), *ids)) for ids in ((3,), (4,), (3, 4), ())] == [True, False, False, False]
    late = {5: {frame: BOX for frame in range(80, 100)}}  # behind the true span
    for tracks in ({4: {}}, late, {1: {frame: (0.0, 40.0, 2.0, 42.0) for frame in range(100)}}):
        assert [is_right(said((4.0, 6.0), *ids), tracks=tracks) for ids in ((1,), (5,), ())] == [False] * 3
    assert is_right(said((4.0, 6.0), 3), tracks={}) is None
    assert is_right(Answer("", (4.0, 6.0), boxes_xyxy={40: BOX}, names_objects=False)) is None


def test_the_tube_an_answer_stands_for() -> None:
    assert predicted_tube(said((4.0, 4.2), 3), truth_of()) == ((40, 42), {40: BOX, 41: BOX})
    assert predicted_tube(said((4.9, 5.1), 4), truth_of()) == ((49, 51), {50: SHIFTED})
    assert predicted_tube(said(None, 3), truth_of()) == ((0, 0), {})
    assert predicted_tube(said((4.0, 4.2), 9), truth_of()) == ((40, 42), {})
    assert predicted_tube(said((4.0, 4.2), 3), truth_of("temporal")) == ((40, 42), {})
    span, boxes = predicted_tube(said(None, 3), truth_of("spatial"))
    assert span == (40, 80) and set(boxes) == set(range(40, 80))
    assert predicted_tube(said(None, 3), truth_of("spatial", span_frames=None))[0] == (0, 100)


def test_several_objects_answer_with_the_box_around_them() -> None:
    _, boxes = predicted_tube(said((4.9, 5.1), 3, 4), truth_of())
    assert boxes == {49: BOX, 50: (0.0, 0.0, 15.0, 10.0)}


def test_boxes_of_the_answer_stand_for_themselves() -> None:
    answer = Answer("", (4.0, 4.2), (), {39: BOX, 41: SHIFTED})
    assert predicted_tube(answer, truth_of()) == ((40, 42), {41: SHIFTED})
    assert missing_parts(answer, truth_of()) == ()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (said((4.0, 8.0), 3), {"tIoU": 1.0, "sIoU": 1.0, "vIoU": 1.0, "object_id_correct": True}),
        (said((6.0, 8.0), 3), {"tIoU": 0.5, "sIoU": 1.0, "vIoU": 0.5, "object_id_correct": True}),
        (said((6.0, 8.0), 4), {"tIoU": 0.5, "sIoU": 1 / 3, "vIoU": 1 / 6, "object_id_correct": False}),
        (said((4.0, 8.0), 4), {"tIoU": 1.0, "sIoU": 1 / 4, "vIoU": 1 / 4, "object_id_correct": False}),
        (said((4.0, 8.0), 3, 4), {"tIoU": 1.0, "object_id_correct": False}),
        (said(None, 3), {"tIoU": 0.0, "sIoU": 0.0, "vIoU": 0.0, "object_id_correct": True, "unreadable": True}),
        (said((4.0, 8.0)), {"tIoU": 1.0, "vIoU": 0.0, "object_id_correct": False, "unreadable": True}),
        (said(), {"tIoU": 0.0, "vIoU": 0.0, "object_id_correct": False, "unreadable": True}),
    ],
)
def test_rows_by_hand(answer: Answer, expected: dict[str, float]) -> None:
    row = score_answer(answer, truth_of())
    for key, value in ({"unreadable": False} | expected).items():
        assert_close(row[key], value, atol=1e-12)


def test_a_row_holds_what_a_person_asks_for() -> None:
    row = score_answer(id_span.read("<answer>Target ID: 9, Time range: 4.00 to 6.00</answer>"), truth_of())
    assert json.loads(json.dumps(row)) == {
        "id": "v",
        "task": "stvg",
        "tIoU": 0.5,
        "sIoU": 0.0,
        "vIoU": 0.0,
        "gt_vIoU": 0.0,
        "object_id_correct": False,
        "correct": None,
        "relative_accuracy": None,
        "predicted_span_seconds": [4.0, 6.0],
        "true_span_seconds": [4.0, 8.0],
        "predicted_object_ids": [9],
        "true_object_id": 3,
        "unreadable": False,
        "problems": ["object 9 is not in the video"],
        "text": "<answer>Target ID: 9, Time range: 4.00 to 6.00</answer>",
    }


def test_rows_of_the_other_tasks() -> None:
    spatial = score_answer(said(None, 3), truth_of("spatial"))
    assert (spatial["tIoU"], spatial["vIoU"], spatial["unreadable"]) == (None, 1.0, False)
    # Asked about some moments, and answered for more: nothing says that there should be no box in the others.
    moments = score_answer(said(None, 3), truth_of("spatial", span_frames=None))
    assert (moments["vIoU"], moments["sIoU"], moments["gt_vIoU"]) == (None, 1.0, 1.0)
    temporal = score_answer(said((4.0, 6.0)), truth_of("temporal", boxes_xyxy={}, tracks={}))
    assert [temporal[key] for key in ("tIoU", "sIoU", "vIoU", "object_id_correct")] == [0.5, None, None, None]
    assert score_answer(said((4.0, 6.0)), truth_of("spatial"))["problems"] == ["no object was read"]
    assert score_answer(said(None, 3), truth_of("temporal"))["problems"] == ["no time was read"]


@pytest.mark.parametrize(
    ("text", "correct", "relative"),
    [
        ("(B)", True, 0.0),
        ("Answer: C", False, 0.0),
        ("Option B", True, 0.0),
        ("B", True, 0.0),
        ("(A) man in the video walks to B", False, 0.0),
        ("I do not know", False, 0.0),
        ("about 9.5 metres", False, 1.0),
    ],
)
def test_choices_and_numbers(text: str, correct: bool, relative: float) -> None:
    choice = score_answer(Answer("", reply=text), truth_of("choice", answer="B"))
    numeric = score_answer(Answer("", reply=text), truth_of("numeric", answer=10.0))
    assert (choice["correct"], choice["relative_accuracy"], choice["vIoU"]) == (correct, None, None)
    assert (numeric["correct"], numeric["tIoU"]) == (None, None)
    assert_close(numeric["relative_accuracy"], relative, atol=1e-12)


@given(st.text() | st.sampled_from(["<answer>Target ID: 3, Time range: 9 to 1</answer>", "<answer>3</answer>"]))
@settings(deadline=None)
def test_any_text_gets_a_row(text: str) -> None:
    row = score_answer(id_span.read(text), truth_of())
    assert row["tIoU"] == row["vIoU"] == 0.0


@pytest.mark.parametrize("kind", ["number", "upper", "lower", "mix"])
@pytest.mark.parametrize("task", id_span.TASKS)
def test_the_gold_answer_scores_one(task: str, kind: str) -> None:
    truth = truth_of(task)
    row = score_answer(id_span.read(id_span.write(truth, view=View(kind)), View(kind)), truth)
    assert all(row[key] in (1.0, True, None) for key in ("tIoU", "sIoU", "vIoU", "object_id_correct"))
    assert row["problems"] == []


@pytest.mark.parametrize("bad", [{"task": "choice"}, {"task": "numeric"}, {"span_frames": None}, {"boxes_xyxy": {}}])
def test_a_truth_that_cannot_be_scored_is_named(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="'v'"):
        score_answer(said((4.0, 8.0), 3), truth_of(**bad))


def row_of(sample_id: str, v_iou: float | None, t_iou: float | None, correct: bool | None = True) -> dict[str, object]:
    return {
        "id": sample_id, "tIoU": t_iou, "sIoU": v_iou, "vIoU": v_iou, "gt_vIoU": v_iou, "object_id_correct": correct,
        "correct": None, "relative_accuracy": None, "unreadable": False,
    }  # fmt: skip


def test_the_table_by_hand() -> None:
    rows = [row_of("a", 0.3, 0.6), row_of("b", 0.8, 1.0), row_of("c", None, 0.5, None), row_of("d", 0.4, None, False)]
    table = summarise(rows)
    expected = {
        "m_tIoU": 0.7, "m_sIoU": 0.5, "m_vIoU": 0.5, "vIoU@0.3": 2 / 3, "vIoU@0.5": 1 / 3, "m_gt_vIoU": 0.5,
        "tIoU@0.3": 1.0, "tIoU@0.5": 2 / 3, "tIoU@0.7": 1 / 3, "id_accuracy": 2 / 3, "unreadable": 0.0,
    }  # fmt: skip
    assert table.keys() == METRICS.keys() == expected.keys() | {"accuracy", "relative_accuracy"}
    assert table["accuracy"] is None and table["relative_accuracy"] is None
    for name, value in expected.items():
        assert_close(table[name], value, atol=1e-12)
    assert summarise([row_of("c", None, 0.5, None)])["m_vIoU"] is None
    assert metric_values(rows, "id_accuracy") == {"a": 1.0, "b": 1.0, "d": 0.0}


def test_doubled_rows_unknown_metrics_and_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="two rows have the id 'a'"):
        summarise([row_of("a", 0.1, 0.1), row_of("a", 0.1, 0.1)])
    with pytest.raises(ValueError, match="'m_xIoU' is unknown: choose from m_tIoU"):
        metric_values([], "m_xIoU")
    with pytest.raises(ValueError, match="no rows"):
        summarise([])
