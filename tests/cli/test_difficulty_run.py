"""A run with difficulty control: estimates, a training that chooses by them, and the same after a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stvg_lightning.cli.recipe import bind_recipe, load_values
from stvg_lightning.cli.stages import EstimateDifficulty
from stvg_lightning.cli.stages.difficulty import difficulty_table
from stvg_lightning.cli.stages.stage import Run
from stvg_lightning.data.difficulty import Difficulty, read_difficulties
from stvg_lightning.data.difficulty_epochs import EPOCHS_FILE, distribution_of, read_epochs
from stvg_lightning.rollouts.rollouts import Sampling

CONTROLLED = """
name: controlled
stages:
  sft: null
  estimate:
    use: stvg_lightning.cli.stages.EstimateDifficulty
    shards: run/shards/train
    samples_per_question: 3
    sampling: {max_new_tokens: 8}
    reward: own
    num_workers: 0
  grpo:
    start: base
    difficulty:
      estimates: run/estimate/difficulty.jsonl
      reward: own
      control: {up_to: 1.0, least_spread: 0.0, num_questions: 4}
  evaluate: {models: [base, grpo]}
"""


@pytest.fixture(scope="module")
def recipe(recipe_files: tuple[Path, Path]) -> tuple[Path, ...]:
    overlay = recipe_files[1].parent / "controlled.yaml"
    # Stages keep the order of the files: the estimate must come before GRPO.
    quickstart = recipe_files[0].read_text()
    before = CONTROLLED[CONTROLLED.index("  estimate:") : CONTROLLED.index("  grpo:")]
    first = recipe_files[1].parent / "quickstart_with_estimate.yaml"
    first.write_text(quickstart.replace("\n  grpo:\n", "\n" + before + "\n  grpo:\n", 1))
    overlay.write_text(CONTROLLED.replace(before, ""))
    return first, recipe_files[1], overlay


@pytest.fixture(scope="module")
def run_folder(recipe: tuple[Path, ...]) -> Path:
    from stvg_lightning.cli.main import main

    assert main(["run", *map(str, recipe)]) == 0
    return recipe[1].parent / "runs" / "controlled"


def test_a_run_estimates_and_trains_on_what_was_chosen(run_folder: Path) -> None:
    before = read_difficulties(run_folder / "estimate" / "difficulty.jsonl")
    assert len(before) == 8 and all(each.num_rollouts == 3 for each in before.values())
    rows = [json.loads(line) for line in (run_folder / "grpo" / "rollouts.jsonl").read_text().splitlines()]
    trained = {row["id"] for row in rows}
    assert trained <= set(before) and len(trained) <= 8
    after = read_difficulties(run_folder / "grpo" / "difficulty.jsonl")
    assert after.keys() == before.keys()
    last = {row["id"]: [r["terms"]["own"] for r in rows if r["id"] == row["id"]][-3:] for row in rows}
    for id_, values in last.items():
        assert after[id_].mean == pytest.approx(sum(values) / 3, abs=1e-9)
    assert all(after[id_] == before[id_] for id_ in before if id_ not in trained)
    moments = read_epochs(run_folder / "grpo" / EPOCHS_FILE)
    assert next(title for title, _ in moments) == "Before epoch 1" and moments[-1][0] == "After the last step"
    assert moments[0][1].num_questions == 8 and moments[-1][1] == distribution_of(after)
    assert sum(moments[0][1].chosen) == min(4, sum(each.mean > 0 for each in before.values()))
    page = (run_folder / "report.html").read_text()
    assert 'id="difficulty"' in page and "Before epoch 1" in page and "url(#difficulty-0-0-" in page


LATE = """
from stvg_lightning.rewards import reward


@reward
def late(answer, truth, context):
    return context.progress


@reward(needs_discriminator=True)
def placed(answer, truth, context):
    return 1.0
"""


def estimate(recipe: tuple[Path, ...], shards: Path, folder: Path, reward: str) -> list[float]:
    """The mean reward of each question, with a reward of the user's own beside the recipe's."""
    (folder / "late.py").write_text(LATE)
    overrides = [f"rewards.{reward}.use={folder}/late.py:{reward}", "spatial.name=tiny"]
    bound = bind_recipe(load_values(recipe[:2], overrides))
    stage = EstimateDifficulty(str(shards), samples_per_question=1, sampling=Sampling(2), reward=reward, num_workers=0)
    stage(Run(bound, folder), folder)
    return [each.mean for each in read_difficulties(folder / "difficulty.jsonl").values()]


def test_answers_are_rewarded_as_after_a_training(recipe: tuple[Path, ...], world_shards: Path, tmp_path: Path) -> None:
    means = estimate(recipe, world_shards, tmp_path, "late")
    assert means and set(means) == {1.0}


def test_a_reward_that_needs_a_discriminator_is_refused(
    recipe: tuple[Path, ...], world_shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="needs the boxes of a discriminator"):
        estimate(recipe, world_shards, tmp_path, "placed")
    assert not (tmp_path / "rows.jsonl").exists()


def test_wrong_estimates_are_told_at_once(recipe: tuple[Path, ...], run_folder: Path, stvg: Any) -> None:
    copied = run_folder.parent / "copied"
    shutil.copytree(run_folder, copied)
    for stage in ("grpo", "evaluate", "report"):
        shutil.rmtree(copied / stage)
    lines = (copied / "estimate" / "difficulty.jsonl").read_text().splitlines(keepends=True)
    (copied / "estimate" / "difficulty.jsonl").write_text("".join(lines[:4]))
    assert "4 of 8 samples have no difficulty estimate" in stvg("run", *recipe, "name=copied").message


def test_the_table_counts_each_tenth() -> None:
    estimates = {"a": Difficulty(0.0, 0.0, 8), "b": Difficulty(0.05, 0.1, 8), "c": Difficulty(0.95, 0.0, 1)}
    columns = [list(column.cells) for column in difficulty_table(estimates).columns]
    assert columns[1] == ["2"] + ["0"] * 8 + ["1"] and columns[2] == ["1"] + ["0"] * 9  # one answer has no spread
    assert [len(str(bar)) for bar in columns[3]] == [40] + [0] * 8 + [20]
