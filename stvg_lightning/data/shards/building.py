"""Build shards of any number of samples: in parallel, going on where a kill left them, the same bytes in the end.

The samples are cut into chunks by their places, one chunk a shard. A finished chunk lies in a hidden folder under the
hash of everything that it is made of, and counts as finished only with a note beside it, written last. So it does not
matter who wrote it, when, or how often a build was killed, and a chunk of other samples is never mistaken for it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import av

from stvg_lightning.data.footage import encoded_footage, footage_files
from stvg_lightning.data.report import Report
from stvg_lightning.data.shards.codec import BadSample, record_key, record_parts, video_part
from stvg_lightning.data.shards.manifest import CREATED_BY, Manifest, ShardEntry, file_sha256
from stvg_lightning.data.shards.workers import Workers
from stvg_lightning.data.shards.writer import (
    BuildReport,
    OpenShard,
    SkippedSample,
    WriteOptions,
    check_skipped,
    check_target,
    check_video,
    move_into_place,
    write_errors_named,
)
from stvg_lightning.data.video import UnreadableVideo
from stvg_lightning.tubes import Sample, Truth
from stvg_lightning.tubes.files import write_atomically
from stvg_lightning.tubes.json_values import strict_json

BUILDING = ".building"
REPORT_NAME = "report.json"


@dataclass(frozen=True)
class Packed:
    """A sample ready to be written: the parts of its record, its video, and what the video must be."""

    key: str
    parts: dict[str, bytes]
    video: bytes | Path
    truth: Truth


@dataclass(frozen=True)
class Chunk:
    """Samples that make up a shard; `path` is where it is to lie, without an extension."""

    path: Path
    samples: tuple[Packed, ...]
    check_videos: bool


@dataclass(frozen=True)
class Finished:
    """A written chunk: its shard (None where nothing could be used), and what was left out."""

    path: Path
    entry: ShardEntry | None
    skipped: tuple[SkippedSample, ...]


def build_shards(
    samples: Iterable[Sample],
    out: Path,
    source: str,
    licence: str,
    options: WriteOptions = WriteOptions(),
    report: Report | None = None,
    progress: Callable[[int], None] | None = None,
) -> BuildReport:
    """Write samples into a folder of shards with a manifest; a build that was killed goes on where it was.

    Shard k holds the samples at the places `k * samples_per_shard` and on, less those that cannot be used. The
    result depends neither on `num_workers` nor on kills.

    Args:
        samples: in an order that is the same each time; their videos as bytes, paths or footage.
        out: the folder; made where it is missing.
        source: where the data came from, for the manifest.
        licence: under which terms it may be used, for the manifest.
        options: sizes, checks and the number of processes.
        report: what the reader of `samples` changed and dropped; stored with what was skipped here in `report.json`.
        progress: called with the number of samples done, as it grows.

    Raises:
        FileExistsError: the folder already holds complete shards, and `overwrite` is off.
        ValueError: no source or licence, no samples, or too many skipped (the first reasons are given).
        OSError: the folder cannot be written; what is finished is kept for the next try.
    """
    check_target(out, source, licence, options)
    building = out / BUILDING
    with write_errors_named(out):
        building.mkdir(parents=True, exist_ok=True)
        for left in building.glob("*.part"):
            left.unlink(missing_ok=True)
    packer = _Packer(building, options)
    finished: list[Finished] = []
    with Workers(write_chunk, options.num_workers) as workers:
        for done in workers.run(_unfinished(packer.chunks(samples), finished, progress), progress):
            finished.append(done)
    in_order = [done for _, done in sorted((packer.places[done.path], done) for done in finished)]
    return _finish(in_order, packer, out, Manifest(source, licence, ()), report or Report())


class _Packer:
    """Cuts samples into chunks, and notes which cannot be used and where each chunk belongs."""

    def __init__(self, building: Path, options: WriteOptions) -> None:
        self.options = options
        self.places: dict[Path, int] = {}
        self.skipped: dict[int, list[SkippedSample]] = {}
        self._building = building
        self._ids: set[str] = set()

    def chunks(self, samples: Iterable[Sample]) -> Iterator[Chunk]:
        packed: list[Packed] = []
        num_seen = 0
        for num_seen, sample in enumerate(samples, start=1):
            place = (num_seen - 1) // self.options.samples_per_shard
            try:
                packed.append(self._pack(sample))
            except BadSample as error:
                self.skipped.setdefault(place, []).append(SkippedSample(sample.truth.id, str(error)))
            if num_seen % self.options.samples_per_shard == 0:
                yield self._chunk(packed, place)
                packed = []
        if packed:
            yield self._chunk(packed, num_seen // self.options.samples_per_shard)

    def _pack(self, sample: Sample) -> Packed:
        truth = sample.truth
        if truth.id in self._ids:
            raise BadSample("an earlier sample has the same id")
        parts = record_parts(sample)
        self._ids.add(truth.id)
        bare = Truth(truth.id, truth.query, truth.fps, truth.num_frames, truth.width, truth.height)
        return Packed(record_key(truth.id), parts, sample.video, bare)

    def _chunk(self, packed: list[Packed], place: int) -> Chunk:
        path = self._building / f"{place:05d}-{_fingerprint(packed, self.options.check_videos)}"
        self.places[path] = place
        return Chunk(path, tuple(packed), self.options.check_videos)


def _fingerprint(packed: list[Packed], check_videos: bool) -> str:
    """A hash of what a chunk is made of; a video file counts by its name, size and time of change."""
    digest = sha256(json.dumps([CREATED_BY, av.__version__, check_videos]).encode())
    for sample in packed:
        for name, part in sample.parts.items():
            digest.update(f"{name} {len(part)} ".encode() + part)
        if isinstance(sample.video, bytes):
            digest.update(sha256(sample.video).digest())
            continue
        digest.update(str(sample.video).encode())
        for file in footage_files(sample.video):
            state = file.stat() if file.exists() else None
            digest.update(f"{file.name} {state and (state.st_size, state.st_mtime_ns)} ".encode())
    return digest.hexdigest()[:32]


def _unfinished(
    chunks: Iterable[Chunk], finished: list[Finished], progress: Callable[[int], None] | None
) -> Iterator[Chunk]:
    """The chunks that are still to be written; those that an earlier build finished join the finished ones."""
    for chunk in chunks:
        done = _read_note(chunk.path)
        if done is None:
            yield chunk
            continue
        finished.append(done)
        if progress is not None:
            progress(len(chunk.samples))


def write_chunk(chunk: Chunk, progress: Callable[[int], None]) -> Finished:
    """Write a chunk's shard, then the note that makes it count.

    Raises:
        OSError: it cannot be written; nothing of it counts then.
    """
    skipped: list[SkippedSample] = []
    part = chunk.path.with_name(f"{chunk.path.name}.{os.getpid()}.part")
    with write_errors_named(chunk.path.parent.parent), _discarded_on_error(part) as shard:
        for sample in chunk.samples:
            try:
                record = _record_of(sample, chunk.check_videos)
            except (BadSample, UnreadableVideo, OSError) as error:  # the only files touched here are the sample's own
                skipped.append(SkippedSample(sample.truth.id, str(error)))
            else:
                shard.write(record)
            progress(1)
        entry = shard.close()
        tar = _tar_of(chunk.path)
        os.replace(part, tar)
        written = dataclasses.replace(entry, name=tar.name) if entry.num_samples else None
        done = Finished(chunk.path, written, tuple(skipped))
        _write_note(done)
    return done


@contextmanager
def _discarded_on_error(part: Path) -> Iterator[OpenShard]:
    shard = OpenShard(part)
    try:
        yield shard
    except BaseException:
        shard.discard()
        part.unlink(missing_ok=True)
        raise


def _record_of(sample: Packed, check_videos: bool) -> dict[str, bytes | str]:
    video, truth = sample.video, sample.truth
    encoded = encoded_footage(video, truth.fps) if isinstance(video, Path) else video
    if check_videos:
        check_video(truth, encoded)
    return {"__key__": sample.key, **sample.parts, **video_part(encoded, truth.id, truth.fps)}


def _tar_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.tar")


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _write_note(done: Finished) -> None:
    entry = None if done.entry is None else dataclasses.asdict(done.entry)
    note = {"entry": entry, "skipped": [dataclasses.asdict(sample) for sample in done.skipped]}
    write_atomically(_note_of(done.path), json.dumps(note))


def _read_note(path: Path) -> Finished | None:
    """A chunk that an earlier build finished, if its shard is as it was written, byte for byte."""
    note_file = _note_of(path)
    if not note_file.is_file():
        return None
    try:
        note: dict[str, Any] = strict_json(note_file.read_text())
        entry = None if note["entry"] is None else ShardEntry(**note["entry"])
        skipped = tuple(SkippedSample(**sample) for sample in note["skipped"])
    except (ValueError, KeyError, TypeError):  # damaged after it was written: the chunk is written anew
        return None
    tar = _tar_of(path)
    if entry is not None and not (tar.is_file() and file_sha256(tar) == entry.sha256):
        return None
    return Finished(path, entry, skipped)


def _finish(in_order: list[Finished], packer: _Packer, out: Path, manifest: Manifest, report: Report) -> BuildReport:
    """Number the shards, and move them into place with report and manifest, unless too much was left out."""
    shards = [done for done in in_order if done.entry is not None]
    found = {packer.places[done.path]: done.skipped for done in in_order}
    places = sorted({*found, *packer.skipped})
    skipped = [sample for place in places for sample in (*packer.skipped.get(place, ()), *found.get(place, ()))]
    num_written = sum(done.entry.num_samples for done in shards if done.entry is not None)
    check_skipped(skipped, num_written, out, packer.options)
    entries = tuple(
        dataclasses.replace(done.entry, name=f"shard-{number:05d}.tar")
        for number, done in enumerate(shards)
        if done.entry is not None
    )
    manifest = dataclasses.replace(manifest, shards=entries)
    told = {"written": num_written, **report.to_json(), "skipped": [dataclasses.asdict(sample) for sample in skipped]}
    with write_errors_named(out):
        write_atomically(out / REPORT_NAME, json.dumps(told, indent=2, ensure_ascii=False) + "\n")
        move_into_place([_tar_of(done.path) for done in shards], out, manifest)
        shutil.rmtree(out / BUILDING, ignore_errors=True)
    return BuildReport(manifest, tuple(skipped))
