"""The stage that numbers the objects of videos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stvg_lightning.cli.prompting import PromptSettings, print_prompted, prompt_shards
from stvg_lightning.cli.stages.stage import Run
from stvg_lightning.data.shards.manifest import MANIFEST_NAME


@dataclass(frozen=True)
class ObjectPrompts:
    """Find, follow and number the objects of all videos (STVG-R1, section 3.2); finished folders are kept.

    `run/STAGE/SPLIT` holds the new shards, with `quality.json` and `report.json` beside them.

    Attributes:
        shards: split -> folder of shards; `run/...` lies in the run's folder.
        settings: how.
    """

    shards: Mapping[str, str]
    settings: PromptSettings = field(default_factory=PromptSettings)

    def __call__(self, run: Run, folder: Path) -> None:
        for split, place in self.shards.items():
            if not (folder / split / MANIFEST_NAME).is_file():
                prompted = prompt_shards(run.path(place), folder / split, self.settings, run.recipe.markers)
                print_prompted(prompted, folder / split)
