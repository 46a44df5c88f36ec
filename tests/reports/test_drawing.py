"""Drawn tubes: the right colour in the right place of the right frames, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageColor

from stvg_lightning.data.video import decode_frames, probe_video
from stvg_lightning.reports import TimedTube, display_scale, drawn_video, tubes_video
from stvg_lightning.reports.drawing import PREDICTED_COLOR, TRUE_COLOR
from stvg_lightning.tubes import Clip

GRAY = 128


def gray_clip(num_frames: int = 6, width: int = 100, height: int = 80) -> Clip:
    return Clip(np.full((num_frames, height, width, 3), GRAY, np.uint8), tuple(range(num_frames)), 4.0)


def is_color(frames: np.ndarray, color: str) -> np.ndarray:
    return (frames == np.array(ImageColor.getrgb(color), np.uint8)).all(axis=-1)


def test_predicted_edges_lie_inside_the_box_in_the_frames_of_the_span_only():
    box = (40.0, 20.0, 60.0, 50.0)
    tube = TimedTube((2, 4), {frame: box for frame in range(6)})
    frames = tubes_video(gray_clip(), None, tube, scale=4.0)
    assert frames.shape == (6, 320, 400, 3)
    magenta = is_color(frames, PREDICTED_COLOR)
    assert magenta.any(axis=(1, 2)).tolist() == [False, False, True, True, False, False]
    assert (frames[[0, 1, 4, 5]] == GRAY).all()
    edge = np.zeros((320, 400), dtype=bool)
    edge[80:200, 160:240] = True
    edge[84:196, 164:236] = False
    assert magenta[2][edge].all()
    # Beside the edge only the label is coloured: it hangs below the box, from its left corner on.
    outside = (frames[2] != GRAY).any(axis=-1) & ~edge
    rows, columns = np.nonzero(outside)
    assert rows.min() == 200 and rows.max() < 225 and columns.min() == 160 and columns.max() < 250


def test_true_edges_lie_outside_the_box_so_that_an_equal_prediction_hides_nothing():
    tube = TimedTube((0, 1), {0: (40.0, 20.0, 60.0, 50.0)})
    frame = tubes_video(gray_clip(1), tube, tube, scale=4.0)[0]
    assert is_color(frame, TRUE_COLOR)[140, 156:160].all() and is_color(frame, PREDICTED_COLOR)[140, 160:164].all()
    assert not is_color(frame, TRUE_COLOR)[140, 160:240].any()
    assert (frame[140, 164:236] == GRAY).all()


def test_each_frame_shows_the_box_of_its_own_number_in_the_video():
    clip = Clip(np.full((3, 80, 100, 3), GRAY, np.uint8), (0, 10, 20), 4.0)
    boxes = {10: (0.0, 30.0, 10.0, 40.0), 20: (80.0, 30.0, 90.0, 40.0)}
    frames = tubes_video(clip, None, TimedTube((5, 30), boxes), scale=4.0)
    magenta = is_color(frames, PREDICTED_COLOR)
    assert not magenta[0].any()
    assert magenta[1][:, :50].any() and not magenta[1][:, 200:].any()
    assert magenta[2][:, 320:].any() and not magenta[2][:, :200].any()


@pytest.mark.parametrize("box", [(-50.0, 10.0, -10.0, 20.0), (200.0, 10.0, 300.0, 20.0), (10.0, 90.0, 20.0, 95.0)])
def test_a_box_outside_the_frame_draws_nothing(box):
    frames = tubes_video(gray_clip(1), None, TimedTube((0, 1), {0: box}))
    assert (frames == GRAY).all()


def test_a_box_that_reaches_over_the_frame_is_cut_at_it():
    frame = tubes_video(gray_clip(1), None, TimedTube((0, 1), {0: (-5.0, -5.0, 500.0, 500.0)}), scale=4.0)[0]
    magenta = is_color(frame, PREDICTED_COLOR)
    assert magenta[:3].all() and magenta[:, :3].all() and magenta[:, -3:].all()
    assert (frame[100, 50:350] == GRAY).all()


@pytest.mark.parametrize("width, scale", [(1, 320.0), (128, 3.0), (319, 2.0), (320, 1.0), (640, 1.0), (1920, 1 / 3)])
def test_display_scale(width, scale):
    assert display_scale(width) == scale
    with pytest.raises(ValueError, match="scale"):
        tubes_video(gray_clip(1), None, None, scale=0.0)


def test_drawn_video_plays_in_real_time_whatever_frames_were_taken():
    tube = TimedTube((0, 24), {frame: (40.0, 20.0, 60.0, 50.0) for frame in range(24)})
    clip = Clip(gray_clip().frames, (0, 4, 8, 12, 16, 20), 4.0)
    video = drawn_video(clip, tube, None, duration_seconds=6.0)
    info = probe_video(video)
    assert (info.fps, info.num_frames, info.width, info.height) == (1.0, 6, 400, 320)
    pixel = decode_frames(video, [3], 1.0).frames[0, 140, 157].astype(int)
    assert np.abs(pixel - np.array(ImageColor.getrgb(TRUE_COLOR))).max() < 60
    assert video == drawn_video(clip, tube, None, duration_seconds=6.0)
    with pytest.raises(ValueError, match="duration_seconds"):
        drawn_video(clip, tube, None, duration_seconds=0.0)
