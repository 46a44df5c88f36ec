"""The stage that makes shards of the synthetic world; shards of videos are made by `stvg shards build`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from rich.progress import track

from stvg_lightning.cli.stages.stage import Run
from stvg_lightning.data.questions import QuestionSettings
from stvg_lightning.data.shards import WriteOptions, write_shards
from stvg_lightning.data.shards.manifest import MANIFEST_NAME
from stvg_lightning.data.synthetic import WorldSettings, asked_samples, make_sample, split_seeds
from stvg_lightning.tubes import Sample
from stvg_lightning.tubes.choices import check_choice

Asked = Literal["stvg", "spatial", "temporal", "str_questions"]


@dataclass(frozen=True)
class SyntheticShards:
    """Make shards of the synthetic world, one folder a split; finished folders are kept.

    Attributes:
        splits: split -> number of samples; splits are `train`, `cold_start`, `validation`, `test`.
        world: sizes of the world.
        task: what is asked for: object and time, the object alone, the time alone, or `str_questions`: how many things
            there are, how they lie to each other and how they move.
        questions: which of these, for the task `str_questions`.
    """

    splits: Mapping[str, int]
    world: WorldSettings = field(default_factory=WorldSettings)
    task: Asked = "stvg"
    questions: QuestionSettings = field(default_factory=QuestionSettings)

    def __post_init__(self) -> None:
        check_choice("task", self.task, get_args(Asked))
        for split, num_samples in self.splits.items():
            split_seeds(split, num_samples)

    def __call__(self, run: Run, folder: Path) -> None:
        for split, num_samples in self.splits.items():
            if (folder / split / MANIFEST_NAME).is_file():
                continue
            samples = track(self._samples(run, split, num_samples), f"{split} shards", total=num_samples)
            options = WriteOptions(check_videos=False)  # made here a moment ago
            write_shards(samples, folder / split, "synthetic world of stvg-lightning", "Apache-2.0", options)

    def _samples(self, run: Run, split: str, num_samples: int) -> Iterator[Sample]:
        if self.task == "str_questions":
            yield from asked_samples(split, num_samples, run.recipe.seed, self.world, self.questions)
            return
        for seed in split_seeds(split, num_samples, run.recipe.seed):
            sample = make_sample(seed, self.world)
            yield replace(sample, truth=replace(sample.truth, task=self.task))
