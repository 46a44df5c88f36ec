"""Switches and fragments: by hand, and as TrackEval counts them on real trackers' boxes."""

from __future__ import annotations

import configparser
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from stvg_lightning.evaluation.identities import IdentityCounts, count_identities
from stvg_lightning.tubes import Box, Tube, box_iou_matrix

HERE, THERE = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0)
SEQUENCES = ("TUD-Campus", "TUD-Stadtmitte")


def always(box: Box, *frames: int) -> Tube:
    return dict.fromkeys(frames, box)


def counts(true: dict[int, Tube], found: dict[int, Tube]) -> tuple[int, int, int, int]:
    made = count_identities(true, found)
    return made.switches, made.fragments, made.matches, made.misses


def test_one_who_is_followed_throughout() -> None:
    assert counts({1: always(HERE, 0, 1, 2)}, {5: always(HERE, 0, 1, 2), 6: always(THERE, 0, 1, 2)}) == (0, 0, 3, 0)


def test_another_number_without_a_gap_is_a_switch_alone() -> None:
    assert counts({1: always(HERE, *range(4))}, {5: always(HERE, 0, 1), 6: always(HERE, 2, 3)}) == (1, 0, 4, 0)


def test_the_same_number_after_a_gap_is_a_fragment_alone() -> None:
    found = {5: always(HERE, 0, 1, 4, 5), 9: always(THERE, 2)}
    assert counts({1: always(HERE, *range(6))}, found) == (0, 1, 4, 2)


def test_another_number_after_a_gap_is_both() -> None:
    found = {5: always(HERE, 0, 1), 6: always(HERE, 4, 5), 9: always(THERE, 3)}
    assert counts({1: always(HERE, *range(6))}, found) == (1, 1, 4, 2)


GAPS = {
    "nothing found in the gap": ({5: always(HERE, 0, 1, 4, 5)}, 0),
    "another number behind it": ({5: always(HERE, 0, 1), 6: always(HERE, 4, 5)}, 0),
    "something else found in it": ({5: always(HERE, 0, 1, 4, 5), 6: always(THERE, 3)}, 1),
    "itself found elsewhere": ({5: {**always(HERE, 0, 1, 4, 5), 2: THERE}}, 1),
    "something else found where nothing true is": ({5: always(HERE, 0, 5, 8), 6: always(THERE, 6, 7)}, 0),
}


@pytest.mark.parametrize("name", GAPS)
def test_gaps_are_those_of_trackeval(name: str) -> None:
    """It goes past frames that hold nothing true, or nothing found: the pairs of the frame before them go on."""
    found, fragments = GAPS[name]
    true = {1: always(HERE, 0, 1, 2, 3, 4, 5, 8)}
    assert count_identities(true, found).fragments == fragments
    assert fragments == int(judged_by_trackeval(true, found, 9)["Frag"])


def test_back_and_forth_counts_each_time() -> None:
    found = {5: always(HERE, 0, 2, 4), 6: always(HERE, 1, 3)}
    assert counts({1: always(HERE, *range(5))}, found) == (4, 0, 5, 0)


def test_a_pair_is_kept_while_it_overlaps_enough_though_another_overlaps_more() -> None:
    shifted = (3.0, 0.0, 13.0, 10.0)  # IoU 7 / 13
    found = {5: {0: HERE, 1: shifted, 2: shifted}, 6: always(HERE, 1, 2)}
    assert counts({1: always(HERE, 0, 1, 2)}, found) == (0, 0, 3, 0)
    far = (4.0, 0.0, 14.0, 10.0)  # IoU 6 / 14
    assert counts({1: always(HERE, 0, 1, 2)}, {**found, 5: {0: HERE, 1: far, 2: far}}) == (1, 0, 3, 0)


def test_one_number_follows_one_thing_at_a_time() -> None:
    true = {1: always(HERE, 0), 2: always((1.0, 0.0, 11.0, 10.0), 0)}
    assert counts(true, {5: always(HERE, 0)}) == (0, 0, 1, 1)


def test_nothing_found_is_missed() -> None:
    assert counts({1: always(HERE, 0, 1)}, {}) == (0, 0, 0, 2)
    assert counts({}, {1: always(HERE, 0)}) == (0, 0, 0, 0)
    with pytest.raises(ValueError, match="least_iou must lie in"):
        count_identities({}, {}, 0.0)


