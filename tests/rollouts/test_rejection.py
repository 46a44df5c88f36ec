"""Rejection sampling: each rule by hand, and which answer is kept."""

from __future__ import annotations

import pytest

from stvg_lightning.answers import Answer, timesteps
from stvg_lightning.rollouts.rejection import (
    KeepRules,
    contradicts_itself,
    foreign_share,
    repeated_share,
    times_told,
)
from stvg_lightning.tubes import Truth

TRUTH = Truth("a", "the red circle moves left", 10.0, 100, 64, 48, span_frames=(20, 40), task="temporal")


def said(thought: str, time: str) -> Answer:
    return timesteps.read(f"<think>{thought}</think><answer>{time}</answer>")


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        (said("It moves from 2.00 to 4.00.", "2.00 to 4.00"), None),
        (said("It moves.", "2.00 to 4.00"), None),
        (timesteps.read("soon"), "unreadable"),
        (timesteps.read("<answer>2.00 to 4.00</answer>"), "form"),
        (said("It moves.", "2.00 to 3.60"), "time"),  # exactly 0.8: it must be above
        (said("It moves.", "2.00 to 3.61"), None),
        (said("it moves and it moves and it moves and it moves and it moves", "2.00 to 4.00"), "repetition"),
        (said("The circle \u5411\u5de6\u79fb\u52a8 from 2.00 to 4.00.", "2.00 to 4.00"), "language"),
        (said("It moves from 5.00 to 6.00.", "2.00 to 4.00"), "contradiction"),
        (said("It moves from 5 s to 6 s.", "2.00 to 4.00"), "contradiction"),
        (said("It moves from 00:05 to 00:06.", "2.00 to 4.00"), "contradiction"),
        (said("It moves from 2.00 to 7.00.", "2.00 to 4.00"), "contradiction"),
        (said("It moves from 2.00 on.", "2.00 to 4.00"), None),  # nothing outside the answered time
        (said("At 3.00 it is in the middle.", "2.00 to 4.00"), None),
        (said("It is still at 0.50 and moves from 2.00 to 4.00.", "2.00 to 4.00"), None),
        (said(" ", "2.00 to 4.00"), "thought"),
    ],
)
def test_each_rule_by_hand(answer: Answer, refusal: str | None) -> None:
    assert KeepRules().refusal(answer, TRUTH) == refusal


def test_the_best_of_those_that_pass_and_the_first_of_equals() -> None:
    answers = [
        said("It moves.", "2.00 to 3.80"),
        said("It moves from 5.00 to 6.00.", "2.00 to 4.00"),
        said("It moves.", "2.00 to 3.90"),
        said("It moves to the left.", "2.00 to 3.90"),
    ]
    assert KeepRules().best(answers, TRUTH) == 2
    assert KeepRules().best(answers[1:2], TRUTH) is None and KeepRules().best([], TRUTH) is None


def test_shares() -> None:
    assert repeated_share("one two three", 4) == 0.0 and repeated_share("", 1) == 0.0
    assert repeated_share("a b a b", 2) == pytest.approx(1 / 3)
    assert foreign_share("", "x") == 0.0 and foreign_share("12.5, !", "x") == 0.0
    assert foreign_share("\u043c\u0438\u0440 ab", "the man") == pytest.approx(3 / 5)
    assert foreign_share("der Mann f\u00e4llt", "the man") == 0.0
    assert times_told("Number 3 at 4.5. From 1 second on, or 12:30.5; in 2010 versions 1.2.3.") == [4.5, 1.0, 750.5]
    assert not contradicts_itself(Answer("", (1.0, 2.0))) and not contradicts_itself(said("2 men sit", "2.00 to 4.00"))


@pytest.mark.parametrize(
    "wrong", [{"min_tiou": 1.5}, {"max_repeated_share": -0.1}, {"max_foreign_share": 2.0}, {"phrase_words": 0}]
)
def test_numbers_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KeepRules(**wrong)
