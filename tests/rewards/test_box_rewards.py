"""STVG-o1's reward terms against cases worked by hand from its equations 3 to 10, and against naive loops.

The frame is 100 x 50 pixels. A box shifted by 10 pixels to the right, of size 20 x 10: shared 10 x 10, union 300, hull
300, so GIoU = 1/3; its L1 is 2 * 10 / 100 = 0.2; together 1/3 - 1/5 = 2/15.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stvg_lightning.answers import Answer, BoxChain, Frames, View
from stvg_lightning.modules.reward_statistics import reward_values
from stvg_lightning.rewards import (
    BoxAgreement,
    BoxSpatial,
    BoxThink,
    IndexTemporalIoU,
    RewardContext,
    RewardTerm,
    WeightedSum,
    box_consistency,
)
from stvg_lightning.tubes import Truth
from tests.helpers import assert_close

TRUE = "10, 10, 30, 20"
SHIFTED = "20, 10, 40, 20"
AWAY = "70, 10, 90, 20"
SHIFTED_SCORE = 1 / 3 - 1 / 5
AWAY_SCORE = (0 - (80 * 10 - 2 * 200) / (80 * 10)) - 2 * 60 / 100  # GIoU -1/2, L1 1.2
TRUTH = Truth(
    "v", "q", 10.0, 100, 100, 50, span_frames=(50, 80),
    boxes_xyxy={frame: (10.0, 10.0, 30.0, 20.0) for frame in range(50, 80)},
)  # fmt: skip
VIEW = View("number", Frames.untouched(TRUTH))


def listed(**boxes: str) -> str:
    return ", ".join(f"{index.removeprefix('s')}. [{box}]" for index, box in boxes.items())


def said(time: str, predicted: str, think: str = "") -> Answer:
    text = f"<time> {time} </time> <think_bbox> {think} </think_bbox> <pred_bbox> {predicted} </pred_bbox>"
    return BoxChain(coordinates="original").read(text, VIEW)


def score(term: RewardTerm, answer: Answer, truth: Truth = TRUTH) -> float:
    (value,) = term([answer], truth, RewardContext())
    assert term.low <= value <= term.high
    return value


EXACT = listed(s5=TRUE, s6=TRUE, s7=TRUE)

CASES = {
    "all right": (said("5 - 7", EXACT, EXACT), 1.0, 1.0, 2.0, 0.0),
    "the answer is better than the thought": (
        said("5 - 7", EXACT, listed(s5=TRUE, s6=SHIFTED, s7=SHIFTED)),
        1.0, 1.0, 1 + (1 + 2 * SHIFTED_SCORE) / 3, 1 - (1 + 2 * SHIFTED_SCORE) / 3,
    ),
    "the thought is better than the answer": (
        said("5 - 7", listed(s5=AWAY, s6=AWAY, s7=AWAY), EXACT), 1.0, 1.0, 1 + AWAY_SCORE, 0.0,
    ),
    "the times share two of four seconds": (
        said("6 - 8", listed(s6=TRUE, s7=SHIFTED, s8=AWAY), listed(s6=TRUE, s7=TRUE, s8=TRUE)),
        1.0, 0.5, (1 + SHIFTED_SCORE) / 2 + 1, 0.0,
    ),
    "one second": (said("6 - 6", listed(s6=SHIFTED), listed(s6=TRUE)), 1.0, 1 / 3, SHIFTED_SCORE + 1, 0.0),
    "the times share nothing": (said("0 - 1", listed(s0=AWAY, s1=AWAY), listed(s0=AWAY, s1=AWAY)), 1.0, 0.0, 0.0, 0.0),
    "a reversed time": (said("7 - 5", EXACT, EXACT), 0.0, 0.0, 0.0, 0.0),
    "no time": (said("soon", EXACT, EXACT), 0.0, 0.0, 0.0, 0.0),
    "nothing": (BoxChain().read("", VIEW), 0.0, 0.0, 0.0, 0.0),
    "a box is missing": (
        said("5 - 7", listed(s5=TRUE, s7=TRUE), EXACT), 0.0, 1.0, 1 + (2 - 5) / 3, 0.0,
    ),
    "a reversed box is missing": (
        said("5 - 7", listed(s5=TRUE, s6="30, 10, 10, 20", s7=TRUE), EXACT), 0.0, 1.0, 1 + (2 - 5) / 3, 0.0,
    ),
    "no boxes in the answer": (said("5 - 7", "", EXACT), 0.0, 1.0, 1 - 5, 0.0),
    "a box too many": (said("5 - 7", EXACT + ", " + listed(s8=TRUE), EXACT), 0.0, 1.0, 2.0, 0.0),
    "a box twice: the first counts": (
        said("5 - 7", listed(s5=TRUE, s6=TRUE, s7=TRUE) + ", " + listed(s7=AWAY), EXACT), 0.0, 1.0, 2.0, 0.0,
    ),
    "a thought is missing": (
        said("5 - 7", EXACT, listed(s5=TRUE, s7=TRUE)), 0.0, 1.0, 1 + (2 - 5) / 3, 1 - (2 - 5) / 3,
    ),
    "a thought too many": (said("5 - 7", EXACT, EXACT + ", " + listed(s8=TRUE)), 0.0, 1.0, 2.0, 0.0),
    "not ascending": (said("5 - 7", listed(s6=TRUE, s5=TRUE, s7=TRUE), EXACT), 0.0, 1.0, 2.0, 0.0),
    # 20 of 140 pixels wide is shared and all of the true box: GIoU = 20/140; L1 = (110 + 10) / 100.
    "a box reaches out of the frame": (
        said("6 - 6", listed(s6="-100, 10, 40, 20"), listed(s6=TRUE)), 1.0, 1 / 3, 1 + 20 / 140 - 1.2, 0.0,
    ),
    # GIoU of far boxes nears -1 and L1 is cut at 4.
    "a box far out of the frame": (
        said("6 - 6", listed(s6="99999999, 10, 99999999, 20"), listed(s6=TRUE)), 1.0, 1 / 3,
        1 - 1 + 200 / (99999989 * 10) - 4, 0.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_terms_by_hand(case: str) -> None:
    answer, consistency, temporal, spatial, think = CASES[case]
    assert score(box_consistency, answer) == consistency
    assert_close(score(IndexTemporalIoU(), answer), temporal)
    assert_close(score(BoxSpatial(), answer), spatial)
    assert_close(score(BoxThink(), answer), think)


@pytest.mark.parametrize(
    ("agreement", "expected"),
    [
        (BoxAgreement(), 2 / 15),
        (BoxAgreement(l1=False), 1 / 3),
        (BoxAgreement(giou=False), -1 / 5),
        (BoxAgreement(l1_reduce="mean"), 1 / 3 - 1 / 20),
    ],
)
def test_what_counts_in_agreement(agreement: BoxAgreement, expected: float) -> None:
    answer = said("6 - 6", listed(s6=TRUE), listed(s6=SHIFTED))
    best = agreement.best
    assert_close(score(BoxSpatial(agreement), answer), best + expected)
    assert_close(score(BoxThink(agreement), answer), best - expected)


def test_every_second_has_a_true_box_of_its_own() -> None:
    """The true box moves 10 pixels a second to the right; the answer stands where it is at second 6."""
    moving = replace(TRUTH, boxes_xyxy={frame: (frame - 40.0, 10.0, frame - 20.0, 20.0) for frame in range(30, 100)})
    still = "20, 10, 40, 20"
    answer = said("5 - 8", listed(s5=still, s6=still, s8=still), listed(s5=TRUE, s6=SHIFTED, s7="30, 10, 50, 20"))
    assert_close(score(BoxSpatial(), answer, moving), 1 + (SHIFTED_SCORE + 1 - 5) / 3)
    assert score(box_consistency, answer, moving) == 0.0


def test_a_missing_box() -> None:
    answer = said("5 - 7", listed(s5=TRUE, s7=TRUE), EXACT)
    assert_close(score(BoxSpatial(BoxAgreement(missing="zero")), answer), 1.0)
    assert_close(score(BoxSpatial(BoxAgreement(l1=False)), answer), 1 + (2 - 1) / 3)
    assert_close(score(BoxSpatial(BoxAgreement(l1_reduce="mean")), answer), 1 + (2 - 2) / 3)
    assert_close(score(BoxSpatial(BoxAgreement(giou=False)), answer), (0 - 4) / 3)


def test_a_floor_takes_the_reward_from_missing_the_time() -> None:
    """One list is right; the other has one box of three, and scores (1 - 2 * 5) / 3 without a floor."""
    bad, badly_thought = said("5 - 7", listed(s5=TRUE), EXACT), said("5 - 7", EXACT, listed(s5=TRUE))
    assert_close(score(BoxSpatial(), bad), 1 + (1 - 10) / 3)
    for floor, expected in ((None, -3.0), (-5.0, -3.0), (-1.0, -1.0), (0.0, 0.0)):
        agreement = BoxAgreement(floor=floor)
        assert_close(score(BoxSpatial(agreement), bad), 1 + expected)
        assert_close(score(BoxThink(agreement), badly_thought), 1 - expected)
        assert score(BoxThink(agreement), bad) == 0.0
        assert agreement.least == (-5.0 if floor is None else floor)
    assert score(BoxSpatial(BoxAgreement(floor=0.0)), said("1 - 2", listed(s1=TRUE, s2=TRUE), EXACT)) == 0.0
    with pytest.raises(ValueError, match="floor must be at most 0"):
        BoxAgreement(floor=0.5)


def test_think_and_spatial_rewards_compare_boxes_alike() -> None:
    giou = BoxAgreement(l1=False)
    WeightedSum({"spatial": (BoxSpatial(giou), 1.0), "think": (BoxThink(giou), 0.5)})
    with pytest.raises(ValueError, match="must agree"):
        WeightedSum({"spatial": (BoxSpatial(giou), 1.0), "think": (BoxThink(), 0.5)})


def test_times_as_intervals() -> None:
    continuous = IndexTemporalIoU("continuous")
    assert_close(score(continuous, said("5 - 7", EXACT)), 1.0)
    assert_close(score(continuous, said("6 - 8", EXACT)), 1 / 3)
    assert score(continuous, said("7 - 8", EXACT)) == 0.0
    assert score(continuous, said("7 - 5", EXACT)) == 0.0
    assert score(continuous, said("6 - 6", EXACT)) == 0.0


def test_without_a_list_to_think_with() -> None:
    language = BoxChain(coordinates="original", think=False)
    answer = language.read(f"<time> 5 - 7 </time> <pred_bbox> {EXACT} </pred_bbox>", VIEW)
    assert score(box_consistency, answer) == 1.0
    assert_close(score(BoxSpatial(), answer), 1.0)
    with pytest.raises(ValueError, match="leave the term out"):
        score(BoxThink(), answer)


def test_other_answers_and_poor_truths_are_refused() -> None:
    for term in (box_consistency, IndexTemporalIoU(), BoxSpatial(), BoxThink()):
        with pytest.raises(ValueError, match="needs answers in lists of boxes"):
            score(term, Answer("", (1.0, 2.0)))
    without_boxes = Truth("v", "q", 10.0, 100, 100, 50, span_frames=(50, 80))
    for term in (BoxSpatial(), BoxThink()):
        with pytest.raises(ValueError, match="has no boxes_xyxy"):
            score(term, said("5 - 7", EXACT, EXACT), without_boxes)
    without_span = Truth("v", "q", 10.0, 100, 100, 50)
    with pytest.raises(ValueError, match="has no span_frames"):
        score(IndexTemporalIoU(), said("5 - 7", EXACT), without_span)
    with pytest.raises(ValueError, match="needs giou, l1, or both"):
        BoxAgreement(giou=False, l1=False)


corners = st.tuples(st.integers(0, 60), st.integers(0, 30), st.integers(1, 40), st.integers(1, 20))
boxes = corners.map(lambda c: (c[0], c[1], c[0] + c[2], c[1] + c[3]))


@given(st.tuples(st.integers(0, 9), st.integers(0, 9)), st.dictionaries(st.integers(0, 9), boxes), boxes)
@settings(deadline=None)
def test_the_spatial_reward_is_the_papers_loop(
    cells: tuple[int, int], predicted: dict[int, tuple[int, ...]], true: tuple[int, ...]
) -> None:
    truth = Truth(
        "v", "q", 10.0, 100, 100, 50, span_frames=(20, 60),
        boxes_xyxy={frame: tuple(float(side) for side in true) for frame in range(20, 60)},
    )  # fmt: skip
    entries = ", ".join(f"{i}. [{', '.join(map(str, box))}]" for i, box in predicted.items())
    answer = said(f"{cells[0]} - {cells[1]}", entries, "")
    start, end = max(2, cells[0]), min(5, cells[1])
    total, empty = 0.0, -5.0
    for i in range(start, end + 1):
        if i not in predicted:
            total -= 5
            continue
        (ax, ay, bx, by), (cx, cy, dx, dy) = predicted[i], true
        shared = max(0, min(bx, dx) - max(ax, cx)) * max(0, min(by, dy) - max(ay, cy))
        union = (bx - ax) * (by - ay) + (dx - cx) * (dy - cy) - shared
        hull = (max(bx, dx) - min(ax, cx)) * (max(by, dy) - min(ay, cy))
        l1 = abs(ax - cx) / 100 + abs(bx - dx) / 100 + abs(ay - cy) / 50 + abs(by - dy) / 50
        total += shared / union - (hull - union) / hull - l1
    expected = 0.0 if start > end else total / (end - start + 1) + empty
    assert_close(score(BoxSpatial(), answer, truth), expected)


def test_what_pays_for_missing_the_time_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    total = WeightedSum({"spatial": (BoxSpatial(), 1.0), "think": (BoxThink(), 0.5)})
    assert not caplog.messages
    answers = [
        said("5 - 7", EXACT, EXACT),
        said("5 - 7", listed(s5=AWAY, s6=AWAY, s7=AWAY), listed(s5=AWAY, s6=AWAY, s7=AWAY)),
        said("0 - 1", EXACT, EXACT),
    ]
    rewarded = total.score(answers, TRUTH)
    assert [answer.notes for answer in rewarded] == [
        {"spatial/empty": 0.0, "spatial/negative": 0.0},
        {"spatial/empty": 0.0, "spatial/negative": 1.0},
        {"spatial/empty": 1.0, "spatial/negative": 0.0},
    ]
    means = reward_values(rewarded, all_gather=lambda tensor: tensor)
    assert_close(means["reward/spatial/empty"], 1 / 3)
    assert_close(means["reward/spatial/negative"], 1 / 3)
    assert "reward/spatial/empty_spread" not in means
    for spatial, think in ((1.0, 1.0), (0.5, 0.5), (0.5, 1.0)):
        caplog.clear()
        WeightedSum({"spatial": (BoxSpatial(), spatial), "think": (BoxThink(), think)})
        assert f"weight {think:g} is not below the spatial reward's, {spatial:g}" in caplog.text
    caplog.clear()
    WeightedSum({"spatial": (BoxSpatial(), 2.0), "think": (BoxThink(), 1.0)})
    assert not caplog.messages
