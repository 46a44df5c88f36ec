"""VidSTG: sentences and questions about things in VidOR's videos, with the time in which they are true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from stvg_lightning.data.annotations.conversions import (
    Numbering,
    check_annotated,
    samples_of,
    span_in_video,
    truth_of,
    tube_during,
)
from stvg_lightning.data.annotations.records import (
    count,
    field,
    frame_number,
    json_records,
    listing,
    name_text,
    sentence,
    table,
)
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.annotations.vidor import Trajectories, read_trajectories
from stvg_lightning.data.footage import excerpt
from stvg_lightning.data.report import Dropped, Report
from stvg_lightning.data.video import VideoInfo
from stvg_lightning.tubes import Sample, Truth, Tube

WITHOUT_TRAJECTORIES = "there is no VidOR trajectory file"
TIME_ONLY = "no trajectories were given: asked for the time alone"
NO_TARGET = "the trajectories lack the target"
CROPPED = "cropped to the used segment: frames count from its start"

Kinds = Literal["both", "declarative", "interrogative"]
KEYS_OF = {"both": ("captions", "questions"), "declarative": ("captions",), "interrogative": ("questions",)}


@dataclass(frozen=True)
class Question:
    """A sentence or question of a record; `record` is the whole record, `target` an object of VidOR."""

    id: str
    query: Any
    target: int
    record: Any


def read(
    annotations: Path,
    videos: VideoFolder,
    report: Report,
    trajectories: Path | None = None,
    kinds: Kinds = "both",
    crop: bool = False,
) -> Iterator[Sample]:
    """Samples of every caption (declarative) and question (interrogative) of a record, ids `<video>/<n>`.

    Converted: `temporal_gt` is taken as it stands, 0-based with an exclusive end; `used_segment` has an inclusive
    end; objects are numbered `tid + 1`, as ours count from 1. Boxes, tracks of all objects and their kinds come from
    VidOR's trajectories, whose corners are taken as continuous. Dropped: missing videos or trajectories, targets
    without a box in their time.

    Args:
        annotations: `train_annotations.json`, or the val or test file.
        videos: VidOR's videos, at any depth (`0001/<vid>.mp4`).
        report: counts what was changed and dropped.
        trajectories: the folder of VidOR's own `<vid>.json`, at any depth; without it only times are asked for.
        kinds: which sentences become samples; ids do not depend on it.
        crop: cut the used segment out of each video, as the published evaluations do; frames are then its own.

    Raises:
        ValueError: a record that is broken.
    """
    files = None if trajectories is None else trajectory_files(trajectories)
    tracks_of = lru_cache(maxsize=8)(read_trajectories)

    def convert(where: str, question: Question) -> Sample:
        video_id = field(question.record, "vid", name_text)
        video = videos.find(f"{video_id}.mp4")
        info = videos.facts(video)
        facts = (field(question.record, key, count) for key in ("frame_count", "width", "height"))
        check_annotated(info, *facts)
        found = None if files is None else tracks_of(_file_of(files, video_id))
        sample = _sample(where, question, video, info, found, report)
        return _cropped(sample, question.record, report) if crop else sample

    return samples_of(_questions(annotations, KEYS_OF[kinds]), convert, report)


def trajectory_files(folder: Path) -> dict[str, Path]:
    """Video id -> its trajectory file, at any depth of a folder."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder of trajectories at {folder}")
    return {path.stem.removeprefix("vidor_"): path for path in sorted(folder.rglob("*.json"))}


def _questions(file: Path, kinds: tuple[str, ...]) -> Iterator[tuple[str, Question]]:
    numbering = Numbering()
    for where, _, record in json_records(file):
        for kind in ("captions", "questions"):
            try:
                items = field(record, kind, listing)
                numbered = [(numbering.next_of(field(record, "vid", name_text)), item) for item in items]
                questions = [
                    Question(id_, item.get("description"), field(item, "target_id", frame_number), record)
                    for id_, item in ((id_, table(item, kind)) for id_, item in numbered)
                ]
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            if kind in kinds:
                yield from ((f"{where}.{kind}[{index}]", question) for index, question in enumerate(questions))


def _file_of(files: dict[str, Path], video_id: str) -> Path:
    if video_id not in files:
        raise Dropped(WITHOUT_TRAJECTORIES, video_id)
    return files[video_id]


def _sample(
    where: str, question: Question, video: Path, info: VideoInfo, found: Trajectories | None, report: Report
) -> Sample:
    begin, end = _frames(question.record, "temporal_gt")
    span = span_in_video(begin, end, info.num_frames, where, report)
    truth = truth_of(question.id, sentence(question.query, "description"), info, span_frames=span, task="temporal")
    if found is None:
        report.changed(TIME_ONLY, where)
        return Sample(truth, video, source=where)
    target = question.target + 1
    if target not in found.tracks:
        raise Dropped(NO_TARGET, f"tid {question.target}")
    tracks = {
        object_id: {frame: box for frame, box in tube.items() if frame < info.num_frames}
        for object_id, tube in found.tracks.items()
    }
    boxes = tube_during(tracks[target], span)
    truth = replace(truth, task="stvg", boxes_xyxy=boxes, object_id=target, tracks=tracks)
    return Sample(truth, video, categories=found.categories, source=where)


def _cropped(sample: Sample, record: Any, report: Report) -> Sample:
    """The sample in the used segment alone, whose end the annotation counts in."""
    truth, where = sample.truth, sample.source
    begin, last = _frames(record, "used_segment")
    segment = span_in_video(begin, last + 1, truth.num_frames, where, report)
    if segment == (0, truth.num_frames):
        return sample
    start, length = segment[0], segment[1] - segment[0]
    assert truth.span_frames is not None
    first, end = (frame - start for frame in truth.span_frames)
    span = span_in_video(first, end, length, where, report)
    report.changed(CROPPED, where, f"[{segment[0]}, {segment[1]})")
    cut: Truth = replace(
        truth,
        num_frames=length,
        span_frames=span,
        boxes_xyxy=_shifted(truth.boxes_xyxy, start, length),
        tracks={object_id: _shifted(tube, start, length) for object_id, tube in truth.tracks.items()},
        first_frame=start,
    )
    assert isinstance(sample.video, Path)
    return replace(sample, truth=cut, video=excerpt(sample.video, *segment))


def _shifted(tube: Tube, start: int, length: int) -> Tube:
    return {frame - start: box for frame, box in tube.items() if 0 <= frame - start < length}


def _frames(record: Any, key: str) -> tuple[int, int]:
    span = field(record, key, table)
    return field(span, "begin_fid", frame_number), field(span, "end_fid", frame_number)
