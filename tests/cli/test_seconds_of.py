"""Supervised training that lasts as long as other stages did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stvg_lightning.cli.binding import RecipeError
from stvg_lightning.cli.recipe import bind_recipe, load_values
from stvg_lightning.cli.stages import SupervisedFineTuning
from stvg_lightning.cli.stages.stage import DONE_FILE, Run

RECIPES = Path(__file__).parents[2] / "recipes"
OVERLAYS = [RECIPES / "quickstart.yaml", RECIPES / "quickstart_sft.yaml"]


def run_with(folder: Path, seconds: dict[str, float]) -> tuple[Run, SupervisedFineTuning]:
    """The comparison's run, in which some stages are done, and its supervised stage."""
    run = Run(bind_recipe(load_values(OVERLAYS)), folder)
    for name, spent in seconds.items():
        (folder / name).mkdir(parents=True)
        (folder / name / DONE_FILE).write_text(json.dumps({"fingerprint": "x", "seconds": spent}))
    stage = run.recipe.stages["sft_as_long"]
    assert isinstance(stage, SupervisedFineTuning)
    return run, stage


def test_the_seconds_of_other_stages_add_up(tmp_path: Path) -> None:
    run, stage = run_with(tmp_path, {"sft": 41.5, "grpo": 200.25, "evaluate": 9.0})
    assert stage._seconds(run) == 241.75


def test_a_stage_that_is_not_done_is_named(tmp_path: Path) -> None:
    run, stage = run_with(tmp_path, {"sft": 41.5})
    with pytest.raises(FileNotFoundError, match="'grpo' is not done"):
        stage._seconds(run)


def test_two_limits_are_refused() -> None:
    with pytest.raises(RecipeError, match="not both"):
        bind_recipe(load_values(OVERLAYS, ["stages.sft_as_long.max_seconds=5.0"]))


def test_the_comparison_changes_nothing_before_it() -> None:
    alone, compared = load_values(OVERLAYS[:1]), load_values(OVERLAYS)
    names = list(alone["stages"])
    assert list(compared["stages"])[: len(names)] == names
    assert {name: compared["stages"][name] for name in names} == alone["stages"]
    assert {**compared, "stages": None} == {**alone, "stages": None}
