"""RefCOCO, RefCOCO+ and RefCOCOg: expressions about an object of a COCO picture."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from stvg_lightning.data.annotations.conversions import (
    NO_AREA,
    OTHER_SIZE,
    box_of_xywh,
    samples_of,
    truth_of,
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
    text,
)
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.report import Dropped, Report
from stvg_lightning.tubes import Box, Sample
from stvg_lightning.tubes.json_values import refuse

OTHER_SPLIT = "another split than wished"


@dataclass(frozen=True)
class Picture:
    """A picture and its objects: annotation id -> box (None without area) and category id."""

    file_name: str
    width: int
    height: int
    objects: dict[int, tuple[Box | None, int]]


def read(
    annotations: Path, videos: VideoFolder, report: Report, split: str | None = None, split_by: str = "unc"
) -> Iterator[Sample]:
    """Samples of the task `spatial`, one for each sentence, ids `<ref_id>/<n>`: a video of one frame, at 1 a second.

    Converted: boxes from `[x, y, width, height]` to corners, not rounded; the objects of a picture are numbered from
    1 in the order of their annotation ids, each a track of one frame, with the name of its kind. The pickle is read
    with a reader that makes plain data only: lists, tables, texts, numbers; anything else is refused. Dropped: other
    splits, missing pictures, targets without a box.

    Args:
        annotations: a folder with `refs(<split_by>).p` and `instances.json`.
        videos: the folder of COCO's pictures.
        report: counts what was changed and dropped.
        split: `train`, `val`, `testA`, `testB` or `test`; by default all.
        split_by: who split it: `unc`, `google` or `umd`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a pickle that holds more than plain data, or a record that is broken.
    """
    pictures, kinds = _pictures(annotations / "instances.json")

    def convert(where: str, item: tuple[str, Any, Any]) -> Sample:
        identity, ref, words = item
        if split is not None and field(ref, "split", text) != split:
            raise Dropped(OTHER_SPLIT, ref["split"])
        image_id, target = field(ref, "image_id", frame_number), field(ref, "ann_id", frame_number)
        picture = pictures.get(image_id)
        if picture is None or target not in picture.objects:
            refuse("ann_id", target, f"an annotation of image {image_id} in instances.json")
        path, info = videos.picture(picture.file_name)
        if (info.width, info.height) != (picture.width, picture.height):
            raise Dropped(OTHER_SIZE, f"{info.width} x {info.height} instead of {picture.width} x {picture.height}")
        numbers = {annotation: number for number, annotation in enumerate(sorted(picture.objects), start=1)}
        tracks = {numbers[key]: {0: box} for key, (box, _) in sorted(picture.objects.items()) if box is not None}
        object_id = numbers[target]
        if object_id not in tracks:
            raise Dropped(NO_AREA, f"annotation {target}")
        what = {"boxes_xyxy": tracks[object_id], "object_id": object_id, "tracks": tracks}
        truth = truth_of(identity, sentence(words, "sent"), info, task="spatial", **what)
        categories = {numbers[key]: kinds[kind] for key, (_, kind) in picture.objects.items() if kind in kinds}
        return Sample(truth, path, categories=categories, source=where)

    return samples_of(_sentences(annotations / f"refs({split_by}).p"), convert, report)


def _sentences(file: Path) -> Iterator[tuple[str, tuple[str, Any, Any]]]:
    for index, ref in enumerate(listing(plain_pickle(file), str(file))):
        where = f"{file}[{index}]"
        try:
            identity = field(ref, "ref_id", name_text)
            sentences = [field(table(item, "a sentence"), "sent", _any) for item in field(ref, "sentences", listing)]
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        yield from ((f"{where}[{n}]", (f"{identity}/{n}", ref, words)) for n, words in enumerate(sentences))


def plain_pickle(file: Path) -> Any:
    """What a pickle holds, if it is plain data alone.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no pickle, a broken one, or one that names anything to be imported or called.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no annotation file at {file}")
    try:
        # Written by Python 2, whose texts are bytes.
        return _PlainUnpickler(io.BytesIO(file.read_bytes()), encoding="utf-8", errors="replace").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"{file}: no pickle of plain data: {error or type(error).__name__}") from None
    except (MemoryError, OverflowError, RecursionError):
        raise ValueError(f"{file}: a broken pickle: it asks for too much memory") from None


class _PlainUnpickler(pickle.Unpickler):
    """Knows no names: a pickle can call only what it imports by name."""

    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, which is not plain data")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it points outside itself")


def _pictures(file: Path) -> tuple[dict[int, Picture], dict[int, str]]:
    """Image id -> picture, and category id -> name, from COCO's `instances.json`."""
    pictures: dict[int, Picture] = {}
    kinds: dict[int, str] = {}
    for key in ("images", "categories", "annotations"):
        for where, _, record in json_records(file, key):
            try:
                _note(key, record, pictures, kinds)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
    return pictures, kinds


def _note(key: str, record: Any, pictures: dict[int, Picture], kinds: dict[int, str]) -> None:
    identity = field(record, "id", frame_number)
    if key == "images":
        width, height = field(record, "width", count), field(record, "height", count)
        pictures[identity] = Picture(field(record, "file_name", text), width, height, {})
    elif key == "categories":
        kinds[identity] = field(record, "name", text)
    else:
        picture = pictures.get(field(record, "image_id", frame_number))
        if picture is None:
            refuse("image_id", record["image_id"], "the id of an image")
        kind = field(record, "category_id", frame_number)
        picture.objects[identity] = field(record, "bbox", box_of_xywh), kind


def _any(value: Any, name: str) -> Any:
    return value
