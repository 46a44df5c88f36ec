"""Write samples as WebDataset tar shards: whole or not at all, and the same bytes for the same samples."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from webdataset import TarWriter

from stvg_lightning.data.footage import encoded_footage
from stvg_lightning.data.shards.codec import BadSample, sample_to_record
from stvg_lightning.data.shards.manifest import MANIFEST_NAME, Manifest, ShardEntry, file_sha256, write_manifest
from stvg_lightning.data.video import LARGEST_DRIFT_SECONDS, MAX_FRAMES_APART, UnreadableVideo, check_rate, probe_video
from stvg_lightning.tubes import Sample, Truth

UNFINISHED = ".unfinished"
SHARD_NAME = re.compile(r"shard-[0-9]{5,}\.tar")
NUM_REASONS_SHOWN = 5


@dataclass(frozen=True)
class WriteOptions:
    """How shards are built.

    `check_videos` probes every video and skips a sample whose truth gives another size or rate, or a number
    of frames more than one apart. More than `max_skipped_share` of the samples skipped (0 to 1)
    fails the build. `overwrite` replaces a complete folder, which stays as it is until the new one
    is whole. `num_workers` processes write the shards of `build_shards`; `write_shards` needs none.
    """

    samples_per_shard: int = 256
    check_videos: bool = True
    max_skipped_share: float = 0.1
    overwrite: bool = False
    num_workers: int = 1

    def __post_init__(self) -> None:
        for name in ("samples_per_shard", "num_workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.max_skipped_share <= 1:
            raise ValueError(f"max_skipped_share must lie in 0 to 1, not {self.max_skipped_share}")


@dataclass(frozen=True)
class SkippedSample:
    """A sample that was left out of the shards, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class BuildReport:
    """What a build did: the manifest it wrote, and every sample it left out."""

    manifest: Manifest
    skipped: tuple[SkippedSample, ...]

    @property
    def num_written(self) -> int:
        return self.manifest.num_samples


def write_shards(
    samples: Iterable[Sample],
    out: Path,
    source: str,
    licence: str,
    options: WriteOptions = WriteOptions(),
    progress: Callable[[int], None] | None = None,
) -> BuildReport:
    """Write samples into a folder of shards with a manifest.

    Everything is first written to a hidden folder inside `out` and moved when whole, the manifest
    last; what a killed build left there is removed by the next one. Samples are written in order,
    one at a time, so any number fits in memory.

    Args:
        samples: their videos as bytes or paths; a path's file is copied into the shard.
        out: the folder; made where it is missing.
        source: where the data came from, for the manifest.
        licence: under which terms it may be used, for the manifest.
        options: sizes and checks.
        progress: called with the number of samples looked at, after each.

    Raises:
        FileExistsError: the folder already holds complete shards, and `overwrite` is off.
        ValueError: no source or licence, no samples, or too many skipped (the first reasons are given).
        OSError: the folder cannot be written, for instance because the disk is full; nothing of the build is left.
    """
    check_target(out, source, licence, options)
    unfinished = out / UNFINISHED
    build = _Build(out, options)
    try:
        with write_errors_named(out):
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        for num_seen, sample in enumerate(samples, start=1):
            build.add(sample)
            if progress is not None:
                progress(num_seen)
        with write_errors_named(out):
            manifest = Manifest(source, licence, build.finish())
            move_into_place([unfinished / shard.name for shard in manifest.shards], out, manifest)
    finally:
        build.discard()
        shutil.rmtree(unfinished, ignore_errors=True)
    return BuildReport(manifest, tuple(build.skipped))


def check_target(out: Path, source: str, licence: str, options: WriteOptions) -> None:
    """Refuse a build without source or licence, or into a folder that is complete already."""
    for name, value in (("source", source), ("licence", licence)):
        if not value.strip():
            raise ValueError(f"{name} is {value!r}: the manifest needs a text")
    if (out / MANIFEST_NAME).exists() and not options.overwrite:
        raise FileExistsError(
            f"{out} already holds complete shards: choose another folder, or overwrite them (--overwrite)"
        )


def check_skipped(skipped: Sequence[SkippedSample], num_written: int, out: Path, options: WriteOptions) -> None:
    """Refuse a build that left out too many samples, or has none; the first reasons are given."""
    num_seen = num_written + len(skipped)
    reasons = "".join(f"\n  {sample.id}: {sample.reason}" for sample in skipped[:NUM_REASONS_SHOWN])
    if len(skipped) > options.max_skipped_share * num_seen:
        raise ValueError(
            f"{len(skipped)} of {num_seen} samples cannot be used, more than the allowed share of "
            f"{options.max_skipped_share:g}; the first:{reasons}"
        )
    if not num_written:
        raise ValueError(f"there are no samples to write into {out}{reasons and '; skipped:'}{reasons}")


