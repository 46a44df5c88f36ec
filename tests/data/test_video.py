"""Video files: frames come back as they were written, and sizes and rates are those the budget allows."""

from __future__ import annotations

import io
import os
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stvg_lightning.data.video import (
    UnreadableVideo,
    VideoSampling,
    decode_frames,
    encode_mp4,
    probe_video,
    resized_size,
    sampled_frame_indices,
)

REAL_DATA = Path(os.environ.get("STVG_REAL_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def stripes(num_frames: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Frames whose brightness tells their number."""
    levels = (20 + 7 * np.arange(num_frames)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (num_frames, height, width, 3)).copy()


@pytest.fixture(scope="module")
def video() -> bytes:
    return encode_mp4(stripes(30), fps=12.5, crf=4)


def test_a_written_video_says_what_it_is(video: bytes, tmp_path: Path) -> None:
    info = probe_video(video)
    assert (info.fps, info.num_frames, info.width, info.height) == (12.5, 30, 64, 48)
    path = tmp_path / "a.mp4"
    path.write_bytes(video)
    assert probe_video(path) == info


@pytest.mark.parametrize("fps", [8.0, 23.976, 29.97, 30.0, 12.5])
def test_rates_are_kept(fps: float) -> None:
    assert probe_video(encode_mp4(stripes(3), fps)).fps == pytest.approx(fps, abs=1e-3)


@pytest.mark.parametrize("indices", [(0,), (29,), (0, 1, 2), (3, 3, 17, 29), tuple(range(30))])
def test_the_wanted_frames_come_back(video: bytes, indices: tuple[int, ...]) -> None:
    clip = decode_frames(video, indices, 12.5)
    assert clip.frame_indices == indices and clip.fps == 12.5
    assert clip.frames.dtype == np.uint8 and clip.frames.shape == (len(indices), 48, 64, 3)
    errors = np.abs(clip.frames.astype(int) - stripes(30)[list(indices)])
    assert errors.max() <= 3  # neighbours differ by 7


def test_colours_come_back_in_their_places() -> None:
    frames = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    frames[:, :16, :16], frames[:, :16, 16:], frames[:, 16:] = (220, 30, 30), (30, 200, 40), (30, 40, 210)
    decoded = decode_frames(encode_mp4(frames, 8.0, crf=4), (0, 3), 8.0).frames.astype(int)
    for y, x in ((4, 4), (4, 28), (28, 16)):
        assert np.abs(decoded[:, y, x] - frames[[0, 3], y, x]).max() < 12


def test_encoding_is_deterministic_and_crops_odd_sides() -> None:
    frames = stripes(5, 33, 47)
    assert encode_mp4(frames, 8.0) == encode_mp4(frames, 8.0)
    info = probe_video(encode_mp4(frames, 8.0))
    assert (info.height, info.width) == (32, 46)


@pytest.mark.parametrize("indices", [(), (3, 2), (-1, 0)])
def test_impossible_frame_numbers_are_refused(video: bytes, indices: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="frame_indices"):
        decode_frames(video, indices, 12.5)


def test_no_frames_are_no_video() -> None:
    with pytest.raises(ValueError, match="make no video"):
        encode_mp4(np.zeros((0, 32, 32, 3), dtype=np.uint8), 8.0)


def sound_only() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def test_unreadable_videos_are_named(video: bytes, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(video[: len(video) // 2])
    silent = tmp_path / "sound.wav"
    silent.write_bytes(sound_only())
    for content, message in (
        (b"", "a video of 0 bytes"),
        (b"no video at all", "a video of 15 bytes"),
        (broken, "broken.mp4"),
        (silent, "sound.wav.*no video stream"),
    ):
        for read in (probe_video, lambda given: decode_frames(given, (0,), 8.0)):
            with pytest.raises(UnreadableVideo, match=message):
                read(content)
    for read in (probe_video, lambda given: decode_frames(given, (0,), 8.0)):
        with pytest.raises(FileNotFoundError, match=r"there is no video at .*none\.mp4"):
            read(tmp_path / "none.mp4")


def test_one_frame_behind_the_end_is_the_last_one(video: bytes) -> None:
    last = probe_video(video).num_frames - 1
    clip = decode_frames(video, (0, last, last + 1), 8.0)
    assert (clip.frames[2] == clip.frames[1]).all() and (clip.frames[0] != clip.frames[1]).any()
    with pytest.raises(UnreadableVideo, match="1 frames are missing"):
        decode_frames(video, (0, last, last + 2), 8.0)


def test_a_video_that_ends_early_says_so(video: bytes) -> None:
    with pytest.raises(UnreadableVideo, match="ends early: frame 31 was wanted, 2 frames are missing"):
        decode_frames(video, (5, 30, 31), 12.5)


@given(st.binary(max_size=400), st.integers(0, 1500))
def test_damaged_bytes_raise_nothing_but_unreadable_video(noise: bytes, place: int) -> None:
    content = encode_mp4(stripes(2, 16, 16), 8.0)
    damaged = content[:place] + noise + content[place + len(noise) :]
    for read in (probe_video, lambda given: decode_frames(given, (0, 1), 8.0)):
        try:
            read(damaged)
        except UnreadableVideo as error:
            assert f"a video of {len(damaged)} bytes" in str(error)


@given(
    num_frames=st.integers(1, 3000),
    fps=st.floats(1, 60),
    wished=st.floats(0.1, 8),
    min_frames=st.integers(1, 8),
    spare=st.integers(0, 60),
    multiple_of=st.integers(1, 4),
)
def test_sampled_frames_are_even_ascending_and_within_limits(
    num_frames: int, fps: float, wished: float, min_frames: int, spare: int, multiple_of: int
) -> None:
    sampling = VideoSampling(fps=wished, min_frames=min_frames, max_frames=min_frames + spare)
    indices = sampled_frame_indices(num_frames, fps, sampling, multiple_of)
    assert len(indices) % multiple_of == 0 and len(indices) <= max(sampling.max_frames, multiple_of)
    assert indices[0] == 0 and indices[-1] < num_frames and list(indices) == sorted(indices)
    gaps = np.diff(indices)
    assert not len(gaps) or gaps.max() - gaps.min() <= 1
    most = max(min(num_frames, sampling.max_frames) // multiple_of, 1) * multiple_of
    ideal = min(max(num_frames / fps * wished, min(min_frames, num_frames), multiple_of), most)
    assert abs(len(indices) - ideal) <= multiple_of / 2 + 1e-9


@pytest.mark.parametrize(
    ("num_frames", "fps", "expected"),
    [
        (40, 8.0, (0, 4, 8, 12, 16, 20, 24, 28, 32, 36)),  # 5 seconds at 2 a second
        (16, 8.0, (0, 4, 8, 12)),
        (3, 30.0, (0, 1)),  # at most the frames there are, and an even number
        (1, 30.0, (0, 0)),  # a single frame is repeated to fill one step of time
        (10, 30.0, (0, 2, 5, 7)),  # at least 4
    ],
)
def test_sampled_frames_by_hand(num_frames: int, fps: float, expected: tuple[int, ...]) -> None:
    assert sampled_frame_indices(num_frames, fps, VideoSampling()) == expected


def test_impossible_samplings_are_refused() -> None:
    with pytest.raises(ValueError, match="fps must be above 0, not 0"):
        VideoSampling(fps=0.0)
    with pytest.raises(ValueError, match="min_frames 5 must lie in 1 to max_frames 4"):
        VideoSampling(min_frames=5, max_frames=4)
    with pytest.raises(ValueError, match="num_frames must be at least 1, not 0"):
        sampled_frame_indices(0, 8.0, VideoSampling())


@settings(deadline=None)  # the first example imports transformers
@given(
    height=st.integers(32, 2000),
    width=st.integers(32, 2000),
    num_frames=st.integers(2, 768),
    side_multiple=st.sampled_from([28, 32]),
)
def test_sizes_are_those_of_the_models_own_rule(height: int, width: int, num_frames: int, side_multiple: int) -> None:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    sampling = VideoSampling()
    most = min(sampling.max_frame_pixels, sampling.total_pixels * 2 / num_frames)
    most = max(most, sampling.min_frame_pixels)
    expected = smart_resize(height, width, side_multiple, sampling.min_frame_pixels, most)
    assert resized_size(height, width, num_frames, sampling, side_multiple) == tuple(expected)


def test_the_paper_s_example_of_a_size() -> None:
    """STVG-R1, section 3.1: 30 s at 2 frames a second; Charades' 480 x 270 becomes 308 x 168, within the budget."""
    height, width = resized_size(270, 480, 60, VideoSampling(), 28)
    assert (height, width) == (168, 308)
    assert 60 / 2 * height * width <= VideoSampling().total_pixels
    with pytest.raises(ValueError, match="a frame of 2010 x 10 pixels is too narrow"):
        resized_size(10, 2010, 60, VideoSampling(), 28)


@given(
    height=st.integers(32, 2000),
    width=st.integers(32, 2000),
    longest_side=st.sampled_from([100, 330, 336, 3000]),
    side_multiple=st.sampled_from([28, 32]),
)
@example(height=266, width=309, longest_side=330, side_multiple=28)  # 309 rounds down to the bound: nothing to shrink
def test_no_side_is_longer_than_the_longest(height: int, width: int, longest_side: int, side_multiple: int) -> None:
    sampling = VideoSampling(longest_side=longest_side, min_frame_pixels=1)
    shown = resized_size(height, width, 2, sampling, side_multiple)
    free = resized_size(height, width, 2, VideoSampling(min_frame_pixels=1), side_multiple)
    assert max(shown) <= longest_side and all(side % side_multiple == 0 for side in shown)
    assert shown == free or max(free) > longest_side // side_multiple * side_multiple


def test_the_longest_side_by_hand() -> None:
    """STVG-o1: the longer side is at most 336 pixels, the aspect kept; Qwen2.5-VL's sides are multiples of 28."""
    sampling = VideoSampling(longest_side=336, total_pixels=10**8)
    assert resized_size(480, 640, 40, sampling, 28) == (252, 336)
    assert resized_size(640, 480, 40, sampling, 28) == (336, 252)
    assert resized_size(200, 300, 40, sampling, 28) == (196, 308)
    with pytest.raises(ValueError, match="longest_side must be at least 1, not 0"):
        VideoSampling(longest_side=0)


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"there is no real data at {REAL_DATA}")
@pytest.mark.parametrize("name", ["charades/5INX3.mp4", "vidor_vidstg/4591061010.mp4"])
def test_real_videos_are_counted_as_they_decode(name: str) -> None:
    path = REAL_DATA / "videos" / name
    info = probe_video(path)
    last = info.num_frames - 1
    clip = decode_frames(path, (0, last // 2, last), info.fps)
    assert clip.frames.shape == (3, info.height, info.width, 3)
    with pytest.raises(UnreadableVideo, match="ends early"):
        decode_frames(path, (last + 2,), info.fps)
