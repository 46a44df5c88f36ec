"""The stage that makes the bundled tiny model: tower warm-up, then reading."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from stvg_lightning.cli.stages.stage import Run
from stvg_lightning.models.loading import PROMPT_FILE, position_rule, wrap_model
from stvg_lightning.models.prompts import PromptEncoder
from stvg_lightning.models.tiny_architecture import build_processor, build_tiny_model, build_tokenizer
from stvg_lightning.modules.lessons import Course, Lessons, word_ids, world_texts
from stvg_lightning.modules.pretraining import PatchNaming, Rates, TowerWarmUp, WorldReading
from stvg_lightning.modules.trainer import Machine, fit_stream, seed_training

NUM_TOKENIZER_SCENES = 300


@dataclass(frozen=True)
class TinyPretraining:
    """Make the tiny model from nothing.

    Attributes:
        warm_up: the lessons of the tower alone.
        reading: the lessons of the whole model, one after another.
        rates: learning rates of both.
        naming_weight: weight of naming patches while reading.
        machine: devices and precision.
    """

    warm_up: tuple[Course, ...]
    reading: tuple[Course, ...]
    rates: Rates = field(default_factory=Rates)
    naming_weight: float = 1.0
    machine: Machine = field(default_factory=Machine)

    def __call__(self, run: Run, folder: Path) -> None:
        seed_training(run.recipe.seed)
        tokenizer = build_tokenizer(world_texts(NUM_TOKENIZER_SCENES))
        network = build_tiny_model(tokenizer)
        encoder = PromptEncoder(build_processor(tokenizer), position_rule(network.config))
        wrap_model(network, encoder)
        naming = PatchNaming(word_ids(encoder), network.config.vision_config.out_hidden_size)
        warm_up = TowerWarmUp(network, naming, self.rates, _num_batches(self.warm_up))
        self._fit(run, folder / "warm_up", warm_up, encoder, self.warm_up)
        reading = WorldReading(network, naming, self.naming_weight, self.rates, _num_batches(self.reading))
        self._fit(run, folder / "reading", reading, encoder, self.reading)
        network.to(torch.bfloat16).save_pretrained(folder / "model")
        encoder.processor.save_pretrained(folder / "model")
        prompt = {"video": asdict(run.recipe.video), "markers": asdict(run.recipe.markers)}
        (folder / "model" / PROMPT_FILE).write_text(json.dumps(prompt, indent=2) + "\n")

    def _fit(
        self,
        run: Run,
        folder: Path,
        module: TowerWarmUp | WorldReading,
        encoder: PromptEncoder,
        courses: tuple[Course, ...],
    ) -> None:
        lessons = Lessons(encoder, run.recipe.markers, run.recipe.video.fps, courses)
        fit_stream(module, lessons, folder, self.machine, module.max_steps)


def _num_batches(courses: tuple[Course, ...]) -> int:
    return sum(course.num_batches for course in courses)
