"""The stage that numbers the objects of videos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from stvg_lightning.cli.prompt_tables import print_prompted
from stvg_lightning.cli.prompting import PromptSettings, prompt_shards
from stvg_lightning.cli.stages.stage import Run
from stvg_lightning.data.shards.manifest import MANIFEST_NAME
from stvg_lightning.tubes.choices import check_choice


@dataclass(frozen=True)
class ObjectPrompts:
    """Find, follow and number the objects of all videos (STVG-R1, section 3.2); finished folders are kept.

    `run/STAGE/SPLIT` holds the new shards, with `quality.json` and `report.json` beside them.

    Attributes:
        shards: split -> folder of shards; `run/...` lies in the run's folder.
        settings: how.
        keeps_undetected_in: the splits in which samples whose target no object overlaps are kept (`keeps_undetected`),
            whatever the settings say: those that models are tested on.

    Raises:
        ValueError: a split that is none of `shards`.
    """

    shards: Mapping[str, str]
    settings: PromptSettings = field(default_factory=PromptSettings)
    keeps_undetected_in: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for split in self.keeps_undetected_in:
            check_choice("split of keeps_undetected_in", split, tuple(self.shards))

    def __call__(self, run: Run, folder: Path) -> None:
        for split, place in self.shards.items():
            if not (folder / split / MANIFEST_NAME).is_file():
                keeps = self.settings.keeps_undetected or split in self.keeps_undetected_in
                settings = replace(self.settings, keeps_undetected=keeps)
                prompted = prompt_shards(run.path(place), folder / split, settings, run.recipe.markers)
                print_prompted(prompted, folder / split)
