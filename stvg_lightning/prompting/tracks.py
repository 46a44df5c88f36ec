"""What tracking gives: for each thing a number, when it was found, and its masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stvg_lightning.tubes import Rle, Tube, rle_box


@dataclass(frozen=True)
class MaskTrack:
    """One thing of a video.

    Attributes:
        object_id: its number, from 1 on in the order of discovery; a number is never used for another thing.
        category: what the detector took it for when it was found.
        found_frame: the frame in which it was found.
        confidence: the detector's, in that frame.
        masks: frame -> mask, at the original size; frames in which it is not seen have none.
    """

    object_id: int
    category: str
    found_frame: int
    confidence: float
    masks: Mapping[int, Rle] = field(default_factory=dict)

    @property
    def tube(self) -> Tube:
        """Its box in each frame: the tightest around its mask."""
        boxes = {frame: rle_box(rle) for frame, rle in sorted(self.masks.items())}
        return {frame: box for frame, box in boxes.items() if box is not None}


def tracks_to_json(tracks: tuple[MaskTrack, ...]) -> list[dict[str, Any]]:
    """Tracks as values that JSON can say."""
    return [
        {
            "object_id": track.object_id,
            "category": track.category,
            "found_frame": track.found_frame,
            "confidence": track.confidence,
            "masks": {str(frame): rle for frame, rle in sorted(track.masks.items())},
        }
        for track in tracks
    ]


def tracks_from_json(records: list[dict[str, Any]]) -> tuple[MaskTrack, ...]:
    """The tracks that `tracks_to_json` wrote.

    Raises:
        KeyError: it wrote no such thing; so do TypeError and ValueError.
    """
    return tuple(
        MaskTrack(
            int(record["object_id"]),
            str(record["category"]),
            int(record["found_frame"]),
            float(record["confidence"]),
            {int(frame): {"size": rle["size"], "counts": rle["counts"]} for frame, rle in record["masks"].items()},
        )
        for record in records
    )
