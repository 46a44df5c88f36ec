"""Settings of `stvg shards prompt`: of a recipe, with `key=value` laid over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from stvg_lightning.cli.binding import USE, RecipeError, bind
from stvg_lightning.cli.prompting import PromptSettings
from stvg_lightning.cli.recipe import bind_recipe, load_values, with_base
from stvg_lightning.prompting import Markers

STAGE = "ObjectPrompts"


def read_settings(keys: Sequence[str], recipe: Path | None, workers: int | None) -> tuple[PromptSettings, Markers]:
    """How objects are numbered, and how they are marked.

    Args:
        keys: `key=value` of `PromptSettings`, at any depth, such as `tracking.backward=false`.
        recipe: whose stage `ObjectPrompts` gives settings, and which gives markers; without one they are the paper's.
        workers: the number of processes, where it is not the settings'.

    Raises:
        RecipeError: the recipe does not bind or has no such stage, or a key that is none of the settings'.
    """
    values: dict[str, Any] = {}
    markers = Markers()
    if recipe is not None:
        plain = load_values(with_base([recipe]))
        markers = bind_recipe(plain).markers
        values = dict(_stage_settings(plain, recipe))
    try:
        merged = OmegaConf.merge(OmegaConf.create(values), OmegaConf.from_dotlist(list(keys)))
        values = {str(key): value for key, value in dict(OmegaConf.to_container(merged, resolve=True)).items()}
    except (YAMLError, OmegaConfBaseException) as error:
        raise RecipeError(f"{' '.join(keys)} cannot be read: {error}") from error
    if workers is not None:
        values["num_workers"] = workers
    return bind(PromptSettings, values, "settings"), markers


def _stage_settings(plain: Mapping[str, Any], recipe: Path) -> Mapping[str, Any]:
    """The settings of the recipe's first stage that numbers objects."""
    for stage in plain["stages"].values():
        if str(stage.get(USE, "")).rpartition(".")[2] == STAGE:
            return stage.get("settings", {})
    raise RecipeError(f"{recipe} has no stage of {STAGE}")
