"""Which frames of a sub-clip are read, and moved spans."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.data.clips import ClipSampling, shifted_span


@given(st.integers(1, 400), st.data(), st.sampled_from([8.0, 10.0, 23.976, 29.97, 60.0, 1.5]), st.integers(1, 20))
def test_frames_lie_inside_ascend_and_are_few(num_frames: int, data: st.DataObject, fps: float, most: int) -> None:
    start = data.draw(st.integers(0, num_frames - 1))
    end = data.draw(st.integers(start + 1, num_frames))
    frames = ClipSampling(fps=2.0, max_frames=most).frames_of((start, end), fps, num_frames)
    assert 1 <= len(frames) <= most and all(start <= frame < end for frame in frames)
    assert list(frames) == sorted(set(frames))


@given(st.integers(20, 400), st.data(), st.sampled_from([8.0, 29.97, 60.0]))
def test_sub_clips_of_a_video_share_their_frames(num_frames: int, data: st.DataObject, fps: float) -> None:
    whole = set(ClipSampling(max_frames=1000).frames_of((0, num_frames), fps, num_frames))
    start = data.draw(st.integers(0, num_frames - 1))
    end = data.draw(st.integers(start + 1, num_frames))
    inside = [frame for frame in sorted(whole) if start <= frame < end]
    found = ClipSampling(max_frames=1000).frames_of((start, end), fps, num_frames)
    assert list(found) == (inside or [(start + end) // 2])


def test_a_long_sub_clip_is_thinned_out_evenly() -> None:
    frames = ClipSampling(fps=10.0, max_frames=5).frames_of((0, 100), 10.0, 100)
    assert frames == (10, 30, 50, 70, 90)
    assert ClipSampling(fps=30.0).frames_of((3, 7), 10.0, 100) == (3, 4, 5, 6), "no frame twice"


def test_a_moved_span_keeps_its_length_inside_the_video() -> None:
    assert shifted_span((10, 30), 5, 100) == (15, 35)
    assert shifted_span((10, 30), -64, 100) == (0, 20)
    assert shifted_span((70, 90), 64, 100) == (80, 100)
    assert shifted_span((0, 100), 64, 100) == (0, 100)


@pytest.mark.parametrize("wrong", [{"fps": 0.0}, {"max_frames": 0}])
def test_numbers_must_be_above_0(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        ClipSampling(**wrong)
