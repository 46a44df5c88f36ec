"""What the tests of readers share: real data, videos that are only facts, and small real ones."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stvg_lightning.data.annotations import Dropped, Report, VideoFolder
from stvg_lightning.data.shards import ShardFolder, WriteOptions, build_shards
from stvg_lightning.data.video import VideoInfo, encode_mp4
from stvg_lightning.tubes import Sample

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("STVG_REAL_DATA", ROOT / "../shared/data"))
ANNOTATIONS, VIDEOS = DATA / "annotations", DATA / "videos"

real = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}: set STVG_REAL_DATA")


class Facts(VideoFolder):
    """Videos of which only the facts are known: name without extension -> facts, or one for all."""

    def __init__(self, facts: Mapping[str, VideoInfo] | VideoInfo) -> None:
        self.root = Path("videos")
        self._facts = facts

    def find(self, name: str) -> Path:
        path = Path(name if Path(name).suffix in (".mp4", ".mkv", ".avi") else f"{name}.mp4")
        if isinstance(self._facts, Mapping) and path.stem not in self._facts:
            raise Dropped("there is no video", name)
        return self.root / path

    def facts(self, video: Path) -> VideoInfo:
        return self._facts if isinstance(self._facts, VideoInfo) else self._facts[video.stem]


def read(module: ModuleType, annotations: Path, videos: Path | VideoFolder, **keys: Any) -> tuple[list[Sample], Report]:
    """All samples of a reader, and its report."""
    report = Report()
    folder = VideoFolder(videos) if isinstance(videos, Path) else videos
    return list(module.read(annotations, folder, report, **keys)), report


def written(path: Path, value: Any) -> Path:
    """A file with a value as JSON, or with a text as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


@lru_cache(maxsize=32)
def video_bytes(num_frames: int, fps: float, width: int, height: int) -> bytes:
    """An mp4 whose frame f is grey of brightness 2 f, so that every frame tells its number."""
    frames = np.empty((num_frames, height, width, 3), dtype=np.uint8)
    frames[:] = (2 * np.arange(num_frames) % 256)[:, None, None, None]
    return encode_mp4(frames, fps)


def make_video(path: Path, num_frames: int = 20, fps: float = 5.0, width: int = 32, height: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(video_bytes(num_frames, fps, width, height))
    return path


def make_pictures(folder: Path, names: list[str], width: int = 32, height: int = 16) -> Path:
    folder.mkdir(parents=True)
    for index, name in enumerate(names):
        Image.new("RGB", (width, height), (2 * index, 2 * index, 2 * index)).save(folder / f"{name}.png")
    return folder


def through_shards(samples: list[Sample], out: Path) -> list[Sample]:
    """Samples written into shards and read back; none may be skipped."""
    built = build_shards(iter(samples), out, "a test", "unknown", WriteOptions(max_skipped_share=0.0))
    assert not built.skipped
    return list(ShardFolder(out))
