"""Shards built in parallel and in spite of kills are those of one quiet build, byte for byte."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stvg_lightning.data.annotations import Report
from stvg_lightning.data.footage import encoded_footage, excerpt
from stvg_lightning.data.shards import (
    REPORT_NAME,
    ShardFolder,
    WriteOptions,
    build_shards,
    read_manifest,
    verify,
    write_shards,
)
from stvg_lightning.data.shards.building import BUILDING
from stvg_lightning.data.shards.workers import Workers, worker_number
from stvg_lightning.data.video import UnreadableVideo, probe_video
from stvg_lightning.tubes import Sample, Truth
from tests.data.annotations.reading import make_pictures, make_video

ROOT = Path(__file__).parents[2]
NUM_SAMPLES = 11
OPTIONS = WriteOptions(samples_per_shard=3, check_videos=False, max_skipped_share=0.5)

SCRIPT = """
import multiprocessing, os, signal, sys
from dataclasses import replace
from pathlib import Path
from stvg_lightning.data.shards import building
from tests.data.test_building import OPTIONS, samples

def die():
    Path(sys.argv[4]).write_text(" ".join(str(child.pid) for child in multiprocessing.active_children()))
    os.kill(os.getpid(), signal.SIGKILL)

class Progress:
    def __init__(self, last):
        self.last = last

    def __call__(self, count):
        self.last -= count
        if self.last <= 0:
            die()

def build(place, num_workers):
    progress = None
    if place in ("note", "move_into_place", "report"):
        name = {"note": "_write_note", "report": "write_atomically"}.get(place, place)
        setattr(building, name, lambda *arguments: die())
    elif place:
        progress = Progress(int(place))
    options = replace(OPTIONS, num_workers=num_workers)
    building.build_shards(samples(Path(sys.argv[1])), Path(sys.argv[2]), "a test", "CC0", options, None, progress)

