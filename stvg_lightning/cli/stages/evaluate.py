"""The evaluation stage: each model answers the held-out questions; rows, means, intervals, differences."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from stvg_lightning.cli.stages.numbered import check_numbered
from stvg_lightning.cli.stages.rows import SKIPPED, Row, completed_rows, prepared_batches
from stvg_lightning.cli.stages.stage import BASE, DONE_FILE, Run, stage_seconds
from stvg_lightning.cli.stages.training import OWN, discriminator_of, preparation_of
from stvg_lightning.data.shards import ShardFolder
from stvg_lightning.evaluation import model_summary, score_answer, summarise_models
from stvg_lightning.evaluation.by_label import by_label
from stvg_lightning.evaluation.case import meant_ids
from stvg_lightning.models.adapters import load_trained
from stvg_lightning.rewards import RewardContext, WeightedSum
from stvg_lightning.rollouts.predictor import ModelPredictor, Prediction
from stvg_lightning.rollouts.preparation import Example
from stvg_lightning.rollouts.rollouts import Sampling
from stvg_lightning.tubes import Truth
from stvg_lightning.tubes.files import write_atomically
from stvg_lightning.tubes.jsonl import tube_to_json

LOCATED = "located_boxes_xyxy"
"""A row's key for the boxes that a spatial grounding module found: frame -> box, in the frames that it read."""

NO_OBJECT = 0  # object ids start at 1
SHOWN_METRICS = (
    "m_tIoU",
    "m_sIoU",
    "m_vIoU",
    "vIoU@0.3",
    "vIoU@0.5",
    "id_accuracy",
    "accuracy",
    "relative_accuracy",
    "unreadable",
)


@dataclass(frozen=True)
class Evaluate:
    """Score models on shards, with one greedy completion for each question.

    Where the recipe has a `spatial` detector, it tells the boxes of each answered time: as trained with the model or
    with one that led to it, and else as it is.

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
        if run.recipe.spatial is None:
            truths = (samples.truth(index) for index in range(len(samples)))
            check_numbered(run.recipe.answer, run.recipe.markers, truths, samples.directory)
        rows = {name: self._rows(run, name, samples, folder / f"{name}.jsonl") for name in self.models}
        scores = summarise_models(rows, seed=run.recipe.seed)
        labelled = {name: labelled_scores(found, run.recipe.seed) for name, found in rows.items()}
        scores |= {"labels": labelled} if any(labelled.values()) else {}
        (folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
        write_summary(run)
        Console().print(results_table(scores))
        for table in label_tables(labelled):
            Console().print(table)

    def _rows(self, run: Run, name: str, samples: ShardFolder, file: Path) -> list[Row]:
        return completed_rows(file, samples, partial(self._new_rows, run, name, samples))

    def _new_rows(self, run: Run, name: str, samples: ShardFolder, first: int) -> Iterator[Row]:
        model = load_trained(run.model(name), run.recipe.model.dtype)
        model.network.to("cuda" if torch.cuda.is_available() else "cpu")
        discriminator = None if run.recipe.spatial is None else discriminator_of(run, model, OWN, name)
        preparation = preparation_of(run, model)
        run.recipe.rewards.setup()
        predictor = ModelPredictor(model, preparation, Sampling(self.max_new_tokens, temperature=0.0), discriminator)
        for examples in prepared_batches(samples, preparation, first, self.batch_size, self.num_workers, name):
            good = [example for example in examples if isinstance(example, Example)]
            found = iter(predictor.complete(good) if good else ())
            for example in examples:
                if isinstance(example, Example):
                    yield evaluation_row(example, next(found), run.recipe.rewards)
                else:
                    yield {SKIPPED: example}


def evaluation_row(example: Example, prediction: Prediction, rewards: WeightedSum) -> Row:
    """The scores of one completion, with its query and every reward term as at the end of a training."""
    context = RewardContext(
        progress=1.0,
        completion_tokens=(prediction.num_tokens,),
        marked_seconds=example.marked_seconds,
        discriminator_boxes=[prediction.tube] if prediction.was_located else None,
    )
    rewarded = rewards.score([prediction.answer], _with_object(example.truth), context)[0]
    row = score_answer(prediction.answer, example.truth)
    located = {} if prediction.tube is None else {LOCATED: tube_to_json(prediction.tube)}
    return {**row, **located, "query": example.truth.query, "terms": rewarded.terms, "total": rewarded.total}


def _with_object(truth: Truth) -> Truth:
    """A truth that names an object, as rewards of ids ask: the one voted for, or a number that no object has."""
    if truth.target_ids or not truth.has_place:
        return truth
    return replace(truth, object_id=next(iter(meant_ids(truth)), NO_OBJECT))


def write_summary(run: Run) -> dict[str, Any]:
    """Write `summary.json`: every model's metrics, the differences, and the seconds of every finished stage."""
    summary: dict[str, Any] = {"models": {}, "differences": {}, "seconds": {}}
    scored: dict[str, tuple[str, Any]] = {}
    for name, stage in run.recipe.stages.items():
        scores = run.folder / name / "scores.json"
        if scores.is_file():
            found = json.loads(scores.read_text())
            models = found["models"]
            # Where a model was scored before, and otherwise, all of this stage's are named after the stage too.
            shards = getattr(stage, "shards", name)
            again = any(scored.setdefault(model, (shards, entry)) != (shards, entry) for model, entry in models.items())
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
    shown = [metric for metric in SHOWN_METRICS if any(metric in metrics for metrics in scores["models"].values())]
    for metric in shown:
        table.add_column(metric, justify="right")
    for section in ("models", "differences"):
        for name, metrics in scores[section].items():
            sign = "+" if section == "differences" else ""
            table.add_row(name, *[_cell(metrics.get(metric), sign) for metric in shown])
        if section == "models":
            table.add_section()
    return table


def labelled_scores(rows: Sequence[Row], seed: int) -> dict[str, dict[str, Any]]:
    """Label -> value -> metric -> mean and interval, of rows that bear labels."""
    return {
        label: {value: model_summary(found, seed) for value, found in values.items()}
        for label, values in by_label(rows).items()
    }


def label_tables(labelled: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """For each label a table of its values, each model's metrics beside those of the others."""
    tables = []
    for label in dict.fromkeys(label for labels in labelled.values() for label in labels):
        values = dict.fromkeys(value for labels in labelled.values() for value in labels.get(label, {}))
        table = Table(title=f"held-out scores in % for each {label}, ± half the 95 % interval")
        for column in (label, "metric", *labelled):
            table.add_column(column)
        for value in values:
            entries = {model: labels.get(label, {}).get(value, {}) for model, labels in labelled.items()}
            for metric in SHOWN_METRICS:
                if any(metric in found for found in entries.values()):
                    table.add_row(value, metric, *[_cell(found.get(metric), "") for found in entries.values()])
        tables.append(table)
    return tables


def _cell(entry: Mapping[str, Any] | None, sign: str) -> str:
    if entry is None:
        return "-"
    low, high = entry["ci95"]
    return f"{100 * entry['mean']:{sign}.1f} ± {50 * (high - low):.1f}"
