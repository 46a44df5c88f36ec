"""Write every rollout to a file, and some of them to TensorBoard as a table with a drawn frame."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from stvg_lightning.modules.batches import GroundingBatch
from stvg_lightning.modules.collecting import Collected
from stvg_lightning.modules.datamodule import GroundingData
from stvg_lightning.modules.grpo import GRPO
from stvg_lightning.tubes.files import write_atomically


class RolloutLog(Callback):
    """Rows in `rollouts.jsonl` for every completion; a table and frames in TensorBoard now and then.

    A row: step, sample id, query, text, each reward term, total, and the advantage, with a critic the mean over the
    tokens; null where nothing was learned from the completion. After a restart the rows of
    steps that will be done again are dropped first.
    """

    def __init__(self, folder: Path, show_every_steps: int = 20) -> None:
        self.path, self.show_every_steps = folder / "rollouts.jsonl", show_every_steps

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.is_global_zero or not self.path.is_file():
            return
        with self.path.open() as file:
            kept = [line for line in file if line.endswith("\n") and json.loads(line)["step"] <= trainer.global_step]
        write_atomically(self.path, "".join(kept))

    def on_train_batch_end(
        self, trainer: Trainer, module: GRPO, outputs: Any, batch: GroundingBatch, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero or module.pending:
            return
        rows = []
        for collected in module.last_collected:
            advantages: list[float | None] = [None] * len(collected.rewarded)
            for portion, credit in module.last_credited:
                if portion.collected is collected and portion.teaches:
                    learned = credit.by_completion(portion.rollouts.mask).tolist()
                    advantages[collected.rows(portion.questions)] = learned
            rows += rollout_rows(collected, advantages, module.global_step)
        with self.path.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        if (module.global_step // module.settings.updates_per_rollout - 1) % self.show_every_steps == 0:
            self._show(trainer, rows[: module.settings.group_size])

    def _show(self, trainer: Trainer, rows: list[dict[str, Any]]) -> None:
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        for board in boards:
            board.experiment.add_text("completions", rollout_table(rows), rows[0]["step"])
            data = trainer.datamodule
            if isinstance(data, GroundingData):
                clip = data.preparation.marked_clip(data.sample(rows[0]["id"])).clip
                frames = torch.from_numpy(clip.frames[:: max(len(clip.frames) // 4, 1)][:4])
                strip = torch.cat(list(frames), dim=1)
                board.experiment.add_image("frames", strip, rows[0]["step"], dataformats="HWC")


def rollout_rows(collected: Collected, advantages: Sequence[float | None], step: int) -> list[dict[str, Any]]:
    """One JSON-ready row for each completion of a batch."""
    size = collected.rollouts.group_size
    rows = []
    completions = zip(collected.rollouts.texts, collected.rewarded, advantages, strict=True)
    for index, (text, rewarded, advantage) in enumerate(completions):
        truth = collected.batch.truths[index // size]
        rows.append(
            {
                "step": step,
                "id": truth.id,
                "query": truth.query,
                "text": text,
                "terms": rewarded.terms,
                "total": rewarded.total,
                "advantage": None if advantage is None else round(advantage, 6),
            }
        )
    return rows


def rollout_table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table of one group's completions; the models' text cannot break it."""
    names = list(rows[0]["terms"])
    lines = [f"**{html.escape(rows[0]['query'])}**", "", f"| completion | {' | '.join(names)} | total | advantage |"]
    lines.append("|" + "---|" * (len(names) + 3))
    for row in rows:
        terms = ["-" if row["terms"][name] is None else f"{row['terms'][name]:.2f}" for name in names]
        text = html.escape(row["text"]).replace("|", "&#124;").replace("\n", " ")
        advantage = "-" if row["advantage"] is None else f"{row['advantage']:+.2f}"
        lines.append(f"| {text} | {' | '.join(terms)} | {row['total']:.2f} | {advantage} |")
    return "\n".join(lines)
