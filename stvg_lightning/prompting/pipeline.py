"""Object-centric visual prompts, from a video to numbered masks (STVG-R1, section 3.2).

Two passes go over the video, and neither holds more than a window of its frames: forward, in which things are found
and followed, and backward, in which what was found late is followed to the beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from stvg_lightning.prompting.detections import Detection, DetectionFilter, Detector, Frame
from stvg_lightning.prompting.identities import ReIdentification, merge_identities
from stvg_lightning.prompting.instances import NewInstanceRule
from stvg_lightning.prompting.tracking import MaskArray, Prompt, Tracker, TrackingSession
from stvg_lightning.prompting.tracks import MaskTrack
from stvg_lightning.tubes import Rle, decode_mask, encode_mask
from stvg_lightning.tubes.choices import check_choice


@runtime_checkable
class FrameSource(Protocol):
    """A video whose frames can be gone through in both directions."""

    def forward(self) -> Iterator[Frame]:
        """All frames, from the first on."""

    def backward(self, last_frame: int) -> Iterator[Frame]:
        """The frames from a given one back to the first."""


@dataclass(frozen=True)
class ObjectTracking:
    """How things are found and followed. The defaults are the paper's (STVG-R1, sections 3.2 and 4.1).

    Attributes:
        redetect_every_frames: "re-detection is performed every 15 frames"; None looks at the first frame alone
            (Table 11).
        backward: what is found late is also followed back to the beginning; the released code does not (Table 11).
        memory: `keep` lets the tracker remember all it saw of a thing, so that one that left and comes back is the
            same; `restart` begins anew at each re-detection from the masks of that frame (the released code).
        reidentify: when two tracks are one thing; None merges none (the released code).
        detections: which detections are taken.
        new_instance: which of them are new things.

    Raises:
        ValueError: an interval below 1, or an unknown way of remembering.
    """

    redetect_every_frames: int | None = 15
    backward: bool = True
    memory: Literal["keep", "restart"] = "keep"
    reidentify: ReIdentification | None = field(default_factory=ReIdentification)
    detections: DetectionFilter = field(default_factory=DetectionFilter)
    new_instance: NewInstanceRule = field(default_factory=NewInstanceRule)

    def __post_init__(self) -> None:
        if self.redetect_every_frames is not None and self.redetect_every_frames < 1:
            raise ValueError(f"redetect_every_frames must be at least 1, or null, not {self.redetect_every_frames}")
        check_choice("memory", self.memory, ("keep", "restart"))

    def detects_in(self, frame: int) -> bool:
        """Whether the detector looks at a frame."""
        return frame == 0 if self.redetect_every_frames is None else frame % self.redetect_every_frames == 0


def track_objects(
    video: FrameSource, detector: Detector, tracker: Tracker, settings: ObjectTracking = ObjectTracking()
) -> tuple[MaskTrack, ...]:
    """The things of a video, numbered in the order of discovery, with their masks in every frame.

    Args:
        video: its frames, at the original size.
        detector: finds things in single frames.
        tracker: follows them from frame to frame.
        settings: how.

    Returns:
        One track for each thing, by number. Numbers begin with 1 and may have gaps: where a thing was found twice
        and its later number given up, and where the tracker saw nothing at all of a detection.
    """
    forward = _ForwardPass(detector, tracker, settings)
    for frame in video.forward():
        forward.see(frame)
    found = forward.found
    late = {object_id: thing for object_id, thing in found.items() if thing.found_frame > 0 and thing.masks}
    if settings.backward and late:
        _follow_backward(video, tracker, late)
    tracks = [thing.finished() for thing in found.values() if thing.masks]
    return tuple(tracks) if settings.reidentify is None else merge_identities(tracks, settings.reidentify)


@dataclass
class _Thing:
    """A track that is still growing."""

    object_id: int
    detection: Detection
    found_frame: int
    masks: dict[int, Rle] = field(default_factory=dict)

    def finished(self) -> MaskTrack:
        detection = self.detection
        masks = dict(sorted(self.masks.items()))
        return MaskTrack(self.object_id, detection.category, self.found_frame, detection.confidence, masks)


class _ForwardPass:
    """Finds things and follows them from the frame in which each was found."""

    def __init__(self, detector: Detector, tracker: Tracker, settings: ObjectTracking) -> None:
        self.found: dict[int, _Thing] = {}
        self._detector, self._tracker, self._settings = detector, tracker, settings
        self._session: TrackingSession | None = None
        self._replaced: set[int] = set()

    def see(self, frame: Frame) -> None:
        """Go on to the next frame."""
        if self._session is None:
            self._session = self._new_session(frame)
        tracked = {i: mask for i, mask in self._session.advance(frame).items() if i not in self._replaced}
        if self._settings.detects_in(frame.index):
            tracked = self._with_new(frame, tracked)
        for object_id, mask in tracked.items():
            if mask.any():
                self.found[object_id].masks[frame.index] = encode_mask(mask)

    def _with_new(self, frame: Frame, tracked: dict[int, MaskArray]) -> dict[int, MaskArray]:
        """What is tracked in a frame, less what is replaced, with the new things that are found in it."""
        height, width = frame.picture.shape[:2]
        detections = self._settings.detections(self._detector(frame), height, width)
        seen = {object_id: encode_mask(mask) for object_id, mask in tracked.items() if mask.any()}
        rule = self._settings.new_instance
        boxes = [detection.box_xyxy for detection in detections]
        masks = self._masks_of(frame, detections) if rule.compare == "masks" and seen and detections else None
        judgement = rule.judge(boxes, masks, seen)
        first = len(self.found) + 1
        new = {first + n: detections[place] for n, place in enumerate(judgement.new)}
        self.found.update({i: _Thing(i, detection, frame.index) for i, detection in new.items()})
        self._replaced.update(judgement.replaced)
        kept = {object_id: mask for object_id, mask in tracked.items() if object_id not in judgement.replaced}
        if self._settings.memory == "restart":
            return dict(self._restart(frame, kept, new))
        if new:
            assert self._session is not None
            kept.update(self._session.add({i: detection.box_xyxy for i, detection in new.items()}))
        return kept

    def _restart(
        self, frame: Frame, kept: Mapping[int, MaskArray], new: Mapping[int, Detection]
    ) -> dict[int, MaskArray]:
        """Begin a session with what is seen now: what is out of sight is forgotten."""
        self._session = self._new_session(frame)
        self._session.advance(frame)
        prompts: dict[int, Prompt] = {object_id: mask for object_id, mask in kept.items() if mask.any()}
        prompts |= {object_id: detection.box_xyxy for object_id, detection in new.items()}
        shown = dict(self._session.add(prompts)) if prompts else {}
        return {**shown, **{object_id: mask for object_id, mask in kept.items() if object_id in shown}}

    def _masks_of(self, frame: Frame, detections: list[Detection]) -> list[Rle]:
        """The detections' masks, from a session that is used for nothing else."""
        session = self._new_session(frame)
        session.advance(frame)
        masks = session.add({place: detection.box_xyxy for place, detection in enumerate(detections)})
        return [encode_mask(masks[place]) for place in range(len(detections))]

    def _new_session(self, frame: Frame) -> TrackingSession:
        height, width = frame.picture.shape[:2]
        return self._tracker.session(height, width)


def _follow_backward(video: FrameSource, tracker: Tracker, late: Mapping[int, _Thing]) -> None:
    """Follow each thing from the frame in which it was found back to the first: one pass for all of them."""
    session: TrackingSession | None = None
    for frame in video.backward(max(thing.found_frame for thing in late.values())):
        if session is None:
            session = tracker.session(*frame.picture.shape[:2])
        for object_id, mask in session.advance(frame).items():
            if mask.any():
                late[object_id].masks[frame.index] = encode_mask(mask)
        starting: dict[int, Prompt] = {
            object_id: decode_mask(thing.masks[frame.index])
            for object_id, thing in late.items()
            if thing.found_frame == frame.index and frame.index in thing.masks
        }
        if starting:
            session.add(starting)
