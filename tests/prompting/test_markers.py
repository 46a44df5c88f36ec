"""Markers: where they are drawn, when, on which objects, and with which label."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.prompting import Markers, draw_markers, large_enough
from stvg_lightning.tubes import Box, Clip, Sample, Truth, encode_mask

HEIGHT, WIDTH, FPS = 96, 128, 4.0
RED = Markers(size=20.0)


def disc(center_x: int, center_y: int, radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - center_x) ** 2 + (rows - center_y) ** 2 <= radius**2


def sample_of(masks: dict[int, dict[int, np.ndarray]], categories: dict[int, str] | None = None) -> Sample:
    """Objects with masks in some of eight frames."""
    tracks = {i: {frame: box_of(mask) for frame, mask in frames.items()} for i, frames in masks.items()}
    truth = Truth("a", "a man", FPS, 8, WIDTH, HEIGHT, tracks=tracks)
    rles = {i: {frame: encode_mask(mask) for frame, mask in frames.items()} for i, frames in masks.items()}
    return Sample(truth, b"", rles, categories or {})


def box_of(mask: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def gray_clip(*frames: int) -> Clip:
    return Clip(np.full((len(frames), HEIGHT, WIDTH, 3), 128, dtype=np.uint8), frames, FPS)


def changed(before: Clip, after: Clip, frame: int = 0) -> np.ndarray:
    """Which pixels of a frame were drawn over."""
    return (before.frames[frame] != after.frames[frame]).any(-1)


def test_a_label_is_drawn_at_the_centre_of_its_object_and_nowhere_else() -> None:
    sample = sample_of({1: {0: disc(30, 40, 12)}, 8: {0: disc(90, 60, 12)}})
    clip = gray_clip(0)
    marked = draw_markers(clip, sample, RED)
    drawn = changed(clip, marked.clip)
    assert drawn.any()
    near = disc(30, 40, 9) | disc(90, 60, 9)
    assert not (drawn & ~near).any()
    for x, y in ((30, 40), (90, 60)):
        rows, columns = np.nonzero(drawn & disc(x, y, 9))
        assert abs((rows.min() + rows.max() + 1) / 2 - (y + 0.5)) <= 1.5
        assert abs((columns.min() + columns.max() + 1) / 2 - (x + 0.5)) <= 1.5
        strongest = marked.clip.frames[0][drawn & disc(x, y, 9)].max(axis=0), marked.clip.frames[0][y, x]
        assert strongest[0][0] > 220
    assert (clip.frames == 128).all(), "the clip that was given is left as it was"


def test_the_colour_is_the_asked_one() -> None:
    sample, clip = sample_of({1: {0: disc(60, 50, 20)}}), gray_clip(0)
    for color, rgb in (("red", (255, 0, 0)), ("#00ff00", (0, 255, 0)), ("black", (0, 0, 0))):
        picture = draw_markers(clip, sample, Markers(size=60.0, color=color)).clip.frames[0]
        assert (picture.reshape(-1, 3) == rgb).all(-1).any()


def test_a_background_disc_lies_behind_the_label() -> None:
    sample, clip = sample_of({1: {0: disc(60, 50, 20)}}), gray_clip(0)
    markers = Markers(size=40.0, color="red", background="white")
    picture = draw_markers(clip, sample, markers).clip.frames[0]
    assert (picture.reshape(-1, 3) == (255, 255, 255)).all(-1).sum() > 20
    assert (picture[:, :, 0] > picture[:, :, 1]).any()


@given(side=st.sampled_from([112, 336, 672]))
def test_labels_grow_with_the_frame(side: int) -> None:
    mask = np.zeros((side, side), dtype=bool)
    mask[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = True
    truth = Truth("a", "a man", FPS, 1, side, side, tracks={8: {0: box_of(mask)}})
    clip = Clip(np.zeros((1, side, side, 3), dtype=np.uint8), (0,), FPS)
    drawn = changed(clip, draw_markers(clip, Sample(truth, b"", {8: {0: encode_mask(mask)}}), Markers(size=60.0)).clip)
    height = np.flatnonzero(drawn.any(1))
    # A digit of the font is about 0.73 times as high as the font, which is 60 pixels at a side of 336.
    assert (height[-1] - height[0] + 1) / side == pytest.approx(60 * 0.73 / 336, abs=0.02)


def label_pixels(object_id: int, kind: str) -> np.ndarray:
    sample, clip = sample_of({object_id: {0: disc(60, 50, 20)}}), gray_clip(0)
    return changed(clip, draw_markers(clip, sample, Markers(kind=kind, size=60.0)).clip)


def test_kinds_of_labels() -> None:
    assert (label_pixels(3, "number") == label_pixels(3, "mix")).all()
    assert (label_pixels(10, "mix") == label_pixels(1, "upper")).all()
    for first, second in (("number", "upper"), ("upper", "lower")):
        assert (label_pixels(3, first) != label_pixels(3, second)).any()
    assert label_pixels(12, "number").any(0).sum() > label_pixels(2, "number").any(0).sum() + 5, "two digits are wide"


def test_marked_times_are_those_of_the_frames_in_which_the_object_is_seen() -> None:
    sample = sample_of({1: {f: disc(30, 40, 12) for f in range(8)}, 2: {f: disc(90, 60, 12) for f in (2, 3, 5, 6)}})
    marked = draw_markers(gray_clip(0, 2, 4, 6), sample, RED)
    assert marked.marked_seconds == {1: (0.0, 0.5, 1.0, 1.5), 2: (0.5, 1.5)}
    assert marked.clip.frame_indices == (0, 2, 4, 6) and marked.clip.fps == FPS
    for place, frame in enumerate((0, 2, 4, 6)):
        second_drawn = (changed(gray_clip(0, 2, 4, 6), marked.clip, place) & disc(90, 60, 12)).any()
        assert second_drawn == (frame in (2, 6))


def test_without_markers_the_video_stays_clean() -> None:
    sample, clip = sample_of({1: {0: disc(30, 40, 12)}}), gray_clip(0)
    marked = draw_markers(clip, sample, Markers(draw=False))
    assert marked.clip is clip and marked.marked_seconds == {1: ()}


def test_the_mask_filter_by_hand() -> None:
    areas, categories = {1: 90.0, 2: 30.0, 3: 29.0, 4: 8.0}, {1: "man", 2: "man", 3: "dog", 4: "dog"}
    third, half = Markers(theta=1 / 3), Markers(theta=0.5)
    assert large_enough(areas, categories, third) == {1, 2, 3}
    assert large_enough(areas, categories, half) == {1, 3}
    assert large_enough(areas, categories, replace(third, theta_within="frame")) == {1, 2}
    assert large_enough(areas, {}, third) == {1, 2}, "objects without a category share one"
    assert large_enough(areas, categories, Markers(theta=0.0)) == {1, 2, 3, 4}
    assert large_enough(areas, categories, Markers(theta=1.0)) == {1, 3}
    assert large_enough({1: 0.0, 2: 5.0}, {}, Markers(theta=0.0)) == {2}
    assert large_enough({}, {}, third) == set()


def test_the_mask_filter_looks_at_each_frame_by_itself() -> None:
    big, small = disc(30, 40, 20), disc(90, 60, 8)
    sample = sample_of({1: {0: big, 1: big}, 2: {0: small, 1: disc(90, 60, 15), 2: small}})
    assert draw_markers(gray_clip(0, 1, 2), sample, RED).marked_seconds == {1: (0.0, 0.25), 2: (0.25, 0.5)}
    apart = replace(sample, categories={1: "man", 2: "dog"})
    assert draw_markers(gray_clip(0, 1, 2), apart, RED).marked_seconds == {1: (0.0, 0.25), 2: (0.0, 0.25, 0.5)}
    whole_frame = replace(RED, theta_within="frame")
    assert draw_markers(gray_clip(0, 1, 2), apart, whole_frame).marked_seconds[2] == (0.25, 0.5)


def test_objects_with_boxes_alone_are_marked_at_the_centre_of_the_box() -> None:
    truth = Truth("a", "a man", FPS, 8, WIDTH, HEIGHT, tracks={1: {0: (20.0, 30.0, 60.0, 50.0)}})
    clip = gray_clip(0, 1)
    marked = draw_markers(clip, Sample(truth, b""), RED)
    rows, columns = np.nonzero(changed(clip, marked.clip))
    assert abs((rows.min() + rows.max() + 1) / 2 - 40) <= 2 and abs((columns.min() + columns.max() + 1) / 2 - 40) <= 2
    assert marked.marked_seconds == {1: (0.0,)}


def test_an_object_with_masks_is_not_marked_where_its_mask_is_missing() -> None:
    sample = sample_of({1: {0: disc(30, 40, 12)}})
    truth = replace(sample.truth, tracks={1: {0: (18.0, 28.0, 43.0, 53.0), 1: (18.0, 28.0, 43.0, 53.0)}})
    assert draw_markers(gray_clip(0, 1), replace(sample, truth=truth), RED).marked_seconds == {1: (0.0,)}


def test_an_empty_mask_is_not_marked() -> None:
    sample = sample_of({1: {0: disc(30, 40, 12)}})
    empty = encode_mask(np.zeros((HEIGHT, WIDTH), dtype=bool))
    assert draw_markers(gray_clip(0), replace(sample, masks={1: {0: empty}}), RED).marked_seconds == {1: ()}


@pytest.mark.parametrize("box", [(-50.0, -50.0, -10.0, -10.0), (130.0, 10.0, 160.0, 40.0)])
def test_a_box_outside_the_frame_is_neither_marked_nor_large(box: Box) -> None:
    # It is the larger of the two, but nothing of it is seen: the other one is the largest.
    tracks = {1: {0: box}, 2: {0: (10.0, 10.0, 25.0, 25.0)}}
    truth = Truth("a", "a man", FPS, 1, WIDTH, HEIGHT, tracks=tracks)
    clip = gray_clip(0)
    marked = draw_markers(clip, Sample(truth, b""), RED)
    assert marked.marked_seconds == {1: (), 2: (0.0,)}
    assert not (changed(clip, marked.clip) & ~disc(17, 17, 12)).any()


def test_a_label_lies_on_its_object_even_where_the_centroid_does_not() -> None:
    ring = disc(60, 48, 40) & ~disc(60, 48, 25)
    ring[:, 60:] = False  # a crescent: its centroid lies in the hollow
    clip = gray_clip(0)
    drawn = changed(clip, draw_markers(clip, sample_of({1: {0: ring}}), Markers(size=16.0)).clip)
    assert (drawn & ring).sum() > (drawn & ~ring).sum()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"kind": "roman"}, "roman"),
        ({"size": 0.0}, "size"),
        ({"theta": 1.5}, "theta"),
        ({"theta_within": "video"}, "video"),
        ({"color": "reddish"}, "reddish"),
        ({"background": "whitish"}, "whitish"),
    ],
)
def test_impossible_markers_are_refused(bad: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Markers(**bad)
