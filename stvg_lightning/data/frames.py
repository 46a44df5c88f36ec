"""All frames of a video, forwards and backwards, of which no more than a window is ever held."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from stvg_lightning.data.video import (
    MAX_FRAMES_APART,
    UnreadableVideo,
    open_video,
    upright_picture,
    video_name,
    video_stream,
)

Numbered = tuple[int, NDArray[np.uint8]]
"""A frame's number from 0, and its picture (height, width, 3), RGB, at the original size."""

NO_TIME = -(1 << 62)


class VideoFrames:
    """A video that is gone through from its first frame on, and then from any frame back.

    Backwards, a window of frames is decoded at a time, from the key frame before it on.

    Args:
        video: an encoded file, or its path.
        window_frames: how many frames are held at most, at least 1.
        num_frames: as annotated: frames from this number on are left out, and a video that ends earlier, by more than
            counters differ (`MAX_FRAMES_APART`), is refused. None takes the video as it is.

    Raises:
        ValueError: no frame may be held.
    """

    def __init__(self, video: bytes | Path, window_frames: int = 64, num_frames: int | None = None) -> None:
        if window_frames < 1:
            raise ValueError(f"window_frames must be at least 1, not {window_frames}")
        self._video, self._window_frames, self._num_frames = video, window_frames, num_frames
        self._times = array("q")
        self._size: tuple[int, ...] | None = None

    def forward(self) -> Iterator[Numbered]:
        """All frames in order.

        Raises:
            UnreadableVideo: broken data, no frame at all, a size that changes on the way, or an end before
                `num_frames`, which shows behind the last frame.
            FileNotFoundError: the path does not exist.
        """
        self._times = array("q")
        for frame in self._decoded(None):
            if len(self._times) == self._num_frames:
                return
            self._times.append(NO_TIME if frame.pts is None else frame.pts)
            yield len(self._times) - 1, self._picture(frame)
        if not self._times:
            raise UnreadableVideo(f"{video_name(self._video)} holds no frames")
        if self._num_frames is not None and len(self._times) + MAX_FRAMES_APART < self._num_frames:
            counts = f"{len(self._times)} frames, the truth says {self._num_frames}"
            raise UnreadableVideo(f"{video_name(self._video)} ends early: it has {counts}")

    def backward(self, last_frame: int) -> Iterator[Numbered]:
        """The frames from a given one back to the first, after `forward` has gone past it; it fails as that does."""
        assert 0 <= last_frame < len(self._times), (last_frame, len(self._times))
        places = {time: place for place, time in enumerate(self._times)}
        times_tell = NO_TIME not in places and len(places) == len(self._times)
        for end in range(last_frame + 1, 0, -self._window_frames):
            start = max(end - self._window_frames, 0)
            window = self._window_by_time(start, end, places) if times_tell else {}
            if len(window) < end - start:
                window = self._window_by_count(start, end)
            for place in range(end - 1, start - 1, -1):
                yield place, window.pop(place)

    def _window_by_time(self, start: int, end: int, places: dict[int, int]) -> dict[int, NDArray[np.uint8]]:
        """The frames `[start, end)` by their times, as many as are found behind the nearest key frame."""
        window: dict[int, NDArray[np.uint8]] = {}
        for frame in self._decoded(self._times[start]):
            place = None if frame.pts is None else places.get(frame.pts)
            if place is None or place > start + len(window):  # begun too late: the file's index is wrong
                return window
            if place >= start:
                window[place] = self._picture(frame)
            if len(window) == end - start:
                return window
        return window

    def _window_by_count(self, start: int, end: int) -> dict[int, NDArray[np.uint8]]:
        """The frames `[start, end)`, counted from the beginning: slow, and sure."""
        window: dict[int, NDArray[np.uint8]] = {}
        for place, frame in enumerate(self._decoded(None)):
            if place >= start:
                window[place] = self._picture(frame)
            if place == end - 1:
                return window
        raise UnreadableVideo(f"{video_name(self._video)} gave {end} frames before, and fewer now")

    def _decoded(self, from_time: int | None) -> Iterator[av.VideoFrame]:
        """Frames from the key frame on that lies before a time in the stream's own units, or from the beginning."""
        try:
            with open_video(self._video) as container:
                stream = video_stream(container, self._video)
                stream.thread_type = "AUTO"
                if from_time is not None:
                    container.seek(from_time, stream=stream)
                yield from container.decode(stream)
        except av.FFmpegError as error:
            raise UnreadableVideo(f"{video_name(self._video)} cannot be decoded: {error}") from error

    def _picture(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        picture = upright_picture(frame)
        self._size = self._size or picture.shape
        if picture.shape != self._size:
            raise UnreadableVideo(f"{video_name(self._video)} changes its size on the way")
        return picture
