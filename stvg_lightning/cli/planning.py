"""`stvg plan`: what each GRPO stage of a recipe will need, before a weight is loaded."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from stvg_lightning.answers import View
from stvg_lightning.cli.commands import split_arguments
from stvg_lightning.cli.recipe import Recipe, bind_recipe, load_values, with_base
from stvg_lightning.cli.stages.stage import Run
from stvg_lightning.cli.stages.training import GroupRelativePolicyOptimization
from stvg_lightning.data.shards import ShardFolder
from stvg_lightning.data.video import shown_frames
from stvg_lightning.models.adapters import add_adapter
from stvg_lightning.models.loading import load_encoder, load_structure
from stvg_lightning.models.prompts import EncodedPrompt, PromptEncoder
from stvg_lightning.modules.planning import Machine, ModelSize, StepPlan, memory_gib, seconds, what_fits
from stvg_lightning.modules.shuffled import shuffled_group_size
from stvg_lightning.tubes import Clip, Truth

MOST_TRUTHS = 32
ASSUMED = Truth("assumed", "the thing that a sentence of usual length describes", 30.0, 900, 1280, 720, (0, 90))
"""Where there are no shards yet: half a minute of video, which fills the recipe's budget of pixels."""


def plan(options: Namespace) -> int:
    """Print what is predicted for each GRPO stage; 1 where one of them will not fit."""
    files, overrides = split_arguments(options.recipe)
    recipe = bind_recipe(load_values(with_base(files), overrides))
    stages = {n: s for n, s in recipe.stages.items() if isinstance(s, GroupRelativePolicyOptimization)}
    if not stages:
        raise ValueError(f"{recipe.name} has no GRPO stage to plan: its stages are {', '.join(recipe.stages)}")
    machine = Machine(options.memory, options.tflops, options.bandwidth, options.utilisation)
    found = {name: stage_plan(recipe, name, stage, machine, options.gpus) for name, stage in stages.items()}
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        for name, each in found.items():
            _print(name, each, machine)
    return 0 if all(each["fits"] for each in found.values()) else 1


def stage_plan(
    recipe: Recipe, name: str, stage: GroupRelativePolicyOptimization, machine: Machine, num_processes: int
) -> dict[str, Any]:
    """Tokens, memory and seconds of a stage's steps, with the longest completions that it allows."""
    encoder = load_encoder(recipe.model.name)
    truths, are_known = truths_of(recipe, stage.shards)
    prompts = [prompt_of(recipe, encoder, truth) for truth in truths]
    prompts.sort(key=lambda prompt: len(prompt.input_ids), reverse=True)
    batch = [prompts[place % len(prompts)] for place in range(stage.loading.batch_size)]
    step = step_plan(recipe, stage, batch)
    size = size_of(recipe, stage)
    memory = memory_gib(size, step)
    fits = memory["peak"] <= machine.memory_gib
    change = None if fits else what_fits(size, step, machine)
    work = step.work
    return {
        "prompts_from": f"{len(truths)} questions of {stage.shards}" if are_known else "an assumed video of 30 seconds",
        "prompt_tokens": [len(prompt.input_ids) for prompt in batch],
        "tokens": num_processes * work.tokens(),
        "tokens_repeated": num_processes * work.tokens(repeated=True),
        "tokens_at_once": step.tokens_at_once,
        "memory_gib": memory,
        "seconds": seconds(size, step, machine),
        "fits": fits,
        "change": None if change is None else change[0].replace("settings.", f"stages.{name}.settings."),
        "memory_gib_changed": None if change is None else memory_gib(size, change[1])["peak"],
    }


def truths_of(recipe: Recipe, shards: str) -> tuple[list[Truth], bool]:
    """Questions evenly spread over a stage's shards, and whether there were any."""
    place = Run(recipe, recipe.run_folder).path(shards)
    if not Path(place).is_dir():
        return [ASSUMED], False
    folder = ShardFolder(place)
    return [folder.truth(index) for index in range(0, len(folder), max(len(folder) // MOST_TRUTHS, 1))], True


def prompt_of(recipe: Recipe, encoder: PromptEncoder, truth: Truth) -> EncodedPrompt:
    """The prompt of a question, its video black: tokens and patches do not depend on what is seen."""
    frames = shown_frames(truth, recipe.video, encoder.side_multiple, encoder.frames_per_step)
    black = np.zeros((len(frames.indices), frames.height, frames.width, 3), np.uint8)
    instruction = recipe.answer.instruction(truth, View(recipe.markers.kind, frames, recipe.markers.draw))
    return encoder.encode(Clip(black, frames.indices, truth.fps), instruction, frames.height, frames.width)


def step_plan(recipe: Recipe, stage: GroupRelativePolicyOptimization, batch: list[EncodedPrompt]) -> StepPlan:
    """A step over a batch of prompts."""
    settings = stage.settings
    lengths = (stage.sampling.max_new_tokens,) * settings.group_size
    return StepPlan(
        groups=tuple((len(prompt.input_ids), lengths) for prompt in batch),
        patches=sum(int(prompt.grid_thw.prod(dim=1).sum()) for prompt in batch),
        recomputes=recipe.model.recompute_activations,
        micro_batch_prompts=settings.micro_batch_prompts,
        tokens_per_pass=settings.tokens_per_pass,
        tokens_per_rollout=settings.tokens_per_rollout,
        updates=settings.updates_per_rollout,
        has_reference=stage.objective.beta > 0,
        has_critic=stage.objective.critic is not None,
        shuffled_group_size=shuffled_group_size(settings.group_size) if recipe.rewards.needs_shuffled else 0,
    )


def size_of(recipe: Recipe, stage: GroupRelativePolicyOptimization) -> ModelSize:
    """The size of a stage's model with its adapter; no weight is loaded or made."""
    with torch.device("meta"):
        adapted = add_adapter(load_structure(recipe.model.name, recipe.model.dtype), stage.lora)
    return ModelSize.of(adapted.model.network)


def _print(name: str, found: dict[str, Any], machine: Machine) -> None:
    table = Table(title=f"stage {name}: {found['prompts_from']}", title_justify="left")
    table.add_column("a step")
    table.add_column("predicted", justify="right")
    table.add_row("tokens through the language model", f"{found['tokens']:,}")
    table.add_row("as many with each prompt repeated", f"{found['tokens_repeated']:,}")
    table.add_row("tokens whose activations are held at once", f"{found['tokens_at_once']:,}")
    for part, gib in found["memory_gib"].items():
        table.add_row(f"memory, {part}", f"{gib:.2f} GiB")
    for phase, spent in found["seconds"].items():
        table.add_row(f"seconds, {phase}", f"{spent:.2f}")
    console = Console()
    console.print(table)
    if found["fits"]:
        console.print(f"fits in {machine.memory_gib:g} GiB")
    elif found["change"] is None:
        console.print(f"does not fit in {machine.memory_gib:g} GiB, whatever is held at once: lower video.total_pixels")
    else:
        console.print(
            f"does not fit in {machine.memory_gib:g} GiB; set {found['change']} "
            f"({found['memory_gib_changed']:.2f} GiB then)"
        )
