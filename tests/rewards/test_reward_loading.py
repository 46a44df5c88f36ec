"""Reward terms by dotted path and from a file of the user's own."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from stvg_lightning.answers import Answer
from stvg_lightning.rewards import (
    CoupledObjectId,
    ObjectId,
    RewardContext,
    WeightedSum,
    load_object,
    load_term,
    temporal_iou,
)
from stvg_lightning.rewards.loading import own_file_of, packed_for_processes
from stvg_lightning.tubes import Truth

OWN_FILE = '''
from dataclasses import dataclass
from typing import ClassVar

from stvg_lightning.rewards import reward


@reward(low=0.0, high=2.0)
def says_more(answer, truth):
    """Twice the share of the query's words that the thought repeats."""
    words = truth.query.split()
    return 2 * sum(word in (answer.thought or "") for word in words) / len(words)


def undecorated(answer, truth):
    return 1.0


@dataclass(frozen=True)
class Bonus:
    size: float
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 10.0

    def __call__(self, answers, truth, context):
        return [self.size] * len(answers)
'''
TRUTH = Truth("v", "a man sits down", 10.0, 100, 64, 48)


@pytest.fixture()
def own_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(OWN_FILE)
    return path


def test_a_users_own_file(own_file: Path) -> None:
    total = WeightedSum({"more": (load_term(f"{own_file}:says_more"), 0.5)})
    (rewarded,) = total.score([Answer("", thought="the man sits")], TRUTH)
    # Of "a man sits down": "a" stands within "man", "down" is missing.
    assert rewarded.terms == {"more": 1.5} and rewarded.total == 0.75


def test_a_file_relative_to_the_working_directory(own_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own_file.parent)
    assert load_term("mine.py:says_more").high == 2.0


def test_an_edited_file_is_seen(own_file: Path) -> None:
    assert load_term(f"{own_file}:says_more").high == 2.0
    own_file.write_text(OWN_FILE.replace("high=2.0", "high=3.0"))
    assert load_term(f"{own_file}:says_more").high == 3.0


def test_terms_of_a_file_can_be_pickled(own_file: Path) -> None:
    term = load_term(f"{own_file}:says_more")
    assert pickle.loads(pickle.dumps(term)) is term


def test_dotted_paths() -> None:
    assert load_term("stvg_lightning.rewards.temporal_iou") is temporal_iou
    assert load_term("stvg_lightning.rewards.temporal_iou.temporal_iou") is temporal_iou
    assert load_term("stvg_lightning.rewards.ObjectId") == ObjectId()
    assert load_term("stvg_lightning.rewards.CoupledObjectId", {"presence": "code"}) == CoupledObjectId("code")
    assert load_object("stvg_lightning.rewards.ObjectId") is ObjectId


def test_options_of_a_users_class(own_file: Path) -> None:
    assert list(load_term(f"{own_file}:Bonus", {"size": 4.0})([Answer("")], TRUTH, RewardContext())) == [4.0]


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("FILE:says_mroe", {}, "'says_mroe'; the nearest is 'says_more', of Bonus, .*says_more, undecorated"),
        ("FILE:undecorated", {}, "@reward"),
        ("FILE:ClassVar", {}, "no reward term"),
        ("FILE:Bonus", {}, "needs the option 'size'"),
        ("FILE:Bonus", {"sice": 1.0}, "no option 'sice'; the nearest is 'size'"),
        ("FILE:says_more", {"size": 1.0}, "no options"),
        ("DIR/mime.py:says_more", {}, "no file .*nearest is .*mine.py"),
        ("DIR:says_more", {}, "must be a .py file"),
        ("stvg_lightning.rewards.temporal_iuo", {}, "nearest is 'temporal_iou'"),
        ("stvg_lightning.rewords.temporal_iou", {}, "no module 'stvg_lightning.rewords'"),
        ("no_such_package_at_all.smile", {}, "no module 'no_such_package_at_all'.*path/to/file.py:name"),
        ("smile", {}, "package.module.name or path/to/file.py:name"),
    ],
)
def test_what_cannot_be_loaded_is_explained(own_file: Path, path: str, options: dict, message: str) -> None:
    path = path.replace("FILE", str(own_file)).replace("DIR", str(own_file.parent))
    with pytest.raises(ValueError, match=message):
        load_term(path, options)


@pytest.mark.parametrize("body", ["def broken(:", "import no_such_module_at_all", "1 / 0"])
def test_a_file_that_cannot_be_run_is_named(tmp_path: Path, body: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(body)
    with pytest.raises(ValueError, match=r"broken\.py cannot be run: \w+Error") as caught:
        load_term(f"{path}:name")
    assert caught.value.__cause__ is not None


def test_a_module_whose_own_import_fails_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_there.py").write_text("import no_such_module_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"half_there\.x cannot be loaded: No module named 'no_such_module_at_all'"):
        load_term("half_there.x")


def test_a_thing_of_an_own_file_is_unpacked_where_the_file_was_never_loaded(tmp_path: Path) -> None:
    """Its module is loaded anew for each name in it, which plain pickling takes for another module."""
    file = tmp_path / "own.py"
    file.write_text("class Finder:\n    def __init__(self, size):\n        self.size = size\n")
    first, second = (load_object(f"{file}:Finder") for _ in range(2))
    thing = {"first": first(3), "second": second((4, 5)), "plain": Path("a")}
    assert own_file_of(thing["first"]) == file and own_file_of(thing["plain"]) is None
    packed = packed_for_processes(thing)
    for name in [name for name in sys.modules if name.startswith("stvg_own_own_")]:
        del sys.modules[name]
    again = pickle.loads(packed)
    assert (again["first"].size, again["second"].size, again["plain"]) == (3, (4, 5), Path("a"))
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(thing)
