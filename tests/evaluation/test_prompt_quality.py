"""The quality of numbered objects, on cases worked by hand."""

from __future__ import annotations

import pytest

from stvg_lightning.evaluation.prompt_quality import prompt_quality_report, prompt_quality_row
from stvg_lightning.prompting import Markers, MaskTrack
from stvg_lightning.tubes import Box
from tests.helpers import assert_close
from tests.prompting.scenes import mask_of

SMALL, LARGE = (4.0, 4.0, 14.0, 14.0), (30.0, 4.0, 50.0, 24.0)  # 100 and 400 pixels
HALF = (4.0, 4.0, 14.0, 9.0)


def track(object_id: int, box: Box, *frames: int, category: str = "person") -> MaskTrack:
    return MaskTrack(object_id, category, min(frames), 0.9, {frame: mask_of(box) for frame in frames})


def row(tracks: list[MaskTrack], votes: dict[int, int], target: Box = SMALL, num_frames: int = 4, **markers):
    truth = dict.fromkeys(range(num_frames), target)
    return prompt_quality_row("a", truth, (0, num_frames), tracks, votes, Markers(**markers))


def test_a_target_that_is_found_throughout() -> None:
    made = row([track(1, SMALL, 0, 1, 2, 3)], {1: 4})
    assert made == {
        "id": "a",
        "num_objects": 1,
        "followed": True,
        "switches": 0,
        "fragments": 0,
        "matched_share": 1.0,
        "vote_share": 1.0,
        "oracle": dict.fromkeys(("0", "1/4", "1/3", "1/2"), 1.0),
        "oracle_marked": dict.fromkeys(("0", "1/4", "1/3", "1/2"), 1.0),
    }


def test_the_mask_filter_hides_a_target_that_is_a_quarter_of_the_largest() -> None:
    made = row([track(1, SMALL, 0, 1, 2, 3), track(2, LARGE, 0, 1, 2, 3)], {1: 4})
    assert made["oracle"] == {"0": 1.0, "1/4": 1.0, "1/3": 0.0, "1/2": 0.0}
    other_kind = row([track(1, SMALL, 0, 1, 2, 3), track(2, LARGE, 0, 1, 2, 3, category="bus")], {1: 4})
    assert other_kind["oracle"] == dict.fromkeys(("0", "1/4", "1/3", "1/2"), 1.0)
    whole = [track(1, SMALL, 0, 1, 2, 3), track(2, LARGE, 0, 1, 2, 3, category="bus")]
    assert row(whole, {1: 4}, theta_within="frame")["oracle"]["1/2"] == 0.0


def test_a_target_that_is_marked_for_a_part_of_its_time() -> None:
    """From frame 2 on something larger is there: it is voted for by the first frames, and keeps all its boxes."""
    made = row([track(1, SMALL, 0, 1, 2, 3), track(2, LARGE, 2, 3)], {1: 4})
    assert made["oracle"] == dict.fromkeys(("0", "1/4", "1/3", "1/2"), 1.0)
    assert made["oracle_marked"] == {"0": 1.0, "1/4": 1.0, "1/3": 0.5, "1/2": 0.5}


def test_a_target_in_pieces() -> None:
    """Fragments are counted where something else was found meanwhile, as TrackEval counts them."""
    made = row([track(1, SMALL, 0, 1), track(2, SMALL, 3)], {1: 2, 2: 1})
    assert (made["switches"], made["fragments"], made["matched_share"]) == (1, 0, 0.75)
    made = row([track(1, SMALL, 0, 1), track(2, SMALL, 3), track(3, LARGE, 2)], {1: 2, 2: 1})
    assert (made["switches"], made["fragments"], made["matched_share"]) == (1, 1, 0.75)
    assert_close(made["vote_share"], 2 / 3)
    assert made["oracle"]["0"] == 0.5


def test_a_target_that_is_never_followed() -> None:
    made = row([track(1, LARGE, 0, 1, 2, 3)], {})
    assert (made["followed"], made["vote_share"], made["oracle"]["0"]) == (False, None, 0.0)
    # Overlapped by a thing that is voted for, and yet followed by none.
    vague = row([track(1, (0.0, 0.0, 40.0, 40.0), 0, 1, 2, 3)], {1: 4})
    assert vague["followed"] is False and vague["vote_share"] == 1.0
    assert_close(vague["oracle"]["0"], 100 / 1600)


def test_frames_of_the_span_without_a_true_box_count_as_the_score_counts_them() -> None:
    truth = dict.fromkeys((0, 1), SMALL)
    made = prompt_quality_row("a", truth, (0, 4), [track(1, SMALL, 0, 1, 2, 3)], {1: 2}, Markers())
    assert made["oracle"]["0"] == 0.5 and made["matched_share"] == 1.0


def test_the_report_adds_rows_up() -> None:
    rows = [
        row([track(1, SMALL, 0, 1, 2, 3)], {1: 4}),
        row([track(1, HALF, 0, 1), track(2, HALF, 3), track(3, LARGE, 2)], {1: 2, 2: 1}),
        row([track(1, LARGE, 0, 1, 2, 3)], {}),
        row([], {}),
    ]
    report = prompt_quality_report(rows)
    figures = {name: report[name] for name in ("samples", "never_followed", "without_votes", "switched", "fragmented")}
    assert figures == {"samples": 4, "never_followed": 0.5, "without_votes": 0.5, "switched": 0.25, "fragmented": 0.25}
    assert (report["switches"], report["fragments"], report["objects_per_video"]) == (1, 1, 1.25)
    assert_close(report["vote_share"], (1 + 2 / 3) / 2)
    assert_close(report["matched_share"], (1 + 0.75) / 4)
    scores = report["oracle"]["1/3"]
    assert_close([scores["m_vIoU"], scores["vIoU@0.3"], scores["vIoU@0.5"]], [(1 + 0.25) / 4, 0.25, 0.25])
    with pytest.raises(ValueError, match="there is no sample with a target's boxes"):
        prompt_quality_report([])
