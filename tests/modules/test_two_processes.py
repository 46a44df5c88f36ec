"""Two processes with gloo train exactly what one process trains on the same samples."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import multiprocessing

from stvg_lightning.answers import Answer
from stvg_lightning.data.shards import WriteOptions, write_shards
from stvg_lightning.models.adapters import load_trained
from stvg_lightning.modules.grpo import GRPO
from stvg_lightning.modules.grpo_settings import GRPOSettings
from stvg_lightning.modules.sft import SFT
from stvg_lightning.modules.spatial import JointGrounding, JointSettings
from stvg_lightning.modules.trainer import Machine, Steps, fit
from stvg_lightning.objectives import grpo, ppo
from stvg_lightning.rewards import reward
from stvg_lightning.tubes import Sample, Truth
from tests.helpers import assert_close
from tests.small_trainings import (
    adapted_copy,
    curves_of,
    data_of,
    grpo_module,
    joint_module,
    parameters_of,
    rewards_of,
    sft_module,
    stirred,
    timed_data_of,
)

PATIENCE_SECONDS = 300
EPS = 1e-4
KINDS = ("sft", "grpo", "ppo", "joint")
COMPARED = {
    "sft": ("sft/loss",),
    "ppo": ("grpo/loss", "reward/roundness_spread"),
    "joint": ("joint/loss", "joint/text", "joint/giou", "joint/earlier_layers", "joint/questions_with_clip"),
    "grpo": ("grpo/loss", "grpo/kl", "grpo/ratio_mean", "reward/sometimes", "reward/roundness_spread"),
}


@reward
def sometimes(answer: Answer, truth: Truth) -> float | None:
    """A term that applies to one sample only, so that most processes have no value for it."""
    return len(answer.text) / 100 if truth.id.endswith("103") else None


def module_of(kind: str, model_folder: Path) -> SFT | GRPO | JointGrounding:
    adapted = stirred(adapted_copy(load_trained(str(model_folder))))
    if kind == "sft":
        return sft_module(adapted, 2, micro_batch_size=1)
    if kind == "joint":
        return joint_module(adapted, JointSettings(2, micro_batch_size=1, largest_shift_frames=8))
    objective = ppo(beta=0.0) if kind == "ppo" else grpo()
    settings = GRPOSettings(2, 3, micro_batch_prompts=1)
    return grpo_module(adapted, settings, rewards_of(sometimes=sometimes), objective)


class CalmSteps(Callback):
    """Lets AdamW move in proportion to a small gradient: as it is, it makes a full step of mere rounding."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["eps"] = EPS


def train_both(model_folder: Path, shards: Path, out: Path, world_size: int) -> None:
    """Every kind, two steps each; what comes out is saved by the process that leads."""
    machine = Machine("cpu", devices=world_size, strategy="ddp" if world_size > 1 else "auto")
    for kind in KINDS:
        module = module_of(kind, model_folder)
        (out / kind).mkdir(parents=True, exist_ok=True)
        data = (timed_data_of if kind == "joint" else data_of)(shards, module.adapted, batch_size=4 // world_size)
        trainer = fit(module, data, out / kind, machine, Steps(2), (CalmSteps(),))
        if trainer.is_global_zero:
            torch.save(parameters_of(module), out / kind / "parameters.pt")


def one_of_two(rank: int, port: int, model_folder: Path, shards: Path, out: Path) -> None:
    place: dict[str, Any] = {"LOCAL_RANK": rank, "NODE_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in place.items()})
    torch.set_num_threads(1)
    train_both(model_folder, shards, out, world_size=2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_two_processes_equal_one(random_model_folder: Path, world_samples: tuple[Sample, ...], tmp_path: Path) -> None:
    # Seven samples: in the second step one process has two questions and the other has one.
    shards = tmp_path / "shards"
    write_shards(world_samples[:7], shards, "world", "CC0", WriteOptions(check_videos=False))
    arguments = (free_port(), random_model_folder, shards, tmp_path / "two")
    processes = multiprocessing.spawn(one_of_two, arguments, nprocs=2, join=False)
    train_both(random_model_folder, shards, tmp_path / "one", world_size=1)
    try:
        for _ in range(PATIENCE_SECONDS):
            if processes.join(timeout=1):
                break
        else:
            pytest.fail(f"two processes have not finished in {PATIENCE_SECONDS} seconds: they wait for each other")
    finally:
        for process in processes.processes:
            process.kill()
    for kind in KINDS:
        one, two = (torch.load(tmp_path / name / kind / "parameters.pt") for name in ("one", "two"))
        start = parameters_of(module_of(kind, random_model_folder))
        assert (one - start).abs().max() > 1e-4, "the test needs steps that move something"
        assert_close(two, one, atol=1e-6)
        alone, together = (curves_of(tmp_path / name / kind) for name in ("one", "two"))
        assert alone.keys() == together.keys()
        for name in COMPARED[kind]:
            # In single precision a loss of some hundreds has two digits of 1e-5 no more.
            assert_close([value for _, value in together[name]], [value for _, value in alone[name]], 1e-5, rtol=1e-6)
