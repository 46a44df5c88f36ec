"""The paper's procedure with a detector and a tracker that are given the truth: every number and frame is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stvg_lightning.prompting import (
    DetectionFilter,
    MaskTrack,
    NewInstanceRule,
    ObjectTracking,
    ReIdentification,
    merge_identities,
    track_objects,
    tracks_from_json,
    tracks_to_json,
)
from stvg_lightning.prompting.given import GivenDetector, GivenTracker
from stvg_lightning.tubes import Box
from tests.prompting.scenes import HeldVideo, frames_of, mask_of, scene, still

LEFT, MIDDLE, RIGHT = (2.0, 8.0, 14.0, 40.0), (26.0, 8.0, 38.0, 40.0), (48.0, 8.0, 60.0, 40.0)
PAPER = ObjectTracking()
CODE = ObjectTracking(
    backward=False,
    memory="restart",
    reidentify=None,
    new_instance=NewInstanceRule(compare="masks", swallowing="replace"),
)


def tracked(masks, settings: ObjectTracking = PAPER, num_frames: int = 60, **tracker) -> tuple[MaskTrack, ...]:
    return track_objects(HeldVideo(num_frames), GivenDetector(masks), GivenTracker(masks, **tracker), settings)


def walking(frame: int) -> Box:
    """From the left edge to the right in 60 frames."""
    return (frame * 0.8, 8.0, frame * 0.8 + 12.0, 40.0)


def walking_back(frame: int) -> Box:
    return walking(59 - frame)


def test_things_of_the_first_frame_are_numbered_and_followed_to_the_end() -> None:
    masks = scene(40, {7: still(RIGHT), 9: still(LEFT)})
    found = tracked(masks, num_frames=40)
    assert [track.masks for track in found] == [masks[7], masks[9]]
    assert [track.found_frame for track in found] == [0, 0]
    assert found[1].tube == {frame: LEFT for frame in range(40)}


def test_numbers_follow_the_confidence_within_a_frame() -> None:
    masks = scene(5, {1: still(LEFT), 2: still(RIGHT)})
    detector = GivenDetector(masks, {1: "person", 2: "dog"}, {1: 0.3, 2: 0.9})
    found = track_objects(HeldVideo(5), detector, GivenTracker(masks))
    assert [(t.object_id, t.category, t.confidence) for t in found] == [(1, "dog", 0.9), (2, "person", 0.3)]


def test_one_who_appears_late_is_found_at_the_next_detection_and_followed_back() -> None:
    masks = scene(60, {1: still(LEFT), 2: still(RIGHT, (20, 60))})
    found = tracked(masks)
    assert frames_of(found) == {1: list(range(60)), 2: list(range(20, 60))}
    assert found[1].found_frame == 30, "frames 0, 15 and 30 are looked at"
    assert frames_of(tracked(masks, replace(PAPER, backward=False)))[2] == list(range(30, 60))


def test_without_re_detection_only_the_first_frame_counts() -> None:
    masks = scene(60, {1: still(LEFT), 2: still(RIGHT, (20, 60))})
    assert frames_of(tracked(masks, replace(PAPER, redetect_every_frames=None))) == {1: list(range(60))}
    every_seventh = tracked(masks, replace(PAPER, redetect_every_frames=7))
    assert every_seventh[1].found_frame == 21


def test_one_who_is_missed_in_the_first_frame_is_followed_back_to_it() -> None:
    masks = scene(60, {1: still(LEFT), 2: still(RIGHT)})
    blind = GivenDetector({1: masks[1]})
    late = GivenDetector(masks, blind_frames=frozenset({0, 15}))
    assert frames_of(track_objects(HeldVideo(60), blind, GivenTracker(masks))) == {1: list(range(60))}
    found = track_objects(HeldVideo(60), late, GivenTracker(masks))
    assert frames_of(found) == {1: list(range(60)), 2: list(range(60))}
    assert [track.found_frame for track in found] == [30, 30]


def test_one_who_leaves_and_comes_back_keeps_the_number() -> None:
    masks = scene(60, {1: still(LEFT), 2: still(RIGHT, (0, 20), (40, 60))})
    seen = [*range(20), *range(40, 60)]
    assert frames_of(tracked(masks)) == {1: list(range(60)), 2: seen}
    restarted = tracked(masks, replace(PAPER, memory="restart"))
    assert frames_of(restarted) == {1: list(range(60)), 2: seen}, "found anew as 3, and known again by its way back"
    forgotten = tracked(masks, forgets_after_frames=5)
    assert frames_of(forgotten) == {1: list(range(60)), 2: list(range(20)), 3: list(range(40, 60))}
    as_released = tracked(masks, CODE)
    assert frames_of(as_released) == {1: list(range(60)), 2: list(range(20)), 3: list(range(45, 60))}


def test_a_number_that_is_given_up_is_not_used_again() -> None:
    places = {1: still(LEFT, (0, 20), (40, 90)), 2: still(RIGHT, (65, 90))}
    found = tracked(scene(90, places), replace(PAPER, memory="restart"), num_frames=90)
    assert frames_of(found) == {1: [*range(20), *range(40, 90)], 3: list(range(65, 90))}


def test_two_who_cross_keep_their_numbers() -> None:
    masks = scene(60, {1: walking, 2: walking_back})
    found = tracked(masks)
    assert {track.object_id: track.masks for track in found} == masks


def test_two_who_are_seen_together_are_never_merged() -> None:
    """The later one's way back lies wholly upon the earlier one, who is there when it is found."""
    alone = {frame: mask_of(LEFT) for frame in range(30)}
    first = MaskTrack(1, "person", 0, 1.0, {**alone, 30: mask_of(LEFT)})
    later = MaskTrack(2, "person", 30, 1.0, {**alone, 30: mask_of(MIDDLE)})
    assert merge_identities([first, later], ReIdentification()) == (first, later)
    lost = replace(first, masks=alone)
    joined = merge_identities([lost, later], ReIdentification())
    assert [track.object_id for track in joined] == [1] and sorted(joined[0].masks) == list(range(31))