class _Build:
    """The shards of one build: those written, the one being written, and the samples left out."""

    def __init__(self, out: Path, options: WriteOptions) -> None:
        self.skipped: list[SkippedSample] = []
        self._out = out
        self._options = options
        self._ids: set[str] = set()
        self._entries: list[ShardEntry] = []
        self._shard: OpenShard | None = None

    def add(self, sample: Sample) -> None:
        """Write a sample, or note why it is left out."""
        record = self._prepare(sample)
        if record is None:
            return
        with write_errors_named(self._out):
            if self._shard is None:
                self._shard = OpenShard(self._out / UNFINISHED / f"shard-{len(self._entries):05d}.tar")
            self._shard.write(record)
            if self._shard.num_samples == self._options.samples_per_shard:
                self._close_shard()

    def finish(self) -> tuple[ShardEntry, ...]:
        """Close the last shard and say what was written, unless too much was left out."""
        check_skipped(self.skipped, len(self._ids), self._out, self._options)
        self._close_shard()
        return tuple(self._entries)

    def discard(self) -> None:
        """Close what an error left open."""
        if self._shard is not None:
            self._shard.discard()

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._entries.append(self._shard.close())
            self._shard = None

    def _prepare(self, sample: Sample) -> dict[str, bytes | str] | None:
        try:
            if sample.truth.id in self._ids:
                raise BadSample("an earlier sample has the same id")
            if isinstance(sample.video, Path):
                sample = replace(sample, video=encoded_footage(sample.video, sample.truth.fps))
            if self._options.check_videos:
                check_video(sample.truth, sample.video)
            record = sample_to_record(sample)
        except (BadSample, UnreadableVideo, OSError) as error:  # the only files touched here are the sample's own
            self.skipped.append(SkippedSample(sample.truth.id, str(error)))
            return None
        self._ids.add(sample.truth.id)
        return record


class OpenShard:
    """A tar file that is being written. Times and owners are fixed, so that equal samples give equal bytes."""

    def __init__(self, path: Path) -> None:
        self.num_samples = 0
        self._path = path
        self._file = path.open("wb")
        self._tar = TarWriter(self._file, user="stvg", group="stvg", mtime=0, encoder=False)

    def write(self, record: dict[str, bytes | str]) -> None:
        self._tar.write(record)
        self.num_samples += 1

    def close(self) -> ShardEntry:
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return ShardEntry(self._path.name, file_sha256(self._path), self.num_samples, self._path.stat().st_size)

    def discard(self) -> None:
        # A full disk makes every further write fail too; the first error is the one to report.
        for close in (self._tar.close, self._file.close):
            with contextlib.suppress(OSError):
                close()


def check_video(truth: Truth, video: bytes | Path) -> None:
    """Refuse a video whose size, rate or number of frames is not what its truth says, or whose rate varies.

    Raises:
        BadSample: they differ.
        UnreadableVideo: it is no video.
    """
    info = probe_video(video)
    if (info.width, info.height) != (truth.width, truth.height):
        raise BadSample(
            f"the video is {info.width} x {info.height} pixels, the truth says {truth.width} x {truth.height}"
        )
    if abs(info.num_frames - truth.num_frames) > MAX_FRAMES_APART:
        raise BadSample(f"the video has {info.num_frames} frames, the truth says {truth.num_frames}")
    if info.drift_seconds > LARGEST_DRIFT_SECONDS:
        raise BadSample(
            f"the video's rate varies: a frame is shown {info.drift_seconds:.2f} s from where {info.fps:g} frames a "
            "second put it; encode it at a fixed rate (ffmpeg -i IN -vf fps=25 OUT) and count frames in that"
        )
    try:
        check_rate(truth, info)
    except ValueError as error:
        raise BadSample(str(error)) from None


def move_into_place(shards: Sequence[Path], out: Path, manifest: Manifest) -> None:
    """Swap finished shards for whatever the folder held: only renames, the manifest out first and in last."""
    (out / MANIFEST_NAME).unlink(missing_ok=True)
    for path in out.iterdir():
        if SHARD_NAME.fullmatch(path.name):
            path.unlink()
    for path, shard in zip(shards, manifest.shards, strict=True):
        os.replace(path, out / shard.name)
    write_manifest(out, manifest)


@contextlib.contextmanager
def write_errors_named(out: Path) -> Iterator[None]:
    """Name the folder in errors of writing."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            error.errno, f"the shards in {out} could not be written, nothing new is left: {reason}"
        ) from error
