"""Which detections are taken, and which of them are new: cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.prompting import Detection, DetectionFilter, Judgement, NewInstanceRule
from stvg_lightning.tubes import Box, decode_mask, encode_mask, mask_area, mask_box, mask_overlaps, rle_box
from tests.helpers import assert_close
from tests.prompting.scenes import HEIGHT, WIDTH, mask_of

BASE = (10.0, 10.0, 20.0, 20.0)
MASKS = NewInstanceRule(compare="masks")
REPLACE = NewInstanceRule(compare="masks", swallowing="replace")


def judged(rule: NewInstanceRule, box: Box, *tracked: Box) -> Judgement:
    masks = {number: mask_of(other) for number, other in enumerate(tracked, start=1)}
    return rule.judge([box], [mask_of(box)], masks)


@pytest.mark.parametrize("rule", [NewInstanceRule(), MASKS, REPLACE])
@pytest.mark.parametrize(
    ("box", "is_new"),
    [
        ((30.0, 10.0, 40.0, 20.0), True),  # apart
        (BASE, False),  # the same
        ((14.0, 10.0, 24.0, 20.0), False),  # 60 of 140: IoU 0.429
        ((15.0, 10.0, 25.0, 20.0), True),  # 50 of 150: IoU 0.333, overlap 0.5
        ((12.0, 12.0, 16.0, 16.0), False),  # wholly inside: IoU 0.16, overlap 1
        ((16.0, 10.0, 22.0, 15.0), False),  # 20 of 110: IoU 0.18, overlap 20 / 30
        ((18.0, 10.0, 22.0, 15.0), True),  # 10 of 110: overlap 0.5
    ],
)
def test_a_detection_is_new_below_both_thresholds(rule: NewInstanceRule, box: Box, is_new: bool) -> None:
    assert judged(rule, box, BASE) == Judgement((0,) if is_new else ())
    assert judged(rule, box, (50.0, 30.0, 60.0, 40.0), BASE) == Judgement((0,) if is_new else ())


def test_thresholds_themselves_are_no_longer_new() -> None:
    half_inside = (16.0, 10.0, 26.0, 20.0)  # 40 of 160: IoU 0.25, overlap 0.4
    assert judged(NewInstanceRule(iou=0.25, overlap=1.0), half_inside, BASE).new == ()
    assert judged(NewInstanceRule(iou=0.26, overlap=0.4), half_inside, BASE).new == ()
    assert judged(NewInstanceRule(iou=0.26, overlap=0.41), half_inside, BASE).new == (0,)


def test_a_larger_one_is_refused_or_takes_the_place_of_all_it_covers() -> None:
    large = (5.0, 5.0, 35.0, 30.0)
    others = (BASE, (22.0, 12.0, 30.0, 20.0), (50.0, 30.0, 60.0, 40.0))
    assert judged(MASKS, large, *others) == Judgement(())
    assert judged(REPLACE, large, *others) == Judgement((0,), (1, 2))
    inside_another = (0.0, 0.0, 60.0, 46.0)
    assert judged(REPLACE, large, *others, inside_another) == Judgement(()), "it is itself covered by a larger one"


def test_boxes_and_masks_can_disagree() -> None:
    """A thin cross has a large box and few pixels."""
    cross = np.zeros((HEIGHT, WIDTH), dtype=bool)
    cross[10:40, 24:26] = cross[24:26, 10:40] = True
    corner = (12.0, 12.0, 22.0, 22.0)
    tracked = {1: encode_mask(cross)}
    assert NewInstanceRule().judge([corner], None, tracked).new == ()
    assert MASKS.judge([corner], [mask_of(corner)], tracked).new == (0,)


def test_detections_of_one_frame_are_not_compared_with_each_other() -> None:
    boxes = [BASE, (12.0, 12.0, 16.0, 16.0)]
    assert NewInstanceRule().judge(boxes, None, {1: mask_of((40.0, 30.0, 50.0, 40.0))}).new == (0, 1)
    assert NewInstanceRule().judge(boxes, None, {}).new == (0, 1)
    assert NewInstanceRule().judge([], None, {1: mask_of(BASE)}) == Judgement(())


def test_a_thing_whose_mask_is_empty_hides_nothing() -> None:
    assert judged(NewInstanceRule(), BASE, (0.0, 0.0, 0.0, 0.0)).new == (0,)


def detection(x: float, category: str = "person", confidence: float = 0.5) -> Detection:
    return Detection((float(x), 10.0, x + 10.0, 20.0), category, confidence)


def test_unsure_and_unwanted_detections_are_left_out() -> None:
    found = [detection(0, "dog", 0.25), detection(15, "person", 0.2499), detection(30, "person", 0.9)]
    assert DetectionFilter()(found, HEIGHT, WIDTH) == [found[2], found[0]]
    assert DetectionFilter(kinds="person")(found, HEIGHT, WIDTH) == [found[2]]
    assert DetectionFilter(kinds="non-person")(found, HEIGHT, WIDTH) == [found[0]]
    assert DetectionFilter(least_confidence=0.1)(found, HEIGHT, WIDTH) == [found[2], found[0], found[1]]


def test_one_thing_under_two_names_is_taken_once() -> None:
    found = [detection(10, "sheep", 0.4), detection(11, "dog", 0.8), detection(13, "cow", 0.3)]
    assert DetectionFilter()(found, HEIGHT, WIDTH) == [found[1], found[2]]  # 0.82 with the first, 0.67 with the last
    assert DetectionFilter(most_iou=1.0)(found, HEIGHT, WIDTH) == [found[1], found[0], found[2]]


def test_boxes_are_clipped_to_the_frame() -> None:
    found = [detection(-4), detection(WIDTH - 3.0), detection(WIDTH + 1.0)]
    boxes = [d.box_xyxy for d in DetectionFilter()(found, HEIGHT, WIDTH)]
    assert boxes == [(0.0, 10.0, 6.0, 20.0), (WIDTH - 3.0, 10.0, float(WIDTH), 20.0)]


coordinates = st.tuples(*(st.integers(0, side) for side in (WIDTH, HEIGHT, WIDTH, HEIGHT)))


@given(coordinates, coordinates)
def test_masks_are_compared_as_their_pixels_are(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    corners = [(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)) for x1, y1, x2, y2 in (first, second)]
    rles = [mask_of((float(x1), float(y1), float(x2), float(y2))) for x1, y1, x2, y2 in corners]
    one, two = (decode_mask(rle) for rle in rles)
    shared, union, smaller = (one & two).sum(), (one | two).sum(), min(one.sum(), two.sum())
    ious, shares = mask_overlaps(rles[:1], rles[1:])
    assert_close(ious, [[shared / union if shared else 0.0]])
    assert_close(shares, [[shared / smaller if shared else 0.0]])
    assert mask_area(rles[0]) == one.sum() and rle_box(rles[0]) == mask_box(one)
