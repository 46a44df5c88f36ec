"""Run the stages of a recipe in order, going on where the last run of it stopped."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Event, Thread
from time import perf_counter, sleep
from typing import Any
from uuid import uuid4

from omegaconf import OmegaConf
from rich.console import Console

from stvg_lightning.cli.binding import RecipeError
from stvg_lightning.cli.recipe import bind_recipe, fingerprint
from stvg_lightning.cli.stages.evaluate import write_summary
from stvg_lightning.cli.stages.stage import DONE_FILE, Run, stage_seconds
from stvg_lightning.data.shards.manifest import load_manifest
from stvg_lightning.modules.trainer import started_by_lightning
from stvg_lightning.tubes.files import write_atomically

STARTED_FILE = "started.json"
NOTE_SECONDS = 5.0
"""How often the seconds of a stage are noted, so that a killed one loses few of them."""

PACKAGES = ("stvg-lightning", "torch", "torchvision", "transformers", "peft", "lightning", "webdataset", "av")


def run_recipe(values: Mapping[str, Any], only: Sequence[str], console: Console) -> Path:
    """Run a recipe's stages, or only some of them.

    Args:
        values: the recipe, merged and unbound.
        only: names of stages; all of them where empty.
        console: where progress is told.

    Returns:
        The run's folder.

    Raises:
        RecipeError: the recipe does not bind, a stage is unknown, or the folder holds another recipe's work.
    """
    recipe = bind_recipe(values)
    unknown = [name for name in only if name not in recipe.stages]
    if unknown:
        raise RecipeError(f"the recipe has no stage {unknown[0]!r}: its stages are {', '.join(recipe.stages)}")
    run = Run(recipe, recipe.run_folder)
    _check_same_recipe(run, values)
    _check_shards(run, only)
    if process_rank() == 0:
        run.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(run.folder / "recipe.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(values))))
    names = list(recipe.stages)
    for number, name in enumerate(names, start=1):
        if only and name not in only:
            continue
        folder = run.folder / name
        if (folder / DONE_FILE).is_file():
            spent = stage_seconds(folder)
            console.print(f"[dim]{number}/{len(names)} {name}: done before, in {spent:.0f} s[/dim]")
            continue
        if process_rank() > 0:
            _take_part(run, name)
            continue
        console.print(f"[bold]{number}/{len(names)} {name}[/bold]")
        _run_stage(run, name, fingerprint(values, name))
        console.print(f"{number}/{len(names)} {name}: done in {stage_seconds(folder):.0f} s")
    if process_rank() == 0:
        write_summary(run)
    return run.folder


def process_rank() -> int:
    """This process's number among those that train together; 0 leads."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", "0"))))


def _take_part(run: Run, name: str) -> None:
    """What a process that does not lead does in a stage: train along, and wait until the leader has finished it."""
    stage, folder = run.recipe.stages[name], run.folder / name
    if getattr(stage, "distributed", False):
        stage(run, folder)
        if started_by_lightning():
            raise SystemExit(0)  # the leader starts new processes for its next training
    while not (folder / DONE_FILE).is_file():
        sleep(1)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _run_stage(run: Run, name: str, mark: str) -> None:
    folder = run.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(run.folder / "versions.json", json.dumps(versions(), indent=2) + "\n")
    started_file = folder / STARTED_FILE
    before = json.loads(started_file.read_text())["seconds"] if started_file.is_file() else 0.0
    started, upon = perf_counter(), _stages_made(run, name)

    def note(file: Path) -> None:
        seconds = round(before + perf_counter() - started, 3)
        record = {"fingerprint": mark, "seconds": seconds, "upon": upon}
        write_atomically(file, json.dumps({**record, "made": uuid4().hex} if file.name == DONE_FILE else record))

    with _every(NOTE_SECONDS, partial(note, started_file)):
        run.recipe.stages[name](run, folder)
    note(folder / DONE_FILE)


def _stages_made(run: Run, name: str) -> dict[str, str]:
    """The finished stages before one, each with the mark of when it was made: done anew it has another."""
    names = list(run.recipe.stages)
    files = {stage: run.folder / stage / DONE_FILE for stage in names[: names.index(name)]}
    return {stage: json.loads(file.read_text())["made"] for stage, file in files.items() if file.is_file()}


@contextmanager
def _every(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    """Do something at once, again and again in a thread beside, and a last time at the end, however that comes.

    A disk that is full for a moment, or at the end, must not hide what else went wrong.
    """
    ended = Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            with suppress(OSError):
                action()

    action()
    thread = Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(OSError):
            action()


def _check_shards(run: Run, only: Sequence[str]) -> None:
    """Refuse at once what a stage would miss only after hours: shards that no stage of the run makes.

    Raises:
        FileNotFoundError: a folder without shards.
    """
    for name, stage in run.recipe.stages.items():
        shards = getattr(stage, "shards", None)
        to_do = (not only or name in only) and not (run.folder / name / DONE_FILE).is_file()
        if to_do and isinstance(shards, str) and run.path(shards) == Path(shards):
            try:
                load_manifest(Path(shards))
            except FileNotFoundError as error:
                raise FileNotFoundError(f"stage {name!r}: {error}") from error


def _check_same_recipe(run: Run, values: Mapping[str, Any]) -> None:
    """Refuse to continue a stage that another recipe began: its results would be a mixture of two."""
    for name in run.recipe.stages:
        for file in (run.folder / name / DONE_FILE, run.folder / name / STARTED_FILE):
            if not file.is_file():
                continue
            record, made = json.loads(file.read_text()), _stages_made(run, name)
            redone = [stage for stage, identity in record["upon"].items() if made.get(stage) != identity]
            if redone:
                raise RecipeError(
                    f"{run.folder / name} was made from an earlier run of stage {redone[0]!r}, since redone or "
                    f"removed: remove {run.folder / name} and what came after it to do it anew"
                )
            if record["fingerprint"] != fingerprint(values, name):
                raise RecipeError(
                    f"{run.folder} holds work of stage {name!r} under other settings, rewards or data. "
                    f"Choose another name (name=...), or remove {run.folder / name} and what came after it "
                    "to do it anew"
                )
            break
