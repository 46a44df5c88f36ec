"""One sample as one WebDataset record, and back: `json`, `masks.json` and the encoded video under one key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stvg_lightning.data.footage import encoded_footage
from stvg_lightning.tubes import Sample, Truth
from stvg_lightning.tubes.json_values import strict_json
from stvg_lightning.tubes.jsonl import Masks, TruthExtras, complete_truth, masks_from_json, parse_truth, truth_to_json

VIDEO_EXTENSIONS = ("mp4", "webm", "mkv", "avi", "mov")
RECORD_EXTRAS = ("categories", "thought", "response", "votes", "target_masks")
LONGEST_KEY = 80  # a plain tar header holds names of 100 characters, extensions included


class BadSample(ValueError):
    """A sample that cannot be used: the message names it and says why."""


def sample_to_record(sample: Sample) -> dict[str, bytes | str]:
    """A sample as WebDataset writes it.

    Args:
        sample: its video must be given as bytes, or as a path, which is read; footage is encoded.

    Returns:
        `__key__` (text), `json`, `masks.json` (left out where there are none) and the video under its
        extension (bytes). Bytes whose container is none of `VIDEO_EXTENSIONS` are stored as `mp4`.

    Raises:
        BadSample: the truth breaks a rule of truth lines (a NaN box, a span outside the video, ...).
        UnreadableVideo: footage that cannot be encoded.
        OSError: the video cannot be read.
    """
    truth = sample.truth
    return {"__key__": record_key(truth.id), **record_parts(sample), **video_part(sample.video, truth.id, truth.fps)}


def record_parts(sample: Sample) -> dict[str, bytes]:
    """`json` and, where there are masks, `masks.json` of a sample's record; fails as `sample_to_record`."""
    where = f"sample {sample.truth.id!r}"
    extras = {
        "categories": {str(object_id): name for object_id, name in sorted(sample.categories.items())},
        "thought": sample.thought,
        "response": sample.response,
        "votes": {str(object_id): count for object_id, count in sorted(sample.votes.items())},
        "target_masks": {str(frame): rle for frame, rle in sorted(sample.target_masks.items())},
    }
    record = truth_to_json(sample.truth) | {name: value for name, value in extras.items() if value}
    masks = {
        str(object_id): {str(frame): rle for frame, rle in sorted(rles.items())}
        for object_id, rles in sorted(sample.masks.items())
        if rles
    }
    try:
        truth = complete_truth(parse_truth(record, where, RECORD_EXTRAS)[0], where)
        _read_masks(masks, truth, where)
    except ValueError as error:
        raise BadSample(str(error)) from None
    return {name: _json_bytes(part) for name, part in {"json": record, "masks.json": masks}.items() if part}


def video_part(video: bytes | Path, identity: str, fps: float) -> dict[str, bytes]:
    """The video of a record under its extension; fails as `sample_to_record`."""
    encoded = encoded_footage(video, fps) if isinstance(video, Path) else video
    extension = _video_extension(encoded, identity)
    return {extension: encoded if isinstance(encoded, bytes) else encoded.read_bytes()}


def record_to_sample(record: Mapping[str, Any], where: str, with_video: bool = True) -> Sample:
    """The sample of a record, its video as bytes.

    Args:
        record: extension -> bytes, with `__key__`, as plain WebDataset yields it too.
        where: the shard and the sample's place in it, with which errors begin.
        with_video: false leaves the video empty, whether the record has one or not.

    Raises:
        BadSample: a part is missing or broken; the message names shard and sample.
    """
    truth, extras = record_truth(record, where)
    where = _named(record, where)
    extensions = [extension for extension in VIDEO_EXTENSIONS if extension in record]
    if with_video and len(extensions) != 1:
        found = ", ".join(sorted(name for name in record if not name.startswith("__"))) or "nothing"
        raise BadSample(f"{where}: one video ({', '.join(VIDEO_EXTENSIONS)}) is needed, found {found}")
    try:
        masks = strict_json(record["masks.json"].decode("utf-8")) if "masks.json" in record else None
    except ValueError as error:
        raise BadSample(f"{where}: masks.json: {error}") from None
    return Sample(
        truth,
        record[extensions[0]] if with_video else b"",
        _read_masks(masks, truth, where),
        extras.categories,
        extras.thought,
        extras.response,
        source=where,
        votes=extras.votes,
        target_masks=extras.target_masks,
    )


def record_truth(record: Mapping[str, Any], where: str) -> tuple[Truth, TruthExtras]:
    """Truth and extras of a record, of which only `json` is read; it fails as `record_to_sample` does."""
    where = _named(record, where)
    if "json" not in record:
        raise BadSample(f"{where}: the part 'json' is missing")
    try:
        content = strict_json(record["json"].decode("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it must be a JSON object")
        truth, extras = parse_truth(content, "json", RECORD_EXTRAS)
        truth = complete_truth(truth, "json")
    except ValueError as error:
        raise BadSample(f"{where}: {error}") from None
    return truth, extras


def record_key(sample_id: str) -> str:
    """An id as a key that is safe in tar and WebDataset, where a dot ends the key and a slash a folder.

    Letters, digits, `_`, `-` and `~` stay, anything else becomes `%` and two hexadecimal digits; a
    long id is cut, and `+` and its hash are appended. Two ids never share a key. The id itself stands in `json`.

    Example:
        >>> record_key("video 1.5/a")
        'video%201%2E5%2Fa'
    """
    key = quote(sample_id, safe="", errors="surrogatepass").replace(".", "%2E")
    if len(key) <= LONGEST_KEY:
        return key
    digest = hashlib.sha256(key.encode("ascii")).hexdigest()[:16]
    return f"{key[: LONGEST_KEY - len(digest) - 1]}+{digest}"


def _named(record: Mapping[str, Any], where: str) -> str:
    return f"{where}, sample {record.get('__key__')!r}"


def _read_masks(value: Any, truth: Truth, where: str) -> Masks:
    try:
        return masks_from_json(value, truth)
    except ValueError as error:
        raise BadSample(f"{where}: {error}") from None


def _video_extension(video: bytes | Path, identity: str) -> str:
    """The file's own extension, or the one that the first bytes tell."""
    if not isinstance(video, bytes):
        extension = video.suffix[1:].lower()
        if extension not in VIDEO_EXTENSIONS:
            allowed = ", ".join(VIDEO_EXTENSIONS)
            raise BadSample(f"sample {identity!r}: the extension of {video} must be one of {allowed}")
        return extension
    start = video[:64]
    if start.startswith(b"\x1a\x45\xdf\xa3"):
        return "webm" if b"webm" in start else "mkv"
    if start.startswith(b"RIFF") and start[8:12] == b"AVI ":
        return "avi"
    return "mov" if start[4:12] == b"ftypqt  " else "mp4"


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")
