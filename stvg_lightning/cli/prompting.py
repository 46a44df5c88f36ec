"""Number the objects of every video in a folder of shards: found, followed, and the target among them voted for.

First the videos, in any number of processes and on all GPUs: what is found in each is kept in a file under the hash of
the video and of all settings, so that a kill costs no more than the videos at hand, and a video that many sentences are
about is gone through once. Then the samples, which is quick: votes, figures, and new shards.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stvg_lightning.data.annotations import count_votes, elected
from stvg_lightning.data.frames import VideoFrames
from stvg_lightning.data.report import Report
from stvg_lightning.data.shards import BuildReport, ShardFolder, WriteOptions, build_shards
from stvg_lightning.data.shards.codec import BadSample
from stvg_lightning.data.shards.manifest import CREATED_BY
from stvg_lightning.data.shards.workers import Workers, worker_number
from stvg_lightning.data.shards.writer import check_target
from stvg_lightning.data.video import UnreadableVideo
from stvg_lightning.evaluation.prompt_quality import prompt_quality_report, prompt_quality_row
from stvg_lightning.prompting import (
    Detector,
    DetectorChoice,
    Frame,
    Markers,
    MaskTrack,
    ObjectTracking,
    Tracker,
    TrackerChoice,
    marked_tubes,
    track_objects,
    tracks_from_json,
    tracks_to_json,
)
from stvg_lightning.prompting.detectors import RtDetr
from stvg_lightning.prompting.trackers import TransformersSam2
from stvg_lightning.rewards.loading import own_file_of, packed_for_processes
from stvg_lightning.tubes import Sample, Truth, Tube, union_of_objects
from stvg_lightning.tubes.choices import check_choice
from stvg_lightning.tubes.files import write_atomically

QUALITY_NAME = "quality.json"
ROWS_NAME = "quality.jsonl"
TRACKS = ".tracks"
NOT_OVERLAPPED = "no object overlaps the target"
NOT_MARKED = "no marked object overlaps the target"
KEPT = "kept without an object id: "
DOUBTFUL = "the vote for the target is doubtful"
FEWER = "several targets voted for one object: fewer objects are meant than were"
NO_OBJECTS = "nothing was found in the video"
UNREADABLE = "the sample or its video cannot be read"


@dataclass(frozen=True)
class PromptSettings:
    """How the objects of videos are numbered.

    Attributes:
        detector: finds things in single frames.
        tracker: follows them.
        tracking: the procedure.
        vote_among: the target is voted for among `all` things (STVG-R1, equation 2), or among those alone that are
            `marked`, as the released code does; what is marked, the recipe's markers say.
        least_vote_share: samples whose chosen object has a smaller share of the votes, in [0, 1], are left out.
        keeps_undetected: samples whose target no object overlaps are kept without an object id instead of left out, so
            that a test set stays whole: no id is right there, and every answer in ids scores 0.
        window_frames: how many frames of a video are held at most.
        num_workers: processes that go through videos, each on a GPU of its own where there are several.
        samples_per_shard: samples in one shard.

    Raises:
        ValueError: a value that is not allowed.
    """

    detector: DetectorChoice = field(default_factory=RtDetr)
    tracker: TrackerChoice = field(default_factory=TransformersSam2)
    tracking: ObjectTracking = field(default_factory=ObjectTracking)
    vote_among: Literal["all", "marked"] = "all"
    least_vote_share: float = 0.0
    keeps_undetected: bool = False
    window_frames: int = 64
    num_workers: int = 1
    samples_per_shard: int = 256

    def __post_init__(self) -> None:
        check_choice("vote_among", self.vote_among, ("all", "marked"))
        if not 0 <= self.least_vote_share <= 1:
            raise ValueError(f"least_vote_share must lie in [0, 1], not {self.least_vote_share}")
        for name in ("window_frames", "num_workers", "samples_per_shard"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True)
class PromptedShards:
    """What was written, what was left out, and how good it is; `quality` is None where no sample tells a target."""

    built: BuildReport
    report: Report
    quality: dict[str, Any] | None


@dataclass(frozen=True)
class VideoTask:
    """A video to go through: where it lies, what with, and where what is found goes."""

    shards: Path
    content_hash: str
    index: int
    out: Path
    packed_settings: bytes


def prompt_shards(
    source: Path, out: Path, settings: PromptSettings, markers: Markers, overwrite: bool = False
) -> PromptedShards:
    """Write the samples of a folder of shards anew, with the tracks and masks of the objects that are found in them.

    What the samples held of tracks, masks and object ids is left behind; their true boxes are kept. Killed at any
    time, the same call goes on from the last finished video. The figures of `prompt_quality_report` are left in
    `quality.json`, and a row for each sample in `quality.jsonl`.

    Args:
        source: a folder of shards.
        out: another folder; made where it is missing.
        settings: how objects are found, followed and voted for.
        markers: what is marked, for votes among what is marked, and for the figures of quality.
        overwrite: replace complete shards.

    Raises:
        FileExistsError: `out` holds complete shards, and `overwrite` is off.
        ValueError: `out` is `source`, or no sample is left.
        OSError: no shards, or no weights of a name.
    """
    if out.resolve() == source.resolve():
        raise ValueError(f"{out} holds the shards that are read: choose another folder to write to")
    folder = ShardFolder(source)
    write = WriteOptions(settings.samples_per_shard, check_videos=False, max_skipped_share=1.0, overwrite=overwrite)
    named = f"{folder.manifest.source}; objects by {_name(settings.detector)} and {_name(settings.tracker)}"
    check_target(out, named, folder.manifest.licence, write)
    (out / TRACKS).mkdir(parents=True, exist_ok=True)
    prompted = _Prompted(folder, out, settings, markers)
    files = _track_videos(folder, out, settings)
    with _bar() as bar:
        advance = partial(bar.advance, bar.add_task("samples", total=len(folder)))
        licence, report = folder.manifest.licence, prompted.report
        built = build_shards(prompted.samples(files), out, named, licence, write, report, advance)
    shutil.rmtree(out / TRACKS, ignore_errors=True)
    return PromptedShards(built, prompted.report, prompted.quality)


def track_video(task: VideoTask, progress: Any) -> Path:
    """Find and follow the things of one video, and leave them in a file; what is wrong with the video, if it is bad."""
    settings: PromptSettings = pickle.loads(task.packed_settings)
    try:
        sample = _shards(task.shards, task.content_hash)[task.index]
        frames = _Numbered(VideoFrames(sample.video, settings.window_frames, sample.truth.num_frames))
        detector, tracker = _networks(task.packed_settings, _device())
        found: dict[str, Any] = {"tracks": tracks_to_json(track_objects(frames, detector, tracker, settings.tracking))}
    except (BadSample, UnreadableVideo) as error:
        found = {"error": str(error)}
    write_atomically(task.out, json.dumps(found))
    progress(1)
    return task.out


class _Numbered:
    """A video's frames as trackers take them."""

    def __init__(self, frames: VideoFrames) -> None:
        self._frames = frames

    def forward(self) -> Iterator[Frame]:
        return (Frame(*numbered) for numbered in self._frames.forward())

    def backward(self, last_frame: int) -> Iterator[Frame]:
        return (Frame(*numbered) for numbered in self._frames.backward(last_frame))


