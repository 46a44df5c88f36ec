"""The evaluation stage: each model answers the held-out questions; rows, means, intervals, differences."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch.utils.data import DataLoader, Dataset, Subset

from stvg_lightning.cli.stages.stage import BASE, DONE_FILE, Run, stage_seconds
from stvg_lightning.cli.stages.training import preparation_of
from stvg_lightning.data.shards import BadSample, ShardFolder
from stvg_lightning.data.video import UnreadableVideo
from stvg_lightning.evaluation import score_answer, summarise_models
from stvg_lightning.models.adapters import load_trained
from stvg_lightning.rewards import RewardContext, WeightedSum
from stvg_lightning.rollouts.predictor import ModelPredictor
from stvg_lightning.rollouts.preparation import Example, Preparation
from stvg_lightning.rollouts.rollouts import Sampling
from stvg_lightning.tubes.files import write_atomically

LOGGER = logging.getLogger("stvg_lightning.data")
SKIPPED = "skipped"
MAX_BAD_SHARE = 0.05
SHOWN_METRICS = ("m_tIoU", "m_vIoU", "vIoU@0.3", "vIoU@0.5", "id_accuracy", "unreadable")


@dataclass(frozen=True)
class Evaluate:
    """Score models on shards, with one greedy completion for each question.

    Attributes:
        shards: folder of held-out shards; `run/...` lies in the run's folder.
        models: stages whose models to score, and `base`, in the order of their training.
        max_new_tokens: a longer completion is cut off.
        batch_size: questions answered together.
        num_workers: processes that decode and prepare ahead.
    """

    shards: str
    models: tuple[str, ...] = (BASE,)
    max_new_tokens: int = 1024
    batch_size: int = 32
    num_workers: int = 1

    def __call__(self, run: Run, folder: Path) -> None:
        samples = ShardFolder(run.path(self.shards))
        rows = {name: self._rows(run, name, samples, folder / f"{name}.jsonl") for name in self.models}
        (folder / "scores.json").write_text(json.dumps(summarise_models(rows, seed=run.recipe.seed), indent=2) + "\n")
        write_summary(run)
        Console().print(results_table(json.loads((folder / "scores.json").read_text())))

    def _rows(self, run: Run, name: str, samples: ShardFolder, file: Path) -> list[dict[str, Any]]:
        """A model's rows: those of an interrupted run are kept, the rest are made."""
        num_done = len(_read_lines(file))
        if num_done < len(samples):
            for row in self._new_rows(run, name, samples, num_done):
                with file.open("a") as out:
                    out.write(json.dumps(row) + "\n")
        rows = read_rows(file)
        num_bad = len(samples) - len(rows)
        if num_bad > MAX_BAD_SHARE * len(samples):
            raise ValueError(f"{num_bad} of {len(samples)} samples in {samples.directory} are bad, see {file}")
        return rows

    def _new_rows(self, run: Run, name: str, samples: ShardFolder, first: int) -> Iterator[dict[str, Any]]:
        model = load_trained(run.model(name), run.recipe.model.dtype)
        model.network.to("cuda" if torch.cuda.is_available() else "cpu")
        preparation = preparation_of(run, model)
        run.recipe.rewards.setup()
        predictor = ModelPredictor(model, preparation, Sampling(self.max_new_tokens, temperature=0.0))
        remaining = Subset(_Prepared(samples, preparation), range(first, len(samples)))
        loader = DataLoader(remaining, self.batch_size, num_workers=self.num_workers, collate_fn=list)
        columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns) as progress:
            task = progress.add_task(name, total=len(samples), completed=first)
            for examples in loader:
                good = [example for example in examples if isinstance(example, Example)]
                rollouts = predictor.complete(good) if good else None
                written = iter(zip(rollouts.texts, rollouts.lengths_tokens.tolist()) if rollouts else ())
                for example in examples:
                    if isinstance(example, Example):
                        yield evaluation_row(example, *next(written), preparation, run.recipe.rewards)
                    else:
                        yield {SKIPPED: example}
                progress.advance(task, len(examples))


class _Prepared(Dataset[Example | str]):
    """Samples by number, prepared when asked for; what a DataLoader's workers work on."""

    def __init__(self, samples: ShardFolder, preparation: Preparation) -> None:
        self.samples, self.preparation = samples, preparation

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Example | str:
        """The prepared sample, or what is wrong with it."""
        try:
            return self.preparation(self.samples[index])
        except (BadSample, UnreadableVideo) as error:
            LOGGER.warning("sample %d of %s skipped: %s", index, self.samples.directory, error)
            return str(error)


def evaluation_row(
    example: Example, text: str, num_tokens: int, preparation: Preparation, rewards: WeightedSum
) -> dict[str, Any]:
    """The scores of one completion, with its query and every reward term as at the end of a training."""
    answer = preparation.read(text, example.truth)
    context = RewardContext(progress=1.0, completion_tokens=(num_tokens,), marked_seconds=example.marked_seconds)
    rewarded = rewards.score([answer], example.truth, context)[0]
    row = score_answer(answer, example.truth)
    return {**row, "query": example.truth.query, "terms": rewarded.terms, "total": rewarded.total}


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of scores in a file, without the samples that were skipped."""
    return [row for row in _read_lines(file) if SKIPPED not in row]


def _read_lines(file: Path) -> list[dict[str, Any]]:
    """One line a sample; a line cut off by a kill is dropped from the file."""
    if not file.is_file():
        return []
    lines = file.read_text().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):
        write_atomically(file, "".join(whole))
    return [json.loads(line) for line in whole]


def write_summary(run: Run) -> dict[str, Any]:
    """Write `summary.json`: every model's metrics, the differences, and the seconds of every finished stage."""
    summary: dict[str, Any] = {"models": {}, "differences": {}, "seconds": {}}
    scored_on: dict[str, str] = {}
    for name, stage in run.recipe.stages.items():
        scores = run.folder / name / "scores.json"
        if scores.is_file():
            found = json.loads(scores.read_text())
            models = found["models"]
            # Where a model was scored before on other questions, all of this stage's are named after the stage too.
            shards = getattr(stage, "shards", name)
            again = any(scored_on.setdefault(model, shards) != shards for model in models)
            named = {model: f"{model} ({name})" if again else model for model in models}
            summary["models"] |= {named[model]: entry for model, entry in models.items()}
            for before, after in pairwise(models):
                summary["differences"][f"{named[after]}-{named[before]}"] = found["differences"][f"{after}-{before}"]
        if (run.folder / name / DONE_FILE).is_file():
            summary["seconds"][name] = stage_seconds(run.folder / name)
    write_atomically(run.folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def results_table(scores: Mapping[str, Any]) -> Table:
    """Models by metrics in percent, and the differences of each model to the one before it."""
    table = Table(title="held-out scores in %, ± half the 95 % interval")
    table.add_column("model")
    for metric in SHOWN_METRICS:
        table.add_column(metric, justify="right")
    for section in ("models", "differences"):
        for name, metrics in scores[section].items():
            sign = "+" if section == "differences" else ""
            table.add_row(name, *[_cell(metrics.get(metric), sign) for metric in SHOWN_METRICS])
        if section == "models":
            table.add_section()
    return table


def _cell(entry: Mapping[str, Any] | None, sign: str) -> str:
    if entry is None:
        return "-"
    low, high = entry["ci95"]
    return f"{100 * entry['mean']:{sign}.1f} ± {50 * (high - low):.1f}"
