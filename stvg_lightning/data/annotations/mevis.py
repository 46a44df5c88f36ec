"""MeViS: expressions about how things move, each meaning one object or several, with masks in every frame."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from stvg_lightning.data.annotations.conversions import samples_of
from stvg_lightning.data.annotations.masks import (
    NO_OBJECT,
    MaskedVideo,
    check_frames,
    masked_sample,
    masked_video,
    rle_of,
)
from stvg_lightning.data.annotations.records import (
    field,
    frame_number,
    json_records,
    listing,
    name_text,
    sentence,
    table,
)
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.report import Dropped, Report
from stvg_lightning.tubes import Rle, Sample
from stvg_lightning.tubes.json_values import strict_json

TWO_ANNOTATIONS = "two annotations bear one object id"


@dataclass(frozen=True)
class Expression:
    """An expression and the objects it means; `annotations` are those of the whole video: object id -> anno id."""

    id: str
    video: str
    query: Any
    object_ids: tuple[int, ...]
    frames: tuple[str, ...]
    annotations: tuple[tuple[int, str], ...]


def read(
    annotations: Path, videos: VideoFolder, report: Report, fps: float, masks: Path | None = None
) -> Iterator[Sample]:
    """Samples of the task `spatial`, ids `<video>/<expression>`, with the masks of all objects of their video.

    Converted: objects are numbered `obj_id + 1`; of an expression that means several, `object_ids` keep them all and
    the boxes enclose the union of their masks; `anno_id` is a number in one file and a text in the other; a null
    mask is a frame in which the object is not seen. Pictures become a video of the given rate. Dropped: expressions
    without objects (all of `valid`), videos whose pictures are missing or are not the frames listed.

    Args:
        annotations: `meta_expressions.json`.
        videos: `JPEGImages`, with a folder of pictures for each video.
        report: counts what was changed and dropped.
        fps: the rate that the pictures were taken at, which no file tells.
        masks: `mask_dict.json`; by default beside the expressions.

    Raises:
        ValueError: a record that is broken, or masks that are not as many as the frames.
    """
    mask_file = masks or annotations.parent / "mask_dict.json"
    rles_of = _mask_source(mask_file)

    @lru_cache(maxsize=1)
    def film_of(name: str, frames: tuple[str, ...], objects: tuple[tuple[int, str], ...]) -> MaskedVideo:
        folder, names, info = videos.pictures(name, fps)
        check_frames(frames, names)
        return masked_video(folder, info, {object_id: rles_of(anno, len(frames)) for object_id, anno in objects})

    def convert(where: str, expression: Expression) -> Sample:
        if not expression.object_ids:
            raise Dropped(NO_OBJECT)
        if len({object_id for object_id, _ in expression.annotations}) < len(expression.annotations):
            raise Dropped(TWO_ANNOTATIONS, expression.video)
        query = sentence(expression.query, "exp")
        film = film_of(expression.video, expression.frames, expression.annotations)
        return masked_sample(where, expression.id, query, film, expression.object_ids)

    return samples_of(_expressions(annotations), convert, report)


def _expressions(file: Path) -> Iterator[tuple[str, Expression]]:
    for where, video, record in json_records(file, "videos"):
        try:
            frames = tuple(name_text(name, "a frame") for name in field(record, "frames", listing))
            expressions = field(record, "expressions", table)
            meant = {key: _objects(table(item, f"expression {key}")) for key, item in expressions.items()}
            objects = tuple(sorted({pair for pairs in meant.values() for pair in pairs}))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        for key, item in expressions.items():
            ids = tuple(object_id for object_id, _ in meant[key])
            yield (
                f"{where}[{key!r}]",
                Expression(f"{video}/{key}", str(video), item.get("exp"), ids, frames, objects),
            )


def _objects(item: dict[str, Any]) -> tuple[tuple[int, str], ...]:
    """`(object id, anno id)` of the objects that an expression means; none where it does not say."""
    object_ids, anno_ids = (field(item, key, listing, default=[]) for key in ("obj_id", "anno_id"))
    if len(object_ids) != len(anno_ids):
        raise ValueError(f"there are {len(object_ids)} obj_id and {len(anno_ids)} anno_id")
    return tuple(
        (frame_number(object_id, "obj_id") + 1, name_text(anno_id, "anno_id"))
        for object_id, anno_id in zip(object_ids, anno_ids, strict=True)
    )


def _mask_source(file: Path) -> Callable[[str, int], dict[int, Rle]]:
    """`(anno id, number of frames) -> frame -> mask`; the file is read when first asked, and kept as text."""

    @lru_cache(maxsize=1)
    def texts() -> dict[str, bytes]:
        return {str(key): value.encode() for _, key, value in json_records(file, raw=True)}

    def rles_of(anno_id: str, num_frames: int) -> dict[int, Rle]:
        if anno_id not in texts():
            raise ValueError(f"anno_id {anno_id!r} is not in {file}")
        values = strict_json(texts()[anno_id].decode())
        name = f"mask {anno_id!r} of {file}"
        if not isinstance(values, list) or len(values) != num_frames:
            found = len(values) if isinstance(values, list) else json.dumps(values)[:40]
            raise ValueError(f"{name} has {found} entries: it must have one for each of {num_frames} frames")
        return {frame: rle_of(value, name) for frame, value in enumerate(values) if value is not None}

    return rles_of
