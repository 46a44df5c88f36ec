"""The folder of videos that annotations are about: files found by name, and what their headers say."""

from __future__ import annotations

import os
from functools import cached_property, lru_cache
from pathlib import Path

from stvg_lightning.data.footage import PICTURE_EXTENSIONS, picture_size, pictures_of
from stvg_lightning.data.report import Dropped
from stvg_lightning.data.shards.codec import VIDEO_EXTENSIONS
from stvg_lightning.data.video import UnreadableVideo, VideoInfo, video_header

NO_VIDEO = "there is no video"
SEVERAL_VIDEOS = "several videos bear the name"
BROKEN_VIDEO = "the video cannot be read"
NO_PICTURES = "there are no pictures"


class VideoFolder:
    """Videos under a folder, at any depth.

    Args:
        root: the folder.

    Raises:
        FileNotFoundError: no such folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise FileNotFoundError(f"there is no folder of videos at {root}")
        self.root = root

    def find(self, name: str) -> Path:
        """The video of a name: that very file, or else the only one that bears the name, whatever its extension.

        Args:
            name: a path below the folder, or a file name, with or without an extension.

        Raises:
            Dropped: no such video, or several.
        """
        exact = self.root / name
        if _is_inside(name) and _is_video(exact.name) and exact.is_file():
            return exact
        base = Path(name).name
        stem = Path(base).stem if _is_video(base) else base
        found = self._by_stem.get(stem, [])
        same = [path for path in found if path.name == base]
        if len(same) == 1:
            return same[0]
        if len(found) != 1:
            reason = SEVERAL_VIDEOS if found else NO_VIDEO
            raise Dropped(reason, ", ".join(str(path) for path in found[:3]) or name)
        return found[0]

    @lru_cache(maxsize=4096)  # noqa: B019 - lives as long as the build; records of one video stand together
    def facts(self, video: Path) -> VideoInfo:
        """Rate, number of frames and size of a video, from its header.

        Raises:
            Dropped: it cannot be read.
        """
        try:
            return video_header(video)
        except (UnreadableVideo, OSError) as error:
            raise Dropped(BROKEN_VIDEO, str(error)) from None

    def pictures(self, name: str, fps: float) -> tuple[Path, list[str], VideoInfo]:
        """A folder of pictures as a video: the folder, its pictures' names without extension, and its facts.

        Args:
            name: the folder's path below the root.
            fps: its rate, which pictures do not tell.

        Raises:
            Dropped: no such folder, nothing in it, or its first picture cannot be read.
        """
        folder = self.root / name
        found = pictures_of(folder) if _is_inside(name) and folder.is_dir() else []
        if not found:
            raise Dropped(NO_PICTURES, str(folder))
        width, height = _size_of(found[0])
        return folder, [picture.stem for picture in found], VideoInfo(fps, len(found), width, height)

    def picture(self, name: str) -> tuple[Path, VideoInfo]:
        """A single picture as a video of one frame, shown for a second.

        Raises:
            Dropped: no such picture, or it cannot be read.
        """
        path = self.root / name
        if not _is_inside(name) or path.suffix[1:].lower() not in PICTURE_EXTENSIONS or not path.is_file():
            raise Dropped(NO_PICTURES, str(path))
        return path, VideoInfo(1.0, 1, *_size_of(path))

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for folder, subfolders, names in os.walk(self.root, followlinks=True):
            subfolders.sort()
            for name in sorted(names):
                if _is_video(name):
                    found.setdefault(Path(name).stem, []).append(Path(folder) / name)
        return found


def _size_of(picture: Path) -> tuple[int, int]:
    try:
        return picture_size(picture)
    except (UnreadableVideo, OSError) as error:
        raise Dropped(BROKEN_VIDEO, str(error)) from None


def _is_inside(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _is_video(name: str) -> bool:
    return Path(name).suffix[1:].lower() in VIDEO_EXTENSIONS
