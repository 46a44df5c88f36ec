"""Lightning's Trainer as every training stage uses it: loggers, checkpoints, resume, progress."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from stvg_lightning.tubes.files import replacing

QUIET_WARNINGS = (
    ".*does not have many workers.*",
    ".*isinstance.treespec.*",
    ".*exists and is not empty.*",
    ".*ModelCheckpoint with manual optimization.*",
)
"""Few workers, a folder that goes on and weights after a step are meant; the rest is between Lightning and torch."""

PROCESS_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

LAST_CHECKPOINT = "last.ckpt"
METRICS_FOLDER = "metrics"


@dataclass(frozen=True)
class Machine:
    """Where and how a stage trains; the names are Lightning's.

    Attributes:
        accelerator: `auto`, `cpu`, `gpu`.
        devices: processes on each node; `auto` takes every GPU, or one CPU process.
        num_nodes: nodes.
        strategy: `auto`, `ddp`, ...
        precision: `32-true`, or `bf16-mixed`.
    """

    accelerator: str = "auto"
    devices: int | Literal["auto"] = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"


@dataclass(frozen=True)
class Steps:
    """How long a training lasts, and how often it is kept.

    Attributes:
        max_steps: optimiser steps in all, those before a restart included.
        checkpoint_every: optimiser steps between two checkpoints.
        max_seconds: stop after this many seconds of training, if that is sooner.
    """

    max_steps: int
    checkpoint_every: int = 100
    max_seconds: float | None = None


def seed_training(seed: int) -> None:
    """Seed every source of random numbers that a training draws from, before its adapter is made."""
    seed_everything(seed, verbose=False)


def fit(
    module: LightningModule,
    data: LightningDataModule,
    folder: Path,
    machine: Machine,
    steps: Steps,
    callbacks: Sequence[Callback] = (),
) -> Trainer:
    """Train a module, from the last checkpoint in its folder if there is one.

    Args:
        module: what to train.
        data: where its batches come from; its place is part of the checkpoint.
        folder: holds `last.ckpt`, `metrics/start_*/metrics.csv` and TensorBoard's files.
        machine: devices and precision.
        steps: how many, and how often it is kept.
        callbacks: more callbacks.
    """
    was_numbered = "LOCAL_RANK" in os.environ
    trainer = _trainer(folder, machine, steps, callbacks)
    trainer.fit(module, datamodule=data, ckpt_path=_last_checkpoint(folder), weights_only=False)
    if started_by_lightning() and not was_numbered:
        _end_processes()
    return trainer


def fit_stream(
    module: LightningModule, data: LightningDataModule, folder: Path, machine: Machine, max_steps: int
) -> None:
    """Train a module on an endless stream that finds its place by the step."""
    trainer = _trainer(folder, machine, Steps(max_steps), ())
    trainer.fit(module, datamodule=data, ckpt_path=_last_checkpoint(folder), weights_only=False)


def checkpoint_interval(every_steps: int, steps_per_batch: int) -> int:
    """Optimiser steps between two checkpoints, rounded up to whole batches: only between those can one be written.

    Example:
        >>> checkpoint_interval(20, 3)
        21
    """
    return -(-every_steps // steps_per_batch) * steps_per_batch


def started_by_lightning() -> bool:
    """Whether Lightning starts a training's processes itself, rather than torchrun or SLURM all of them at once."""
    return not {"TORCHELASTIC_RUN_ID", "SLURM_PROCID"} & os.environ.keys()


def _end_processes() -> None:
    """After a training whose processes Lightning started: let the next one start its own, those of this one end.

    Lightning leaves its marks in the environment, by which the next Trainer would take itself for one
    of a group that is no longer there.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for name in PROCESS_VARIABLES:
        os.environ.pop(name, None)


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints are written beside their place and then renamed, so a kill or a full disk leaves the last one.

    Lightning writes through the system's folder for temporary files: from another disk that is a copy,
    which can be cut off.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as beside, beside.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


def _loggers(folder: Path) -> list[CSVLogger | TensorBoardLogger]:
    """TensorBoard, and a table for each start of the training: Lightning's would delete an earlier one."""
    start = 1 + len(list(folder.glob(f"{METRICS_FOLDER}/*/metrics.csv")))
    table = CSVLogger(folder, name=METRICS_FOLDER, version=f"start_{start:03d}")
    return [table, TensorBoardLogger(folder, name="", version="tensorboard")]


def _last_checkpoint(folder: Path) -> str | None:
    last = folder / LAST_CHECKPOINT
    return str(last) if last.is_file() else None


def _trainer(folder: Path, machine: Machine, steps: Steps, callbacks: Sequence[Callback]) -> Trainer:
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)  # advertisements
    for message in QUIET_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    checkpoints = ModelCheckpoint(
        folder, filename="last", every_n_train_steps=steps.checkpoint_every, save_top_k=1, enable_version_counter=False
    )
    return Trainer(
        accelerator=machine.accelerator,
        devices=machine.devices,
        num_nodes=machine.num_nodes,
        strategy=machine.strategy,
        precision=machine.precision,
        max_steps=steps.max_steps,
        max_epochs=-1,
        max_time=None if steps.max_seconds is None else timedelta(seconds=steps.max_seconds),
        logger=_loggers(folder),
        plugins=[WholeCheckpoints()],
        callbacks=[checkpoints, RichProgressBar(leave=True), *callbacks],
        log_every_n_steps=1,
        use_distributed_sampler=False,
        enable_model_summary=False,
    )
