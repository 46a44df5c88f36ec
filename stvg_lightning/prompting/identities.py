"""One thing, one number: tracks that turn out to be of one thing are merged ("ReID is employed", STVG-R1, section 1).

The paper does not say how, and the released code has nothing of it, so this is ours, and needs no further model: a
thing that left, was lost, and is found anew is followed backward from there, and its track comes to lie upon the
earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stvg_lightning.prompting.tracks import MaskTrack
from stvg_lightning.tubes import mask_overlaps


@dataclass(frozen=True)
class ReIdentification:
    """When two tracks are one thing.

    The later one must have been found while the earlier one was not seen: two things that are seen together are two.

    Attributes:
        iou: the IoU of both masks, above 0 and up to 1, from which on they agree in a frame.
        share: the share of the frames with both, above 0 and up to 1, in which they must agree.

    Raises:
        ValueError: a value outside (0, 1].
    """

    iou: float = 0.4
    share: float = 0.5

    def __post_init__(self) -> None:
        for name in ("iou", "share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1], not {getattr(self, name)}")

    def is_one_thing(self, earlier: MaskTrack, later: MaskTrack) -> bool:
        """Whether a later track is the same thing as an earlier one."""
        if later.found_frame in earlier.masks:
            return False
        shared = sorted(earlier.masks.keys() & later.masks.keys())
        ious = (mask_overlaps([earlier.masks[frame]], [later.masks[frame]])[0].item() for frame in shared)
        agreeing = sum(iou >= self.iou for iou in ious)
        return len(shared) > 0 and agreeing >= self.share * len(shared)


def merge_identities(tracks: Sequence[MaskTrack], rule: ReIdentification) -> tuple[MaskTrack, ...]:
    """The tracks with those of one thing joined under the number that it was first given; the later number is given up.

    Args:
        tracks: by number.
        rule: when two tracks are one thing.

    Returns:
        The tracks that are left, by number. A joined track keeps the earlier one's masks, and takes the later one's
        where it has none.
    """
    kept: list[MaskTrack] = []
    for track in tracks:
        place = next((place for place, earlier in enumerate(kept) if rule.is_one_thing(earlier, track)), None)
        if place is None:
            kept.append(track)
            continue
        masks = dict(sorted({**track.masks, **kept[place].masks}.items()))
        kept[place] = replace(kept[place], masks=masks)
    return tuple(kept)
