"""The stage that estimates how hard each question is for a model, before a training chooses by it (TVG-R1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from stvg_lightning.cli.stages.groups import AnsweredGroups
from stvg_lightning.cli.stages.rows import SKIPPED, Row, completed_rows
from stvg_lightning.cli.stages.stage import BASE, Run
from stvg_lightning.data.difficulty import Difficulty, write_difficulties
from stvg_lightning.data.difficulty_epochs import NUM_TENTHS, distribution_of
from stvg_lightning.data.shards import ShardFolder
from stvg_lightning.modules.difficulty import group_difficulties
from stvg_lightning.rewards import RewardContext
from stvg_lightning.rollouts.rollouts import Sampling

DIFFICULTY_FILE = "difficulty.jsonl"
BAR_LENGTH = 40


@dataclass(frozen=True)
class EstimateDifficulty:
    """Sample answers to every question, and keep the mean and spread of what they earn.

    `run/STAGE/difficulty.jsonl` holds a line for each question, which `difficulty.estimates` of a GRPO stage names.
    Answers are rewarded as after a training; terms about their length in tokens do not count, since it is not told.

    Attributes:
        shards: folder of shards; `run/...` lies in the run's folder.
        start: `base`, or the stage whose model answers.
        samples_per_question: answers to each question; 1 with a temperature of 0 is Time-R1's greedy estimate.
        sampling: length and temperature of answers.
        reward: the reward term that counts; None takes the whole reward, as a share of what it can be.
        batch_size: questions answered together.
        num_workers: processes that decode and prepare ahead.

    Raises:
        ValueError: no sample, several without chance, or a reward that needs a discriminator, for which none runs here.
    """

    shards: str
    start: str = BASE
    samples_per_question: int = 8
    sampling: Sampling = field(default_factory=Sampling)
    reward: str | None = None
    batch_size: int = 8
    num_workers: int = 1

    def __post_init__(self) -> None:
        if self.samples_per_question < 1:
            raise ValueError(f"samples_per_question must be at least 1, not {self.samples_per_question}")
        if self.sampling.temperature == 0 and self.samples_per_question > 1:
            raise ValueError("at a temperature of 0 all samples are alike: take one, or a temperature above 0")

    def __call__(self, run: Run, folder: Path) -> None:
        if run.recipe.rewards.needs_discriminator:
            raise ValueError(
                "a reward of this recipe needs the boxes of a discriminator, and none runs where difficulty is "
                "estimated: leave that reward out, or the estimate"
            )
        samples = ShardFolder(run.path(self.shards))
        run.recipe.rewards.setup()
        rows = completed_rows(folder / "rows.jsonl", samples, partial(self._new_rows, run, samples))
        estimates = {row["id"]: Difficulty(row["mean"], row["spread"], row["num_rollouts"]) for row in rows}
        write_difficulties(folder / DIFFICULTY_FILE, estimates)
        Console().print(difficulty_table(estimates))

    def _new_rows(self, run: Run, samples: ShardFolder, first: int) -> Iterator[Row]:
        groups = AnsweredGroups(self.start, self.samples_per_question, self.sampling, self.batch_size, self.num_workers)
        rewards = run.recipe.rewards
        for example, answers in groups.of(run, samples, first):
            if isinstance(example, str):
                yield {SKIPPED: example}
                continue
            context = RewardContext(progress=1.0, marked_seconds=example.marked_seconds)
            rewarded = rewards.score(answers, example.truth, context)
            (found,) = group_difficulties([example.truth.id], rewarded, rewards, self.reward).values()
            row = {"mean": found.mean, "spread": found.spread, "num_rollouts": found.num_rollouts}
            yield {"id": example.truth.id, **row, "texts": [answer.text for answer in answers]}


def difficulty_table(estimates: Mapping[str, Difficulty]) -> Table:
    """How many questions there are of each difficulty, for people."""
    table = Table(title=f"mean reward of {len(estimates)} questions")
    table.add_column("from")
    table.add_column("questions", justify="right")
    table.add_column("without spread", justify="right")
    table.add_column("")
    found = distribution_of(estimates)
    counts = [differing + alike for differing, alike in zip(found.left_out, found.alike, strict=True)]
    for tenth, (count, alike) in enumerate(zip(counts, found.alike, strict=True)):
        bar = "█" * round(BAR_LENGTH * count / max(*counts, 1))
        table.add_row(f"{tenth / NUM_TENTHS:.1f}", str(count), str(alike), bar)
    return table