def tubes_of(file: Path) -> dict[int, Tube]:
    """Number -> frame from 0 -> box, of a file of the MOT challenge, whose frames count from 1."""
    tubes: dict[int, dict[int, Box]] = {}
    for line in file.read_text().splitlines():
        frame, number, x, y, width, height = (float(value) for value in line.split(",")[:6])
        tubes.setdefault(int(number), {})[int(frame) - 1] = (x, y, x + width, y + height)
    return tubes


def judged_by_trackeval(true: dict[int, Tube], found: dict[int, Tube], num_frames: int) -> dict[str, float]:
    trackeval = pytest.importorskip("trackeval")
    places = {kind: {number: n for n, number in enumerate(tubes)} for kind, tubes in (("t", true), ("f", found))}
    data: dict[str, list] = {"gt_ids": [], "tracker_ids": [], "similarity_scores": []}
    for frame in range(num_frames):
        boxes = {}
        for kind, tubes, key in (("t", true, "gt_ids"), ("f", found, "tracker_ids")):
            here = [number for number, tube in tubes.items() if frame in tube]
            data[key].append(np.array([places[kind][number] for number in here], dtype=int))
            boxes[kind] = torch.tensor([tubes[number][frame] for number in here], dtype=torch.float64).reshape(-1, 4)
        data["similarity_scores"].append(box_iou_matrix(boxes["t"], boxes["f"]).numpy())
    sizes = {"num_timesteps": num_frames, "num_gt_ids": len(true), "num_tracker_ids": len(found)}
    sizes |= {"num_gt_dets": sum(map(len, true.values())), "num_tracker_dets": sum(map(len, found.values()))}
    return trackeval.metrics.CLEAR({"PRINT_CONFIG": False}).eval_sequence({**data, **sizes})


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_counts_of_real_trackers_are_those_of_trackeval(sequence: str, real_data: Path) -> None:
    folder = real_data / "videos/mmtracking/MOT15/train"
    settings = configparser.ConfigParser()
    settings.read(folder / sequence / "seqinfo.ini")
    true, found = tubes_of(folder / sequence / "gt/gt.txt"), tubes_of(folder / f"results/{sequence}.txt")
    theirs = judged_by_trackeval(true, found, settings.getint("Sequence", "seqLength"))
    ours = count_identities(true, found)
    expected = IdentityCounts(*(int(theirs[name]) for name in ("IDSW", "Frag", "CLR_TP", "CLR_FN")))
    assert ours == expected and ours.switches > 0 and ours.fragments > 0


@pytest.mark.parametrize("blind", [set(), set(range(5, 9)), set(range(0, 40, 3))], ids=("none", "some", "many"))
@pytest.mark.parametrize("seed", range(5))
def test_counts_of_drawn_trackers_are_those_of_trackeval(seed: int, blind: set[int]) -> None:
    """Things that cross, are missed, and change their numbers by chance; in some frames nothing is found."""
    generator = np.random.default_rng(seed)
    true: dict[int, Tube] = {}
    found: dict[int, dict[int, Box]] = {}
    for number in range(1, 6):
        start, speed = generator.uniform(0, 60), generator.uniform(-2, 2)
        true[number] = {f: (start + speed * f, 0.0, start + speed * f + 20, 30.0) for f in range(40)}
        name = number
        for frame, (x1, y1, x2, y2) in true[number].items():
            name = int(generator.integers(1, 9)) if generator.random() < 0.1 else name
            if generator.random() < 0.8 and frame not in found.get(name, {}) and frame not in blind:
                shift = generator.uniform(-6, 6)
                found.setdefault(name, {})[frame] = (x1 + shift, y1, x2 + shift, y2)
    theirs = judged_by_trackeval(true, dict(found), 40)
    ours = count_identities(true, found)
    assert Counter(vars(ours)) == Counter(
        switches=int(theirs["IDSW"]),
        fragments=int(theirs["Frag"]),
        matches=int(theirs["CLR_TP"]),
        misses=int(theirs["CLR_FN"]),
    )
    assert ours.switches > 5 and ours.fragments > 5
