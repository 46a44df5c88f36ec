"""Frames of a video in both directions: the same frames, and only a window of them at a time."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stvg_lightning.data import frames as module
from stvg_lightning.data.frames import VideoFrames
from stvg_lightning.data.video import UnreadableVideo, encode_mp4, every_frame

NUM_FRAMES = 50


def moving(num_frames: int = NUM_FRAMES) -> np.ndarray:
    """Every frame is another."""
    pictures = np.zeros((num_frames, 48, 64, 3), dtype=np.uint8)
    for index, picture in enumerate(pictures):
        picture[:, : index + 1] = (3 * index, 255 - 4 * index, 128)
    return pictures


def encoded(times: list[int], container_format: str = "mp4", codec: str = "libx264", **options: str) -> bytes:
    """A video whose frame i is shown at `times[i]` milliseconds."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time, picture in zip(times, moving(len(times)), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


REGULAR = [40 * index for index in range(NUM_FRAMES)]
VARIABLE = [40 * index + (13 * index * index) % 37 for index in range(NUM_FRAMES)]
VIDEOS = {
    "mp4 with one key frame": lambda: encoded(REGULAR),
    "mp4 with many key frames and B frames": lambda: encoded(REGULAR, g="7", bf="3"),
    "mp4 of a variable rate": lambda: encoded(VARIABLE, g="10"),
    "matroska": lambda: encoded(REGULAR, "matroska", g="12"),
    "avi, which tells no times": lambda: encoded(REGULAR, "avi", "mpeg4", g="12"),
    "transport stream": lambda: encoded(REGULAR, "mpegts", g="12", bf="2"),
}


@pytest.mark.parametrize("name", VIDEOS)
@pytest.mark.parametrize("window_frames", [1, 7, 64])
def test_backwards_are_the_same_frames_in_reverse(name: str, window_frames: int) -> None:
    video = VIDEOS[name]()
    plain = [frame.to_ndarray(format="rgb24") for frame in every_frame(video)]
    frames = VideoFrames(video, window_frames)
    forward = list(frames.forward())
    assert [index for index, _ in forward] == list(range(len(plain))) and len(plain) >= NUM_FRAMES - 1
    assert all((picture == other).all() for (_, picture), other in zip(forward, plain, strict=True))
    for last in (len(plain) - 1, 23, 0):
        backward = list(frames.backward(last))
        assert [index for index, _ in backward] == list(range(last, -1, -1))
        assert all((picture == plain[index]).all() for index, picture in backward)


def test_real_videos_backwards(real_data: Path) -> None:
    for path in ("videos/charades/OHOFG.mp4", "videos/vidor_vidstg/4591061010.mp4"):
        frames = VideoFrames(real_data / path, window_frames=32)
        sums = [int(picture.sum()) for _, picture in frames.forward()]
        assert len(sums) > 64 and [int(p.sum()) for _, p in frames.backward(len(sums) - 1)] == sums[::-1]


def test_only_a_window_is_decoded_and_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each window is decoded from the key frame before it on, not from the beginning."""
    counts = {"decoded": 0, "held": 0, "most": 0}
    original = VideoFrames._picture

    def counted(self: VideoFrames, frame: av.VideoFrame) -> np.ndarray:
        counts["held"] += 1
        counts["most"] = max(counts["most"], counts["held"])
        return original(self, frame)

    frames = VideoFrames(encoded([40 * index for index in range(60)], g="10", sc_threshold="0"), window_frames=10)
    assert sum(1 for _ in frames.forward()) == 60
    every = module.VideoFrames._decoded

    def watched(self: VideoFrames, from_time: int | None):
        for frame in every(self, from_time):
            counts["decoded"] += 1
            yield frame

    monkeypatch.setattr(VideoFrames, "_decoded", watched)
    monkeypatch.setattr(VideoFrames, "_picture", counted)
    for _ in frames.backward(59):
        counts["held"] -= 1
    assert counts["most"] == 10 and counts["decoded"] <= 60 + 6 * 5


def test_frames_beyond_the_count_are_left_out() -> None:
    frames = VideoFrames(encode_mp4(moving(20), 25.0), num_frames=12)
    assert [index for index, _ in frames.forward()] == list(range(12))
    assert [index for index, _ in frames.backward(11)] == list(range(11, -1, -1))


@pytest.mark.parametrize(("num_frames", "ends_early"), [(20, False), (21, False), (22, True), (400, True)])
def test_a_video_that_ends_early_is_refused(num_frames: int, ends_early: bool) -> None:
    """By one frame counters differ."""
    frames = VideoFrames(encode_mp4(moving(20), 25.0), num_frames=num_frames).forward()
    assert [next(frames)[0] for _ in range(20)] == list(range(20))
    if ends_early:
        with pytest.raises(UnreadableVideo, match=f"ends early: it has 20 frames, the truth says {num_frames}"):
            next(frames)
    else:
        assert next(frames, None) is None


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo, match="cannot be decoded"):
        list(VideoFrames(b"no video").forward())
    with pytest.raises(FileNotFoundError, match=r"there is no video at .*gone\.mp4"):
        list(VideoFrames(tmp_path / "gone.mp4").forward())
    with pytest.raises(ValueError, match="window_frames must be at least 1, not 0"):
        VideoFrames(b"", window_frames=0)
