"""The training stages: a LoRA cold start, SARL-STG's joint training of time and place, and GRPO."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

import torch

from stvg_lightning.cli.stages.stage import BASE, DONE_FILE, OWN, Run, stage_seconds
from stvg_lightning.data.difficulty import read_difficulties, write_difficulties
from stvg_lightning.data.difficulty_epochs import EPOCHS_FILE, distribution_of, write_epochs
from stvg_lightning.data.shards import ShardFolder
from stvg_lightning.models.adapters import (
    SPATIAL_FOLDER,
    AdaptedModel,
    Lora,
    add_adapter,
    load_trained,
    save_adapted,
    spatial_folder,
)
from stvg_lightning.models.feature_cache import FeatureCache
from stvg_lightning.models.spatial_grounding import DetectorLora, SpatialGrounder, adapt_detector, load_spatial
from stvg_lightning.modules.callbacks.difficulty_refresh import DifficultyRefresh
from stvg_lightning.modules.callbacks.rollout_log import RolloutLog
from stvg_lightning.modules.collecting import Collector
from stvg_lightning.modules.datamodule import GroundingData, Loading
from stvg_lightning.modules.difficulty import ControlledDifficulty, DifficultySampler
from stvg_lightning.modules.grpo import GRPO
from stvg_lightning.modules.grpo_settings import GRPOSettings
from stvg_lightning.modules.optimization import Optimization, check_at_least_one
from stvg_lightning.modules.sft import SFT, SFTSettings
from stvg_lightning.modules.spatial import JointGrounding, JointSettings
from stvg_lightning.modules.trainer import Machine, Steps, checkpoint_interval, fit, seed_training
from stvg_lightning.objectives import Objective, grpo
from stvg_lightning.rollouts.discriminator import SpatialDiscriminator
from stvg_lightning.rollouts.preparation import Preparation
from stvg_lightning.rollouts.rollouts import Sampling

Seeded = TypeVar("Seeded", Loading, GRPOSettings, JointSettings)

if TYPE_CHECKING:
    from stvg_lightning.cli.recipe import SpatialChoice
    from stvg_lightning.models.loading import VideoLanguageModel


@dataclass(frozen=True)
class SupervisedFineTuning:
    """Train an adapter on gold answers.

    Attributes:
        shards: folder of shards; `run/...` lies in the run's folder.
        loading: batch size, order and workers.
        settings: how long, in what portions.
        optimization: AdamW and its schedule.
        lora: the adapter.
        start: `base`, or the stage whose model to begin with.
        machine: devices and precision.
        checkpoint_every_steps: optimiser steps between two checkpoints.
        max_seconds: stop after this many seconds, if that is sooner than `settings.max_steps`.
        seconds_of: stages before this one; stop after as many seconds as they took together.
    """

    distributed: ClassVar[bool] = True

    shards: str
    loading: Loading
    settings: SFTSettings
    optimization: Optimization
    lora: Lora = field(default_factory=Lora)
    start: str = BASE
    machine: Machine = field(default_factory=Machine)
    checkpoint_every_steps: int = 50
    max_seconds: float | None = None
    seconds_of: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_at_least_one(self, "checkpoint_every_steps")
        if self.max_seconds is not None and self.seconds_of:
            raise ValueError(f"give max_seconds {self.max_seconds} or seconds_of {self.seconds_of}, not both")

    def __call__(self, run: Run, folder: Path) -> None:
        seed_training(run.recipe.seed)
        adapted = _start(run, self.start, self.lora)
        data = GroundingData(run.path(self.shards), preparation_of(run, adapted.model), seeded(self.loading, run))
        module = SFT(adapted, self.settings, self.optimization)
        steps = Steps(self.settings.max_steps, self.checkpoint_every_steps, self._seconds(run))
        trainer = fit(module, data, folder, self.machine, steps)
        if trainer.is_global_zero:
            save_adapted(adapted, folder / "model", run.model(self.start))

    def _seconds(self, run: Run) -> float | None:
        """How long to train at most: `max_seconds`, or the seconds that other stages took."""
        if not self.seconds_of:
            return self.max_seconds
        unfinished = [name for name in self.seconds_of if not (run.folder / name / DONE_FILE).is_file()]
        if unfinished:
            raise FileNotFoundError(f"stage {unfinished[0]!r} is not done, so its seconds are not known: run it first")
        return sum(stage_seconds(run.folder / name) for name in self.seconds_of)


@dataclass(frozen=True)
class JointFineTuning:
    """Train an adapter on gold answers and the spatial grounding module on true boxes, together (SARL-STG, stage 1).

    Attributes:
        shards: folder of shards; `run/...` lies in the run's folder.
        loading: batch size, order and workers.
        settings: how long, in what portions, and what the spatial module is fed.
        optimization: AdamW and its schedule, for all that is trained.
        lora: the language model's adapter.
        spatial_lora: the detector's.
        detector: what the spatial module is made of; see `grounder_of`.
        start: `base`, or the stage whose model to begin with.
        machine: devices and precision.
        checkpoint_every_steps: optimiser steps between two checkpoints.
    """

    distributed: ClassVar[bool] = True
    needs_spatial: ClassVar[bool] = True

    shards: str
    loading: Loading
    settings: JointSettings
    optimization: Optimization
    lora: Lora = field(default_factory=lambda: Lora(rank=32, alpha=64))
    spatial_lora: DetectorLora = field(default_factory=DetectorLora)
    detector: str = OWN
    start: str = BASE
    machine: Machine = field(default_factory=Machine)
    checkpoint_every_steps: int = 50

    def __post_init__(self) -> None:
        check_at_least_one(self, "checkpoint_every_steps")

    def __call__(self, run: Run, folder: Path) -> None:
        seed_training(run.recipe.seed)
        adapted = _start(run, self.start, self.lora)
        plain = grounder_of(run, adapted.model, self.detector, self.start)
        grounder = adapt_detector(plain, self.spatial_lora)
        preparation = preparation_of(run, adapted.model)
        data = GroundingData(run.path(self.shards), preparation, seeded(self.loading, run))
        clips = spatial_of(run).clips
        module = JointGrounding(adapted, grounder, clips, preparation, seeded(self.settings, run), self.optimization)
        steps = Steps(self.settings.max_steps, self.checkpoint_every_steps)
        trainer = fit(module, data, folder, self.machine, steps)
        if trainer.is_global_zero:
            save_adapted(adapted, folder / "model", run.model(self.start), {SPATIAL_FOLDER: grounder.save})


@dataclass(frozen=True)
class GroupRelativePolicyOptimization:
    """Train an adapter by GRPO with the recipe's rewards.

    Attributes:
        shards: folder of shards; `run/...` lies in the run's folder.
        loading: prompts a batch and process, order and workers.
        settings: how many rollouts, of what size.
        sampling: length and temperature of rollouts.
        optimization: AdamW and its schedule.
        objective: the loss; `use:` one of stvg_lightning.objectives.
        lora: the adapter.
        start: `base`, or the stage whose model to begin with; that model is the reference policy.
        discriminator: which spatial grounding module the rewards' boxes are from, where a reward looks at them; see
            `grounder_of`.
        difficulty: which questions each epoch has, by what rollouts earned with them; None takes all.
        machine: devices and precision.
        checkpoint_every_steps: optimiser steps between two checkpoints.
    """

    distributed: ClassVar[bool] = True

    shards: str
    loading: Loading
    settings: GRPOSettings
    sampling: Sampling
    optimization: Optimization
    objective: Objective = field(default_factory=grpo)
    lora: Lora = field(default_factory=Lora)
    start: str = BASE
    discriminator: str = OWN
    difficulty: ControlledDifficulty | None = None
    machine: Machine = field(default_factory=Machine)
    checkpoint_every_steps: int = 20

    def __post_init__(self) -> None:
        check_at_least_one(self, "checkpoint_every_steps")
        if self.lora.dropout > 0:
            raise ValueError(f"GRPO needs lora.dropout 0, not {self.lora.dropout}: rollout and update must agree")
        if self.settings.features_kept_mib > 0 and self.lora.vision_tower == "adapted":
            raise ValueError(
                f"settings.features_kept_mib is {self.settings.features_kept_mib}, but features are kept of a frozen "
                "tower only: set it to 0, or lora.vision_tower to frozen"
            )
        if self.sampling.temperature == 0:
            raise ValueError("GRPO needs a temperature above 0: without chance the answers of a group are all alike")
        if self.objective.critic is None:
            self.objective.advantages(torch.zeros(1, self.settings.group_size))  # raises where the group is too small

    def __call__(self, run: Run, folder: Path) -> None:
        seed_training(run.recipe.seed)
        adapted = _start(run, self.start, self.lora)
        needs_boxes = run.recipe.rewards.needs_discriminator
        discriminator = discriminator_of(run, adapted.model, self.discriminator, self.start) if needs_boxes else None
        preparation = preparation_of(run, adapted.model)
        sampler = self._sampler(run)
        data = GroundingData(run.path(self.shards), preparation, seeded(self.loading, run), sampler)
        settings = seeded(self.settings, run)
        collector = Collector(
            adapted,
            preparation,
            run.recipe.rewards,
            self.sampling,
            settings.group_size,
            settings.seed or 0,
            discriminator,
            FeatureCache(settings.features_kept_mib),
            settings.tokens_per_rollout,
        )
        module = GRPO(adapted, collector, self.objective, settings, self.optimization)
        updates = self.settings.updates_per_rollout
        every = checkpoint_interval(self.checkpoint_every_steps, updates)
        steps = Steps(self.settings.max_rollouts * updates, every)
        callbacks: list[RolloutLog | DifficultyRefresh] = [RolloutLog(folder)]
        if self.difficulty is not None and sampler is not None:
            callbacks.append(DifficultyRefresh(sampler, self.difficulty.reward))
        trainer = fit(module, data, folder, self.machine, steps, callbacks)
        if trainer.is_global_zero:
            save_adapted(adapted, folder / "model", run.model(self.start))
            if sampler is not None:
                known = sampler.known()
                write_difficulties(folder / "difficulty.jsonl", known)
                write_epochs(folder / EPOCHS_FILE, sampler.before_epochs, distribution_of(known))

    def _sampler(self, run: Run) -> DifficultySampler | None:
        """What chooses the questions of each epoch; None where all are taken.

        Raises:
            FileNotFoundError: no estimates there.
            ValueError: estimates of other shards.
        """
        if self.difficulty is None:
            return None
        estimates = read_difficulties(run.path(self.difficulty.estimates))
        ids = ShardFolder(run.path(self.shards)).ids()
        return DifficultySampler(self.difficulty.control, estimates, ids, run.recipe.seed)


def seeded(settings: Seeded, run: Run) -> Seeded:
    """Settings with the recipe's seed, unless they have one of their own."""
    return settings if settings.seed is not None else replace(settings, seed=run.recipe.seed)


