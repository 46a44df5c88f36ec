"""Difficulty control while training: each epoch trains on questions of a wished difficulty (TVG-R1).

Estimates begin with those that a stage made, and are refreshed from the rollouts of the training itself, at no cost.
That is a ratchet: a question outside the band is not rolled out again, so its estimate stays and it does not come back,
however the model changes. Time-R1 answers every question anew between its epochs, and questions return; the stage
`EstimateDifficulty` between two trainings does the same here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stvg_lightning.data.difficulty import Difficulty, DifficultyControl, difficulty_of
from stvg_lightning.data.difficulty_epochs import Distribution, distribution_of
from stvg_lightning.rewards import RewardedAnswer, WeightedSum

BATCHES_AHEAD = 2
"""Batches that may be asked for before the last ones were trained on: what an epoch begins with must not depend on
whether they were, or a training that goes on after a kill would see other questions."""


MOST_WITHOUT_ESTIMATE = 0.05
"""The share of samples that may have no estimate, since they could not be read when estimates were made."""


@dataclass(frozen=True)
class ControlledDifficulty:
    """A training's questions by their difficulty.

    Attributes:
        estimates: file of estimates to begin with; `run/...` lies in the run's folder.
        control: which questions an epoch has.
        reward: the reward term by which rollouts refresh the estimates; None takes the whole reward. It should be the
            one that the estimates were made by.
    """

    estimates: str
    control: DifficultyControl = field(default_factory=DifficultyControl)
    reward: str | None = None


class DifficultySampler:
    """Chooses the questions of each epoch, and keeps what was learnt of them.

    Args:
        control: which questions an epoch has.
        estimates: id -> difficulty.
        ids: number of a sample in the shards -> its id; one without an estimate is never chosen.
        seed: of the draw.

    Attributes:
        before_epochs: the difficulties that each epoch so far began with.

    Raises:
        ValueError: too many samples without an estimate: these are of other shards.
    """

    def __init__(
        self, control: DifficultyControl, estimates: Mapping[str, Difficulty], ids: Mapping[int, str], seed: int
    ) -> None:
        missing = [id_ for id_ in ids.values() if id_ not in estimates]
        if len(missing) > MOST_WITHOUT_ESTIMATE * len(ids):
            raise ValueError(
                f"{len(missing)} of {len(ids)} samples have no difficulty estimate, such as {missing[0]!r}"
            )
        self.control, self.seed = control, seed
        self.index_of = {id_: index for index, id_ in ids.items() if id_ in estimates}
        self.estimates = {id_: estimates[id_] for id_ in self.index_of}
        self.before_epochs: list[Distribution] = []
        self._notes: list[tuple[int, dict[str, Difficulty]]] = []
        self._chosen: dict[int, list[str]] = {}

    def note(self, batch_number: int, found: Mapping[str, Difficulty]) -> None:
        """Keep what a batch's rollouts earned; the next epoch knows it."""
        self._notes.append((batch_number, dict(found)))

    def choose(self, epoch: int, first_batch: int) -> NDArray[np.int64]:
        """The numbers of the samples of an epoch, the same whenever it is asked.

        Args:
            epoch: from 0.
            first_batch: the number of its first batch.

        Raises:
            ValueError: the first epoch has no question of the wished difficulty. A later one then takes the nearest,
                with a warning.
        """
        if epoch not in self._chosen:
            known = [note for note in self._notes if note[0] < first_batch - BATCHES_AHEAD]
            self._notes = [note for note in self._notes if note[0] >= first_batch - BATCHES_AHEAD]
            for _, found in known:
                self.estimates.update(found)
            self._chosen[epoch] = self.control.choose(self.estimates, self.seed, epoch)
            if not any(self.control.keeps(self.estimates[id_]) for id_ in self._chosen[epoch]):
                warnings.warn(
                    f"epoch {epoch + 1}: no question is left in the band of difficulty; the "
                    f"{len(self._chosen[epoch])} nearest to it are trained on: make it wider, or train for less long",
                    RuntimeWarning,
                    stacklevel=2,
                )
            self._chosen.pop(epoch - 2, None)
            self.before_epochs.append(distribution_of(self.estimates, self._chosen[epoch]))
        return np.array([self.index_of[id_] for id_ in self._chosen[epoch]], dtype=np.int64)

    def known(self) -> dict[str, Difficulty]:
        """All that is known by now, the latest rollouts included."""
        latest = dict(self.estimates)
        for _, found in self._notes:
            latest.update(found)
        return latest

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs to choose the same questions."""
        return {
            "estimates": {id_: _packed(difficulty) for id_, difficulty in self.estimates.items()},
            "notes": [(number, {i: _packed(d) for i, d in found.items()}) for number, found in self._notes],
            "chosen": {epoch: list(ids) for epoch, ids in self._chosen.items()},
            "before_epochs": [asdict(each) for each in self.before_epochs],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.estimates = {id_: Difficulty(*values) for id_, values in state["estimates"].items()}
        self._notes = [(number, {i: Difficulty(*v) for i, v in found.items()}) for number, found in state["notes"]]
        self._chosen = {epoch: list(ids) for epoch, ids in state["chosen"].items()}
        self.before_epochs = [Distribution(**each) for each in state["before_epochs"]]


def group_difficulties(
    ids: Sequence[str], rewarded: Sequence[RewardedAnswer], rewards: WeightedSum, term: str | None = None
) -> dict[str, Difficulty]:
    """What each question's group of completions says of its difficulty.

    Args:
        ids: of the questions.
        rewarded: of their completions, those of a question together.
        rewards: tells what can be earned.
        term: the reward term whose value counts, as a share of its range; None takes the total, as a share of what the
            terms that apply can give.

    Raises:
        ValueError: a term that does not exist, or does not apply to a question.
    """
    size = len(rewarded) // len(ids)
    assert size * len(ids) == len(rewarded), (len(ids), len(rewarded))
    shares = [rewards.share(answer, term) for answer in rewarded]
    return {id_: difficulty_of(shares[place * size : (place + 1) * size]) for place, id_ in enumerate(ids)}


def _packed(difficulty: Difficulty) -> tuple[float, float, int]:
    return difficulty.mean, difficulty.spread, difficulty.num_rollouts
