"""How hard questions are for a model, and which of them are worth training on (TVG-R1; Time-R1's sampling).

An estimate is what K rollouts of a question earned: 1 is easy, 0 out of reach. TVG-R1 prints no thresholds; those here
are Time-R1's (github.com/xiaomi-research/time-r1, src/utils/process_data.py): a first choice by a Gaussian about 0.3
with width 0.2, then in every epoch what lies above 0 and up to 0.7.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np

from stvg_lightning.tubes.files import replacing
from stvg_lightning.tubes.json_values import check_keys, is_integer, is_number, read_text, refuse
from stvg_lightning.tubes.jsonl import read_json_lines, refuse_repeated_id

SMALLEST_WIDTH = 0.001
SMALLEST_WEIGHT = 1e-300
"""Of a question far from the bell's center, so that it can be drawn where nearer ones do not suffice."""

KEYS = ("id", "mean", "spread", "num_rollouts")


@dataclass(frozen=True)
class Difficulty:
    """What a model earned with a question.

    Attributes:
        mean: of the rollouts' rewards, in [0, 1] of what can be earned.
        spread: their standard deviation, over all of them; 0 gives GRPO nothing to learn from.
        num_rollouts: how many there were; a single greedy one has no spread to tell.
    """

    mean: float
    spread: float
    num_rollouts: int


def difficulty_of(rewards: Sequence[float]) -> Difficulty:
    """The estimate that rollouts of one question give.

    Args:
        rewards: at least one, each in [0, 1].

    Raises:
        ValueError: none, or one outside [0, 1].

    Example:
        >>> difficulty_of([0.0, 1.0, 1.0, 0.0])
        Difficulty(mean=0.5, spread=0.5, num_rollouts=4)
    """
    if not rewards or not all(0 <= reward <= 1 for reward in rewards):
        raise ValueError(f"difficulty needs rewards in [0, 1], at least one, not {list(rewards)[:8]}")
    return Difficulty(fmean(rewards), pstdev(rewards), len(rewards))