if __name__ == "__main__":
    *places, last = sys.argv[3].split(",")
    for place in places:
        child = os.fork()
        if child == 0:
            build(place, 1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, place
        assert not (Path(sys.argv[2]) / "manifest.json").exists(), place
    build(last, int(sys.argv[5]))
"""


def samples(folder: Path) -> Iterator[Sample]:
    """Samples of small files; two cannot be used, and the last but one is in two pieces."""
    for number in range(NUM_SAMPLES):
        truth = Truth(f"s{number}", f"query {number}", 8.0, 10, 64, 48, (2, 5), {2: (0.0, 0.0, 8.0, 8.0)})
        yield Sample(replace(truth, width=-1 if number == 4 else 64), folder / f"{number}.mp4")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for number in range(NUM_SAMPLES):
        if number != 7:
            (folder / f"{number}.mp4").write_bytes(b"video %d " % number * 1000)
    return folder


@pytest.fixture(scope="module")
def quiet(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quiet")
    build_shards(samples(files), out, "a test", "CC0", OPTIONS)
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def run_script(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = Path(str(arguments[3])).with_name("script.py")  # a file: workers import the module that started them
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_shards_hold_the_samples_at_their_places(quiet: Path) -> None:
    assert sorted(content(quiet)) == ["manifest.json", REPORT_NAME, *(f"shard-0000{n}.tar" for n in range(4))]
    assert [shard.num_samples for shard in read_manifest(quiet).shards] == [3, 2, 2, 2] and verify(quiet) == ()
    assert [s.truth.id for s in ShardFolder(quiet)] == ["s0", "s1", "s2", "s3", "s5", "s6", "s8", "s9", "s10"]
    told = json.loads((quiet / REPORT_NAME).read_text())
    assert [skipped["id"] for skipped in told["skipped"]] == ["s4", "s7"] and told["written"] == 9
    assert "width is -1" in told["skipped"][0]["reason"] and "7.mp4" in told["skipped"][1]["reason"]


def test_without_anything_skipped_they_are_those_of_the_plain_writer(files: Path, tmp_path: Path) -> None:
    good = [sample for sample in samples(files) if sample.truth.id not in ("s4", "s7")]
    build_shards(good, tmp_path / "a", "a test", "CC0", OPTIONS)
    write_shards(good, tmp_path / "b", "a test", "CC0", OPTIONS)
    assert {**content(tmp_path / "b"), REPORT_NAME: b""} == {**content(tmp_path / "a"), REPORT_NAME: b""}


@pytest.mark.slow
def test_a_build_killed_at_many_places_ends_the_same(files: Path, quiet: Path, tmp_path: Path) -> None:
    """After samples, before a note, before the report and before the manifest; then a last one undisturbed."""
    out = tmp_path / "out"
    places = "1,2,3,note,4,7,9,note,report,move_into_place,"
    done = run_script(files, out, places, tmp_path / "pids", 1)
    assert done.returncode == 0, done.stderr
    assert content(out) == content(quiet) and not (out / BUILDING).exists()


@pytest.mark.slow
def test_a_killed_parallel_build_ends_the_same_and_leaves_no_process(files: Path, quiet: Path, tmp_path: Path) -> None:
    out, pids = tmp_path / "out", tmp_path / "pids"
    assert run_script(files, out, "4", pids, 3).returncode == -signal.SIGKILL
    workers = pids.read_text().split()
    deadline = time.monotonic() + 30
    while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers and not [pid for pid in workers if is_running(pid)]
    assert not (out / "manifest.json").exists()
    done = run_script(files, out, "", pids, 2)
    assert done.returncode == 0, done.stderr
    assert content(out) == content(quiet)


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def half_built(files: Path, out: Path) -> list[str]:
    """A build that breaks after two shards; the names of what it left."""

    def broken() -> Iterator[Sample]:
        for number, sample in enumerate(samples(files)):
            if number == 7:
                raise RuntimeError("the reader broke")
            yield sample

    with pytest.raises(RuntimeError, match="the reader broke"):
        build_shards(broken(), out, "a test", "CC0", OPTIONS)
    return sorted(path.name for path in (out / BUILDING).iterdir())


def test_finished_shards_are_kept_and_damaged_ones_written_anew(files: Path, quiet: Path, tmp_path: Path) -> None:
    for damage in ("nothing", "cut", "gone", "note", "part"):
        out = tmp_path / damage
        left = half_built(files, out)
        tars = [out / BUILDING / name for name in left if name.endswith(".tar")]
        assert len(tars) == 2 and len(left) == 4
        note = tars[1].with_suffix(".json")
        if damage == "cut":
            tars[1].write_bytes(tars[1].read_bytes()[:-1000])
        elif damage == "gone":
            tars[1].unlink()
        elif damage == "note":
            note.write_text(note.read_text()[:20])
        elif damage == "part":
            note.unlink()
            (out / BUILDING / f"{note.stem}.99.part").write_bytes(b"half a shard")
        inodes = [path.stat().st_ino for path in tars if path.exists()]
        build_shards(samples(files), out, "a test", "CC0", OPTIONS)
        assert content(out) == content(quiet), damage
        kept = [path.stat().st_ino for path in out.glob("*.tar")]
        assert inodes[0] in kept and (damage != "nothing" or inodes[1] in kept)


def test_what_changed_meanwhile_is_written_anew(files: Path, tmp_path: Path) -> None:
    own = shutil.copytree(files, tmp_path / "files")
    out = tmp_path / "out"
    half_built(own, out)
    (own / "1.mp4").write_bytes(b"another video, of another length")
    (own / "7.mp4").write_bytes(b"here it is")
    built = build_shards(samples(own), out, "a test", "CC0", OPTIONS)
    assert [skipped.id for skipped in built.skipped] == ["s4"]
    assert ShardFolder(out)[1].video == b"another video, of another length"


def test_an_annotation_that_cannot_be_read_is_no_error_of_writing(tmp_path: Path) -> None:
    def missing() -> Iterator[Sample]:
        raise FileNotFoundError("there is no annotation file at x.json")
        yield

    with pytest.raises(FileNotFoundError, match=r"^there is no annotation file at x\.json$"):
        build_shards(missing(), tmp_path, "a test", "CC0", OPTIONS)


def test_a_full_disk_is_named_and_what_is_finished_is_kept(files: Path, quiet: Path, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    small = [sample for sample in samples(files)]
    (tmp_path / "big.mp4").write_bytes(bytes(200_000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="could not be written") as caught:
            build_shards(
                [*small, replace(small[0], video=tmp_path / "big.mp4")][3:], tmp_path / "x", "t", "CC0", OPTIONS
            )
        big = [*small[:9], replace(small[9], video=tmp_path / "big.mp4")]
        with pytest.raises(OSError, match="could not be written"):
            build_shards(big, tmp_path / "out", "a test", "CC0", OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    names = sorted(path.name for path in (tmp_path / "out" / BUILDING).iterdir())
    assert len(names) == 6 and not [name for name in names if name.endswith(".part")]
    build_shards(samples(files), tmp_path / "out", "a test", "CC0", OPTIONS)
    assert content(tmp_path / "out") == content(quiet)


def test_a_complete_folder_is_kept_unless_told_otherwise(files: Path, quiet: Path, tmp_path: Path) -> None:
    out = shutil.copytree(quiet, tmp_path / "out")
    with pytest.raises(FileExistsError, match="already holds complete shards"):
        build_shards(samples(files), out, "a test", "CC0", OPTIONS)
    few = list(samples(files))[:2]
    build_shards(few, out, "a test", "CC0", replace(OPTIONS, overwrite=True))
    assert len(ShardFolder(out)) == 2 and verify(out) == ()


def test_too_many_skipped_or_none_at_all_are_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"2 of 11 samples cannot be used, more than the allowed share of 0.1"):
        build_shards(samples(files), tmp_path, "a test", "CC0", replace(OPTIONS, max_skipped_share=0.1))
    with pytest.raises(ValueError, match="no samples"):
        build_shards([], tmp_path, "a test", "CC0")
    with pytest.raises(ValueError, match="num_workers must be at least 1, not 0"):
        WriteOptions(num_workers=0)
    assert not (tmp_path / "manifest.json").exists()


def test_progress_counts_every_sample_and_the_report_is_stored(files: Path, tmp_path: Path) -> None:
    report, seen = Report(), list[int]()
    report.dropped("no reason", "a.json[3]")
    half_built(files, tmp_path)
    build_shards(samples(files), tmp_path, "a test", "CC0", OPTIONS, report, seen.append)
    assert sum(seen) == NUM_SAMPLES - 1, "all but the one whose truth is broken"
    told = json.loads((tmp_path / REPORT_NAME).read_text())
    assert told["dropped"] == {"no reason": {"count": 1, "examples": ["a.json[3]"]}} and told["changed"] == {}


def test_a_worker_that_dies_is_told_of() -> None:
    with (
        pytest.raises(ChildProcessError, match=r"a worker process died \(exit code 3\)"),
        Workers(exit_3, 2) as workers,
    ):
        list(workers.run([1, 2, 3]))


def test_an_error_of_a_worker_is_its_own() -> None:
    with pytest.raises(KeyError, match="2"), Workers(key_error, 2) as workers:
        list(workers.run([1, 2, 3]))


def exit_3(task: int, progress: object) -> int:
    os._exit(3)


def key_error(task: int, progress: object) -> int:
    if task == 2:
        raise KeyError(task)
    return task


# Footage


def test_excerpts_and_pictures_are_encoded_frame_for_frame(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", num_frames=20)
    cut = encoded_footage(excerpt(video, 5, 12), 5.0)
    assert isinstance(cut, bytes) and probe_video(cut).num_frames == 7
    assert encoded_footage(video, 5.0) == video
    pictures = make_pictures(tmp_path / "p", ["3", "1", "2"])
    assert probe_video(encoded_footage(pictures, 4.0)).num_frames == 3
    assert probe_video(encoded_footage(pictures / "1.png", 1.0)).num_frames == 1
    with pytest.raises(UnreadableVideo, match="ends at frame 19: the excerpt begins at 30"):
        encoded_footage(excerpt(video, 30, 40), 5.0)
    make_pictures(tmp_path / "q", ["9"], width=30)
    (tmp_path / "q" / "9.png").rename(pictures / "9.png")
    with pytest.raises(UnreadableVideo, match="frames change from 32 x 16 to 30 x 16"):
        encoded_footage(pictures, 4.0)
    (pictures / "9.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableVideo, match=r"9\.png cannot be read as a picture"):
        encoded_footage(pictures, 4.0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableVideo, match="no pictures in"):
        encoded_footage(tmp_path / "empty", 4.0)


def number_when_both_are_there(folder: Path, progress: object) -> int:
    """This worker's number, told once another worker is there too."""
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)
    return worker_number()


def test_workers_have_numbers(tmp_path: Path) -> None:
    with Workers(number_when_both_are_there, 2) as workers:
        assert sorted(workers.run([tmp_path, tmp_path])) == [0, 1]
    assert worker_number() == 0, "in a process that is no worker"
