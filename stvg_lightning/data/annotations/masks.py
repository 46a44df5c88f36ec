"""What the sets of masks share: masks from run lengths and from pictures of labels, and samples made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from stvg_lightning.data.annotations.conversions import OTHER_SIZE, truth_of
from stvg_lightning.data.annotations.jsonl import tube_of_masks
from stvg_lightning.data.report import Dropped
from stvg_lightning.data.video import VideoInfo
from stvg_lightning.tubes import Box, Rle, Sample, Tube, check_counts, encode_mask
from stvg_lightning.tubes.json_values import is_integer, refuse

VOID = 255
NO_OBJECT = "there is no truth: the expression names no object"
NO_MASKS = "the object has no mask in any frame"
NO_SENTENCE = "there is no sentence: the object's number stands for it"
OTHER_FRAMES = "the folder's pictures are not the frames listed"


@dataclass(frozen=True)
class MaskedVideo:
    """A video and the masks of its objects; `tracks` are the tightest boxes around them."""

    video: Path
    info: VideoInfo
    masks: Mapping[int, Mapping[int, Rle]]
    tracks: Mapping[int, Tube]


def masked_video(video: Path, info: VideoInfo, masks: Mapping[int, Mapping[int, Rle]]) -> MaskedVideo:
    """A video with its masks, object id -> frame -> mask.

    Raises:
        Dropped: a mask of another size than the video.
    """
    size = [info.height, info.width]
    for rles in masks.values():
        for rle in rles.values():
            if rle["size"] != size:
                raise Dropped(OTHER_SIZE, f"{info.width} x {info.height}, a mask of [height, width] {rle['size']}")
    seen = {object_id: tube_of_masks(rles) for object_id, rles in sorted(masks.items())}
    return MaskedVideo(
        video,
        info,
        {object_id: masks[object_id] for object_id, tube in seen.items() if tube},
        {object_id: tube for object_id, tube in seen.items() if tube},
    )


def masked_sample(where: str, identity: str, query: str, film: MaskedVideo, targets: Sequence[int]) -> Sample:
    """A sample of the task `spatial`: which objects are meant, over the whole video.

    Several targets are one answer: `object_ids` name them, and the boxes enclose the union of their masks.

    Raises:
        Dropped: no target has a mask anywhere.
    """
    ids = sorted({object_id for object_id in targets if object_id in film.tracks})
    if not ids:
        raise Dropped(NO_MASKS, ", ".join(map(str, targets)))
    what: dict[str, Any] = {"object_id": ids[0]} if len(ids) == 1 else {"object_ids": tuple(ids)}
    boxes = enclosing_tube([film.tracks[object_id] for object_id in ids])
    truth = truth_of(identity, query, film.info, boxes_xyxy=boxes, tracks=film.tracks, task="spatial", **what)
    return Sample(truth, film.video, film.masks, source=where)


def enclosing_tube(tubes: Sequence[Tube]) -> Tube:
    """In each frame the box around the boxes of all tubes that have one there: the box of their masks' union.

    Example:
        >>> enclosing_tube([{0: (0.0, 0.0, 2.0, 2.0)}, {0: (1.0, 1.0, 4.0, 3.0), 1: (5.0, 5.0, 6.0, 6.0)}])
        {0: (0.0, 0.0, 4.0, 3.0), 1: (5.0, 5.0, 6.0, 6.0)}
    """
    frames = sorted({frame for tube in tubes for frame in tube})
    return {frame: _around([tube[frame] for tube in tubes if frame in tube]) for frame in frames}


def rle_of(value: Any, name: str) -> Rle:
    """A COCO run-length encoding, its counts checked to cover the frame.

    Raises:
        ValueError: anything else.
    """
    if not isinstance(value, dict) or not {"size", "counts"} <= set(value):
        refuse(name, value, 'an object {"size": [height, width], "counts": text}')
    size, counts = value["size"], value["counts"]
    if not isinstance(size, list) or len(size) != 2 or not all(is_integer(side, 1, 1 << 16) for side in size):
        refuse(f"the size of {name}", size, "[height, width] in pixels")
    if not isinstance(counts, str) or not counts.isascii():
        refuse(f"the counts of {name}", counts, "compressed text, as COCO's tools write it")
    rle: Rle = {"size": size, "counts": counts}
    check_counts(rle)
    return rle


def check_frames(listed: Iterable[str], names: list[str]) -> None:
    """Drop a video whose pictures are not the frames that its annotation lists, in that order."""
    wanted = list(listed)
    if wanted != names:
        raise Dropped(OTHER_FRAMES, f"{len(names)} pictures, {len(wanted)} frames listed")


def label_masks(folder: Path, names: Sequence[str]) -> dict[int, dict[int, Rle]]:
    """Masks of the pictures of labels `<name>.png` in a folder; frames without one have no masks.

    A palette picture holds object ids, 0 the background and 255 unknown (as DAVIS 2017 has it); a grey one of 0
    and 255 is the mask of a single object, number 1 (as DAVIS 2016).

    Raises:
        ValueError: a picture of another kind, or a broken one.
    """
    masks: dict[int, dict[int, Rle]] = {}
    for frame, name in enumerate(names):
        picture = folder / f"{name}.png"
        if not picture.is_file():
            continue
        labels = _labels(picture)
        for object_id in np.unique(labels[labels > 0]).tolist():
            masks.setdefault(object_id, {})[frame] = encode_mask(labels == object_id)
    return masks


def label_ids(folder: Path) -> list[int]:
    """The object ids in any picture of labels of a folder, ascending; fails as `label_masks`."""
    ids: set[int] = set()
    for picture in sorted(folder.glob("*.png")):
        ids.update(np.unique(_labels(picture)).tolist())
    return sorted(ids - {0})


def _labels(picture: Path) -> np.ndarray:
    """Object ids by pixel, 0 where there is none or none is known."""
    try:
        with Image.open(picture) as image:
            mode, labels = image.mode, np.asarray(image)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{picture} cannot be read as a picture: {error}") from None
    if mode == "P":
        return np.where(labels == VOID, 0, labels)
    if mode in ("1", "L") and not set(np.unique(labels).tolist()) - {0, 1 if mode == "1" else VOID}:
        return (labels > 0).astype(np.uint8)
    raise ValueError(f"{picture} is of mode {mode}: it must hold a palette's object ids, or grey values 0 and 255")


def _around(boxes: Sequence[Box]) -> Box:
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)
