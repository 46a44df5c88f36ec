"""SARL-STG's reward terms against cases worked by hand from its formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stvg_lightning.answers import timesteps
from stvg_lightning.rewards import DynamicSpatioTemporal, RewardContext, TimestampsInThought
from stvg_lightning.tubes import Truth, Tube
from tests.helpers import assert_close

BOX = (0.0, 0.0, 10.0, 10.0)
HALF = (0.0, 0.0, 10.0, 5.0)
TRUTH = Truth(
    "v", "q", 10.0, 100, 64, 48, span_frames=(40, 80), boxes_xyxy={frame: BOX for frame in range(20, 90)}
)  # fmt: skip
TWICE_A_SECOND = range(0, 100, 5)


def found(box: tuple[float, float, float, float], start: int, end: int) -> Tube:
    return {frame: box for frame in TWICE_A_SECOND if start <= frame < end}


def score(term: DynamicSpatioTemporal, answered: str, tube: Tube | None, truth: Truth = TRUTH) -> float | None:
    answer = timesteps.read(f"<think>so</think><answer>{answered}</answer>")
    (value,) = term([answer], truth, RewardContext(discriminator_boxes=[tube]))
    assert value is None or term.low <= value <= term.high
    return value


@pytest.mark.parametrize(
    ("answered", "tube", "overlap", "siou"),
    [
        ("4.00 to 8.00", found(BOX, 40, 80), 1.0, 1.0),
        ("4.00 to 8.00", found(HALF, 40, 80), 1.0, 0.5),
        ("4.00 to 6.00", found(HALF, 40, 60), 0.5, 0.5),
        # Of the boxes at 3.0 to 5.5 s only those from 4.0 on lie in both spans: 1, 1, 0.5, 0.5.
        ("3.00 to 6.00", found(BOX, 30, 50) | found(HALF, 50, 60), 2 / 5, 0.75),
        ("4.00 to 8.00", {40: BOX, 45: (20.0, 20.0, 30.0, 30.0)}, 1.0, 0.5),
        ("4.00 to 8.00", {}, 1.0, 0.0),
        ("4.00 to 8.00", None, 1.0, 0.0),
        ("0.00 to 2.00", found(BOX, 0, 20), 0.0, 0.0),
        ("8.00 to 4.00", None, 0.0, 0.0),
        ("soon", None, 0.0, 0.0),
        # Answered is a tenth of a second, the one frame 50.
        ("5.00 to 5.10", {50: HALF}, 0.1 / 4, 0.5),
        # No frame that was read lies in both spans: the box of the nearest one stays.
        ("3.60 to 4.40", {38: HALF}, 0.4 / 4.4, 0.5),
        # A box that reaches out of the frame: 100 of 500 shared.
        ("4.00 to 8.00", {40: (-40.0, 0.0, 10.0, 10.0)}, 1.0, 0.2),
    ],
)  # fmt: skip
def test_the_dynamic_reward_by_hand(answered: str, tube: Tube | None, overlap: float, siou: float) -> None:
    assert_close(score(DynamicSpatioTemporal(), answered, tube), overlap + overlap**2 * siou)
    assert_close(score(DynamicSpatioTemporal(alpha=0.5), answered, tube), overlap + overlap**0.5 * siou)
    assert_close(score(DynamicSpatioTemporal(mode="scale"), answered, tube), overlap + 2 * overlap * siou)
    assert_close(score(DynamicSpatioTemporal(mode="fixed"), answered, tube), overlap + overlap * siou)
    assert_close(score(DynamicSpatioTemporal(mode="temporal"), answered, tube), overlap)


def test_where_time_alone_is_asked_place_does_not_count() -> None:
    truth = replace(TRUTH, task="temporal")
    assert_close(score(DynamicSpatioTemporal(), "4.00 to 8.00", found(BOX, 40, 80), truth), 1.0)
    assert_close(score(DynamicSpatioTemporal(), "4.00 to 8.00", found(BOX, 40, 80)), 2.0)


def test_with_alpha_0_place_counts_whole_but_not_without_time() -> None:
    none_of_it = DynamicSpatioTemporal(alpha=0.0)
    assert_close(score(none_of_it, "4.00 to 6.00", found(BOX, 40, 60)), 0.5 + 1.0)
    assert score(none_of_it, "0.00 to 2.00", found(BOX, 0, 20)) == 0.0
    assert_close(score(DynamicSpatioTemporal(0.0, "scale"), "4.00 to 6.00", found(BOX, 40, 60)), 0.5)


def test_questions_without_boxes_are_rewarded_by_time() -> None:
    temporal = Truth("v", "q", 10.0, 100, 64, 48, span_frames=(40, 80), task="temporal")
    assert_close(score(DynamicSpatioTemporal(), "4.00 to 6.00", found(BOX, 40, 60), temporal), 0.5)
    without_boxes = Truth("v", "q", 10.0, 100, 64, 48, span_frames=(40, 80))
    assert_close(score(DynamicSpatioTemporal(), "4.00 to 6.00", found(BOX, 40, 60), without_boxes), 0.5)
    spatial = Truth("v", "q", 10.0, 100, 64, 48, task="spatial")
    assert score(DynamicSpatioTemporal(), "4.00 to 6.00", None, spatial) is None


def test_no_discriminator_at_all() -> None:
    answer = timesteps.read("<think>so</think><answer>4.00 to 6.00</answer>")
    with pytest.raises(ValueError, match="and there are none"):
        DynamicSpatioTemporal()([answer, answer], TRUTH, RewardContext())
    assert_close(DynamicSpatioTemporal(mode="temporal")([answer, answer], TRUTH, RewardContext()), [0.5, 0.5])


@pytest.mark.parametrize(
    ("thought", "answered", "by_number", "by_string"),
    [
        ("from 4.50 to 9.22", "4.50 to 9.22", 1, 1),
        ("from 4.5 to 9.22 s", "4.50 to 9.22", 1, 0),
        ("from 4.50 on", "4.50 to 9.22", 0, 0),
        ("from 4.51 to 9.21", "4.50 to 9.22", 1, 0),
        ("from 4.52 to 9.22", "4.50 to 9.22", 0, 0),
        ("from 14.50 to 9.22", "4.50 to 9.22", 0, 1),
        ("from 4.505 to 9.22", "4.50 to 9.22", 1, 1),
        ("4 and 9", "4 to 9", 1, 1),
        ("", "4.50 to 9.22", 0, 0),
        ("from 4.50 to 9.22", "soon", 0, 0),
    ],
)
def test_the_think_reward_by_hand(thought: str, answered: str, by_number: int, by_string: int) -> None:
    answers = [timesteps.read(f"<think>{thought}</think><answer>{answered}</answer>")]
    assert TimestampsInThought()(answers, TRUTH, RewardContext()) == [by_number]
    assert TimestampsInThought("string")(answers, TRUTH, RewardContext()) == [by_string]


def test_times_may_stand_in_the_list_of_timesteps() -> None:
    text = "<think>He sits.</think><timestep>4.50, 9.22</timestep><answer>4.50 to 9.22</answer>"
    assert TimestampsInThought()([timesteps.read(text)], TRUTH, RewardContext()) == [1.0]


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(ValueError, match="alpha must be at least 0, not -1"):
        DynamicSpatioTemporal(alpha=-1.0)
    # Under test beartype refuses these first, with an error of its own.
    with pytest.raises((ValueError, TypeError), match=r"linear(.|\n)*power"):
        DynamicSpatioTemporal(mode="linear")  # type: ignore[arg-type]
    with pytest.raises((ValueError, TypeError), match=r"word(.|\n)*number"):
        TimestampsInThought("word")  # type: ignore[arg-type]
