"""The decorator, the weighted sum, and its refusals."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from stvg_lightning.answers import Answer
from stvg_lightning.rewards import (
    ObjectId,
    RewardContext,
    RewardError,
    RewardTerm,
    WeightedSum,
    reward,
    temporal_iou,
    well_formed,
)
from stvg_lightning.tubes import Truth
from tests.helpers import assert_close

TRUTH = Truth("clip-7", "a man sits down", 10.0, 100, 64, 48, (40, 80), object_id=3, tracks={3: {50: (0.0,) * 4}})
GOOD = Answer("good", (4.0, 8.0), (3,), well_formed=True)
HALF = Answer("half", (4.0, 6.0), (2,), well_formed=True)
BAD = Answer("bad")


@reward
def num_letters(answer: Answer, truth: Truth) -> float:
    return len(answer.text) / 10


@reward(low=-1.0, high=0.0)
def overlong(answer: Answer, truth: Truth, context: RewardContext) -> float | None:
    if context.completion_tokens is None:
        return None
    (tokens,) = context.completion_tokens
    return -1.0 if tokens > 10 else 0.0


@dataclass
class Counting:
    """A term that keeps a state and follows epochs."""

    calls: int = 0
    epoch: int = -1
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 100.0

    def setup(self) -> None:
        self.calls = 10

    def on_epoch_start(self, epoch: int) -> None:
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"]

    def __call__(self, answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float]:
        self.calls += 1
        return [float(self.calls)] * len(answers)


def test_the_papers_sum_by_hand() -> None:
    total = WeightedSum({"time": (temporal_iou, 1.0), "object": (ObjectId(), 1.0), "format": (well_formed, 1.0)})
    rewarded = total.score([GOOD, HALF, BAD], TRUTH)
    assert [answer.terms for answer in rewarded] == [
        {"time": 1.0, "object": 1.0, "format": 1.0},
        {"time": 0.5, "object": 0.0, "format": 1.0},
        {"time": 0.0, "object": 0.0, "format": 0.0},
    ]
    assert_close([answer.total for answer in rewarded], [3.0, 1.5, 0.0], atol=1e-12)


def test_weights_and_terms_that_do_not_apply() -> None:
    total = WeightedSum({"letters": (num_letters, 2.0), "long": (overlong, -3.0)})
    without = total.score([GOOD, BAD], TRUTH)
    assert [answer.terms["long"] for answer in without] == [None, None]
    assert_close([answer.total for answer in without], [0.8, 0.6], atol=1e-12)
    given = total.score([GOOD, BAD], TRUTH, RewardContext(completion_tokens=(10, 11)))
    assert [answer.terms["long"] for answer in given] == [0.0, -1.0]
    assert_close([answer.total for answer in given], [0.8, 3.6], atol=1e-12)
    assert total.score([], TRUTH) == []


def test_the_context_of_one_answer() -> None:
    context = RewardContext(7, 0.5, (1, 2), {3: (0.5,)}, ({0: (0.0, 0.0, 1.0, 1.0)}, None))
    assert context.of_answer(1) == RewardContext(7, 0.5, (2,), {3: (0.5,)}, (None,))


def test_a_decorated_function_is_a_term_with_its_range() -> None:
    assert isinstance(num_letters, RewardTerm) and isinstance(ObjectId(), RewardTerm)
    assert (num_letters.low, num_letters.high) == (0.0, 1.0)
    assert (overlong.low, overlong.high) == (-1.0, 0.0)
    assert num_letters.__wrapped__(GOOD, TRUTH) == 0.4
    assert num_letters.__name__ == "num_letters"


def test_terms_can_be_pickled() -> None:
    for term in (temporal_iou, num_letters, ObjectId("code")):
        assert pickle.loads(pickle.dumps(term)) == term


def test_hooks_reach_the_terms_that_have_them() -> None:
    term = Counting()
    total = WeightedSum({"letters": (num_letters, 1.0), "count": (term, 1.0)})
    total.setup()
    total.on_epoch_start(4)
    assert (term.calls, term.epoch) == (10, 4)
    assert total.score([GOOD], TRUTH)[0].terms["count"] == 11.0
    state = total.state_dict()
    assert state == {"count": {"calls": 11}}
    fresh = WeightedSum({"count": (Counting(), 1.0), "letters": (num_letters, 1.0)})
    fresh.load_state_dict(state)
    assert fresh.score([GOOD], TRUTH)[0].terms["count"] == 12.0
    with pytest.raises(ValueError, match="count"):
        fresh.load_state_dict({"other": {}})


def raises(answer: Answer, truth: Truth) -> float:
    return {"a": 1.0}["b"]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raises, "KeyError"),
        (lambda answer, truth: math.nan, "nan.*finite"),
        (lambda answer, truth: math.inf, "inf.*finite"),
        (lambda answer, truth: 1.01, r"1\.01 .*\[0\.0, 1\.0\]"),
        (lambda answer, truth: -0.01, r"-0\.01 .*\[0\.0, 1\.0\]"),
        (lambda answer, truth: "many", "ValueError"),
        (lambda answer, truth: [1.0], "TypeError"),
    ],
)
def test_a_bad_value_names_the_term_and_the_sample(function: Any, message: str) -> None:
    total = WeightedSum({"fine": (num_letters, 1.0), "broken": (reward(function), 1.0)})
    with pytest.raises(RewardError, match=f"'broken' on sample 'clip-7'.*{message}") as caught:
        total.score([GOOD, BAD], TRUTH)
    assert isinstance(caught.value, ValueError)


def test_the_error_of_a_term_is_chained() -> None:
    with pytest.raises(RewardError) as caught:
        WeightedSum({"broken": (reward(raises), 1.0)}).score([GOOD], TRUTH)
    assert isinstance(caught.value.__cause__, KeyError)


def test_rounding_just_outside_the_range_is_allowed() -> None:
    just_above = reward(lambda answer, truth: 1.0 + 1e-9)
    assert WeightedSum({"t": (just_above, 1.0)}).score([GOOD], TRUTH)[0].terms["t"] == 1.0 + 1e-9


def test_a_wrong_number_of_values_is_refused() -> None:
    @dataclass(frozen=True)
    class TooFew:
        low: ClassVar[float] = 0.0
        high: ClassVar[float] = 1.0

        def __call__(self, answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float]:
            return [1.0]

    with pytest.raises(RewardError, match="1 values for 2 answers"):
        WeightedSum({"few": (TooFew(), 1.0)}).score([GOOD, BAD], TRUTH)


def test_bad_sums_and_bad_decorations_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        WeightedSum({})
    with pytest.raises(ValueError, match="'letters' must be finite"):
        WeightedSum({"letters": (num_letters, math.nan)})
    with pytest.raises(ValueError, match="takes 1 arguments"):
        reward(lambda answer: 1.0)
    with pytest.raises(ValueError, match="below"):
        reward(low=1.0, high=1.0)


class Noting:
    low, high = 0.0, 1.0

    def __init__(self, note: object) -> None:
        self.note = note

    def __call__(self, answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float]:
        return [0.0 for _ in answers]

    def notes(self, answer: Answer, truth: Truth) -> dict[str, object]:
        return {"seen": self.note}


@pytest.mark.parametrize(("note", "message"), [("much", "raised ValueError"), (float("nan"), "seen is nan")])
def test_notes_that_are_no_numbers_are_named(note: object, message: str) -> None:
    assert WeightedSum({"a": (Noting(2), 1.0)}).score([Answer("")], TRUTH)[0].notes == {"a/seen": 2.0}
    with pytest.raises(RewardError, match=f"notes of reward term 'a' on sample '{TRUTH.id}'.*{message}"):
        WeightedSum({"a": (Noting(note), 1.0)}).score([Answer("")], TRUTH)