@lru_cache(maxsize=1)
def _shards(directory: Path, content_hash: str) -> ShardFolder:
    """A folder of shards, opened once in each process for as long as it holds the same."""
    return ShardFolder(directory)


@lru_cache(maxsize=1)
def _networks(packed_settings: bytes, device: str) -> tuple[Detector, Tracker]:
    """Detector and tracker with their weights, loaded once in each process."""
    settings: PromptSettings = pickle.loads(packed_settings)
    return settings.detector.load(device), settings.tracker.load(device)


def _device() -> str:
    """Workers share the GPUs out among them."""
    num_devices = torch.cuda.device_count()
    return f"cuda:{worker_number() % num_devices}" if num_devices else "cpu"


def _track_videos(folder: ShardFolder, out: Path, settings: PromptSettings) -> list[Path | str]:
    """For each sample the file that tells what is in its video, or what is wrong with the sample."""
    own_files = tuple(file for thing in (settings.detector, settings.tracker) if (file := own_file_of(thing)))
    mark = _fingerprint(settings, own_files)
    packed = packed_for_processes(settings)
    files: list[Path | str] = []
    tasks: dict[Path, VideoTask] = {}
    for index in range(len(folder)):
        try:
            sample = folder[index]
        except BadSample as error:
            files.append(str(error))
            continue
        assert isinstance(sample.video, bytes)
        content = sha256(sample.video + f" {sample.truth.num_frames}".encode()).hexdigest()
        file = out / TRACKS / f"{content[:32]}-{mark}.json"
        files.append(file)
        if not file.is_file():
            task = VideoTask(folder.directory, folder.manifest.content_hash, index, file, packed)
            tasks.setdefault(file, task)
    with _bar() as bar, Workers(track_video, min(settings.num_workers, max(len(tasks), 1))) as workers:
        shown = bar.add_task("videos", total=len(tasks))
        for _ in workers.run(tasks.values(), partial(bar.advance, shown)):
            pass
    return files


def _fingerprint(settings: PromptSettings, own_files: Sequence[Path]) -> str:
    """A hash of all that decides what is found: settings, files of the user's own, and weights that lie on disk."""
    parts = [CREATED_BY, *(_told(part) for part in (settings.detector, settings.tracker, settings.tracking))]
    parts += [sha256(file.read_bytes()).hexdigest() for file in own_files]
    for choice in (settings.detector, settings.tracker):
        place = Path(str(getattr(choice, "name", "")))
        files = sorted(place.iterdir()) if place.is_dir() else [place]
        parts += [f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files if file.is_file()]
    return sha256(json.dumps(parts).encode()).hexdigest()[:32]


