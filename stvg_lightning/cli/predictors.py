"""What `stvg predict` and `stvg evaluate` ask, and how: from a name on the command line to a predictor."""

from __future__ import annotations

import hashlib
import json
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from stvg_lightning.answers import Answer, AnswerLanguage, Coordinates, FrameBox, choice, id_span
from stvg_lightning.cli.binding import bind
from stvg_lightning.cli.recipe import (
    Recipe,
    SpatialChoice,
    bind_recipe,
    load_values,
    model_content,
    with_base,
)
from stvg_lightning.cli.scoring import Read, answer_of, reader_of
from stvg_lightning.cli.stages.numbered import check_numbered
from stvg_lightning.cli.stages.stage import BASE, Run
from stvg_lightning.data.video import VideoSampling
from stvg_lightning.evaluation.guesses import ConstantGuess, GuessedSpan
from stvg_lightning.evaluation.predictor import Predictor
from stvg_lightning.evaluation.protocols import EvaluationProtocol
from stvg_lightning.models.adapters import LINEAGE_FILE, load_trained, spatial_folder
from stvg_lightning.models.loading import PROMPT_FILE, Dtype, VideoLanguageModel, model_folder
from stvg_lightning.models.spatial_grounding import load_spatial
from stvg_lightning.prompting import Markers
from stvg_lightning.rewards.loading import own_file_of
from stvg_lightning.rollouts.discriminator import SpatialDiscriminator
from stvg_lightning.rollouts.endpoint import ChatEncoder, EndpointPredictor
from stvg_lightning.rollouts.predictor import ModelPredictor
from stvg_lightning.rollouts.preparation import Encoder, Preparation
from stvg_lightning.rollouts.rollouts import Sampling
from stvg_lightning.rollouts.two_stage import Completes, TwoStagePredictor
from stvg_lightning.tubes import Sample, Truth
from stvg_lightning.tubes.choices import check_choice
from stvg_lightning.tubes.predictions import Prediction, read_predictions

Kind = Literal["constant", "file", "endpoint", "recipe", "model"]
CONSTANT = "constant:"
MASK_PROTOCOLS = ("mevis", "davis")
COORDINATES_OF_FAMILY: Mapping[str, Coordinates] = {
    "qwen2_5_vl": "input",
    "qwen3_vl": "norm1000",
    "internvl": "norm1000",
}
"""What the boxes of a family's own training are counted in."""


@dataclass(frozen=True)
class SharedKeys:
    """What a question is asked with."""

    video: VideoSampling
    markers: Markers
    language: AnswerLanguage
    dtype: Dtype
    spatial: SpatialChoice | None = None


@dataclass(frozen=True)
class FilePredictor:
    """Answers from a file of prediction lines; a question without a line has an empty answer."""

    predictions: Mapping[str, Prediction]
    read: Read

    def prepare(self, sample: Sample) -> Truth:
        """The question; nothing is decoded."""
        return sample.truth

    def answer(self, prepared: Sequence[Truth]) -> list[Answer]:
        """The answers that the file holds."""
        return [answer_of(self.predictions.get(truth.id), truth, self.read) for truth in prepared]


def kind_of(options: Namespace) -> Kind:
    """What the first word after `stvg evaluate` names.

    Raises:
        ValueError: more words than that kind takes.
    """
    name, *others = options.predictor
    if name.endswith((".yaml", ".yml")):
        return "recipe"
    if others:
        raise ValueError(f"{others[0]!r} stands behind {name!r}: only a recipe takes overlays and key=value")
    if name.startswith(CONSTANT):
        return "constant"
    if name.startswith(("http://", "https://")):
        return "endpoint"
    return "file" if name.endswith(".jsonl") else "model"


def needs_videos(options: Namespace) -> bool:
    """Whether videos are looked at."""
    return kind_of(options) not in ("constant", "file")


