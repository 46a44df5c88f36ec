"""Read and write video files with PyAV: frames at a rate, and the sizes that a pixel budget allows."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from stvg_lightning.answers import Frames
from stvg_lightning.tubes import Clip, Truth

MAX_FRAMES_APART = 1
"""How many frames an annotation may count more or fewer than its video holds: counters differ at the end."""

LARGEST_RATE_DIFFERENCE = 0.02
"""As a share: files of varying rate state a mean, and 29.97 is often written as 30."""

LENIENT: Any = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""Titles in old encodings are common in downloaded videos, and no reason to refuse one; PyAV 19 reads any."""


class UnreadableVideo(ValueError):
    """A video that cannot be decoded, or holds fewer frames than it should."""


@dataclass(frozen=True)
class VideoSampling:
    """How a video becomes frames for a model.

    `fps` frames are taken for each second, at least `min_frames`, at most `max_frames`.
    `total_pixels` is the budget of one video, over all its frames (STVG-R1: 1.6 million, as released
    2048 * 28 * 28); `min_frame_pixels` and `max_frame_pixels` bound a single frame, `longest_side` its sides.
    Where they contradict each other, `min_frame_pixels` wins: models cannot read smaller frames.
    `side_multiple` is what both sides are multiples of, as the model's own processor says it: only commands that
    load no model need it here.
    """

    fps: float = 2.0
    min_frames: int = 4
    max_frames: int = 768
    total_pixels: int = 2048 * 28 * 28
    min_frame_pixels: int = 16 * 28 * 28
    max_frame_pixels: int = 768 * 28 * 28
    longest_side: int | None = None
    side_multiple: int | None = None

    def __post_init__(self) -> None:
        if not self.fps > 0:
            raise ValueError(f"fps must be above 0, not {self.fps}")
        if not 1 <= self.min_frames <= self.max_frames:
            raise ValueError(f"min_frames {self.min_frames} must lie in 1 to max_frames {self.max_frames}")
        for name in ("longest_side", "side_multiple"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not 0 < self.min_frame_pixels <= self.max_frame_pixels:
            raise ValueError(f"min_frame_pixels {self.min_frame_pixels} must lie in 1 to {self.max_frame_pixels}")


def sampled_frame_indices(
    num_frames: int, fps: float, sampling: VideoSampling, multiple_of: int = 2
) -> tuple[int, ...]:
    """Frame numbers to take from a video, evenly spaced and ascending.

    Args:
        num_frames: frames in the video, at least 1.
        fps: the video's own rate.
        sampling: the wished rate and limits.
        multiple_of: the number of frames a model merges into one step of time; the count is a
            multiple of it, and only a video with fewer frames than that shows one of them twice.

    Raises:
        ValueError: the video has no frames, or no rate.
    """
    if num_frames < 1 or not fps > 0:
        raise ValueError(f"num_frames must be at least 1, not {num_frames}, and fps above 0, not {fps}")
    wished = max(num_frames / fps * sampling.fps, sampling.min_frames)
    most = max(min(sampling.max_frames, num_frames) // multiple_of, 1) * multiple_of
    count = round(min(wished, num_frames) / multiple_of) * multiple_of
    count = min(max(count, multiple_of), most)
    # The middle of each of `count` equal parts would never show frame 0; the grid starts there instead.
    return tuple(min(int(i * num_frames / count + 1e-9), num_frames - 1) for i in range(count))


def resized_size(
    height: int, width: int, num_frames: int, sampling: VideoSampling, side_multiple: int, frames_per_step: int = 2
) -> tuple[int, int]:
    """Height and width to which frames are resized: within pixel budget and longest side, the aspect nearly kept.

    The budget counts a model's time steps, as the Qwen-VL family counts it: `frames_per_step` frames
    are merged into one, so a frame may hold `total_pixels / num_frames * frames_per_step` pixels.

    Args:
        height: original height in pixels.
        width: original width in pixels.
        num_frames: frames taken from the video.
        sampling: the budget.
        side_multiple: both sides become multiples of this (patch size times merge size).
        frames_per_step: frames merged into one step of time.

    Raises:
        ValueError: the frame is more than 200 times as long as it is wide, or the reverse.
    """
    if max(height, width) / min(height, width) > 200:
        raise ValueError(f"a frame of {width} x {height} pixels is too narrow: the ratio of its sides exceeds 200")
    most = min(sampling.max_frame_pixels, sampling.total_pixels * frames_per_step / num_frames)
    most = max(most, sampling.min_frame_pixels)

    def nearest_multiples(scale: float) -> list[int]:
        return [max(side_multiple, round(side * scale / side_multiple) * side_multiple) for side in (height, width)]

    sides = nearest_multiples(1.0)
    if sampling.longest_side is not None:
        # The largest multiple within the bound, so that rounding cannot leave it.
        bound = max(sampling.longest_side // side_multiple, 1) * side_multiple
        if max(sides) > bound:
            sides = nearest_multiples(bound / max(height, width))
    if sides[0] * sides[1] > most:
        scale = math.sqrt(height * width / most)
        sides = [
            max(side_multiple, math.floor(side / scale / side_multiple) * side_multiple) for side in (height, width)
        ]
    elif sides[0] * sides[1] < sampling.min_frame_pixels:
        scale = math.sqrt(sampling.min_frame_pixels / (height * width))
        sides = [math.ceil(side * scale / side_multiple) * side_multiple for side in (height, width)]
    return sides[0], sides[1]


def shown_frames(truth: Truth, sampling: VideoSampling, side_multiple: int, frames_per_step: int = 2) -> Frames:
    """Which frames of a truth's video a model reads, and at what size; nothing is decoded.

    Arguments and errors are those of `sampled_frame_indices` and `resized_size`.
    """
    indices = sampled_frame_indices(truth.num_frames, truth.fps, sampling, frames_per_step)
    height, width = resized_size(truth.height, truth.width, len(indices), sampling, side_multiple, frames_per_step)
    return Frames(indices, width, height, truth.width, truth.height, truth.fps, truth.num_frames)


LARGEST_DRIFT_SECONDS = 0.5
"""How far a frame may be shown from where the mean rate puts it: times and frames are told from each other by it."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says of itself; `drift_seconds` is how far frames are shown from where the mean rate puts them.

    Width and height are those of upright pictures: phones film sideways, and note by how much a player must turn them.
    """

    fps: float
    num_frames: int
    width: int
    height: int
    drift_seconds: float = field(default=0.0, compare=False)


def check_rate(truth: Truth, info: VideoInfo) -> None:
    """Refuse a truth whose frame rate is not that of its video: every second of it would be another.

    Raises:
        ValueError: the rates differ by more than `LARGEST_RATE_DIFFERENCE`.
    """
    if abs(truth.fps / info.fps - 1) > LARGEST_RATE_DIFFERENCE:
        raise ValueError(f"the video has {info.fps:g} frames a second, the truth says {truth.fps:g}")


def probe_video(video: bytes | Path) -> VideoInfo:
    """Rate, size and number of frames of a video, by reading every packet of it.

    Raises:
        UnreadableVideo: no video stream, or broken data.
        FileNotFoundError: the path does not exist.
    """
    try:
        with open_video(video) as container:
            stream = video_stream(container, video)
            fps = float(stream.average_rate or stream.guessed_rate or 0)
            size = _upright_size(stream.width, stream.height, _turns(video))
            unit = float(stream.time_base or 0)
            times = [packet.pts for packet in container.demux(stream) if packet.size]
    except av.FFmpegError as error:
        raise UnreadableVideo(f"{video_name(video)} cannot be read as a video: {error}") from error
    if fps <= 0 or not times:
        raise UnreadableVideo(f"{video_name(video)} holds no frames, or no frame rate")
    known = sorted(time * unit for time in times if time is not None)
    drift = max((abs(time - known[0] - place / fps) for place, time in enumerate(known)), default=0.0)
    return VideoInfo(fps, len(times), *size, drift_seconds=drift if len(known) == len(times) else 0.0)


def video_header(video: Path) -> VideoInfo:
    """What `probe_video` tells, from the header alone where that states the number of frames.

    Mp4 and mov list every frame in their header; other containers state none or a guess, and their packets are
    counted. No more than the first frame is decoded.

    Raises:
        UnreadableVideo: no video stream, broken data, or no frame rate.
        FileNotFoundError: the path does not exist.
    """
    try:
        with open_video(video) as container:
            stream = video_stream(container, video)
            fps = float(stream.average_rate or stream.guessed_rate or 0)
            states_frames = "mp4" in container.format.name.split(",") and stream.frames > 0
            info = VideoInfo(fps, stream.frames, *_upright_size(stream.width, stream.height, _turns(video)))
    except av.FFmpegError as error:
        raise UnreadableVideo(f"{video_name(video)} cannot be read as a video: {error}") from error
    return info if states_frames and fps > 0 else probe_video(video)


def decode_frames(video: bytes | Path, frame_indices: Sequence[int], fps: float) -> Clip:
    """Decode chosen frames of a video, at their original size.

    Args:
        video: an encoded file, or its path.
        frame_indices: 0-based frame numbers in order of showing, ascending; repeats are allowed.
        fps: the video's rate, kept with the clip.

    Where the video ends just before the last chosen frame, by no more than shards allow (`MAX_FRAMES_APART`), its own
    last frame stands in.

    Raises:
        UnreadableVideo: broken data, or the video ends before the last chosen frame.
        FileNotFoundError: the path does not exist.
        ValueError: no frame numbers, or not ascending from 0.
    """
    if not frame_indices or frame_indices[0] < 0 or list(frame_indices) != sorted(frame_indices):
        raise ValueError(f"frame_indices must be ascending numbers from 0 on, at least one, not {list(frame_indices)}")
    places: dict[int, list[int]] = {}
    for place, index in enumerate(frame_indices):
        places.setdefault(index, []).append(place)
    frames: NDArray[np.uint8] | None = None  # made once: full-size frames are too large to hold twice
    num_found = 0
    try:
        with open_video(video) as container:
            stream = video_stream(container, video)
            stream.thread_type = "AUTO"
            for index, frame in _with_stand_in(container.decode(stream), frame_indices[-1]):
                if index in places:
                    picture = upright_picture(frame)
                    if frames is None:
                        frames = np.empty((len(frame_indices), *picture.shape), dtype=np.uint8)
                    if picture.shape != frames.shape[1:]:
                        raise UnreadableVideo(f"{video_name(video)} changes its size on the way")
                    frames[places[index]] = picture
                    num_found += 1
                if num_found == len(places):
                    break
    except av.FFmpegError as error:
        raise UnreadableVideo(f"{video_name(video)} cannot be decoded: {error}") from error
    if frames is None or num_found < len(places):
        raise UnreadableVideo(
            f"{video_name(video)} ends early: frame {max(places)} was wanted, "
            f"{len(places) - num_found} frames are missing"
        )
    return Clip(frames, tuple(frame_indices), fps)


def _with_stand_in(frames: Iterable[av.VideoFrame], last_wanted: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames with their numbers; behind the end their last one once more, if that alone is missing."""
    index, frame = -1, None
    for index, frame in enumerate(frames):
        yield index, frame
    if frame is not None and index < last_wanted <= index + MAX_FRAMES_APART:
        yield last_wanted, frame


def every_frame(video: bytes | Path) -> Iterator[av.VideoFrame]:
    """The frames of a video, decoded one after another.

    Raises:
        UnreadableVideo: no video stream, or broken data.
        FileNotFoundError: the path does not exist.
    """
    try:
        with open_video(video) as container:
            stream = video_stream(container, video)
            stream.thread_type = "AUTO"
            yield from container.decode(stream)
    except av.FFmpegError as error:
        raise UnreadableVideo(f"{video_name(video)} cannot be decoded: {error}") from error


def upright_picture(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """A decoded frame as RGB (height, width, 3), turned as its file says that it is to be shown."""
    picture = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    turns = _quarter_turns(frame)
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def encode_mp4(frames: NDArray[np.uint8], fps: float, crf: int = 16) -> bytes:
    """Encode frames as an H.264 mp4 that browsers play.

    Args:
        frames: (frames, height, width, 3), uint8 RGB; an odd side is cropped by one pixel.
        fps: frames per second.
        crf: x264's quality, 0 (lossless) to 51.

    Returns:
        The bytes of the file. The same frames give the same bytes with the same PyAV.

    Raises:
        ValueError: no frames, or a side of less than 2 pixels.
    """
    if len(frames) == 0 or min(frames.shape[1:3]) < 2:
        raise ValueError(f"frames of shape {frames.shape} make no video: no frames, or a side of less than 2 pixels")
    height, width = (side - side % 2 for side in frames.shape[1:3])
    return encode_mp4_stream(iter(frames[:, :height, :width]), fps, crf)


def encode_mp4_stream(frames: Iterator[NDArray[np.uint8]], fps: float, crf: int = 16) -> bytes:
    """Encode frames as they come, of which any number fits in memory; an odd side is kept.

    Colours are halved in resolution, as browsers want it, unless a side is odd: then H.264 keeps them whole.

    Args:
        frames: each (height, width, 3), uint8 RGB, all of one size; at least one.
        fps: frames per second.
        crf: x264's quality, 0 (lossless) to 51.

    Raises:
        UnreadableVideo: no frames, or frames of different sizes.
    """
    buffer = io.BytesIO()
    stream: av.VideoStream | None = None
    with av.open(buffer, mode="w", format="mp4") as container:
        for picture in frames:
            height, width = picture.shape[:2]
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
                stream.width, stream.height = width, height
                stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
                stream.options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
            if (width, height) != (stream.width, stream.height):
                raise UnreadableVideo(f"frames change from {stream.width} x {stream.height} to {width} x {height}")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        if stream is None:
            raise UnreadableVideo("there are no frames to encode")
        container.mux(stream.encode())
    return buffer.getvalue()


def _turns(video: bytes | Path) -> int:
    """By how many quarters of a turn a video's pictures are turned when they are shown: 0 where nothing is decoded."""
    with open_video(video) as container:
        frame = next(iter(container.decode(video_stream(container, video))), None)
    return 0 if frame is None else _quarter_turns(frame)


def _quarter_turns(frame: av.VideoFrame) -> int:
    return round(frame.rotation / 90) % 4  # counterclockwise


def _upright_size(width: int, height: int, turns: int) -> tuple[int, int]:
    return (height, width) if turns % 2 else (width, height)


def open_video(video: bytes | Path) -> av.container.InputContainer:
    """A video, opened to be read; FileNotFoundError where the path does not exist."""
    if isinstance(video, bytes):
        return av.open(io.BytesIO(video), "r", **LENIENT)
    if not video.is_file():
        raise FileNotFoundError(f"there is no video at {video}")
    return av.open(str(video), "r", **LENIENT)


def video_stream(container: av.container.InputContainer, video: bytes | Path) -> av.VideoStream:
    """The first video stream of an opened file; UnreadableVideo where there is none that can be decoded."""
    if not container.streams.video:
        raise UnreadableVideo(f"{video_name(video)} holds no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise UnreadableVideo(f"{video_name(video)} is encoded in a way that no decoder here knows")
    return stream


def video_name(video: bytes | Path) -> str:
    """How messages name a video."""
    return f"a video of {len(video)} bytes" if isinstance(video, bytes) else str(video)
