"""The stages that make the bundled tiny model and the bundled tiny detector."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from stvg_lightning.cli.stages.stage import Run
from stvg_lightning.data.synthetic.reading import detector_texts
from stvg_lightning.models.box_words import add_box_words, words_of
from stvg_lightning.models.loading import PROMPT_FILE, VideoLanguageModel, load_model, position_rule, wrap_model
from stvg_lightning.models.prompts import PromptEncoder
from stvg_lightning.models.tiny_architecture import (
    FRAME_SIDE,
    build_processor,
    build_tiny_model,
    build_tokenizer,
    sharpen_attention,
)
from stvg_lightning.models.tiny_detector_architecture import (
    build_detector_tokenizer,
    build_image_processor,
    build_tiny_detector,
)
from stvg_lightning.modules.detector_pretraining import DetectorCourse, DetectorFrames, DetectorPretraining
from stvg_lightning.modules.lesson_tasks import instructions_without_numbers, world_texts
from stvg_lightning.modules.lessons import Course, Lessons, word_ids
from stvg_lightning.modules.pretraining import (
    LanguageReading,
    Pretraining,
    Rates,
    SceneWords,
    TowerNaming,
    WorldReading,
)
from stvg_lightning.modules.trainer import Machine, fit_stream, seed_training

NUM_TOKENIZER_SCENES = 300

Part = Literal["language", "reader", "tower", "both"]
PARTS: dict[Part, Callable[..., Pretraining]] = {
    "language": LanguageReading,
    "reader": partial(LanguageReading, learns_words=False),
    "tower": TowerNaming,
    "both": WorldReading,
}


@dataclass(frozen=True)
class PartTraining:
    """One of the trainings that follow one another; each has its own schedule of the learning rate.

    Attributes:
        part: what learns. The language model reads scenes that words tell, the tower learns to make these words
            of pixels, `both` read what they see; the `reader` is the language model without its words, which a tower
            has learned to make.
        courses: the lessons, one course after another.
        rates: the largest learning rates.
    """

    part: Part
    courses: tuple[Course, ...]
    rates: Rates = field(default_factory=Rates)

    @property
    def num_batches(self) -> int:
        return sum(course.num_batches for course in self.courses)


@dataclass(frozen=True)
class TinyPretraining:
    """Make a tiny model from nothing, or from one that is there.

    Attributes:
        trainings: what learns when.
        weights: the model to begin with; None: random weights.
        box_words: whether the model gets tokens for boxes first (`models/box_words.py`).
        machine: devices and precision.
    """

    trainings: tuple[PartTraining, ...]
    weights: str | None = None
    box_words: bool = False
    machine: Machine = field(default_factory=Machine)

    def __call__(self, run: Run, folder: Path) -> None:
        seed_training(run.recipe.seed)
        model = _new_model() if self.weights is None else load_model(self.weights)
        network, encoder = model.network, model.encoder
        if self.box_words:
            tokenizer = encoder.processor.tokenizer
            add_box_words(network, tokenizer, FRAME_SIDE, words_of(tokenizer, instructions_without_numbers()))
        words = SceneWords(word_ids(encoder), network.config.video_token_id)
        for place, training in enumerate(self.trainings, start=1):
            module = PARTS[training.part](network, words, training.rates, training.num_batches)
            lessons = Lessons(encoder, run.recipe.markers, run.recipe.video.fps, training.courses, module.sees)
            fit_stream(module, lessons, folder / f"{place}_{training.part}", self.machine, training.num_batches)
        network.to(torch.bfloat16).save_pretrained(folder / "model")
        encoder.processor.save_pretrained(folder / "model")
        prompt = {"video": asdict(run.recipe.video), "markers": asdict(run.recipe.markers)}
        (folder / "model" / PROMPT_FILE).write_text(json.dumps(prompt, indent=2) + "\n")


def _new_model() -> VideoLanguageModel:
    tokenizer = build_tokenizer(world_texts(NUM_TOKENIZER_SCENES))
    network = build_tiny_model(tokenizer)
    sharpen_attention(network)
    return wrap_model(network, PromptEncoder(build_processor(tokenizer), position_rule(network.config)))


@dataclass(frozen=True)
class TinyDetectorPretraining:
    """Make the tiny detector from nothing.

    Attributes:
        course: how long it learns.
        machine: devices and precision.
    """

    course: DetectorCourse
    machine: Machine = field(default_factory=Machine)

    def __call__(self, run: Run, folder: Path) -> None:
        seed_training(run.recipe.seed)
        tokenizer, image_processor = build_detector_tokenizer(detector_texts()), build_image_processor()
        detector = build_tiny_detector(tokenizer)
        frames = DetectorFrames(tokenizer, image_processor, self.course)
        module = DetectorPretraining(detector, self.course)
        fit_stream(module, frames, folder, self.machine, self.course.num_batches)
        for part in (detector.to(torch.bfloat16), tokenizer, image_processor):
            part.save_pretrained(folder / "model")