def load_predictor(options: Namespace, truths: Mapping[str, Truth], device: str) -> Predictor:
    """The predictor that a command line names.

    Args:
        options: of `stvg evaluate`.
        truths: id -> truth of every question, which a file's lines are checked against.
        device: where a model runs.

    Raises:
        FileNotFoundError: no such file, recipe or model.
        ValueError: options that contradict each other, or a file that is wrong.
    """
    kind, name = kind_of(options), options.predictor[0]
    if kind == "constant":
        return ConstantGuess(name.removeprefix(CONSTANT))
    if kind == "file":
        predictions = {prediction.id: prediction for prediction in read_predictions(Path(name), truths)}
        return FilePredictor(predictions, reader_of(options))
    shared = _for_tasks(keys_of(options), {truth.task for truth in truths.values()}, options.two_stage)
    if kind == "endpoint":
        preparation = _preparation(ChatEncoder(shared.video.side_multiple or ChatEncoder.side_multiple), shared)
        server = EndpointPredictor(name, options.model, preparation, _max_new_tokens(options))
        return _staged(options, server, preparation, "norm1000") if options.two_stage else server
    model_name = model_of(options)
    model = load_trained(model_name, options.dtype or shared.dtype)
    model.network.to(device)
    preparation = _preparation(model.encoder, shared)
    sampling = Sampling(_max_new_tokens(options), temperature=0.0)
    spatial = None if options.two_stage else module_of(model_name, model, shared.spatial)
    predictor = ModelPredictor(model, preparation, sampling, spatial)
    if not options.two_stage:
        return predictor
    return _staged(options, predictor, preparation, COORDINATES_OF_FAMILY[model.network.config.model_type])


def identity_of(options: Namespace) -> dict[str, Any]:
    """All that may change a predictor's answers, as JSON: two evaluations with equal ones may go on from each other."""
    kind, name = kind_of(options), options.predictor[0]
    if kind == "constant":
        return {"constant": name.removeprefix(CONSTANT)}
    if kind == "file":
        content = hashlib.sha256(Path(name).read_bytes()).hexdigest()
        recipe = None if options.recipe is None else options.recipe.read_text()
        return {"file": content, "language": options.language, "markers": options.markers, "recipe": recipe}
    shared = keys_of(options)
    asked = {
        "video": repr(shared.video),
        "markers": repr(shared.markers),
        "language": _language_identity(shared.language),
        "spatial": repr(shared.spatial),
        "dtype": options.dtype or shared.dtype,
        "max_new_tokens": _max_new_tokens(options),
        "two_stage": options.two_stage,
        "coordinates": options.coordinates,
    }
    if kind == "endpoint":
        return {"url": name, "model": options.model, **asked}
    model = model_of(options)
    return {"model": model_content(model) or model, **asked}


def _language_identity(language: AnswerLanguage) -> str:
    """A language's name and settings, and the content of a file of the user's own."""
    file = own_file_of(language)
    content = "" if file is None else hashlib.sha256(file.read_bytes()).hexdigest()
    return f"{getattr(language, '__name__', repr(language))} {content}".strip()


def keys_of(options: Namespace) -> SharedKeys:
    """The keys with which a recipe, a model or an endpoint of `stvg evaluate` is asked."""
    if kind_of(options) == "recipe":
        recipe = recipe_of(options)
        return SharedKeys(recipe.video, recipe.markers, recipe.answer, recipe.model.dtype, recipe.spatial)
    return shared_keys(None if kind_of(options) == "endpoint" else options.predictor[0], options.recipe)


def shared_keys(model: str | None, recipe_file: Path | None) -> SharedKeys:
    """The keys of the named recipe, of the run that trained a model, or stored with the model."""
    run_recipe = Path(model).parent.parent / "recipe.yaml" if model else None
    if recipe_file is None and model and (Path(model) / LINEAGE_FILE).is_file() and run_recipe and run_recipe.is_file():
        recipe_file = run_recipe
    if recipe_file is not None:
        recipe = bind_recipe(load_values(with_base([recipe_file])))
        return SharedKeys(recipe.video, recipe.markers, recipe.answer, recipe.model.dtype, recipe.spatial)
    prompt_file = None if model is None else Path(model_folder(model)) / PROMPT_FILE
    stored = json.loads(prompt_file.read_text()) if prompt_file and prompt_file.is_file() else {}
    video = bind(VideoSampling, stored.get("video", {}), str(prompt_file))
    language: AnswerLanguage = id_span
    return SharedKeys(video, bind(Markers, stored.get("markers", {}), str(prompt_file)), language, "float32")


def module_of(name: str, model: VideoLanguageModel, spatial: SpatialChoice | None) -> SpatialDiscriminator | None:
    """What tells the boxes of an answered time: the module trained with the model, or else the recipe's detector."""
    if spatial is None:
        return None
    folder = str(spatial_folder(name) or spatial.name)
    return SpatialDiscriminator(load_spatial(folder, model.width, spatial.dtype, spatial.reading), spatial.clips)


