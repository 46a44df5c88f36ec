"""Both ways of mending tracks: cases worked by hand, and the paper's and the code's steps written out plainly."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stvg_lightning.answers import Answer
from stvg_lightning.evaluation import Case
from stvg_lightning.evaluation.protocols import load_protocol
from stvg_lightning.evaluation.repair import box_iou, repaired_track
from stvg_lightning.tubes import Box, Truth

LEFT: Box = (0.0, 0.0, 10.0, 10.0)
NEAR: Box = (2.0, 0.0, 12.0, 10.0)  # IoU 2/3 with LEFT
TOUCHING: Box = (9.0, 0.0, 19.0, 10.0)  # IoU 1/19 with LEFT
LARGE: Box = (30.0, 30.0, 60.0, 60.0)
Tracks = dict[int, dict[int, Box]]


def test_algorithm_1_by_hand() -> None:
    tracks: Tracks = {
        1: {0: LEFT, 1: LEFT},
        2: {2: NEAR, 3: TOUCHING},  # the same thing under another number: accepted in frame 2, remembered in 3
        3: {frame: LARGE for frame in range(7)},  # nobody else is there in frames 4 to 6
    }
    repaired = repaired_track(1, tracks, (0, 6), "paper")
    assert repaired == {0: LEFT, 1: LEFT, 2: NEAR, 3: TOUCHING, 4: LARGE, 5: LARGE}
    assert repaired_track(1, tracks, (0, 6), "none") == tracks[1]


def test_the_released_code_by_hand() -> None:
    tracks: Tracks = {1: {2: LEFT}, 2: {0: NEAR, 3: NEAR, 4: TOUCHING}, 3: {4: LARGE, 5: LARGE, 6: LARGE}}
    # Before frame 2 the box to come is compared; after it the last own one, however little overlaps it. Frame 1 holds
    # nothing, so the box that was found in frame 0 has no successor.
    assert repaired_track(1, tracks, (0, 7), "code") == {
        0: NEAR, 2: LEFT, 3: NEAR, 4: TOUCHING, 5: LARGE, 6: LARGE,
    }  # fmt: skip
    assert repaired_track(1, tracks, (3, 7), "code") == {3: NEAR, 4: LARGE, 5: LARGE, 6: LARGE}
    # In a frame in which nothing has a box the last own one stands, where it is asked for.
    assert repaired_track(1, {1: {0: LEFT}}, (0, 4), "code", frames_asked=(2, 9)) == {0: LEFT, 2: LEFT}


corners = st.integers(0, 6)
boxes = st.tuples(corners, corners, st.integers(1, 5), st.integers(1, 5)).map(
    lambda box: (float(box[0]), float(box[1]), float(box[0] + box[2]), float(box[1] + box[3]))
)
tracks = st.dictionaries(st.integers(1, 4), st.dictionaries(st.integers(0, 9), boxes), max_size=4)


def area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def is_accepted(reference: Box, box: Box) -> bool:
    shared = max(0, min(reference[2], box[2]) - max(reference[0], box[0])) * max(
        0, min(reference[3], box[3]) - max(reference[1], box[1])
    )
    return box_iou(reference, box) >= 0.4 or shared / min(area(reference), area(box)) >= 0.6


def plain_algorithm_1(target: int, all_tracks: Tracks, span: tuple[int, int]) -> dict[int, Box]:
    """The listing of appendix A.5: sets of ids that change frame by frame, searched as a whole each time."""
    frames = [t for t in range(*span) if any(t in track for track in all_tracks.values())]
    ids = {t: {i: track[t] for i, track in sorted(all_tracks.items()) if t in track} for t in frames}
    corrections: list[int] = []
    for t in frames:
        if target in ids[t]:
            continue
        for old_id in corrections:
            if old_id in ids[t] and target not in ids[t]:
                ids[t][target] = ids[t][old_id]
        if target in ids[t]:
            continue
        with_target = [ref for ref in frames if target in ids[ref]]
        if with_target:
            nearest = min(with_target, key=lambda ref: abs(ref - t))
            reference = ids[nearest][target]
            best = max(ids[t], key=lambda i: box_iou(reference, ids[t][i]))
            if is_accepted(reference, ids[t][best]):
                ids[t][target] = ids[t][best]
                corrections.append(best)
        if target not in ids[t]:
            ids[t][target] = max(ids[t].values(), key=area)
    return {t: ids[t][target] for t in frames}


def plain_released_code(target: int, all_tracks: Tracks, span: tuple[int, int]) -> dict[int, Box]:
    """What evaluate.py does with the current box, the last valid frame and the closest one, step by step."""

    def objects(t: int) -> dict[int, Box]:
        return {i: track[t] for i, track in sorted(all_tracks.items()) if t in track}

    def best_of(reference: Box, t: int) -> Box | None:
        best, highest = None, 0.0
        for box in objects(t).values():
            if box_iou(box, reference) > highest:
                best, highest = box, box_iou(box, reference)
        return best

    def largest(t: int) -> Box | None:
        return max(objects(t).values(), key=area, default=None)

    with_target = [t for t in range(*span) if target in objects(t)]
    current: Box | None = None
    last_valid: int | None = None
    found: dict[int, Box] = {}
    for t in range(*span):
        box: Box | None
        if target in objects(t):
            box = current = objects(t)[target]
            last_valid = t
        elif current is not None:
            box = best_of(current, t) or largest(t)
            if box is None and last_valid is not None:
                reference = objects(last_valid)[target]
                box = current = best_of(reference, t) or reference
        elif with_target:
            reference = objects(min(with_target, key=lambda known: abs(known - t)))[target]
            box = current = best_of(reference, t) or reference
        else:
            box = None
        box = box or largest(t)
        if box is not None:
            found[t] = box
    return found


@given(tracks, st.integers(0, 4), st.integers(5, 10))
@settings(deadline=None, max_examples=300)
def test_both_ways_against_their_steps_written_out(all_tracks: Tracks, start: int, end: int) -> None:
    for target in (1, 2):
        assert repaired_track(target, all_tracks, (start, end), "paper") == plain_algorithm_1(
            target, all_tracks, (start, end)
        )
        repaired = repaired_track(target, all_tracks, (start, end), "code", frames_asked=range(start, end))
        assert repaired == plain_released_code(target, all_tracks, (start, end))


def test_a_case_is_scored_with_repaired_tracks() -> None:
    tracks: Tracks = {1: {frame: LEFT for frame in range(4)}, 2: {frame: LEFT for frame in range(4, 8)}}
    truth = Truth("v", "q", 5.0, 10, 80, 80, (0, 8), {frame: LEFT for frame in range(8)}, 1, tracks)
    answer = Answer("", (0.0, 1.6), (1,))
    figures = {repair: load_protocol("canonical").row(Case(answer, truth, repair=repair))["vIoU"]
               for repair in (None, "none", "paper", "code")}  # fmt: skip
    assert figures == {None: 0.5, "none": 0.5, "paper": 1.0, "code": 1.0}
    assert load_protocol("stvg_r1").row(Case(answer, truth, repair="none"))["iou_sum"] < 4
    assert load_protocol("stvg_r1").row(Case(answer, truth))["iou_sum"] > 5
