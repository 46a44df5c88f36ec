"""The traps of the field's evaluators, one test for each that concerns scoring, in the order of the field's own list.

Those of reading (which frame is the first, which corners a box is given by, ...) are in `tests/data/annotations`; each
evaluator's whole arithmetic is in `test_protocols.py`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from stvg_lightning.answers import Answer, id_span
from stvg_lightning.evaluation import Case, boundary_accuracy, region_similarity, score_answer
from stvg_lightning.evaluation.protocols import load_protocol
from stvg_lightning.tubes import Box, Truth, encode_mask
from tests.evaluation import golden
from tests.helpers import assert_close

BOX: Box = (10.0, 10.0, 20.0, 20.0)


def scored(protocol: str, case: Case) -> dict[str, float]:
    return load_protocol(protocol).row(case)


def moment(true: tuple[float, float], predicted: tuple[float, float] | None, num_frames: int = 200) -> Case:
    """A question of time alone, at 10 frames a second."""
    frames = round(10 * true[0]), min(round(10 * true[1]), num_frames)
    truth = Truth("m", "q", 10.0, num_frames, 64, 48, frames, task="temporal", annotated_seconds=true)
    return Case(Answer("", predicted), truth)


def test_01_the_first_frame_counted_from_1_or_from_0() -> None:
    """TubeDETR reads `st_frame` as if it counted from 0: an honest oracle loses a frame at both ends."""
    row = scored("tubedetr_hcstvg", golden.case("perfect"))
    assert_close([row["tIoU"], row["vIoU"]], [0.990050, 0.929311])
    assert scored("hcstvg", golden.case("perfect"))["vIoU"] == 1.0


def test_02_an_oracle_that_cannot_reach_1_and_a_recall_that_flips() -> None:
    perfect, half = (scored("cgstvg_hcstvg", golden.case(name)) for name in ("perfect", "first half"))
    assert_close([perfect["vIoU"], half["vIoU"]], [199 / 200, 100 / 199])
    flips = {
        name: load_protocol(name).means([scored(name, golden.case("first half"))])["vIoU@0.5"]
        for name in ("hcstvg", "cgstvg_hcstvg")
    }
    assert flips == {"hcstvg": 0.0, "cgstvg_hcstvg": 1.0}


def test_03_and_04_the_hull_ends_with_the_later_span() -> None:
    """TubeDETR once took the earlier end, and still does elsewhere: a late answer then had a hull too short."""
    assert_close(scored("tubedetr_vidstg", golden.case("time +37"))["vIoU"], 0.666667)


def test_05_and_06_an_end_that_is_counted_in_and_one_that_is_not() -> None:
    """CG-STVG counts one true box more than a VidSTG span has frames, and cuts a span that ends with its video."""
    boxes = dict.fromkeys(range(10), BOX)
    truth = Truth("v", "q", 5.0, 10, 64, 48, (2, 6), {frame: BOX for frame in range(2, 6)})
    five = scored("cgstvg_vidstg", Case(Answer("", (0.4, 1.2), (), {f: BOX for f in range(2, 6)}), truth))
    assert_close(five["gt_vIoU"], 4 / 5)
    at_end = replace(truth, span_frames=(6, 10), boxes_xyxy={frame: BOX for frame in range(6, 10)})
    assert_close(scored("cgstvg_vidstg", Case(Answer("", (1.2, 2.0), (), boxes), at_end))["tIoU"], 3 / 4)


def test_07_frames_sampled_on_absolute_numbers() -> None:
    """At 29.97 frames a second 5 of them are taken by `int(frame * 5 / fps)`: the end alone may cost nothing."""
    short = scored("tubedetr_vidstg", golden.case("end one short"))
    assert short["vIoU"] == 1.0 and short["tIoU"] < 1.0
    part = Truth("v", "q", 29.97, 60, 64, 48, (0, 10), dict.fromkeys(range(10), BOX), first_frame=179)
    first = {0: BOX, 1: BOX}  # [179, 180, 186] are read of frames 179 to 188
    assert_close(scored("tubedetr_vidstg", Case(Answer("", (0.0, 10 / 29.97), (), first), part))["vIoU"], 2 / 3)
    with pytest.raises(ValueError, match="4 frames a second, and 5"):
        truth = Truth("v", "q", 4.0, 100, 64, 48, (0, 50), {0: BOX})
        scored("tubedetr_vidstg", Case(Answer("", (0.0, 1.0), (), {0: BOX}), truth))


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_08_a_threshold_that_is_reached_exactly(threshold: float) -> None:
    case = moment((0.0, 10.0), (0.0, 10 * threshold))
    name = f"tIoU@{threshold:g}"
    assert load_protocol("time_r1").means([scored("time_r1", case)])[name] == 0.0
    assert load_protocol("timezero").means([scored("timezero", case)])[name] == 1.0
    assert load_protocol("v_star").means([scored("v_star", case)])[name] == 1.0


def test_09_a_span_without_length_makes_no_nan() -> None:
    empty, good = moment((5.0, 5.0), (5.0, 5.0)), moment((0.0, 10.0), (0.0, 10.0))
    for name in ("time_r1", "timezero", "v_star", "canonical"):
        protocol = load_protocol(name)
        mean = protocol.means([protocol.row(empty), protocol.row(good)])["m_tIoU"]
        assert math.isfinite(mean) and mean == 0.5, name


def test_10_and_11_a_truth_that_ends_after_its_video_at_the_videos_own_rate() -> None:
    """Charades 5INX3: 32.5 to 46.0 seconds of a video of 44.67 s: the published evaluators do not clamp the truth."""
    case = moment((32.5, 46.0), (32.5, 44.67), num_frames=447)
    assert_close(scored("time_r1", case)["tIoU"], 12.17 / 13.5)
    assert scored("canonical", case)["tIoU"] == 1.0


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("4.0 to 12.0", (4.0, 12.0)),
        ("4.0 and 12.0", (4.0, 12.0)),
        ("4.0 - 12.0", (4.0, 12.0)),  # time-r1's parser reads none
        ("0:04 to 1:12", None),  # and takes this for 4.0 to 1.0
        ("12.0 to 4.0", (12.0, 4.0)),
    ],
)
def test_12_times_as_they_are_written(written: str, read: tuple[float, float] | None) -> None:
    answer = id_span.read(f"<think>t</think><answer>Time range: {written}</answer>")
    assert answer.span_seconds == read
    expected = 1.0 if read == (4.0, 12.0) else 0.0
    assert scored("time_r1", Case(answer, moment((4.0, 12.0), None).truth))["tIoU"] == expected


def test_13_what_cannot_be_read_stays_in_the_mean() -> None:
    protocol = load_protocol("canonical")
    rows = [scored("canonical", moment((0.0, 10.0), span)) for span in ((0.0, 10.0), None)]
    assert protocol.means(rows)["m_tIoU"] == 0.5


def test_14_hundred_bins_keep_an_oracle_from_1() -> None:
    row = scored("llava_st", golden.case("perfect"))
    assert_close(row["vIoU"], 0.945444)
    assert 0.98 < row["tIoU"] < 0.99


@pytest.mark.parametrize("protocol", ["canonical", "hcstvg", "tubedetr_vidstg", "cgstvg_vidstg", "stvg_r1"])
def test_15_boxes_without_area_make_no_nan(protocol: str) -> None:
    point: Box = (10.0, 10.0, 10.0, 10.0)
    truth = Truth("v", "q", 5.0, 50, 64, 48, (0, 50), dict.fromkeys(range(50), point))
    answer = Answer("", (0.0, 10.0), (), dict.fromkeys(range(50), point), names_objects=False)
    assert scored(protocol, Case(answer, truth))["vIoU"] == 0.0
    assert scored("volume", Case(answer, truth))["vIoU"] == 1.0  # which counts whole pixels, and a point is one


def test_16_the_mean_over_true_frames_is_not_viou() -> None:
    late = score_answer(Answer("", (12.0, 20.0), (), {f: golden.moving_box(f) for f in range(500)}), golden.truth())
    assert (late["gt_vIoU"], late["vIoU"]) == (1.0, 0.0)


def test_17_two_videos_that_cgstvg_leaves_out() -> None:
    case = golden.case("perfect")
    left_out = Case(case.answer, replace(case.truth, id="10__Gvp-cj3bmIY.mp4"))
    assert scored("cgstvg_hcstvg", left_out)["vIoU"] is None
    assert scored("hcstvg", left_out)["vIoU"] == 1.0


def test_18_contours_forgive_seven_pixels_at_480p() -> None:
    """The radius is 8 pixels there: F stays 1 where J falls."""
    true, moved = np.zeros((2, 1, 480, 854), dtype=bool)
    true[:, 100:300, 100:300], moved[:, 100:300, 107:307] = True, True
    assert boundary_accuracy(moved, true)[0] == 1.0
    assert_close(region_similarity(moved, true)[0], 193 / 207)


def test_19_first_and_last_frame_with_davis_and_with_mevis() -> None:
    shown, elsewhere = np.zeros((2, 40, 40), dtype=bool)
    shown[:10, :10], elsewhere[30:, 30:] = True, True
    target = {frame: encode_mask(shown) for frame in range(5)}
    answered = target | {0: encode_mask(elsewhere), 4: encode_mask(elsewhere)}
    truth = Truth("v", "q", 5.0, 5, 40, 40, boxes_xyxy=dict.fromkeys(range(5), (0.0, 0.0, 10.0, 10.0)), task="spatial")
    case = Case(Answer("", masks=answered), truth, target, answered)
    assert_close([scored("davis", case)["J"], scored("mevis", case)["J"]], [1.0, 3 / 5])
