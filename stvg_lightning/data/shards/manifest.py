"""The manifest of a folder of shards: which files belong to it, their hashes and counts, where the data came from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stvg_lightning import __version__
from stvg_lightning.tubes.files import replacing
from stvg_lightning.tubes.json_values import check_keys, is_integer, read_integer, read_text, refuse, strict_json

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1
LARGEST_FILE = 1 << 60
CREATED_BY = f"stvg-lightning {__version__}"


@dataclass(frozen=True)
class ShardEntry:
    """One shard: its file name, the SHA-256 of its bytes in hexadecimal, and its counts."""

    name: str
    sha256: str
    num_samples: int
    num_bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a complete folder of shards holds; a folder without its manifest is an unfinished one."""

    source: str
    licence: str
    shards: tuple[ShardEntry, ...]
    created_by: str = CREATED_BY
    schema_version: int = SCHEMA_VERSION

    @property
    def num_samples(self) -> int:
        return sum(shard.num_samples for shard in self.shards)

    @property
    def content_hash(self) -> str:
        """SHA-256 over the shards' hashes in order: equal for equal content, wherever it lies."""
        return hashlib.sha256("\n".join(shard.sha256 for shard in self.shards).encode("ascii")).hexdigest()


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest whole or not at all: a reader never sees half of it."""
    with replacing(directory / MANIFEST_NAME) as beside, beside.open("w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(manifest), file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a folder, after a look whether every shard it names is there.

    Raises:
        FileNotFoundError: no manifest, or a shard is missing.
        ValueError: the manifest is broken, or of another schema version.
    """
    manifest = load_manifest(directory)
    missing = [shard.name for shard in manifest.shards if not (directory / shard.name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{directory} lacks {len(missing)} of its {len(manifest.shards)} shards: {_few(missing)}"
        )
    return manifest


def load_manifest(directory: Path) -> Manifest:
    """The manifest of a folder as it is written, whether or not its shards are there."""
    path = directory / MANIFEST_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {MANIFEST_NAME} in {directory}: no shards, or a build that did not finish"
        )
    try:
        record = strict_json(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            refuse("the manifest", record, "a JSON object")
        if record.get("schema_version") != SCHEMA_VERSION:
            refuse("schema_version", record.get("schema_version"), f"{SCHEMA_VERSION}: build the shards anew")
        names = tuple(field.name for field in dataclasses.fields(Manifest))
        check_keys(record, names, names)
        if not isinstance(record["shards"], list):
            refuse("shards", record["shards"], "a list")
        shards = tuple(_read_entry(entry) for entry in record["shards"])
        source, licence, created_by = (read_text(record[name], name) for name in ("source", "licence", "created_by"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Manifest(source, licence, shards, created_by)


def verify(directory: Path) -> tuple[str, ...]:
    """Compare a folder with its manifest, every byte of it.

    Returns:
        One sentence for each difference; empty where the folder is as it was written.
    """
    manifest = load_manifest(directory)
    differences = [_difference(directory / shard.name, shard) for shard in manifest.shards]
    known = {shard.name for shard in manifest.shards}
    strangers = sorted(path.name for path in directory.glob("*.tar") if path.name not in known)
    return (*filter(None, differences), *(f"{name} is not in the manifest" for name in strangers))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _difference(path: Path, shard: ShardEntry) -> str | None:
    if not path.is_file():
        return f"{shard.name} is missing"
    num_bytes = path.stat().st_size
    if num_bytes != shard.num_bytes:
        return f"{shard.name} has {num_bytes} bytes instead of {shard.num_bytes}"
    sha256 = file_sha256(path)
    return None if sha256 == shard.sha256 else f"{shard.name} has SHA-256 {sha256} instead of {shard.sha256}"


def _read_entry(entry: Any) -> ShardEntry:
    if not isinstance(entry, dict):
        refuse("a shard", entry, "a JSON object")
    names = tuple(field.name for field in dataclasses.fields(ShardEntry))
    check_keys(entry, names, names)
    name = read_text(entry["name"], "name")
    if Path(name).name != name:
        refuse("a shard's name", name, "a file name without folders")
    if not is_integer(entry["num_bytes"], 1, LARGEST_FILE):
        refuse("num_bytes", entry["num_bytes"], "an integer of at least 1")
    num_samples = read_integer(entry["num_samples"], "num_samples")
    return ShardEntry(name, read_text(entry["sha256"], "sha256"), num_samples, entry["num_bytes"])


def _few(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
