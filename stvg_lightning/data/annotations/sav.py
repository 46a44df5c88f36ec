"""SA-V: masklets of everything that somebody marked in a video, every fourth frame; no sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stvg_lightning.data.annotations.conversions import check_annotated, samples_of
from stvg_lightning.data.annotations.masks import (
    NO_SENTENCE,
    MaskedVideo,
    masked_sample,
    masked_video,
    rle_of,
)
from stvg_lightning.data.annotations.records import (
    count,
    field,
    frame_number,
    listing,
    name_text,
    sentence,
    table,
    whole_json,
)
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.report import Dropped, Report
from stvg_lightning.tubes import Rle, Sample

FRAMES_PER_ANNOTATION = 4
LATE_MASKS = "masks after the video's end: left out"


@dataclass(frozen=True)
class Masklets:
    """The content of one file: object id -> frame -> mask, and the facts of its video."""

    video: str
    num_frames: int
    width: int
    height: int
    masks: dict[int, dict[int, Rle]]


def read(annotations: Path, videos: VideoFolder, report: Report, sentences: Path | None = None) -> Iterator[Sample]:
    """Samples of the task `spatial`, one for each masklet, ids `<video>/<masklet id>`, with all masks of the video.

    Converted: annotation i is frame 4 i of the video (6 of 24 a second are annotated), so three frames of four have
    no mask; objects are numbered `masklet_id + 1`. Dropped: missing videos, videos other than annotated, masklets
    that are empty in every frame.

    Args:
        annotations: a file such as `sav_000001_manual.json`, or a folder of them.
        videos: `sav_000001.mp4` and so on, at any depth.
        report: counts what was changed and dropped.
        sentences: a JSON object of yours, video -> masklet id -> sentence; only the masklets in it become samples.
            SA-V itself has none: without it, an object's number stands for its sentence.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a file that is broken.
    """
    told = None if sentences is None else table(whole_json(sentences), str(sentences))

    def convert(where: str, item: tuple[Masklets, int]) -> Sample:
        masklets, object_id = item
        query = f"object {object_id}"
        if told is not None:
            words = table(told.get(masklets.video, {}), masklets.video).get(str(object_id - 1))
            if words is None:
                raise Dropped("there is no sentence about the masklet")
            query = sentence(words, "the sentence")
        else:
            report.changed(NO_SENTENCE, where)
        return masked_sample(where, f"{masklets.video}/{object_id - 1}", query, films.of(masklets, report), [object_id])

    films = _Films(videos)
    return samples_of(_masklets(annotations), convert, report)


class _Films:
    """The last video with its masks, which all its masklets share."""

    def __init__(self, videos: VideoFolder) -> None:
        self._videos = videos
        self._last: tuple[Masklets, MaskedVideo] | None = None

    def of(self, masklets: Masklets, report: Report) -> MaskedVideo:
        if self._last is None or self._last[0] is not masklets:
            video = self._videos.find(f"{masklets.video}.mp4")
            info = self._videos.facts(video)
            check_annotated(info, masklets.num_frames, masklets.width, masklets.height)
            masks = {
                object_id: {frame: rle for frame, rle in rles.items() if frame < info.num_frames}
                for object_id, rles in masklets.masks.items()
            }
            late = sum(map(len, masklets.masks.values())) - sum(map(len, masks.values()))
            if late:
                report.changed(LATE_MASKS, masklets.video, f"{late} masks")
            self._last = masklets, masked_video(video, info, masks)
        return self._last[1]


def _masklets(annotations: Path) -> Iterator[tuple[str, tuple[Masklets, int]]]:
    files = sorted(annotations.glob("*.json")) if annotations.is_dir() else [annotations]
    if not files:
        raise FileNotFoundError(f"there is no annotation file in {annotations}")
    for file in files:
        record = whole_json(file)
        try:
            masklets = _read_file(record)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        for object_id in sorted(masklets.masks):
            yield f"{file}[{object_id - 1}]", (masklets, object_id)


def _read_file(record: Any) -> Masklets:
    ids = [frame_number(value, "masklet_id") + 1 for value in field(record, "masklet_id", listing)]
    if len(set(ids)) < len(ids):
        raise ValueError(f"masklet_id is {[object_id - 1 for object_id in ids]}: ids must differ")
    masks: dict[int, dict[int, Rle]] = {object_id: {} for object_id in ids}
    for index, rles in enumerate(field(record, "masklet", listing)):
        name = f"masklet[{index}]"
        if len(listing(rles, name)) != len(ids):
            raise ValueError(f"{name} has {len(rles)} masks: there are {len(ids)} masklets")
        for object_id, rle in zip(ids, rles, strict=True):
            if rle is not None:
                masks[object_id][FRAMES_PER_ANNOTATION * index] = rle_of(rle, name)
    video = field(record, "video_id", name_text)
    num_frames, width, height = (field(record, f"video_{key}", count) for key in ("frame_count", "width", "height"))
    return Masklets(video, num_frames, width, height, masks)
