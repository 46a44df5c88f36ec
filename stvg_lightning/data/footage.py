"""Video that is no file of its own yet: pictures, and excerpts of videos; encoded when shards are written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from stvg_lightning.data.video import UnreadableVideo, encode_mp4_stream, every_frame, upright_picture

PICTURE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp")
EXCERPT = re.compile(r"(.+)#frames=([0-9]{1,9})-([0-9]{1,9})", re.DOTALL)


def excerpt(video: Path, start_frame: int, end_frame: int) -> Path:
    """The frames `[start_frame, end_frame)` of a video file, as a path that no file has: nothing can mistake it.

    Example:
        >>> excerpt(Path("a.mp4"), 30, 90)
        PosixPath('a.mp4#frames=30-90')
    """
    assert 0 <= start_frame < end_frame, (start_frame, end_frame)
    return Path(f"{video}#frames={start_frame}-{end_frame}")


def footage_files(video: Path) -> list[Path]:
    """The files that a sample's video is made of: itself, the pictures of a folder, or what it is an excerpt of."""
    found = EXCERPT.fullmatch(str(video))
    if found is not None:
        return [Path(found[1])]
    return pictures_of(video) if video.is_dir() else [video]


def pictures_of(folder: Path) -> list[Path]:
    """The pictures of a folder in the order of their names, which is their order in time."""
    return sorted(path for path in folder.iterdir() if path.suffix[1:].lower() in PICTURE_EXTENSIONS)


def picture_size(picture: Path) -> tuple[int, int]:
    """Width and height in pixels, from the picture's header.

    Raises:
        UnreadableVideo: it is no picture.
    """
    with _opened(picture) as image:
        return image.size


def encoded_footage(video: Path, fps: float) -> bytes | Path:
    """The video as a file or as the bytes of one.

    Args:
        video: a file (returned as it is), an excerpt, a picture, or a folder of pictures.
        fps: frames a second of what is encoded.

    Raises:
        UnreadableVideo: broken data, pictures of different sizes, or an excerpt that ends after its video.
        FileNotFoundError: the path does not exist.
    """
    if EXCERPT.fullmatch(str(video)) or video.is_dir() or video.suffix[1:].lower() in PICTURE_EXTENSIONS:
        files = footage_files(video)
        if not files:
            raise UnreadableVideo(f"there are no pictures in {video}")
        states = tuple((file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file())
        return _encoded(video, fps, states)
    return video


@lru_cache(maxsize=2)  # questions about one video stand together
def _encoded(video: Path, fps: float, states: tuple[tuple[int, int], ...]) -> bytes:
    """The encoded footage; `states` are those of its files, so that a changed file is encoded anew."""
    found = EXCERPT.fullmatch(str(video))
    if found is not None:
        return encode_mp4_stream(_frames_between(Path(found[1]), int(found[2]), int(found[3])), fps)
    return encode_mp4_stream(_frames_of(footage_files(video)), fps)


def _frames_of(pictures: list[Path]) -> Iterator[NDArray[np.uint8]]:
    for picture in pictures:
        with _opened(picture) as image:
            try:
                yield np.asarray(image.convert("RGB"))
            except OSError as error:
                raise UnreadableVideo(f"{picture} cannot be read as a picture: {error}") from error


def _opened(picture: Path) -> Image.Image:
    if not picture.is_file():
        raise FileNotFoundError(f"there is no picture at {picture}")
    try:
        return Image.open(picture)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UnreadableVideo(f"{picture} cannot be read as a picture: {error}") from error


def _frames_between(video: Path, start_frame: int, end_frame: int) -> Iterator[NDArray[np.uint8]]:
    index = -1
    for index, frame in enumerate(every_frame(video)):
        if index >= end_frame:
            return
        if index >= start_frame:
            yield upright_picture(frame)
    # The last frame may be missing, as counters differ at the end; the writer of shards compares the counts.
    if index < start_frame:
        raise UnreadableVideo(f"{video} ends at frame {index}: the excerpt begins at {start_frame}")