def model_of(options: Namespace) -> str:
    """The name or folder of the model: as it stands, or what a recipe's run has trained last.

    Raises:
        FileNotFoundError: the run has trained none yet.
    """
    if kind_of(options) == "model":
        return options.predictor[0]
    recipe = recipe_of(options)
    run = Run(recipe, recipe.run_folder)
    if options.stage is not None:
        if options.stage not in (BASE, *recipe.stages):
            raise ValueError(f"--stage {options.stage}: choose from {', '.join([BASE, *recipe.stages])}")
        return run.model(options.stage)
    trained = [name for name in recipe.stages if (run.folder / name / "model").is_dir()]
    if not trained:
        raise FileNotFoundError(f"{run.folder} holds no trained model: run the recipe first, or say --stage {BASE}")
    return run.model(trained[-1])


def recipe_of(options: Namespace) -> Recipe:
    """The recipe that a command line names, with its overlays and `key=value`."""
    files = [Path(word) for word in options.predictor if "=" not in word]
    return bind_recipe(load_values(with_base(files), [word for word in options.predictor if "=" in word]))


def _max_new_tokens(options: Namespace) -> int:
    """What is asked for, or what the recipe's evaluation allows, or 1,024."""
    if options.max_new_tokens is not None:
        return options.max_new_tokens
    stages = recipe_of(options).stages.values() if kind_of(options) == "recipe" else ()
    stated = [stage.max_new_tokens for stage in stages if hasattr(stage, "models") and hasattr(stage, "max_new_tokens")]
    return stated[-1] if stated else 1024


def _for_tasks(shared: SharedKeys, tasks: set[str], two_stage: bool) -> SharedKeys:
    """The keys for the questions at hand: letters have a language of their own, and two stages draw nothing."""
    if tasks == {"choice"}:
        shared = replace(shared, language=choice, spatial=None)
    return replace(shared, markers=replace(shared.markers, draw=False)) if two_stage else shared


def _preparation(encoder: Encoder, shared: SharedKeys) -> Preparation:
    return Preparation(encoder, shared.video, shared.markers, shared.language, keeps_video=shared.spatial is not None)


def _staged(
    options: Namespace, asked: Completes, preparation: Preparation, coordinates: Coordinates
) -> TwoStagePredictor:
    frame_box = FrameBox(options.coordinates or coordinates)
    return TwoStagePredictor(asked, preparation, frame_box, batch_size=options.batch_size)


def check_answerable(options: Namespace, truths: Iterable[Truth], protocols: Sequence[EvaluationProtocol]) -> None:
    """Refuse questions that a model could only be wrong about, before it is loaded.

    Raises:
        ValueError: objects are asked for by their numbers, and the shards hold none; or masks are scored, and boxes
            are what two stages answer with.
    """
    if options.two_stage:
        masked = [protocol.name for protocol in protocols if protocol.name in MASK_PROTOCOLS]
        if masked:
            raise ValueError(f"--two-stage answers in boxes, and {masked[0]} scores masks")
        return
    shared = keys_of(options)
    check_numbered(shared.language, shared.markers, truths, options.shards)


def check_options(options: Namespace) -> None:
    """Refuse what is wrong on the command line itself, before shards or models are opened.

    Raises:
        ValueError: options that would do nothing, contradict each other or are missing.
        FileNotFoundError: a file of predictions or a recipe that is not there.
    """
    kind = kind_of(options)
    if kind == "constant":
        check_choice("guess", options.predictor[0].removeprefix(CONSTANT), get_args(GuessedSpan))
    for name, kinds in OPTION_KINDS.items():
        if getattr(options, name) not in (None, False) and kind not in kinds:
            flag = f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag} has no meaning for a {kind}: it is for {' or '.join(kinds)}")
    if kind == "endpoint" and not options.model:
        raise ValueError("an endpoint needs --model: the name that the server knows the model by")
    if options.coordinates and not options.two_stage:
        raise ValueError("--coordinates is for --two-stage: else the answer language tells what boxes are counted in")
    for file in (options.recipe, Path(options.predictor[0]) if kind in ("file", "recipe") else None):
        if file is not None and not file.is_file():
            raise FileNotFoundError(f"there is no file {file}")


OPTION_KINDS: Mapping[str, tuple[Kind, ...]] = {
    "stage": ("recipe",),
    "model": ("endpoint",),
    "recipe": ("file", "endpoint", "model"),
    "language": ("file",),
    "markers": ("file",),
    "two_stage": ("endpoint", "recipe", "model"),
    "coordinates": ("endpoint", "recipe", "model"),
    "max_new_tokens": ("endpoint", "recipe", "model"),
    "dtype": ("recipe", "model"),
}
"""Option -> the kinds of predictor that it means something to."""


def device_of(number: int) -> str:
    """The device of a process: the GPUs in turn, or the CPU."""
    return f"cuda:{number % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
