"""One answer beside its truth, as every protocol scores it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from stvg_lightning.answers import Answer
from stvg_lightning.data.annotations.vote import vote_object_id
from stvg_lightning.evaluation.overlap import FrameSpan, TubeOverlap, compare_tubes, shared_span
from stvg_lightning.evaluation.repair import Repair, repaired_track
from stvg_lightning.tubes import (
    Box,
    Rle,
    Span,
    Truth,
    Tube,
    check_counts,
    span_frames_to_seconds,
    span_seconds_to_frames,
    union_of_objects,
)
from stvg_lightning.tubes.jsonl import Masks


@dataclass(frozen=True)
class Case:
    """An answer and its truth; what several protocols need is worked out once, when it is first asked for.

    Attributes:
        answer: as read; one that could not be read scores 0.
        truth: gives the video, the objects' tracks, the true span and boxes.
        target_masks: the true mask of all that is meant, by frame; a frame without one shows nothing of it.
        answered_masks: the answered one, by frame; None where the answer has none.
        repair: what becomes of frames in which the answered object has no box; None leaves it to the protocol.
    """

    answer: Answer
    truth: Truth
    target_masks: Mapping[int, Rle] = field(default_factory=dict)
    answered_masks: Mapping[int, Rle] | None = None
    repair: Repair | None = None

    @cached_property
    def span_frames(self) -> FrameSpan:
        """The answered frames; see `answered_span`."""
        return answered_span(self.answer, self.truth)

    @cached_property
    def true_frames(self) -> FrameSpan:
        """The true frames; the whole video where no time is known."""
        return self.truth.span_frames or (0, self.truth.num_frames)

    @cached_property
    def boxes_xyxy(self) -> Tube:
        """The answered boxes, those outside the answered time included unless they were repaired."""
        repair = self.repair or "none"
        frames = self.span_frames if repair == "paper" else shared_span(self.span_frames, self.true_frames)
        return answered_boxes(self.answer, self.truth, repair, frames)

    @cached_property
    def overlap(self) -> TubeOverlap:
        """The answered boxes compared with the true ones."""
        return compare_tubes(self.boxes_xyxy, self.truth.boxes_xyxy)

    @property
    def names_the_target(self) -> bool | None:
        """Whether all objects that are meant are answered, and no other; None where ids say nothing of it.

        Where objects are known, and none overlaps what is meant, no answer in ids is right.
        """
        can_be_judged = self.truth.target_ids or (self.truth.has_place and self.truth.tracks)
        if not self.answer.names_objects or not can_be_judged:
            return None
        meant = meant_ids(self.truth)
        return bool(meant) and set(self.answer.object_ids) == set(meant)

    @property
    def true_seconds(self) -> Span:
        """The true span as it was annotated, which may end after the video; else that of its frames."""
        return self.truth.annotated_seconds or span_frames_to_seconds(self.true_frames, self.truth.fps)


def case_of(
    answer: Answer,
    truth: Truth,
    masks: Masks | None = None,
    target_masks: Mapping[int, Rle] | None = None,
    repair: Repair | None = None,
) -> Case:
    """An answer beside its truth, with the masks that both mean.

    Args:
        answer: with masks of its own, or with object ids whose masks are known.
        truth: names its target by object ids, or has `target_masks`.
        masks: object id -> frame -> mask, of all objects in the video.
        target_masks: the true mask of all that is meant, by frame; else the union of the targets' masks.
        repair: see `Case`.

    Raises:
        ValueError: a mask that does not cover its frame.
    """
    known = masks or {}
    for by_frame in (target_masks or {}, answer.masks or {}, *known.values()):
        for rle in by_frame.values():
            check_counts(rle)
    target = target_masks or union_of_objects(known, truth.target_ids)
    answered = (union_of_objects(known, answer.object_ids) or None) if answer.masks is None else answer.masks
    return Case(answer, truth, target, answered, repair)


def meant_ids(truth: Truth) -> tuple[int, ...]:
    """The objects that a sentence means: as the truth names them, else the one that its boxes vote for.

    Returns:
        None at all where no object overlaps the boxes in the true span.
    """
    if truth.target_ids:
        return truth.target_ids
    start, end = truth.span_frames or (0, truth.num_frames)
    boxes = {frame: box for frame, box in truth.boxes_xyxy.items() if start <= frame < end}
    voted, _ = vote_object_id(boxes, truth.tracks)
    return () if voted is None else (voted,)


def answered_span(answer: Answer, truth: Truth) -> FrameSpan:
    """The frames that an answer means: the answered ones; for a question of place alone the true ones, or all.

    Returns:
        `[start, end)`, empty where no span was read.
    """
    if truth.task == "spatial":
        return truth.span_frames or (0, truth.num_frames)
    if answer.span_seconds is None:
        return 0, 0
    return span_seconds_to_frames(answer.span_seconds, truth.fps, truth.num_frames)


def answered_boxes(answer: Answer, truth: Truth, repair: Repair = "none", repaired: FrameSpan = (0, 0)) -> Tube:
    """The boxes that an answer means: its own, or those of the answered object's track.

    Several objects answer with the box that encloses theirs; a question of time alone has no boxes. Tracks may be
    repaired, in the frames `repaired`; see `repaired_track`.
    """
    if truth.task == "temporal":
        return {}
    if answer.boxes_xyxy is not None:
        return answer.boxes_xyxy
    tracks = [repaired_track(object_id, truth.tracks, repaired, repair) for object_id in answer.object_ids]
    return tracks[0] if len(tracks) == 1 else _enclosing_boxes(tracks)


def predicted_tube(answer: Answer, truth: Truth) -> tuple[FrameSpan, dict[int, Box]]:
    """The frames and boxes an answer stands for, boxes in its frames alone.

    Args:
        answer: as read.
        truth: gives the frame rate, the objects' tracks and the task.

    Returns:
        `[start, end)`, see `answered_span`, and frame -> box for the frames of it that have one.

    Example:
        >>> truth = Truth("a", "a man", 2.0, 8, 9, 9, tracks={3: {f: (0.0, 0.0, 1.0, 1.0) for f in range(3)}})
        >>> predicted_tube(Answer("", span_seconds=(1.0, 3.0), object_ids=(3,)), truth)
        ((2, 6), {2: (0.0, 0.0, 1.0, 1.0)})
    """
    start, end = answered_span(answer, truth)
    boxes = answered_boxes(answer, truth)
    return (start, end), {frame: box for frame, box in sorted(boxes.items()) if start <= frame < end}


def _enclosing_boxes(tracks: Sequence[Tube]) -> dict[int, Box]:
    """Frame -> the tightest box around all boxes that the tracks have in it."""
    boxes: dict[int, Box] = {}
    for track in tracks:
        for frame, box in track.items():
            boxes[frame] = _enclosing_box(boxes[frame], box) if frame in boxes else box
    return boxes


def _enclosing_box(first: Box, second: Box) -> Box:
    return min(first[0], second[0]), min(first[1], second[1]), max(first[2], second[2]), max(first[3], second[3])
