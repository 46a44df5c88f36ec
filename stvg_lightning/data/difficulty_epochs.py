"""How hard an epoch's questions are: what a training with difficulty control saw before each epoch and at its end."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from stvg_lightning.data.difficulty import Difficulty
from stvg_lightning.tubes.files import replacing
from stvg_lightning.tubes.json_values import check_keys, is_integer, refuse, strict_json

NUM_TENTHS = 10
EPOCHS_FILE = "difficulty_epochs.json"


@dataclass(frozen=True)
class Distribution:
    """How many questions there are in each tenth of the mean reward, the hardest first; each is counted once.

    Attributes:
        chosen: that an epoch trains on.
        left_out: that it does not, though their rollouts differed.
        alike: that it does not, and whose rollouts all earned the same.
    """

    chosen: tuple[int, ...]
    left_out: tuple[int, ...]
    alike: tuple[int, ...]

    @property
    def num_questions(self) -> int:
        return sum(self.chosen) + sum(self.left_out) + sum(self.alike)


def distribution_of(estimates: Mapping[str, Difficulty], chosen: Collection[str] = ()) -> Distribution:
    """Count questions by difficulty.

    Args:
        estimates: id -> difficulty.
        chosen: ids that an epoch trains on.

    Example:
        >>> found = distribution_of({"a": Difficulty(0.25, 0.1, 8), "b": Difficulty(1.0, 0.0, 8)}, ["a"])
        >>> found.chosen[2], found.alike[9], found.num_questions
        (1, 1, 2)
    """
    kept = frozenset(chosen)
    counts = {name.name: [0] * NUM_TENTHS for name in fields(Distribution)}
    for id_, difficulty in estimates.items():
        never_differs = difficulty.num_rollouts > 1 and difficulty.spread == 0
        kind = "chosen" if id_ in kept else "alike" if never_differs else "left_out"
        counts[kind][tenth_of(difficulty.mean)] += 1
    return Distribution(**{kind: tuple(of_tenth) for kind, of_tenth in counts.items()})


def tenth_of(mean: float) -> int:
    """The tenth, from 0, in which a mean reward lies; 1 lies in the last.

    Example:
        >>> tenth_of(0.0), tenth_of(0.3), tenth_of(1.0)
        (0, 3, 9)
    """
    return min(int(mean * NUM_TENTHS), NUM_TENTHS - 1)


def write_epochs(file: Path, before: Sequence[Distribution], after: Distribution) -> None:
    """Keep what each epoch began with, and what was known after the last; written whole or not at all."""
    value = {"before_epoch": [asdict(each) for each in before], "after": asdict(after)}
    with replacing(file) as beside:
        beside.write_text(json.dumps(value) + "\n")


def read_epochs(file: Path) -> list[tuple[str, Distribution]]:
    """The distributions of a training with a title each, in order.

    Raises:
        FileNotFoundError: no file there.
        ValueError: something that `write_epochs` did not write.
    """
    try:
        value = strict_json(file.read_text())
        check_keys(value, ("before_epoch", "after"), ("before_epoch", "after"))
        before = [_distribution(each) for each in value["before_epoch"]]
        after = _distribution(value["after"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from None
    named = [(f"Before epoch {number}", each) for number, each in enumerate(before, start=1)]
    return [*named, ("After the last step", after)]


def _distribution(value: Any) -> Distribution:
    names = tuple(name.name for name in fields(Distribution))
    check_keys(value, names, names)
    for name in names:
        counts = value[name]
        if not isinstance(counts, list) or len(counts) != NUM_TENTHS or not all(is_integer(n, 0) for n in counts):
            refuse(name, counts, f"{NUM_TENTHS} counts")
    return Distribution(**{name: tuple(value[name]) for name in names})
