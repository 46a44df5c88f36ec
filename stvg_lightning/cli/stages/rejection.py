"""The stage that samples answers, keeps the good ones, and writes them as shards to learn from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stvg_lightning.answers import Answer
from stvg_lightning.cli.stages.groups import AnsweredGroups
from stvg_lightning.cli.stages.rows import SKIPPED, Row, completed_rows
from stvg_lightning.cli.stages.stage import BASE, Run
from stvg_lightning.data.shards import ShardFolder, WriteOptions, write_shards
from stvg_lightning.rollouts.rejection import REASONS, KeepRules
from stvg_lightning.rollouts.rollouts import Sampling
from stvg_lightning.tubes import Truth
from stvg_lightning.tubes.files import write_atomically

YIELD_FILE = "yield.json"
KEPT = "kept"


@dataclass(frozen=True)
class RejectionSampling:
    """Sample answers to every question, and keep for each the best that passes the rules, if any does.

    The kept answers lie in `run/STAGE/kept` as shards, to be learned word for word; `yield.json` counts what was kept
    and why the rest was not.

    Attributes:
        shards: folder of shards; `run/...` lies in the run's folder.
        start: `base`, or the stage whose model answers.
        samples_per_question: answers to each question.
        sampling: length and temperature of answers.
        rules: what is kept.
        batch_size: questions answered together.
        num_workers: processes that decode and prepare ahead.

    Raises:
        ValueError: no sample, or a temperature of 0, at which all samples are alike.
    """

    shards: str
    start: str = BASE
    samples_per_question: int = 8
    sampling: Sampling = field(default_factory=Sampling)
    rules: KeepRules = field(default_factory=KeepRules)
    batch_size: int = 8
    num_workers: int = 1

    def __post_init__(self) -> None:
        if self.samples_per_question < 1:
            raise ValueError(f"samples_per_question must be at least 1, not {self.samples_per_question}")
        if self.sampling.temperature == 0:
            raise ValueError("rejection sampling needs a temperature above 0: without chance all samples are alike")

    def __call__(self, run: Run, folder: Path) -> None:
        samples = ShardFolder(run.path(self.shards))
        rows = completed_rows(folder / "samples.jsonl", samples, partial(self._new_rows, run, samples))
        report = yield_report(rows)
        write_atomically(folder / YIELD_FILE, json.dumps(report, indent=2) + "\n")
        Console().print(yield_table(report, "rejection sampling"))
        kept = {row["id"]: row["kept"] for row in rows if row["kept"] is not None}
        if not kept:
            raise ValueError(f"no answer was worth keeping: see {folder / YIELD_FILE}, and soften `rules` or train on")
        chosen = (replace(samples.of_id(id_), response=text) for id_, text in kept.items())
        options = WriteOptions(check_videos=False, overwrite=True)
        source = f"answers of {self.start} to {samples.directory.name}, kept by rejection sampling"
        write_shards(chosen, folder / KEPT, source, samples.manifest.licence, options)

    def _new_rows(self, run: Run, samples: ShardFolder, first: int) -> Iterator[Row]:
        groups = AnsweredGroups(self.start, self.samples_per_question, self.sampling, self.batch_size, self.num_workers)
        for example, answers in groups.of(run, samples, first):
            yield {SKIPPED: example} if isinstance(example, str) else judged_row(answers, example.truth, self.rules)


def judged_row(answers: Sequence[Answer], truth: Truth, rules: KeepRules, takes_truth: bool = False) -> Row:
    """What became of a question's answers: the text that is kept, or None, and every answer with its refusal."""
    best = rules.best(answers, truth, takes_truth)
    judged = [{"text": answer.text, "refusal": rules.refusal(answer, truth, takes_truth)} for answer in answers]
    return {"id": truth.id, "kept": None if best is None else answers[best].text, "answers": judged}


def yield_report(rows: Sequence[Row]) -> dict[str, Any]:
    """Counts of questions and answers, of those kept, and of refusals by the first rule that was broken."""
    refusals = Counter(answer["refusal"] for row in rows for answer in row["answers"])
    return {
        "questions": len(rows),
        "questions_kept": sum(row["kept"] is not None for row in rows),
        "answers": refusals.total(),
        "answers_passed": refusals[None],
        "refused": {reason: refusals[reason] for reason in REASONS},
    }


def yield_table(report: dict[str, Any], title: str) -> Table:
    """The report for people."""
    table = Table(title=title)
    for column in ("what", "count", "share in %"):
        table.add_column(column, justify="left" if column == "what" else "right")
    answers = max(report["answers"], 1)
    rows = [
        (
            "questions with an answer kept",
            report["questions_kept"],
            report["questions_kept"] / max(report["questions"], 1),
        ),
        ("answers that passed", report["answers_passed"], report["answers_passed"] / answers),
        *((f"refused: {reason}", count, count / answers) for reason, count in report["refused"].items()),
    ]
    for what, count, share in rows:
        table.add_row(what, str(count), f"{100 * share:.1f}")
    return table
