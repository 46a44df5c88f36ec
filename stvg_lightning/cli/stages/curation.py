"""The stage that sifts given thoughts for a cold start: which of another model's answers to learn from (TVG-R1)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from stvg_lightning.answers import Answer, AnswerLanguage, View
from stvg_lightning.cli.stages.rejection import KEPT, YIELD_FILE, judged_row, yield_report, yield_table
from stvg_lightning.cli.stages.rows import Row, completed_rows
from stvg_lightning.cli.stages.stage import Run
from stvg_lightning.data.shards import ShardFolder, WriteOptions, write_shards
from stvg_lightning.rollouts.rejection import KeepRules
from stvg_lightning.tubes import Sample
from stvg_lightning.tubes.files import write_atomically

CURATED = KeepRules(min_tiou=0.7, max_characters=6000, max_span_share=0.7)
"""TVG-R1 tells no thresholds. A tIoU of 0.7 is ours (SARL-STG takes 0.8 of its own model's answers); thoughts of up to
6,000 characters about less than 70 % of the video are what Open-o3-Video keeps of TVG-R1's data."""


@dataclass(frozen=True)
class Curation:
    """Keep the samples whose given answer (`response`) is good, and put the annotated answer in its place.

    What is kept lies in `run/STAGE/kept` as shards: the thought as it was given, the answer as people annotated it.
    `yield.json` counts what was kept and why the rest was not. No model is loaded.

    Attributes:
        shards: folder of shards whose samples have a `response`; `run/...` lies in the run's folder.
        rules: what is kept.
    """

    shards: str
    rules: KeepRules = field(default_factory=lambda: CURATED)

    def __call__(self, run: Run, folder: Path) -> None:
        samples = ShardFolder(run.path(self.shards))
        language, view = run.recipe.answer, View(run.recipe.markers.kind)
        rows = completed_rows(folder / "samples.jsonl", samples, partial(self._new_rows, samples, language, view))
        report = yield_report(rows)
        write_atomically(folder / YIELD_FILE, json.dumps(report, indent=2) + "\n")
        Console().print(yield_table(report, "curation"))
        kept = {row["id"]: row["kept"] for row in rows if row["kept"] is not None}
        if not kept:
            raise ValueError(f"no given answer was worth keeping: see {folder / YIELD_FILE}, and soften `rules`")
        chosen = (
            _annotated(samples.of_id(id_), language.read(text, view), language, view) for id_, text in kept.items()
        )
        options = WriteOptions(check_videos=False, overwrite=True)
        source = f"answers given in {samples.directory.name}, curated"
        write_shards(chosen, folder / KEPT, source, samples.manifest.licence, options)

    def _new_rows(self, samples: ShardFolder, language: AnswerLanguage, view: View, first: int) -> Iterator[Row]:
        for index in range(first, len(samples)):
            sample = samples.without_video(index)
            yield judged_row([language.read(sample.response, view)], sample.truth, self.rules, takes_truth=True)


def _annotated(sample: Sample, given: Answer, language: AnswerLanguage, view: View) -> Sample:
    """A sample that teaches a given thought with the annotated answer."""
    return replace(sample, response=language.write(sample.truth, given.thought or "", view))
