"""Spans, boxes and masks against hand-worked cases and naive loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stvg_lightning.tubes import (
    box_areas,
    box_intersections,
    box_iou_matrix,
    box_mask,
    decode_mask,
    encode_mask,
    mask_box,
    mask_center,
    paired_box_iou,
    rle_box,
    rle_center,
    span_frames_to_seconds,
    span_intersection,
    span_iou,
    span_length,
    span_seconds_to_frames,
)
from stvg_lightning.tubes.boxes import tube_ious
from tests.helpers import assert_close

times = st.integers(-50, 150).map(lambda tenths: tenths / 10)
spans = st.tuples(times, times)
sides = st.integers(0, 12).map(float)
boxes = st.tuples(sides, sides, sides, sides)


def tensor_of(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ((4.0, 8.0), (6.0, 10.0), 2 / 6),
        ((0.0, 10.0), (2.0, 4.0), 0.2),
        ((1.0, 2.0), (1.0, 2.0), 1.0),
        ((0.0, 1.0), (1.0, 2.0), 0.0),
        ((0.0, 1.0), (5.0, 6.0), 0.0),
        ((8.0, 4.0), (4.0, 8.0), 0.0),
        ((3.0, 3.0), (3.0, 3.0), 0.0),
        ((3.0, 3.0), (2.0, 4.0), 0.0),
    ],
)
def test_span_iou_by_hand(predicted: tuple[float, float], true: tuple[float, float], expected: float) -> None:
    assert_close(span_iou(predicted, true), expected, atol=1e-12)


@given(spans, spans)
def test_span_iou_counts_tenths(first: tuple[float, float], second: tuple[float, float]) -> None:
    cells = [set(range(round(a * 10), round(b * 10))) for a, b in (first, second)]
    union = len(cells[0] | cells[1])
    assert_close(span_iou(first, second), len(cells[0] & cells[1]) / union if union else 0.0, atol=1e-9)
    assert_close(span_length(first), len(cells[0]) / 10, atol=1e-9)
    assert_close(span_length(span_intersection(first, second)), len(cells[0] & cells[1]) / 10, atol=1e-9)


@given(spans, st.sampled_from([1.0, 5.0, 8.0, 25.0, 29.97, 30.0]), st.integers(1, 200))
@settings(deadline=None)
def test_frames_of_a_span_are_those_whose_middle_lies_in_it(
    span: tuple[float, float], fps: float, num_frames: int
) -> None:
    start, end = span_seconds_to_frames(span, fps, num_frames)
    slack = 1e-5
    inside = [i for i in range(num_frames) if span[0] * fps - slack <= i + 0.5 < span[1] * fps - slack]
    assert 0 <= start <= end <= num_frames
    if inside:
        assert list(range(start, end)) == inside
    elif span[0] < span[1] and span[1] > 0 and span[0] < num_frames / fps:
        assert (start, end) == (max(math.floor(span[0] * fps + 1e-6), 0), start + 1)
    else:
        assert start == end


@given(st.data(), st.floats(0.5, 240), st.integers(1, 100_000))
def test_frames_to_seconds_and_back(data: st.DataObject, fps: float, num_frames: int) -> None:
    start = data.draw(st.integers(0, num_frames - 1))
    end = data.draw(st.integers(start + 1, num_frames))
    assert span_seconds_to_frames(span_frames_to_seconds((start, end), fps), fps, num_frames) == (start, end)


@pytest.mark.parametrize(
    ("span", "fps", "num_frames", "expected"),
    [
        ((0.5, 1.0), 8.0, 16, (4, 8)),
        ((-5.0, 99.0), 8.0, 16, (0, 16)),
        ((1.9, 99.0), 8.0, 16, (15, 16)),
        ((1.99, 99.0), 8.0, 16, (15, 16)),
        ((2.0, 99.0), 8.0, 16, (0, 0)),
        ((1.0, 0.5), 8.0, 16, (0, 0)),
        ((math.nan, 1.0), 8.0, 16, (0, 0)),
        # 4.35 * 100 is 434.99999999999994 in binary; the frame that starts there is 435.
        ((4.35, 4.351), 100.0, 1000, (435, 436)),
    ],
)
def test_frames_of_a_span_by_hand(
    span: tuple[float, float], fps: float, num_frames: int, expected: tuple[int, int]
) -> None:
    assert span_seconds_to_frames(span, fps, num_frames) == expected


@given(boxes, boxes)
def test_box_iou_counts_cells(first: tuple[float, ...], second: tuple[float, ...]) -> None:
    cells = [
        {(x, y) for x in range(int(box[0]), int(box[2])) for y in range(int(box[1]), int(box[3]))}
        for box in (first, second)
    ]
    shared, union = len(cells[0] & cells[1]), len(cells[0] | cells[1])
    assert_close(box_areas(tensor_of(first)), [len(cells[0])])
    assert_close(box_intersections(tensor_of(first), tensor_of(second)), [shared])
    assert_close(paired_box_iou(tensor_of(first), tensor_of(second)), [shared / union if union else 0.0])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0.0, 0.0, 10.0, 10.0), (5.0, 5.0, 15.0, 15.0), 25 / 175),
        ((0.0, 0.0, 10.0, 10.0), (9.0, 0.0, 20.0, 10.0), 10 / 200),
        ((0.1, 0.1, 0.4, 0.4), (0.2, 0.2, 0.5, 0.5), 4 / 14),
        ((1e-4, 1e-4, 2e-4, 2e-4), (1e-4, 1e-4, 2e-4, 2e-4), 1.0),
        ((0.0, 0.0, 1e-9, 1e-9), (0.0, 0.0, 1e-9, 2e-9), 0.5),
        ((5.0, 5.0, 5.0, 5.0), (5.0, 5.0, 5.0, 5.0), 0.0),
    ],
)
def test_box_iou_is_continuous(first: tuple[float, ...], second: tuple[float, ...], expected: float) -> None:
    assert_close(paired_box_iou(tensor_of(first), tensor_of(second)), [expected])


def test_the_iou_matrix_holds_each_pair() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(n, 4, generator=generator).sort(dim=1).values for n in (3, 5))
    matrix = box_iou_matrix(first, second)
    assert matrix.shape == (3, 5)
    for i in range(3):
        for j in range(5):
            assert_close(matrix[i, j], paired_box_iou(first[i], second[j]))
    assert box_iou_matrix(first[:0], second).shape == (0, 5)


def test_tube_ious_frame_by_frame() -> None:
    predicted = {0: (0.0, 0.0, 2.0, 2.0), 1: (0.0, 0.0, 1.0, 1.0), 7: (0.0, 0.0, 4.0, 1.0)}
    true = {0: (0.0, 0.0, 2.0, 1.0), 2: (0.0, 0.0, 1.0, 1.0), 7: (2.0, 0.0, 6.0, 1.0)}
    assert_close(tube_ious(predicted, true, [7, 0, 1, 2, 9]), [1 / 3, 0.5, 0.0, 0.0, 0.0])
    assert tube_ious(predicted, true, []).shape == (0,)


@given(st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_masks_survive_encoding(height: int, width: int, random: object) -> None:
    mask = np.array([[random.random() < 0.4 for _ in range(width)] for _ in range(height)])
    rle = encode_mask(mask)
    assert rle["size"] == [height, width] and isinstance(rle["counts"], str)
    assert np.array_equal(decode_mask(rle), mask) and decode_mask(rle).dtype == bool
    box = mask_box(mask)
    if not mask.any():
        assert box is None and mask_center(mask) is None and rle_center(encode_mask(mask)) is None
        return
    x1, y1, x2, y2 = box
    outside = mask.copy()
    outside[int(y1) : int(y2), int(x1) : int(x2)] = False
    assert not outside.any()
    assert mask[int(y1)].any() and mask[int(y2) - 1].any() and mask[:, int(x1)].any() and mask[:, int(x2) - 1].any()
    x, y = mask_center(mask)
    assert rle_center(encode_mask(mask)) == (x, y) and rle_box(encode_mask(mask)) == box
    assert x1 < x < x2 and y1 < y < y2


def test_the_mask_of_a_box_is_clipped_to_the_frame() -> None:
    mask = box_mask((-3.0, 1.0, 2.0, 99.0), height=4, width=5)
    assert mask_box(mask) == (0.0, 1.0, 2.0, 4.0)
    assert not box_mask((-9.0, -9.0, -3.0, -3.0), height=4, width=5).any()
    assert not box_mask((3.0, 3.0, 1.0, 1.0), height=4, width=5).any()


def test_the_center_of_a_hollow_shape_is_on_its_middle_row() -> None:
    mask = np.zeros((5, 9), dtype=bool)
    mask[:, 0] = True
    mask[4, :] = True
    assert mask_center(mask) == (0.5, 2.5)
    assert mask_center(box_mask((2.0, 1.0, 6.0, 4.0), 5, 9)) == (4.0, 2.5)
