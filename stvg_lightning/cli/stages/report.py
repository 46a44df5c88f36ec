"""The report stage: one HTML page of a run, with curves, intervals and a gallery of drawn videos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stvg_lightning.answers import Answer
from stvg_lightning.cli.stages.evaluate import LOCATED, Evaluate, write_summary
from stvg_lightning.cli.stages.rows import Row, read_rows
from stvg_lightning.cli.stages.stage import Run
from stvg_lightning.data.difficulty_epochs import EPOCHS_FILE, read_epochs
from stvg_lightning.data.shards import ShardFolder
from stvg_lightning.data.video import VideoSampling
from stvg_lightning.models.adapters import load_trained_encoder
from stvg_lightning.reports import GalleryItem, ReportInputs, choose_gallery, gallery_item, read_curves, write_report
from stvg_lightning.rollouts.discriminator import located
from stvg_lightning.rollouts.preparation import Preparation
from stvg_lightning.tubes import Truth
from stvg_lightning.tubes.jsonl import read_tube

REPORT_FILE = "report.html"
METRICS_FILES = "metrics/*/metrics.csv"
MAX_SHOWN_FPS = 12.5


@dataclass(frozen=True)
class Report:
    """Write `report.html` into the run's folder.

    Attributes:
        gallery: how many samples the gallery shows.
    """

    gallery: int = 16

    def __call__(self, run: Run, folder: Path) -> None:
        write_run_report(run, self.gallery)


def write_run_report(run: Run, gallery: int = 16) -> Path:
    """Gather what the stages of a run have left, and write its report.

    Raises:
        FileNotFoundError: the run has evaluated nothing yet.
    """
    evaluations = {name: stage for name, stage in run.recipe.stages.items() if isinstance(stage, Evaluate)}
    done = {name: stage for name, stage in evaluations.items() if (run.folder / name / "scores.json").is_file()}
    if not done:
        raise FileNotFoundError(f"{run.folder} holds no scores yet: run its evaluation first")
    name, evaluation = list(done.items())[-1]
    rows = {model: read_rows(run.folder / name / f"{model}.jsonl") for model in evaluation.models}
    curves = {
        stage: merged_curves(sorted((run.folder / stage).glob(METRICS_FILES)))
        for stage in run.recipe.stages
        if list((run.folder / stage).glob(METRICS_FILES))
    }
    inputs = ReportInputs(
        title=run.recipe.name,
        recipe_text=(run.folder / "recipe.yaml").read_text(),
        summary=write_summary(run),
        rows=rows,
        curves=curves,
        gallery=_gallery(run, evaluation, rows, gallery),
        difficulty={
            stage: read_epochs(run.folder / stage / EPOCHS_FILE)
            for stage in run.recipe.stages
            if (run.folder / stage / EPOCHS_FILE).is_file()
        },
        versions=json.loads((run.folder / "versions.json").read_text()),
    )
    write_report(inputs, run.folder / REPORT_FILE)
    return run.folder / REPORT_FILE


def merged_curves(files: Sequence[Path]) -> dict[str, list[tuple[int, float]]]:
    """The curves of a training's starts as one: where a later start did a step again, its value counts."""
    merged: dict[str, dict[int, float]] = {}
    for file in files:
        for name, curve in read_curves(file).items():
            merged.setdefault(name, {}).update(curve)
    return {name: sorted(curve.items()) for name, curve in merged.items()}


def _gallery(run: Run, evaluation: Evaluate, rows: dict[str, list[dict]], count: int) -> list[GalleryItem]:
    """Draw chosen samples with the tube of the last model."""
    shown_model = evaluation.models[-1]
    shown = {row["id"]: row for row in rows[shown_model]}
    encoder = load_trained_encoder(run.recipe.model.name)
    preparation = Preparation(encoder, run.recipe.video, run.recipe.markers, run.recipe.answer)
    chosen = {choice.id: choice for choice in choose_gallery(rows, count)}
    folder = ShardFolder(run.path(evaluation.shards))
    items = []
    for id_, choice in chosen.items():
        sample = folder.of_id(id_)
        truth = sample.truth
        smooth = replace(preparation, video=VideoSampling(fps=min(truth.fps, MAX_SHOWN_FPS)))
        clip = smooth.marked_clip(sample).clip
        items.append(gallery_item(choice, truth, clip, _answer(shown[id_], truth, preparation), shown_model))
    return items


def _answer(row: Row, truth: Truth, preparation: Preparation) -> Answer:
    """The answer of a row, with the boxes that were found for it."""
    answer = preparation.read(row["text"], truth)
    tube = read_tube(row[LOCATED], LOCATED, truth.num_frames) if LOCATED in row else None
    return located(answer, truth, tube)