class _Prompted:
    """Makes samples of what was found, and notes what is left out, and how good the rest is."""

    def __init__(self, folder: ShardFolder, out: Path, settings: PromptSettings, markers: Markers) -> None:
        self.report = Report()
        self.quality: dict[str, Any] | None = None
        self._folder, self._out, self._settings, self._markers = folder, out, settings, markers
        self._rows: list[dict[str, Any]] = []

    def samples(self, files: Iterable[Path | str]) -> Iterator[Sample]:
        """The samples with their objects; behind the last one the figures are written, before the shards count."""
        for index, file in enumerate(files):
            found: dict[str, Any] = {"error": file} if isinstance(file, str) else json.loads(file.read_text())
            if "error" in found:
                self.report.dropped(UNREADABLE, self._identity(index), found["error"])
                continue
            sample = self._with_objects(self._folder[index], tracks_from_json(found["tracks"]))
            if sample is not None:
                self.report.kept()
                yield sample
        self.quality = prompt_quality_report(self._rows) if self._rows else None
        write_atomically(self._out / ROWS_NAME, "".join(json.dumps(row) + "\n" for row in self._rows))
        write_atomically(self._out / QUALITY_NAME, json.dumps(self.quality, indent=2) + "\n")

    def _identity(self, index: int) -> str:
        """A sample's id; its place where even that cannot be read."""
        try:
            return self._folder.truth(index).id
        except BadSample:
            return f"sample {index}"

    def _with_objects(self, sample: Sample, tracks: Sequence[MaskTrack]) -> Sample | None:
        """The sample with the things that were found in its video; None where it is left out."""
        truth, settings = sample.truth, self._settings
        targets = _targets(truth)
        votes = [self._votes(target, tracks) for target in targets]
        if len(targets) == 1:
            span = truth.span_frames or (0, truth.num_frames)
            self._rows.append(prompt_quality_row(truth.id, targets[0], span, tracks, votes[0], self._markers))
        chosen = [elected(vote) for vote in votes]
        if not tracks or any(object_id is None for object_id, _ in chosen):
            return self._undetected(sample, tracks)
        if any(share < settings.least_vote_share for _, share in chosen):
            least = min(share for _, share in chosen)
            self.report.dropped(DOUBTFUL, truth.id, f"the chosen object has {100 * least:.0f} % of the votes")
            return None
        ids = sorted({i for i, _ in chosen if i is not None})
        if len(ids) < len(chosen):
            self.report.changed(FEWER, truth.id, f"{len(chosen)} targets, {_objects(ids)}")
        return _numbered(sample, tracks, ids, votes)

    def _undetected(self, sample: Sample, tracks: Sequence[MaskTrack]) -> Sample | None:
        """A sample whose target no object overlaps, with the objects there are; None where it is left out."""
        not_overlapped = NOT_MARKED if self._settings.vote_among == "marked" else NOT_OVERLAPPED
        reason = not_overlapped if tracks else NO_OBJECTS
        if not self._settings.keeps_undetected:
            self.report.dropped(reason, sample.truth.id)
            return None
        self.report.changed(KEPT + reason, sample.truth.id)
        return _numbered(sample, tracks, [], [])

    def _votes(self, target: Tube, tracks: Sequence[MaskTrack]) -> dict[int, int]:
        if self._settings.vote_among == "marked":
            return count_votes(target, marked_tubes(tracks, self._markers, target))
        return count_votes(target, {track.object_id: track.tube for track in tracks})


def _targets(truth: Truth) -> list[Tube]:
    """The true boxes, in the true span, of each thing that is meant; none where nothing is asked of a place."""
    if not truth.has_place:
        return []
    start, end = truth.span_frames or (0, truth.num_frames)
    meant = [truth.tracks.get(i, {}) for i in truth.object_ids] if truth.object_ids else [truth.boxes_xyxy]
    inside = [{frame: box for frame, box in tube.items() if start <= frame < end} for tube in meant]
    return [tube for tube in inside if tube]


def _numbered(sample: Sample, tracks: Sequence[MaskTrack], ids: list[int], votes: list[dict[int, int]]) -> Sample:
    """The sample with other objects in place of its own, and those of them that are meant."""
    truth = replace(
        sample.truth,
        tracks={track.object_id: track.tube for track in tracks},
        object_id=ids[0] if len(ids) == 1 else None,
        object_ids=tuple(ids) if len(ids) > 1 else (),
    )
    masks = {track.object_id: track.masks for track in tracks}
    categories = {track.object_id: track.category for track in tracks}
    # What was annotated stays what is to be found: scores of masks must not compare the tracker with itself.
    annotated = sample.target_masks or union_of_objects(sample.masks, sample.truth.target_ids)
    found = replace(sample, truth=truth, masks=masks, categories=categories, target_masks=annotated)
    return replace(found, votes=votes[0] if len(votes) == 1 else {})


def _objects(ids: Sequence[int]) -> str:
    return f"object{'s' if len(ids) > 1 else ''} {', '.join(map(str, ids))}"


def _told(thing: object) -> str:
    """A thing's class and all that it was given; a class of the user's own may say of itself only where it lies."""
    given = sorted(vars(thing).items())
    return repr(thing) if dataclasses.is_dataclass(thing) else f"{type(thing).__qualname__}({given})"


def _name(choice: object) -> str:
    return str(getattr(choice, "name", "") or type(choice).__name__)


def _bar() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True))
