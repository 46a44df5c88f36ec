"""How many questions of each difficulty an epoch began with: counted by hand, kept in a file, refused when broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.data.difficulty import Difficulty
from stvg_lightning.data.difficulty_epochs import Distribution, distribution_of, read_epochs, tenth_of, write_epochs

ESTIMATES = {
    "hopeless": Difficulty(0.0, 0.0, 8),
    "hard": Difficulty(0.05, 0.1, 8),
    "fit": Difficulty(0.39, 0.2, 8),
    "greedy": Difficulty(0.39, 0.0, 1),
    "easy": Difficulty(1.0, 0.0, 8),
}


def test_questions_are_counted_by_hand() -> None:
    found = distribution_of(ESTIMATES, ["fit", "hard"])
    assert found.chosen == (1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    assert found.left_out == (0, 0, 0, 1, 0, 0, 0, 0, 0, 0)  # one greedy answer has no spread to judge by
    assert found.alike == (1, 0, 0, 0, 0, 0, 0, 0, 0, 1)


@given(st.dictionaries(st.text(max_size=3), st.tuples(st.floats(0, 1), st.floats(0, 0.5), st.integers(1, 9))))
def test_every_question_is_counted_once(values: dict[str, tuple[float, float, int]]) -> None:
    estimates = {id_: Difficulty(*value) for id_, value in values.items()}
    found = distribution_of(estimates, list(estimates)[::2])
    assert found.num_questions == len(estimates) and sum(found.chosen) == (len(estimates) + 1) // 2
    tenths = [sum(counts) for counts in zip(found.chosen, found.left_out, found.alike)]
    assert tenths == [sum(tenth_of(each.mean) == place for each in estimates.values()) for place in range(10)]


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    before, after = distribution_of(ESTIMATES, ["fit"]), distribution_of(ESTIMATES)
    write_epochs(tmp_path / "epochs.json", [before, after], after)
    assert read_epochs(tmp_path / "epochs.json") == [
        ("Before epoch 1", before),
        ("Before epoch 2", after),
        ("After the last step", after),
    ]


@pytest.mark.parametrize("broken", ["[]", "{}", '{"before_epoch": 3, "after": {}}', "nonsense"])
def test_a_broken_file_is_named(broken: str, tmp_path: Path) -> None:
    (tmp_path / "epochs.json").write_text(broken)
    with pytest.raises(ValueError, match=r"epochs\.json"):
        read_epochs(tmp_path / "epochs.json")


def test_counts_that_are_no_counts_are_refused(tmp_path: Path) -> None:
    counts = {name: [0] * 10 for name in ("chosen", "left_out", "alike")}
    wrong = {"before_epoch": [counts | {"chosen": [-1] * 10}], "after": counts}
    (tmp_path / "epochs.json").write_text(json.dumps(wrong))
    with pytest.raises(ValueError, match="chosen is"):
        read_epochs(tmp_path / "epochs.json")
    assert Distribution(**{name: tuple(value) for name, value in counts.items()}).num_questions == 0
