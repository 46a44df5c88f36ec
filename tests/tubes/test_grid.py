"""Cells of time by hand and against naive loops; boxes between boxes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stvg_lightning.tubes import span_seconds_to_frames
from stvg_lightning.tubes.grid import TimeGrid, index_span_iou, interpolated
from tests.helpers import assert_close

RATES = st.sampled_from([1.0, 8.0, 23.976, 24000 / 1001, 25.0, 29.97, 30000 / 1001, 59.94])


@given(RATES, st.integers(1, 300), st.data())
@settings(deadline=None)
def test_cells_of_a_span_are_those_it_has_a_frame_in(fps: float, num_frames: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, num_frames - 1))
    end = data.draw(st.integers(start + 1, num_frames))
    grid = TimeGrid.of_seconds(fps, num_frames)
    second_of = [math.floor((frame + 0.5) / fps + 1e-6 / fps) for frame in range(num_frames)]
    assert grid.num_cells == second_of[-1] + 1
    first, last = grid.cells_of((start, end))
    assert sorted(set(second_of[start:end])) == list(range(first, last + 1))


@given(RATES, st.integers(0, 20), st.integers(1, 20))
@settings(deadline=None)
def test_whole_seconds_are_read_as_they_are_scored(fps: float, first: int, length: int) -> None:
    """A span of whole seconds, in frames, has just these seconds; and they are these frames."""
    num_frames = round(45 * fps)
    grid = TimeGrid.of_seconds(fps, num_frames)
    frames = span_seconds_to_frames((float(first), float(first + length)), fps, num_frames)
    assert grid.cells_of(frames) == (first, first + length - 1)
    assert span_seconds_to_frames(grid.seconds_of((first, first + length - 1)), fps, num_frames) == frames


def test_cells_by_hand() -> None:
    seconds = TimeGrid.of_seconds(fps=10.0, num_frames=95)
    assert seconds.num_cells == 10
    assert seconds.cells_of((50, 80)) == (5, 7)
    assert seconds.cells_of((50, 81)) == (5, 8)
    assert seconds.cells_of((49, 80)) == (4, 7)
    assert seconds.seconds_of((5, 7)) == (5.0, 8.0)
    assert seconds.seconds_of((8, 9)) == (8.0, 9.5)
    assert seconds.seconds_of((9, 40)) == (9.0, 9.5)
    assert seconds.seconds_of((50, 60)) == (9.5, 9.5)
    assert seconds.seconds_of((7, 5)) == (7.0, 6.0)
    assert TimeGrid.of_seconds(29.97, 300).starts_frames[5] == 150  # 149.85
    assert TimeGrid.of_seconds(30000 / 1001, 300).num_cells == 10
    shown = TimeGrid.of_frames((0, 4, 8, 12), fps=8.0, num_frames=16)
    assert shown.cells_of((5, 9)) == (1, 2)
    assert shown.cells_of((4, 8)) == (1, 1)
    assert shown.seconds_of((1, 2)) == (0.5, 1.5)
    assert shown.seconds_of((3, 3)) == (1.5, 2.0)


def test_boxes_of_cells_are_those_of_the_nearest_frame() -> None:
    grid = TimeGrid.of_seconds(fps=10.0, num_frames=50)
    tube = {frame: (0.0, 0.0, float(frame), 1.0) for frame in (14, 18, 22, 30)}
    boxes = grid.boxes_of(tube, (1, 4))
    assert {index: box[2] for index, box in boxes.items()} == {1: 14.0, 2: 18.0, 3: 30.0, 4: 30.0}
    assert grid.boxes_of({}, (1, 4)) == {}


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ((5, 7), (5, 7), 1.0),
        ((5, 7), (7, 9), 1 / 5),
        ((5, 7), (6, 9), 2 / 5),
        ((5, 7), (8, 9), 0.0),
        ((6, 6), (5, 8), 1 / 4),
        ((7, 5), (5, 7), 0.0),
        ((0, 999), (5, 7), 3 / 1000),
    ],
)
def test_overlap_of_indices_by_hand(predicted: tuple[int, int], true: tuple[int, int], expected: float) -> None:
    assert_close(index_span_iou(predicted, true), expected, atol=1e-12)


def test_between_boxes_lie_straight_lines_and_outside_they_rest() -> None:
    filled = interpolated({10: (0.0, 10.0, 20.0, 30.0), 14: (8.0, 10.0, 20.0, 34.0), 15: (0.0, 0.0, 1.0, 1.0)}, (8, 17))
    assert list(filled) == list(range(8, 17))
    assert filled[8] == filled[9] == filled[10] == (0.0, 10.0, 20.0, 30.0)
    assert filled[11] == (2.0, 10.0, 20.0, 31.0)
    assert filled[13] == (6.0, 10.0, 20.0, 33.0)
    assert filled[14] == (8.0, 10.0, 20.0, 34.0)
    assert filled[15] == filled[16] == (0.0, 0.0, 1.0, 1.0)
