"""Samples from truth lines and a folder of videos: the format in which anybody can bring videos of their own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.annotations.vote import CLEAR_MAJORITY, count_votes, elected
from stvg_lightning.data.report import Report
from stvg_lightning.data.shards.codec import VIDEO_EXTENSIONS
from stvg_lightning.tubes import Rle, Sample, Truth, Tube, check_counts, decode_mask, mask_box
from stvg_lightning.tubes.jsonl import (
    EXTRA_KEYS,
    Masks,
    complete_truth,
    parse_truth,
    read_json_lines,
    refuse_repeated_id,
)

LOGGER = logging.getLogger("stvg_lightning.data")


def read(annotations: Path, videos: VideoFolder, report: Report) -> Iterator[Sample]:
    """Samples of a file of truth lines, ids those of the lines; what stands at `read_jsonl_samples` holds.

    Nothing is converted, and nothing is dropped: these are a user's own lines, so a wrong one is refused, and a video
    that is missing or other than its line says is left to the writer of shards, which refuses more than a few.

    Args:
        annotations: the file of truth lines.
        videos: the folder of the video files.
        report: stays empty.
    """
    return read_jsonl_samples(annotations, videos.root)


def read_jsonl_samples(annotations: Path, videos: Path) -> Iterator[Sample]:
    """Samples of a file of truth lines, in order; no video is opened.

    A line may also hold `video` (a file name inside the folder; without it `<id>.mp4`, or the only
    video whose name without extension is the id), `masks`, `categories`, `thought` and `response`. Tracks are
    made from masks where only masks are given, and from `boxes_xyxy` where neither is given (the
    target is then object 1). Where tracks and boxes are given but no `object_id`, the target is
    the track that the boxes vote for.

    Args:
        annotations: the file of truth lines.
        videos: the folder of the video files. A file that is not there is left to the shard writer to report.

    Raises:
        FileNotFoundError: no such file, or no such folder.
        ValueError: a line that is wrong, beginning with `path:line`.
    """
    if not annotations.is_file():
        raise FileNotFoundError(f"there is no annotation file at {annotations}")
    if not videos.is_dir():
        raise FileNotFoundError(f"there is no folder of videos at {videos}")
    return _read_samples(annotations, videos)


def _read_samples(annotations: Path, videos: Path) -> Iterator[Sample]:
    by_stem = _videos_by_stem(videos)
    first_seen: dict[str, str] = {}
    alone: list[str] = []
    for where, record in read_json_lines(annotations):
        truth, extras = parse_truth(record, where, EXTRA_KEYS)
        refuse_repeated_id(truth.id, where, first_seen)
        try:
            for masks in extras.masks.values():
                for rle in masks.values():
                    check_counts(rle)
            if truth.boxes_xyxy and truth.task != "temporal" and not truth.tracks and not extras.masks:
                alone.append(truth.id)
            truth, votes = _with_target(_with_tracks(truth, extras.masks), where)
            video = extras.video or _video_name(truth.id, by_stem)
            _check_video_name(video)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        truth = complete_truth(truth, where)
        yield Sample(
            truth,
            videos / video,
            extras.masks,
            extras.categories,
            extras.thought,
            extras.response,
            where,
            votes or extras.votes,
            extras.target_masks,
        )
    if alone:
        LOGGER.warning(
            "%d samples (%s, ...) have boxes of their target alone: the only marker drawn is its own, where it has "
            "a box, so the video shows the answer. Give tracks or masks of all objects over the whole video, unless "
            "the recipe draws no markers",
            len(alone),
            alone[0],
        )


def _with_tracks(truth: Truth, masks: Masks) -> Truth:
    """The truth with tracks: its own, else those of the masks, else its boxes as the only track."""
    if truth.tracks:
        return truth
    if masks:
        return replace(truth, tracks={object_id: tube_of_masks(rles) for object_id, rles in masks.items()})
    if truth.boxes_xyxy:
        object_id = truth.object_id or 1
        return replace(truth, object_id=object_id, tracks={object_id: truth.boxes_xyxy})
    return truth


def tube_of_masks(rles: Mapping[int, Rle]) -> Tube:
    """The tightest box around each frame's mask; a frame whose mask is empty has none."""
    boxes = {frame: mask_box(decode_mask(rle)) for frame, rle in sorted(rles.items())}
    return {frame: box for frame, box in boxes.items() if box is not None}


def _with_target(truth: Truth, where: str) -> tuple[Truth, Mapping[int, int]]:
    """The truth with the object id that its boxes vote for, and the votes, where it has boxes and tracks but no id."""
    if truth.object_id is not None or truth.object_ids or not truth.boxes_xyxy or not truth.tracks:
        return truth, {}
    start, end = truth.span_frames or (0, truth.num_frames)
    boxes = {frame: box for frame, box in truth.boxes_xyxy.items() if start <= frame < end}
    votes = count_votes(boxes, truth.tracks)
    object_id, share = elected(votes)
    if object_id is None:
        raise ValueError(f"object_id is missing, and boxes_xyxy overlap none of the {len(truth.tracks)} tracks")
    if share <= CLEAR_MAJORITY:
        LOGGER.warning(
            "%s: only %.0f %% of the frames agree that the target is object %d", where, 100 * share, object_id
        )
    return replace(truth, object_id=object_id), votes


def _videos_by_stem(videos: Path) -> dict[str, list[str]]:
    """Stem -> names of the video files that bear it."""
    names: dict[str, list[str]] = {}
    for path in sorted(videos.iterdir()):
        if path.suffix[1:].lower() in VIDEO_EXTENSIONS:
            names.setdefault(path.stem, []).append(path.name)
    return names


def _video_name(sample_id: str, by_stem: Mapping[str, list[str]]) -> str:
    """`<id>.mp4` where it is there or nothing else is, else the only video named after the id."""
    names = by_stem.get(sample_id, [])
    if len(names) > 1 and f"{sample_id}.mp4" not in names:
        raise ValueError(f"id {sample_id!r} has several videos, {', '.join(names)}: say which with the key 'video'")
    return names[0] if len(names) == 1 else f"{sample_id}.mp4"


def _check_video_name(name: str) -> None:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"video is {name!r}: it must be a file name inside the folder of videos")
    if path.suffix[1:].lower() not in VIDEO_EXTENSIONS:
        raise ValueError(f"video is {name!r}: its extension must be one of {', '.join(VIDEO_EXTENSIONS)}")
