"""Ref-YouTube-VOS: expressions about objects of YouTube-VOS, whose masks are palette pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from stvg_lightning.data.annotations.conversions import samples_of
from stvg_lightning.data.annotations.masks import (
    NO_OBJECT,
    MaskedVideo,
    check_frames,
    label_masks,
    masked_sample,
    masked_video,
)
from stvg_lightning.data.annotations.records import field, json_records, listing, name_text, sentence, table
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.report import Dropped, Report
from stvg_lightning.tubes import Sample
from stvg_lightning.tubes.json_values import WHOLE_NUMBER, refuse


@dataclass(frozen=True)
class Expression:
    """An expression about one object of a video; `object_id` is None where the file does not tell it."""

    id: str
    video: str
    query: Any
    object_id: int | None
    frames: tuple[str, ...]


def read(
    annotations: Path, videos: VideoFolder, report: Report, fps: float, masks: Path | None = None
) -> Iterator[Sample]:
    """Samples of the task `spatial`, ids `<video>/<expression>`, with the masks of all objects of their video.

    Converted: frames are counted in the order listed, from 0, whatever their names (every fifth, not always from 0);
    `obj_id`, a text, is the palette index. Pictures become a video of the given rate. Dropped: expressions without
    objects (the valid file has none: 202 valid and 305 test videos mixed), videos whose pictures are missing or are
    not the frames listed.

    Args:
        annotations: `meta_expressions.json`.
        videos: `JPEGImages`, with a folder of pictures for each video.
        report: counts what was changed and dropped.
        fps: the rate that the pictures were taken at (6 where it is every fifth frame of 30), which no file tells.
        masks: `Annotations`; by default beside the pictures.

    Raises:
        ValueError: a record or a mask that is broken.
    """
    folder_of_masks = masks or videos.root.parent / "Annotations"

    @lru_cache(maxsize=1)
    def film_of(name: str, frames: tuple[str, ...]) -> MaskedVideo:
        folder, names, info = videos.pictures(name, fps)
        check_frames(frames, names)
        return masked_video(folder, info, label_masks(folder_of_masks / name, names))

    def convert(where: str, expression: Expression) -> Sample:
        if expression.object_id is None:
            raise Dropped(NO_OBJECT)
        query = sentence(expression.query, "exp")
        film = film_of(expression.video, expression.frames)
        return masked_sample(where, expression.id, query, film, [expression.object_id])

    return samples_of(_expressions(annotations), convert, report)


def _expressions(file: Path) -> Iterator[tuple[str, Expression]]:
    for where, video, record in json_records(file, "videos"):
        try:
            frames = tuple(name_text(name, "a frame") for name in field(record, "frames", listing))
            expressions = field(record, "expressions", table)
            ids = {
                key: field(table(item, f"expression {key}"), "obj_id", _object_id, default=None)
                for key, item in expressions.items()
            }
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        for key, item in expressions.items():
            expression = Expression(f"{video}/{key}", str(video), item.get("exp"), ids[key], frames)
            yield f"{where}[{key!r}]", expression


def _object_id(value: Any, name: str) -> int:
    text = name_text(value, name)
    if not WHOLE_NUMBER.fullmatch(text) or not 1 <= int(text) < 255:
        refuse(name, value, "a palette index from 1 to 254")
    return int(text)
