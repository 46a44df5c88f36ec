"""What a stage is: a frozen dataclass whose fields are recipe keys, called with the run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from stvg_lightning.cli.recipe import Recipe

BASE = "base"
OWN = "own"
DONE_FILE = "done.json"


def stage_seconds(folder: Path) -> float:
    """Seconds that a finished stage took, over all its starts."""
    return float(json.loads((folder / DONE_FILE).read_text())["seconds"])


@dataclass(frozen=True)
class Run:
    """A run of a recipe: its folder, and what its stages share."""

    recipe: Recipe
    folder: Path

    def path(self, place: str) -> Path:
        """A folder named in a recipe: `run/...` lies in the run's folder, all else where it says."""
        head, _, rest = place.partition("/")
        return self.folder / rest if head == "run" and rest else Path(place)

    def model(self, start: str) -> str:
        """The name or folder of a model: `base`, or the stage that trained it.

        Raises:
            FileNotFoundError: that stage has not left a model.
        """
        if start == BASE:
            return self.recipe.model.name
        folder = self.folder / start / "model"
        if not folder.is_dir():
            raise FileNotFoundError(f"stage {start!r} has left no model at {folder}: run it first")
        return str(folder)


@runtime_checkable
class Stage(Protocol):
    """One step of a recipe. Called again after a kill it goes on from what it finds in its folder.

    A stage that trains on several processes has `distributed: ClassVar[bool] = True` and is called in each of
    them; any other is called in the first alone, while the rest wait.
    """

    def __call__(self, run: Run, folder: Path) -> None:
        """Do the work; everything the stage writes lies in `folder`."""
