"""The think reward of SARL-STG (supplement, equation 1): the answered times were thought of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from stvg_lightning.answers import Answer
from stvg_lightning.answers.reading import LONGEST_NUMBER, last_answer
from stvg_lightning.rewards.base import RewardContext
from stvg_lightning.tubes import Truth
from stvg_lightning.tubes.choices import check_choice

TimeMatch = Literal["number", "string"]

LARGEST_DIFFERENCE_SECONDS = 0.01

_NUMBER = re.compile(rf"(?<![0-9.])[0-9]{{1,{LONGEST_NUMBER}}}(?:\.[0-9]{{1,{LONGEST_NUMBER}}})?(?![0-9])")


@dataclass(frozen=True)
class TimestampsInThought:
    """1 where both answered times occur in the thought, otherwise 0.

    The paper's text calls the times those of the ground truth and, a sentence before, those of the answer; MUSEG, to
    which it credits the reward, takes the answer's, and so does this term.

    Attributes:
        match: `number` compares values rounded to two decimals, at 0.01 seconds; `string` looks for the times as they
            are written in the answer, as MUSEG does.

    Raises:
        ValueError: an unknown match.
    """

    match: TimeMatch = "number"
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        check_choice("match", self.match, get_args(TimeMatch))

    def __call__(self, answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float | None]:
        """The reward of each answer; 0 where no time was answered, or nothing was thought."""
        return [float(self._all_occur(answer)) for answer in answers]

    def _all_occur(self, answer: Answer) -> bool:
        if answer.span_seconds is None or not answer.thought:
            return False
        if self.match == "string":
            written = _NUMBER.findall(last_answer(answer.text) or "")
            if tuple(float(time) for time in written) != answer.span_seconds:
                raise ValueError("match: string needs answers of two times alone, as stvg_lightning.answers.timesteps")
            return all(time in answer.thought for time in written)
        # In hundredths, so that 0.01 of difference is not lost to binary rounding.
        thought = {round(float(number) * 100) for number in _NUMBER.findall(answer.thought)}
        largest = round(LARGEST_DIFFERENCE_SECONDS * 100)
        return all(
            any(round(seconds * 100) + offset in thought for offset in range(-largest, largest + 1))
            for seconds in answer.span_seconds
        )
