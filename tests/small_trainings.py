"""Small trainings for tests: a reward that random text can earn, data, modules, and what their steps saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from stvg_lightning.answers import Answer, timesteps
from stvg_lightning.data.clips import ClipSampling
from stvg_lightning.models.adapters import AdaptedModel, Lora, add_adapter
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.models.spatial_grounding import DetectorLora, SpatialGrounder, adapt_detector
from stvg_lightning.modules.collecting import Collector
from stvg_lightning.modules.datamodule import GroundingData, Loading
from stvg_lightning.modules.grpo import GRPO
from stvg_lightning.modules.grpo_settings import GRPOSettings
from stvg_lightning.modules.optimization import Optimization
from stvg_lightning.modules.sft import SFT, SFTSettings
from stvg_lightning.modules.spatial import JointGrounding, JointSettings
from stvg_lightning.modules.trainer import Machine, Steps, fit
from stvg_lightning.objectives import Objective, grpo
from stvg_lightning.reports import read_curves
from stvg_lightning.rewards import RewardTerm, WeightedSum, reward
from stvg_lightning.rollouts.preparation import Preparation
from stvg_lightning.rollouts.rollouts import Sampling
from stvg_lightning.tubes import Truth
from tests.small_detectors import random_grounder
from tests.small_models import copied, preparation_of

ON_CPU = Machine(accelerator="cpu", devices=1)
UNSHORTENED = Optimization(learning_rate=1e-3, schedule="linear", max_gradient_norm=1e9)


@reward
def roundness(answer: Answer, truth: Truth) -> float:
    """The share of letters with a bow: any text earns something, and few texts earn the same."""
    return sum(letter in "abdegopq" for letter in answer.text) / max(len(answer.text), 1)


def rewards_of(**more: RewardTerm) -> WeightedSum:
    """Roundness, and other terms with weight 1."""
    return WeightedSum({"roundness": (roundness, 1.0), **{name: (term, 1.0) for name, term in more.items()}})


def adapted_copy(model: VideoLanguageModel, lora: Lora = Lora(rank=4, alpha=8), seed: int = 0) -> AdaptedModel:
    """A copy of a model with a new adapter; the seed decides its first weights."""
    torch.manual_seed(seed)
    return add_adapter(copied(model), lora)


def stirred(adapted: AdaptedModel, scale: float = 0.05, seed: int = 0) -> AdaptedModel:
    """The adapter moved a little, as after some training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.adapter.named_parameters():
            if "lora_B" in name:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return adapted


def sft_module(adapted: AdaptedModel, max_steps: int, micro_batch_size: int | None = None) -> SFT:
    return SFT(adapted, SFTSettings(max_steps, micro_batch_size), UNSHORTENED)


def grpo_module(
    adapted: AdaptedModel,
    settings: GRPOSettings,
    rewards: WeightedSum | None = None,
    objective: Objective | None = None,
    sampling: Sampling = Sampling(6),
    optimization: Optimization = UNSHORTENED,
) -> GRPO:
    collector = Collector(
        adapted,
        preparation_of(adapted.model),
        rewards or rewards_of(),
        sampling,
        settings.group_size,
        settings.seed or 0,
    )
    return GRPO(adapted, collector, objective or grpo(), settings, optimization)


class Attached(Trainer):
    """A trainer to which a module belongs, without training: enough for gradients."""

    def __init__(self, module: GRPO) -> None:
        super().__init__(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        self.strategy.connect(module)
        module.trainer = self


CLIPS = ClipSampling(fps=4.0)


def timed_preparation(model: VideoLanguageModel) -> Preparation:
    """Questions of time alone, with their videos, as SARL-STG has them."""
    return replace(preparation_of(model), language=timesteps, keeps_video=True)


def joint_module(
    adapted: AdaptedModel, settings: JointSettings, grounder: SpatialGrounder | None = None
) -> JointGrounding:
    """Joint training with a small random detector, whose adapter has a seed of its own."""
    if grounder is None:
        torch.manual_seed(1)
        grounder = adapt_detector(random_grounder(adapted.model.width, stirred=0.05), DetectorLora(rank=4, alpha=8))
    grounder.module.eval()  # without dropout, so that what is done twice is done alike
    return JointGrounding(adapted, grounder, CLIPS, timed_preparation(adapted.model), settings, UNSHORTENED)


def timed_data_of(shards: Path, adapted: AdaptedModel, batch_size: int = 2, num_workers: int = 0) -> GroundingData:
    return GroundingData(shards, timed_preparation(adapted.model), Loading(batch_size, num_workers))


def data_of(shards: Path, adapted: AdaptedModel, batch_size: int = 2, num_workers: int = 0) -> GroundingData:
    return GroundingData(shards, preparation_of(adapted.model), Loading(batch_size, num_workers))


def train(
    module: SFT | GRPO | JointGrounding,
    data: GroundingData,
    folder: Path,
    max_steps: int,
    checkpoint_every_steps: int = 1000,
    callbacks: Sequence[Callback] = (),
    machine: Machine = ON_CPU,
) -> Trainer:
    folder.mkdir(parents=True, exist_ok=True)
    return fit(module, data, folder, machine, Steps(max_steps, checkpoint_every_steps), callbacks)


class Watch(Callback):
    """Notes what each step saw, and its gradients just before the optimiser uses them."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, tuple[str, ...]]] = []
        self.gradients: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, _: int) -> None:
        self.seen.append((batch.number, batch.epoch, tuple(truth.id for truth in batch.truths)))

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Any) -> None:
        gradients = [p.grad.flatten() for p in module.parameters() if p.requires_grad]
        self.gradients.append(torch.cat(gradients).clone())


class Killed(BaseException):
    """Stands for a process that is killed: nothing may be done about it."""


class KillBefore(Callback):
    """Ends the process just before it trains on a batch."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch.number == self.number:
            raise Killed


def parameters_of(module: LightningModule) -> Tensor:
    """All trained parameters in one row."""
    return torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad])


def curves_of(folder: Path, start: int = 1) -> dict[str, list[tuple[int, float]]]:
    """What one start of a training logged."""
    return read_curves(folder / "metrics" / f"start_{start:03d}" / "metrics.csv")


def relative_difference(first: Tensor, second: Tensor) -> float:
    return float((first - second).norm() / second.norm())


def without_schedule(optimization: Optimization) -> Optimization:
    return replace(optimization, schedule="constant")