@dataclass(frozen=True)
class DifficultyControl:
    """Which questions an epoch trains on: a band of difficulty, a least spread, and perhaps a bell about one value.

    Attributes:
        above: a question's mean reward must lie above this.
        up_to: and not above this.
        least_spread: questions whose rollouts differ by less teach GRPO nothing; those of a single rollout are not
            judged by it.
        center: questions near this mean are drawn more often; None takes all of the band, or an even choice of it.
        width: the standard deviation of that bell.
        num_questions: how many an epoch has; None, or more than there are, takes all that are left.

    Raises:
        ValueError: a band that is empty or reaches out of [0, 1], another number out of range, or no questions.
    """

    above: float = 0.0
    up_to: float = 0.7
    least_spread: float = 0.05
    center: float | None = None
    width: float = 0.2
    num_questions: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.above < self.up_to <= 1:
            raise ValueError(f"above {self.above} must lie below up_to {self.up_to}, both in [0, 1]")
        if not 0 <= self.least_spread <= 0.5:
            raise ValueError(f"least_spread {self.least_spread} must lie in [0, 0.5], as far as rewards can spread")
        if self.center is not None and not 0 <= self.center <= 1:
            raise ValueError(f"center {self.center} must be null or lie in [0, 1]")
        if not SMALLEST_WIDTH <= self.width < math.inf:
            raise ValueError(f"width must be at least {SMALLEST_WIDTH}, not {self.width}")
        if self.num_questions is not None and self.num_questions < 1:
            raise ValueError(f"num_questions must be at least 1, not {self.num_questions}")

    def keeps(self, difficulty: Difficulty) -> bool:
        """Whether a question lies in the band, and its rollouts differ.

        Example:
            >>> DifficultyControl().keeps(Difficulty(0.7, 0.2, 8)), DifficultyControl().keeps(Difficulty(0.0, 0.0, 8))
            (True, False)
        """
        varies = difficulty.num_rollouts < 2 or difficulty.spread >= self.least_spread
        return self.above < difficulty.mean <= self.up_to and varies

    def choose(self, estimates: Mapping[str, Difficulty], seed: int, epoch: int) -> list[str]:
        """The questions of an epoch, in the order of `estimates`; the same for the same seed, epoch and estimates.

        With a center, questions are drawn without replacement, with weights `exp(-(p - center)^2 / (2 width^2))`;
        without one, evenly from the easiest to the hardest, as Time-R1 does from its second epoch on. Where a later
        epoch would be empty, it has the questions nearest to the band instead: see `nearest`.

        Args:
            estimates: id -> difficulty.
            seed: decides the draw, with the epoch.
            epoch: from 0.

        Raises:
            ValueError: the first epoch has no question.
        """
        kept = [id_ for id_, difficulty in estimates.items() if self.keeps(difficulty)]
        if not kept and epoch > 0:
            return self.nearest(estimates)
        if not kept:
            raise ValueError(
                f"of {len(estimates)} questions none has a mean reward above {self.above} and up to {self.up_to}, and "
                f"a spread of at least {self.least_spread}: train longer before, or widen the band"
            )
        if self.num_questions is None or self.num_questions >= len(kept):
            return kept
        means = np.array([estimates[id_].mean for id_ in kept])
        if self.center is None:
            easiest_first = np.argsort(-means, kind="stable")
            places = easiest_first[np.linspace(0, len(kept) - 1, self.num_questions).round().astype(int)]
        else:
            exponents = (means - self.center) ** 2 / (2 * self.width**2)
            weights = np.maximum(np.exp(exponents.min() - exponents), SMALLEST_WEIGHT)
            generator = np.random.default_rng([seed, epoch])
            places = generator.choice(len(kept), self.num_questions, replace=False, p=weights / weights.sum())
        return [kept[place] for place in sorted(places.tolist())]

    def nearest(self, estimates: Mapping[str, Difficulty]) -> list[str]:
        """The questions nearest to the band, those whose rollouts differ first, in the order of `estimates`.

        Returns:
            `num_questions` of them, or a tenth of all where it is None, at least one.
        """

        def off(id_: str) -> tuple[bool, float, float]:
            found = estimates[id_]
            outside = max(self.above - found.mean, found.mean - self.up_to, 0.0)
            return found.num_rollouts > 1 and found.spread < self.least_spread, outside, -found.spread

        count = max(1, len(estimates) // 10) if self.num_questions is None else self.num_questions
        chosen = set(sorted(estimates, key=off)[:count])
        return [id_ for id_ in estimates if id_ in chosen]


def write_difficulties(file: Path, estimates: Mapping[str, Difficulty]) -> None:
    """One line for each question; the file is written whole or not at all."""
    with replacing(file) as beside, beside.open("w") as out:
        for id_, difficulty in estimates.items():
            values = (id_, difficulty.mean, difficulty.spread, difficulty.num_rollouts)
            out.write(json.dumps(dict(zip(KEYS, values))) + "\n")


def read_difficulties(file: Path) -> dict[str, Difficulty]:
    """The estimates of a file, in its order.

    Raises:
        FileNotFoundError: no file there.
        ValueError: a line that is wrong, or two of one id: the message begins with `file:line`.
    """
    estimates: dict[str, Difficulty] = {}
    first_seen: dict[str, str] = {}
    for where, record in read_json_lines(file):
        try:
            check_keys(record, KEYS, KEYS)
            identity = read_text(record["id"], "id")
            for key in ("mean", "spread"):
                if not is_number(record[key]) or not 0 <= record[key] <= 1:
                    refuse(key, record[key], "a number in [0, 1]")
            if not is_integer(record["num_rollouts"], 1):
                refuse("num_rollouts", record["num_rollouts"], "a whole number of at least 1")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        refuse_repeated_id(identity, where, first_seen)
        estimates[identity] = Difficulty(float(record["mean"]), float(record["spread"]), record["num_rollouts"])
    return estimates