def preparation_of(run: Run, model: VideoLanguageModel) -> Preparation:
    """How the recipe's samples become examples for a model."""
    recipe = run.recipe
    return Preparation(
        model.encoder, recipe.video, recipe.markers, recipe.answer, keeps_video=recipe.spatial is not None
    )


def discriminator_of(run: Run, model: VideoLanguageModel, which: str, start: str) -> SpatialDiscriminator:
    """A frozen spatial grounding module at work beside a model; arguments and errors are those of `grounder_of`."""
    return SpatialDiscriminator(grounder_of(run, model, which, start), spatial_of(run).clips)


def spatial_of(run: Run) -> SpatialChoice:
    """The recipe's detector, which a recipe with stages that need one has."""
    assert run.recipe.spatial is not None
    return run.recipe.spatial


def grounder_of(run: Run, model: VideoLanguageModel, which: str, start: str) -> SpatialGrounder:
    """A spatial grounding module.

    Args:
        run: its recipe has a `spatial` detector.
        model: whose video tokens it is given.
        which: `own`, the one trained with the model of `start`, or with one before it; `base`, the recipe's detector
            as it is; a stage, for the one trained there or before; or the folder or hub name of another detector.
            Where none has been trained, `own` means the recipe's detector.
        start: the stage whose model is at work, or `base`.

    Raises:
        FileNotFoundError: no detector there, or a stage without a module.
    """
    spatial = spatial_of(run)
    if which == OWN:
        name = str(spatial_folder(run.model(start)) or spatial.name)
    elif which == BASE:
        name = spatial.name
    elif which in run.recipe.stages:
        folder = spatial_folder(run.model(which))
        if folder is None:
            raise FileNotFoundError(f"stage {which!r} has trained no spatial grounding module, nor has one before it")
        name = str(folder)
    else:
        name = which
    return load_spatial(name, model.width, spatial.dtype, spatial.reading)


def _start(run: Run, start: str, lora: Lora) -> AdaptedModel:
    choice = run.recipe.model
    adapted = add_adapter(load_trained(run.model(start), choice.dtype), lora)
    if choice.recompute_activations:
        adapted.recompute_activations()
    return adapted
