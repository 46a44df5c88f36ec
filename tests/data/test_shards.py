"""Shards: what is written is read, every sample once an epoch, and damage is named, counted, and in the end refused."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import logging
import pickle
import resource
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from stvg_lightning.data.shards import (
    BadSample,
    ShardFolder,
    ShardStream,
    TooManyBadSamples,
    WriteOptions,
    contact_sheet,
    describe,
    read_manifest,
    record_to_sample,
    sample_to_record,
    verify,
    write_shards,
)
from stvg_lightning.data.shards.codec import record_key
from stvg_lightning.data.shards.manifest import MANIFEST_NAME, Manifest, ShardEntry, file_sha256, write_manifest
from stvg_lightning.data.video import UnreadableVideo, decode_frames, encode_mp4
from stvg_lightning.tubes import Clip, Sample, Truth

Samples = tuple[Sample, ...]


def tiny_sample(number: int, **changes: Any) -> Sample:
    """A sample whose video is no video: enough wherever nothing is decoded."""
    truth = Truth(f"s{number}", f"query {number}", 8.0, 10, 64, 48, (2, 5), {2: (0.0, 0.0, 8.0, 8.0)})
    return Sample(dataclasses.replace(truth, **changes), b"video %d" % number)


def tiny_folder(out: Path, num_samples: int, samples_per_shard: int = 4) -> Path:
    options = WriteOptions(samples_per_shard=samples_per_shard, check_videos=False)
    write_shards((tiny_sample(number) for number in range(num_samples)), out, "made up", "CC0", options)
    return out


def raw_folder(out: Path, *records: dict[str, Any]) -> Path:
    """A complete folder of one shard with records that the writer would refuse."""
    out.mkdir(exist_ok=True)
    path = out / "shard-00000.tar"
    with path.open("wb") as file:
        tar = webdataset.TarWriter(file, encoder=False, mtime=0)
        for record in records:
            tar.write(record)
        tar.close()
    entry = ShardEntry(path.name, file_sha256(path), len(records), path.stat().st_size)
    write_manifest(out, Manifest("made up", "CC0", (entry,)))
    return out


def ids_of(items: Any) -> list[str]:
    return [item.truth.id for item in items]


# Records


@pytest.mark.parametrize("video", [b"bytes", None])
def test_a_record_keeps_everything(synthetic_samples: Samples, tmp_path: Path, video: bytes | None) -> None:
    sample = dataclasses.replace(synthetic_samples[0], source="")
    if video is None:
        path = tmp_path / "a.b.webm"
        path.write_bytes(sample.video)
        record = sample_to_record(dataclasses.replace(sample, video=path))
        assert set(record) == {"__key__", "json", "masks.json", "webm"}
    else:
        record = sample_to_record(sample)
        assert set(record) == {"__key__", "json", "masks.json", "mp4"}
    read = record_to_sample(record, "x.tar, number 0")
    assert dataclasses.replace(read, source="") == sample
    assert read.source == "x.tar, number 0, sample 'synthetic-0000000000'"


@given(st.text(min_size=1), st.text(min_size=1))
def test_keys_are_safe_short_and_of_one_id(first: str, second: str) -> None:
    for sample_id in (first, first * 60):
        key = record_key(sample_id)
        assert key.isascii() and len(key) <= 80 and not set("./\\ \n\0") & set(key)
    assert (record_key(first) == record_key(second)) == (first == second)
    assert (record_key(first * 60) == record_key(second * 60)) == (first == second or first * 60 == second * 60)


@pytest.mark.parametrize(
    ("start", "extension"),
    [
        (b"\x00\x00\x00\x20ftypisom", "mp4"),
        (b"\x00\x00\x00\x14ftypqt  ", "mov"),
        (b"\x1a\x45\xdf\xa3\x01\x42\x82\x84webm", "webm"),
        (b"\x1a\x45\xdf\xa3\x01\x42\x82\x88matroska", "mkv"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "avi"),
    ],
)
def test_bytes_tell_their_container(start: bytes, extension: str) -> None:
    assert extension in sample_to_record(dataclasses.replace(tiny_sample(0), video=start))


def broken(sample: Sample, **parts: Any) -> dict[str, Any]:
    """The record of a sample with parts replaced, or left out where None."""
    return {key: value for key, value in (sample_to_record(sample) | parts).items() if value is not None}


def edited_json(sample: Sample, **changes: Any) -> bytes:
    return json.dumps(json.loads(sample_to_record(sample)["json"]) | changes).encode()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"json": None}, "the part 'json' is missing"),
        ({"mp4": None}, "one video .* is needed, found json"),
        ({"webm": b"x"}, "one video .* is needed, found json, mp4, webm"),
        ({"json": b"{"}, "broken JSON"),
        ({"json": b"[]"}, "it must be a JSON object"),
        ({"json": b"\xff"}, "utf-8"),
        ({"json": edited_json(tiny_sample(0), boxes_xyxy={"2": [0, 0, float("nan"), 1]})}, "NaN is not allowed"),
        ({"json": edited_json(tiny_sample(0), fps=None)}, "fps is None"),
        ({"masks.json": b'{"1": 3}'}, "masks of object 1 is 3"),
        ({"masks.json": b"{"}, "masks.json: broken JSON"),
    ],
)
def test_a_bad_record_is_named(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(BadSample, match=f"^x.tar, sample 's0': .*{message}"):
        record_to_sample(broken(tiny_sample(0), **parts), "x.tar")


def test_a_bad_sample_is_not_made_a_record() -> None:
    with pytest.raises(BadSample, match=r"sample 's0': boxes_xyxy, frame 2: .*nan"):
        sample_to_record(tiny_sample(0, boxes_xyxy={2: (0.0, 0.0, float("nan"), 1.0)}))
    with pytest.raises(BadSample, match=r"the extension of v\.txt must be one of mp4"):
        sample_to_record(dataclasses.replace(tiny_sample(0), video=Path("v.txt")))


# Writing


def test_shards_hold_the_samples_in_order(shard_folder: Path, synthetic_samples: Samples) -> None:
    manifest = read_manifest(shard_folder)
    assert [(shard.name, shard.num_samples) for shard in manifest.shards] == [
        ("shard-00000.tar", 3),
        ("shard-00001.tar", 3),
        ("shard-00002.tar", 2),
    ]
    assert (manifest.num_samples, manifest.source, manifest.licence) == (8, "the synthetic world", "Apache-2.0")
    assert sorted(path.name for path in shard_folder.iterdir()) == [MANIFEST_NAME, *(s.name for s in manifest.shards)]
    folder = ShardFolder(shard_folder)
    for read in (list(folder), [folder[index] for index in range(-8, 0)]):
        assert [dataclasses.replace(sample, source="") for sample in read] == [
            dataclasses.replace(sample, source="") for sample in synthetic_samples
        ]
    assert [folder.truth(index) for index in range(8)] == [sample.truth for sample in synthetic_samples]
    for index in (8, -9):
        with pytest.raises(IndexError, match=f"sample {index} is not one of the 8"):
            folder[index]
    third = synthetic_samples[3].truth
    assert folder.of_id(third.id).truth == third
    with pytest.raises(KeyError):
        folder.of_id("no such id")


def test_plain_webdataset_reads_our_shards(shard_folder: Path, synthetic_samples: Samples) -> None:
    urls = [str(path) for path in sorted(shard_folder.glob("*.tar"))]
    dataset = webdataset.WebDataset(urls, shardshuffle=False)
    samples = [record_to_sample(record, record["__url__"]) for record in dataset]
    assert [sample.truth for sample in samples] == [sample.truth for sample in synthetic_samples]
    assert [sample.video for sample in samples] == [sample.video for sample in synthetic_samples]


def test_ids_with_dots_and_slashes_stay_apart(tmp_path: Path) -> None:
    ids = ["a.mp4", "a.json", "a", "a/b", "../a", "__a__", "日本", "x" * 300, "x" * 301]
    samples = [tiny_sample(number, id=name) for number, name in enumerate(ids)]
    write_shards(samples, tmp_path, "made up", "CC0", WriteOptions(check_videos=False))
    assert ids_of(ShardFolder(tmp_path)) == ids
    url = str(tmp_path / "shard-00000.tar")
    assert len(list(webdataset.WebDataset(url, shardshuffle=False))) == len(ids)


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = read_manifest(tiny_folder(tmp_path / "a", 9)), read_manifest(tiny_folder(tmp_path / "b", 9))
    assert first == second and first.content_hash == second.content_hash
    assert [(tmp_path / "a" / s.name).read_bytes() for s in first.shards] == [
        (tmp_path / "b" / s.name).read_bytes() for s in second.shards
    ]
    assert read_manifest(tiny_folder(tmp_path / "c", 8)).content_hash != first.content_hash


def test_a_complete_folder_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    tiny_folder(tmp_path, 9)
    with pytest.raises(FileExistsError, match="already holds complete shards"):
        tiny_folder(tmp_path, 2)
    options = WriteOptions(check_videos=False, overwrite=True)

    def failing() -> Iterator[Sample]:
        yield tiny_sample(0)
        raise RuntimeError("the reader broke")

    with pytest.raises(RuntimeError, match="the reader broke"):
        write_shards(failing(), tmp_path, "made up", "CC0", options)
    assert verify(tmp_path) == () and len(ShardFolder(tmp_path)) == 9
    own = ShardFolder(tmp_path)  # rewriting a folder from itself reads the old shards until the new are whole
    write_shards((own[index] for index in range(2)), tmp_path, "made up", "CC0", options)
    assert verify(tmp_path) == () and ids_of(ShardFolder(tmp_path)) == ["s0", "s1"]


def test_what_a_killed_build_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".unfinished").mkdir()
    (tmp_path / ".unfinished" / "shard-00007.tar").write_bytes(b"half")
    (tmp_path / "shard-00005.tar").write_bytes(b"moved, but its manifest never came")
    (tmp_path / "notes.txt").write_text("the user's own")
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json"):
        read_manifest(tmp_path)
    tiny_folder(tmp_path, 1)
    assert {path.name for path in tmp_path.iterdir()} == {MANIFEST_NAME, "shard-00000.tar", "notes.txt"}


def test_a_full_disk_gives_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    big = [dataclasses.replace(tiny_sample(number), video=bytes(60_000)) for number in range(9)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=f"the shards in {tmp_path} could not be written") as caught:
            write_shards(big, tmp_path, "made up", "CC0", WriteOptions(check_videos=False))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="could not be written"):
        tiny_folder(tmp_path / "file" / "inside", 1)


def test_unusable_samples_are_skipped_and_named(synthetic_samples: Samples, tmp_path: Path) -> None:
    def changed(number: int, **changes: Any) -> Sample:
        sample = synthetic_samples[number]
        return dataclasses.replace(sample, truth=dataclasses.replace(sample.truth, id=f"bad{number}", **changes))

    first = synthetic_samples[0]
    samples = [
        *synthetic_samples,
        changed(1, width=130),
        changed(2, num_frames=synthetic_samples[2].truth.num_frames + 2),
        changed(3, num_frames=synthetic_samples[3].truth.num_frames + 1),
        dataclasses.replace(changed(4), video=b"no video"),
        dataclasses.replace(changed(5), video=tmp_path / "missing.mp4"),
        first,
    ]
    seen: list[int] = []
    options = WriteOptions(max_skipped_share=0.5)
    report = write_shards(samples, tmp_path / "out", "made up", "CC0", options, progress=seen.append)
    assert seen == list(range(1, 15))
    assert report.num_written == 9 and read_manifest(tmp_path / "out") == report.manifest
    # 'bad1' differs in its masks' size too; the video is looked at first.
    reasons = {skipped.id: skipped.reason for skipped in report.skipped}
    assert list(reasons) == ["bad1", "bad2", "bad4", "bad5", first.truth.id]
    assert reasons["bad1"] == "the video is 128 x 128 pixels, the truth says 130 x 128"
    assert "frames, the truth says" in reasons["bad2"] and "cannot be read as a video" in reasons["bad4"]
    assert "there is no video at" in reasons["bad5"] and "the same id" in reasons[first.truth.id]


def test_too_many_skipped_samples_fail_the_build(tmp_path: Path) -> None:
    samples = [tiny_sample(number, width=64 if number else -1) for number in range(9)]
    options = WriteOptions(check_videos=False)
    with pytest.raises(ValueError, match=r"1 of 9 samples .* share of 0.1; the first:\n  s0: .*width is -1"):
        write_shards(samples, tmp_path, "made up", "CC0", options)
    assert list(tmp_path.iterdir()) == []
    report = write_shards([*samples, tiny_sample(9)], tmp_path, "made up", "CC0", options)
    assert report.num_written == 9 and len(report.skipped) == 1


def test_a_build_needs_samples_a_source_and_a_licence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no samples"):
        write_shards([], tmp_path, "made up", "CC0")
    with pytest.raises(ValueError, match="licence is ' '"):
        write_shards([tiny_sample(0)], tmp_path, "made up", " ")
    with pytest.raises(ValueError, match="samples_per_shard must be at least 1, not 0"):
        WriteOptions(samples_per_shard=0)


# The manifest


def test_differences_from_the_manifest_are_listed(tmp_path: Path) -> None:
    tiny_folder(tmp_path, 16)
    assert verify(tmp_path) == ()
    path = tmp_path / "shard-00000.tar"
    flipped = bytearray(path.read_bytes())
    flipped[700] ^= 1
    path.write_bytes(flipped)
    (tmp_path / "shard-00001.tar").write_bytes(b"x")
    (tmp_path / "shard-00002.tar").rename(tmp_path / "other.tar")
    differences = verify(tmp_path)
    assert len(differences) == 4
    assert "shard-00000.tar has SHA-256" in differences[0] and "shard-00001.tar has 1 bytes" in differences[1]
    assert differences[2:] == ("shard-00002.tar is missing", "other.tar is not in the manifest")
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of its 4 shards: shard-00002\.tar"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version is 2: it must be 1"),
        ({"license": "x"}, "unknown key 'license': the nearest valid key is 'licence'"),
        ({"shards": [{"name": "../x.tar", "sha256": "0", "num_samples": 1, "num_bytes": 1}]}, "a shard's name"),
        ({"shards": [{"name": "x.tar"}]}, "key 'sha256' is missing"),
        ({"shards": [{"name": "x.tar", "sha256": "0", "num_samples": -1, "num_bytes": 1}]}, "num_samples is -1"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tiny_folder(tmp_path, 1) / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=f"^{path}: {message}"):
        read_manifest(tmp_path)


# Streaming


@settings(max_examples=50, deadline=None)
@given(
    num_samples=st.integers(1, 25),
    world_size=st.integers(1, 4),
    num_workers=st.integers(1, 4),
    batch_size=st.integers(1, 5),
    seed=st.integers(0, 5),
    data=st.data(),
)
def test_every_place_goes_to_one_consumer(
    tmp_path_factory: pytest.TempPathFactory,
    num_samples: int,
    world_size: int,
    num_workers: int,
    batch_size: int,
    seed: int,
    data: st.DataObject,
) -> None:
    out = tmp_path_factory.getbasetemp() / f"tiny-{num_samples}"
    if not out.exists():
        tiny_folder(out, num_samples)
    start = data.draw(st.integers(0, num_samples))
    seen: list[int] = []
    for rank in range(world_size):
        stream = ShardStream(out, seed, rank=rank, world_size=world_size)
        stream.set_batch_size(batch_size)
        stream.start_at(start)
        parts = [stream.share_of(worker, num_workers).tolist() for worker in range(num_workers)]
        assert (
            len(stream)
            == sum(map(len, parts))
            == len(range(start, num_samples)[(rank - start) % world_size :: world_size])
        )
        if batch_size == 1 and start == 0:  # the plain rule: place i belongs to consumer i % consumers
            order = stream.order().tolist()
            assert parts == [
                order[rank + world_size * worker :: world_size * num_workers] for worker in range(num_workers)
            ]
        seen += [index for part in parts for index in part]
    assert sorted(seen) == sorted(ShardStream(out, seed).order().tolist()[start:])


def test_an_epoch_is_a_permutation_that_seed_and_epoch_decide(tmp_path: Path) -> None:
    tiny_folder(tmp_path, 20)
    stream = ShardStream(tmp_path, seed=3)
    first = ids_of(stream)
    assert first == ids_of(stream) == ids_of(ShardStream(tmp_path, seed=3))
    assert sorted(first) == sorted(f"s{number}" for number in range(20)) and first != sorted(first)
    stream.set_epoch(1)
    assert ids_of(stream) != first and ids_of(ShardStream(tmp_path, seed=4)) != first
    stream.set_epoch(0)
    assert ids_of(stream) == first
    assert ids_of(ShardStream(tmp_path, shuffle=False)) == [f"s{number}" for number in range(20)]


def batches(stream: ShardStream, num_workers: int, batch_size: int = 3) -> list[list[str]]:
    stream.set_batch_size(batch_size)
    loader = DataLoader(stream, batch_size=batch_size, num_workers=num_workers, collate_fn=ids_of)
    found = list(loader)
    assert len(loader) == len(found)
    return found


def test_workers_give_the_same_batches_as_none(tmp_path: Path) -> None:
    tiny_folder(tmp_path, 11)
    alone = batches(ShardStream(tmp_path, seed=1), 0)
    assert [len(batch) for batch in alone] == [3, 3, 3, 2]
    assert batches(ShardStream(tmp_path, seed=1), 2) == alone


def test_workers_that_stay_see_a_new_epoch_and_start(tmp_path: Path) -> None:
    tiny_folder(tmp_path, 10)
    stream, expected = ShardStream(tmp_path), ShardStream(tmp_path)
    stream.set_batch_size(2)
    loader = DataLoader(stream, batch_size=2, num_workers=2, collate_fn=ids_of, persistent_workers=True)
    for epoch, start in ((0, 0), (1, 0), (1, 4)):
        stream.set_epoch(epoch)
        stream.start_at(start)
        expected.set_epoch(epoch)
        assert [name for batch in loader for name in batch] == ids_of(expected)[start:]


@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (0, 2), (1, 2)])
def test_a_run_goes_on_where_it_stopped(tmp_path: Path, rank: int, world_size: int) -> None:
    stream = ShardStream(tiny_folder(tmp_path, 17), rank=rank, world_size=world_size)
    whole = batches(stream, 0)
    for num_done in (1, 2):
        stream.start_at(num_done * 3 * world_size)
        assert batches(stream, 0) == whole[num_done:]
        stream.set_epoch(0)
        assert len(stream) == sum(map(len, whole[num_done:]))
    stream.set_epoch(1)
    assert len(stream) == sum(map(len, whole))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 1}, "rank 1 must lie in 0 to world_size 1"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"max_bad_share": 1.5}, "max_bad_share must lie in 0 to 1, not 1.5"),
    ],
)
def test_impossible_settings_are_refused(shard_folder: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShardStream(shard_folder, **arguments)


# Damage


def nan_record(number: int) -> dict[str, Any]:
    boxes = {"2": [0, 0, float("nan"), 1]}
    return broken(tiny_sample(number), json=edited_json(tiny_sample(number), boxes_xyxy=boxes))


def test_bad_samples_are_skipped_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = [sample_to_record(tiny_sample(number)) for number in range(40)]
    records = [*good[:20], nan_record(40), *good[20:], broken(tiny_sample(41), mp4=None)]
    stream = ShardStream(raw_folder(tmp_path, *records), shuffle=False)
    with caplog.at_level(logging.WARNING, "stvg_lightning.data"):
        assert ids_of(stream) == [f"s{number}" for number in range(40)]
    assert len(caplog.messages) == 2
    assert (
        "bad sample 1 skipped" in caplog.messages[0]
        and "shard-00000.tar, number 20, sample 's40'" in caplog.messages[0]
    )
    assert "bad sample 2 skipped" in caplog.messages[1] and "sample 's41'" in caplog.messages[1]


def test_too_many_bad_samples_stop_the_run(tmp_path: Path) -> None:
    good = [sample_to_record(tiny_sample(number)) for number in range(5, 100)]
    records = [nan_record(0), nan_record(1), nan_record(2), nan_record(3), nan_record(4), *good]
    folder = raw_folder(tmp_path, *records)
    assert len(ids_of(ShardStream(folder, shuffle=False))) == 95  # exactly the allowed share, all at the start
    with pytest.raises(TooManyBadSamples, match=r"5 of 5 samples were bad, .* 0.045; the first:\n.*'s0'(.|\n)*'s4'"):
        next(iter(ShardStream(folder, shuffle=False, max_bad_share=0.045)))


def test_a_few_bad_samples_are_weighed_at_the_end(tmp_path: Path) -> None:
    good = [sample_to_record(tiny_sample(number)) for number in range(1, 10)]
    folder = raw_folder(tmp_path, nan_record(0), *good)
    stream = iter(ShardStream(folder, shuffle=False))
    assert len([next(stream) for _ in range(9)]) == 9
    with pytest.raises(TooManyBadSamples, match="1 of 10 samples were bad"):
        next(stream)
    assert len(ids_of(ShardStream(folder, max_bad_share=0.1))) == 9


def test_one_bad_sample_in_a_short_part_stops_nothing(tmp_path: Path) -> None:
    good = [sample_to_record(tiny_sample(number)) for number in range(1, 40)]
    folder = raw_folder(tmp_path, nan_record(0), *good)
    parts = [ids_of(ShardStream(folder, shuffle=False, rank=rank, world_size=8)) for rank in range(8)]
    assert [len(part) for part in parts] == [4, *[5] * 7]


def test_errors_of_the_transform_are_counted_too(tmp_path: Path) -> None:
    tiny_folder(tmp_path, 30)

    def decode(sample: Sample) -> str:
        if sample.truth.id == "s7":
            raise UnreadableVideo("broken off")
        return sample.truth.id

    assert len(list(ShardStream(tmp_path, transform=decode))) == 29
    with pytest.raises(TooManyBadSamples, match=r"shard-00001.tar, number 3, sample 's7': broken off"):
        list(ShardStream(tmp_path, transform=decode, max_bad_share=0.0))

    def fail(sample: Sample) -> str:
        raise KeyError("a bug, not a bad sample")

    with pytest.raises(KeyError):
        list(ShardStream(tmp_path, transform=fail))


def test_errors_travel_between_processes(tmp_path: Path) -> None:
    folder = raw_folder(tmp_path, *(nan_record(number) for number in range(6)))
    with pytest.raises(TooManyBadSamples) as caught:
        list(ShardStream(folder, shuffle=False))
    arrived = pickle.loads(pickle.dumps(caught.value))
    assert type(arrived) is TooManyBadSamples and str(arrived) == str(caught.value)


@pytest.mark.parametrize("num_bytes", [0, 100, 512, 1000, 2000, 3000, 5000, 9000, 15_000])
def test_a_truncated_shard_keeps_the_samples_before_the_break(tmp_path: Path, num_bytes: int) -> None:
    tiny_folder(tmp_path, 12, samples_per_shard=6)
    path = tmp_path / "shard-00000.tar"
    with path.open("r+b") as file:
        file.truncate(num_bytes)
    # Header and content of json and mp4 take 512 bytes each; the last 512 need only the 7 bytes of "video 0".
    num_kept = sum(2048 * number + 1536 + 7 <= num_bytes for number in range(6))
    folder = ShardFolder(tmp_path)
    for index in range(12):
        if index < num_kept or index >= 6:
            assert folder[index].truth.id == f"s{index}"
        else:
            with pytest.raises(BadSample, match=r"shard-00000\.tar"):
                folder[index]
    if num_kept < 6:
        with pytest.raises(TooManyBadSamples, match=r"shard-00000\.tar"):
            list(ShardStream(tmp_path, max_bad_share=0.01))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_bytes_are_damaged_nothing_but_bad_samples_comes_of_it(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    out = tmp_path_factory.getbasetemp() / "damaged"
    if not out.exists():
        tiny_folder(out, 4)
        shutil.copy(out / "shard-00000.tar", out.with_suffix(".whole"))
    content = bytearray(out.with_suffix(".whole").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (out / "shard-00000.tar").write_bytes(content)
    folder = ShardFolder(out)
    for index in range(4):
        try:
            folder[index]
        except BadSample as error:
            assert "shard-00000.tar" in str(error)


def test_a_shard_with_more_samples_than_its_manifest_is_refused(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "a", 2)
    tiny_folder(tmp_path / "b", 3)
    shutil.copy(tmp_path / "b" / "shard-00000.tar", tmp_path / "a" / "shard-00000.tar")
    with pytest.raises(ValueError, match="holds 3 samples, the manifest says 2"):
        ShardFolder(tmp_path / "a")[0]


def test_a_folder_inside_a_tar_is_passed_over(tmp_path: Path) -> None:
    tiny_folder(tmp_path, 1)
    path = tmp_path / "shard-00000.tar"
    content = path.read_bytes()
    with tarfile.open(path, "w") as tar:
        folder = tarfile.TarInfo("a.folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        with tarfile.open(fileobj=io.BytesIO(content)) as old:
            for member in old:
                tar.addfile(member, old.extractfile(member))
    assert ids_of(ShardFolder(tmp_path)) == ["s0"]


# Looking inside


def test_the_description_says_what_is_inside(shard_folder: Path, synthetic_samples: Samples) -> None:
    truths = [sample.truth for sample in synthetic_samples]
    described = json.loads(json.dumps(describe(shard_folder), allow_nan=False))
    assert described["num_samples"] == 8 and described["licence"] == "Apache-2.0"
    assert described["sizes"] == {"128 x 128": 8} and described["tasks"] == {"stvg": 8}
    assert described["queries"] == [truth.query for truth in truths[:5]]
    objects = [len(truth.tracks) for truth in truths]
    assert described["objects_per_video"] == {"min": min(objects), "mean": sum(objects) / 8, "max": max(objects)}
    lengths = [(truth.span_frames[1] - truth.span_frames[0]) / truth.fps for truth in truths]
    assert described["span_seconds"]["max"] == max(lengths)
    assert described["span_seconds"]["mean"] == pytest.approx(sum(lengths) / 8, abs=5e-4)
    assert described["differences"] == described["bad_samples"] == []
    assert [shard["name"] for shard in described["shards"]] == [f"shard-0000{n}.tar" for n in range(3)]


def test_the_description_names_damage(tmp_path: Path) -> None:
    described = describe(
        raw_folder(tmp_path, nan_record(0), sample_to_record(tiny_sample(1, span_frames=None, task="spatial")))
    )
    assert len(described["bad_samples"]) == 1 and "'s0'" in described["bad_samples"][0]
    assert described["span_seconds"] is None and described["tasks"] == {"spatial": 1}


def test_the_contact_sheet_shows_the_true_box_in_its_place(tmp_path: Path) -> None:
    frames = np.full((10, 48, 64, 3), 200, dtype=np.uint8)
    boxes = {frame: (16.0, 12.0, 48.0, 36.0) for frame in range(2, 5)}
    sample = dataclasses.replace(tiny_sample(0, boxes_xyxy=boxes), video=encode_mp4(frames, 8.0))
    write_shards([sample], tmp_path, "made up", "CC0")
    sheet = np.asarray(contact_sheet(tmp_path, num_samples=5)).astype(int)
    green = (sheet[..., 1] > 150) & (sheet[..., 0] < 90) & (sheet[..., 2] < 120)
    rows, columns = np.flatnonzero(green.any(axis=1)), np.flatnonzero(green.any(axis=0))
    top = sheet.shape[0] - 4 - 112  # the frames are 112 high and a gap of 4 is below them
    width = round(64 * 112 / 48)
    assert rows[[0, -1]].tolist() == [top + 28, top + 83]
    assert columns[0] == round(16 * width / 64) and columns[-1] == 5 * (width + 4) + round(48 * width / 64) - 1

    def darken(clip: Clip, drawn: Sample) -> Clip:
        assert drawn.truth.id == "s0" and clip.frame_indices == (2, 2, 3, 3, 4, 4)
        return dataclasses.replace(clip, frames=clip.frames // 10)

    assert np.asarray(contact_sheet(tmp_path, draw=darken))[top + 2, 2].max() < 40
    with pytest.raises(ValueError, match="num_samples must be at least 1, not 0"):
        contact_sheet(tmp_path, num_samples=0)


def test_the_contact_sheet_has_a_row_for_each_sample(shard_folder: Path) -> None:
    rows = [contact_sheet(shard_folder, num_samples=number).height for number in (1, 2, 8, 100)]
    assert rows == [rows[0], 2 * rows[0], 8 * rows[0], 8 * rows[0]]


def test_videos_in_shards_decode(shard_folder: Path) -> None:
    sample = ShardFolder(shard_folder)[5]
    clip = decode_frames(sample.video, (0, sample.truth.num_frames - 1), sample.truth.fps)
    assert clip.frames.shape == (2, sample.truth.height, sample.truth.width, 3)
