"""`stvg plan`: what a recipe will need, told before anything runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stvg_lightning.cli.planning import prompt_of
from stvg_lightning.cli.recipe import bind_recipe, load_values
from stvg_lightning.models.loading import load_encoder
from stvg_lightning.rollouts.preparation import Preparation
from stvg_lightning.tubes import Sample

QUICKSTART = str(Path(__file__).parent.parent.parent / "recipes" / "quickstart.yaml")


def planned(stvg: Any, *arguments: str) -> tuple[int, dict[str, Any]]:
    printed = stvg("plan", QUICKSTART, *arguments, "--json")
    return printed.code, json.loads(printed.out)["grpo"]


def test_a_step_of_the_quickstart(stvg: Any) -> None:
    code, found = planned(stvg, "--memory", "8")
    assert code == 0 and found["fits"] and found["change"] is None
    assert found["tokens"] < found["tokens_repeated"] < 8 * found["tokens"]
    memory = found["memory_gib"]
    largest = max(memory[phase] for phase in ("update", "rollout", "tower"))
    assert memory["peak"] == pytest.approx(memory["weights"] + memory["gradients and optimiser"] + largest)
    assert found["seconds"]["step"] > found["seconds"]["update"] > 0
    _, of_two = planned(stvg, "--gpus", "2")
    assert of_two["tokens"] == 2 * found["tokens"] and of_two["memory_gib"] == memory


def test_what_does_not_fit_is_told_with_the_key_that_helps(stvg: Any) -> None:
    _, found = planned(stvg)
    tight = 0.6 * found["memory_gib"]["peak"]
    code, changed = planned(stvg, "--memory", str(tight))
    assert code == 1 and not changed["fits"]
    key, _, value = changed["change"].partition(": ")
    assert key == "stages.grpo.settings.tokens_per_pass" and changed["memory_gib_changed"] <= tight
    code, again = planned(stvg, f"{key}={value}", "--memory", str(tight))
    assert code == 0 and again["memory_gib"]["peak"] == pytest.approx(changed["memory_gib_changed"])
    table = stvg("plan", QUICKSTART, "--memory", str(tight))
    assert table.code == 1 and key in table.out.replace("\n", "")


@pytest.mark.parametrize("draw", ["true", "false"])
def test_prompts_are_those_of_a_training(world_samples: tuple[Sample, ...], draw: str) -> None:
    """A question of time speaks of marked objects only where they are drawn."""
    recipe = bind_recipe(load_values([Path(QUICKSTART)], [f"markers.draw={draw}", "rewards.object_id=null"]))
    encoder = load_encoder(recipe.model.name)
    truth = replace(world_samples[0].truth, task="temporal")
    assert truth.tracks
    asked = Preparation(encoder, recipe.video, recipe.markers, recipe.answer)(replace(world_samples[0], truth=truth))
    assert prompt_of(recipe, encoder, truth).input_ids.tolist() == asked.prompt.input_ids.tolist()


def test_a_recipe_without_grpo_is_refused(stvg: Any) -> None:
    refused = stvg("plan", QUICKSTART, *(f"stages.{name}=null" for name in ("grpo", "evaluate", "report")))
    assert refused.code == 1 and "no GRPO stage" in refused.err


def test_answers_about_shuffled_frames_are_planned(stvg: Any) -> None:
    _, found = planned(stvg)
    _, asked = planned(stvg, "rewards.order={use: stvg_lightning.rewards.OrderBonus, weight: 0.3}")
    assert found["tokens"] < asked["tokens"] < 2 * found["tokens"]
    assert asked["seconds"]["generate"] > found["seconds"]["generate"]
    assert asked["seconds"]["update"] == found["seconds"]["update"] and asked["memory_gib"] == found["memory_gib"]