@pytest.mark.parametrize(("agreeing", "is_one"), [(5, True), (4, False)])
def test_tracks_are_one_where_half_of_their_shared_frames_agree(agreeing: int, is_one: bool) -> None:
    earlier = MaskTrack(1, "person", 0, 1.0, {frame: mask_of(LEFT) for frame in range(10)})
    masks = {frame: mask_of(LEFT if frame < agreeing else RIGHT) for frame in range(10)}
    later = MaskTrack(2, "person", 12, 1.0, {**masks, 12: mask_of(RIGHT)})
    assert ReIdentification().is_one_thing(earlier, later) is is_one
    apart = MaskTrack(2, "person", 12, 1.0, {12: mask_of(LEFT)})
    assert not ReIdentification().is_one_thing(earlier, apart), "without a shared frame nothing is known"


def test_a_larger_mask_that_swallows_a_smaller_one() -> None:
    """A rider, and at frame 15 the detector's box of rider and horse together: another box for the paper, a new
    number in place of the old one for the released code."""
    rider, both = (20.0, 20.0, 30.0, 30.0), (8.0, 12.0, 50.0, 46.0)
    masks = scene(40, {1: still(rider), 2: still(both, (10, 40))})
    assert frames_of(tracked(masks, num_frames=40)) == {1: list(range(40))}
    swallowed = tracked(masks, CODE, num_frames=40)
    assert frames_of(swallowed) == {1: list(range(15)), 2: list(range(15, 40))}
    hidden = scene(40, {1: still(both), 2: still(rider, (10, 40))})
    assert frames_of(tracked(hidden, CODE, num_frames=40)) == {1: list(range(40))}, "a smaller one is refused by both"


def test_a_detection_of_which_the_tracker_sees_nothing_gives_no_track() -> None:
    masks = scene(10, {1: still(LEFT), 2: still(RIGHT)})
    found = track_objects(HeldVideo(10), GivenDetector(masks), GivenTracker({1: masks[1]}))
    assert frames_of(found) == {1: list(range(10))}


def test_a_video_without_things_has_no_tracks() -> None:
    assert tracked({}) == ()


def test_tracks_survive_json() -> None:
    found = tracked(scene(20, {1: walking, 2: still(RIGHT, (3, 20))}), num_frames=20)
    assert len(found) == 2 and tracks_from_json(tracks_to_json(found)) == found


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ObjectTracking(redetect_every_frames=0), "redetect_every_frames must be at least 1, or null, not 0"),
        (lambda: ReIdentification(iou=0.0), "iou must lie in"),
        (lambda: ReIdentification(share=1.5), "share must lie in"),
        (lambda: NewInstanceRule(overlap=-0.1), "overlap must lie in"),
        (lambda: DetectionFilter(least_confidence=2.0), "least_confidence must lie in"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
