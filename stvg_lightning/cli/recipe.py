"""Recipes: load a YAML file, lay others and `key=value` over it, and bind every key."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from stvg_lightning.answers import AnswerLanguage, MarkerKind, View
from stvg_lightning.cli.binding import USE, RecipeError, bind, import_path
from stvg_lightning.cli.stages.numbered import SOME_FRAMES
from stvg_lightning.cli.stages.stage import BASE, OWN, Stage
from stvg_lightning.data.clips import ClipSampling
from stvg_lightning.data.shards.manifest import MANIFEST_NAME, load_manifest
from stvg_lightning.data.video import VideoSampling, shown_frames
from stvg_lightning.models.adapters import spatial_folder
from stvg_lightning.models.loading import TINY, TINY_DETECTOR_FOLDER, Dtype, model_folder
from stvg_lightning.models.spatial_grounding import FrameReading
from stvg_lightning.prompting import Markers
from stvg_lightning.rewards import OverlongPenalty, WeightedSum
from stvg_lightning.tubes import Truth

MODEL_SUFFIXES = (".json", ".safetensors", ".jinja", ".txt")
END_BYTES = 2**20
DETECTOR_KEYS = {"detector", "discriminator"}
"""Keys of stages that name a detector: `own`, `base`, a stage, a folder or a hub name."""
BY_ANSWER = "by_answer"
"""An overlay's key: what else it changes, by the dotted path that the recipe beneath has as its `answer`."""


@dataclass(frozen=True)
class ModelChoice:
    """Which model the recipe begins with.

    Attributes:
        name: `tiny`, a folder, or a hub name such as `Qwen/Qwen2.5-VL-7B-Instruct`.
        dtype: precision of the weights in memory.
        recompute_activations: training keeps each layer's input alone and computes the rest again for the
            gradient: a third more time, and memory for far longer rows.
    """

    name: str
    dtype: Dtype = "float32"
    recompute_activations: bool = False


@dataclass(frozen=True)
class SpatialChoice:
    """Which detector the spatial grounding module is made of (SARL-STG).

    Attributes:
        name: `tiny`, a folder, or a hub name such as `IDEA-Research/grounding-dino-base`.
        dtype: precision of the weights in memory.
        clips: which frames of a sub-clip it reads.
        reading: how these go through it.
    """

    name: str
    dtype: Dtype = "float32"
    clips: ClipSampling = field(default_factory=ClipSampling)
    reading: FrameReading = field(default_factory=FrameReading)


@dataclass(frozen=True)
class Recipe:
    """A recipe as its stages see it: what all of them share, and the stages in their order."""

    name: str
    model: ModelChoice
    video: VideoSampling
    markers: Markers
    answer: AnswerLanguage
    rewards: WeightedSum
    stages: Mapping[str, Stage]
    spatial: SpatialChoice | None = None
    seed: int = 0
    runs: str = "runs"

    @property
    def run_folder(self) -> Path:
        return Path(self.runs) / self.name


# OmegaConf 2.4 names `register_resolver` what 2.3, the newest that hydra and with it sam2 allow, names otherwise.
_of_2_4 = "replace" in inspect.signature(OmegaConf.register_resolver).parameters
_register = OmegaConf.register_resolver if _of_2_4 else OmegaConf.register_new_resolver
_register("if", lambda condition, yes, no: yes if condition else no, replace=True)


def load_values(paths: Sequence[Path], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a recipe, its overlays, and `key=value` overrides into one plain mapping.

    A stage that an overlay sets to null is left out; `key?` in an overlay counts only where the recipe has that key,
    and of what stands under an overlay's `by_answer` only what stands there for the answer of the files up to it.

    Raises:
        FileNotFoundError: a file is not there.
        RecipeError: a file that is no YAML mapping, an answer that there is not, or an override that is no `key=value`.
    """
    merged = OmegaConf.create()
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"there is no recipe at {path}")
        try:
            loaded = OmegaConf.load(path)
        except YAMLError as error:
            raise RecipeError(f"{path} is not valid YAML: {error}") from error
        if not OmegaConf.is_dict(loaded):
            raise RecipeError(f"{path}: a recipe is a mapping of keys to values")
        overlay = dict(OmegaConf.to_container(loaded))
        by_answer = overlay.pop(BY_ANSWER, {}) if merged else {}  # in a recipe of its own it is a key like any other
        merged = _laid_over(merged, overlay)
        merged = _laid_over(merged, _of_answer(by_answer, OmegaConf.to_container(merged).get("answer"), path))
    for override in overrides:
        if "=" not in override:
            raise RecipeError(f"override {override!r} is no key=value")
        try:
            merged = OmegaConf.merge(merged, OmegaConf.from_dotlist([override]))
        except (YAMLError, OmegaConfBaseException) as error:
            raise RecipeError(f"override {override!r} cannot be read: {error}") from error
    try:
        values = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise RecipeError(f"{' + '.join(map(str, paths))}: {error}") from error
    if isinstance(values.get("stages"), dict):
        values["stages"] = {name: stage for name, stage in values["stages"].items() if stage is not None}
    return values


def _of_answer(by_answer: Any, answer: Any, path: Path) -> Mapping[str, Any]:
    """What an overlay changes for the answer of the recipe beneath, `answer` being a path or keys with `use`."""
    if not isinstance(by_answer, Mapping) or not all(isinstance(part, Mapping) for part in by_answer.values()):
        raise RecipeError(f"{path}: {BY_ANSWER}: what to change is expected for each answer")
    used = answer.get(USE) if isinstance(answer, Mapping) else answer
    if not by_answer or not isinstance(used, str):
        return {}
    named = [name for name in by_answer if _names_the_same(str(name), used, f"{path}: {BY_ANSWER}")]
    if len(named) > 1:
        raise RecipeError(f"{path}: {BY_ANSWER}: {' and '.join(named)} are the same answer")
    return by_answer[named[0]] if named else {}


def _names_the_same(name: str, used: str, where: str) -> bool:
    """Whether an answer's path names what another does, however it is spelt."""
    bind(AnswerLanguage, name, where)  # a misspelt one, or what is no answer, would never count
    return name == used or import_path(name, where) is import_path(used, "recipe.answer")


def _laid_over(beneath: DictConfig, overlay: Mapping[str, Any]) -> DictConfig:
    merged = OmegaConf.merge(beneath, _where_present(overlay, OmegaConf.to_container(beneath)))
    assert isinstance(merged, DictConfig)
    return merged


def _where_present(overlay: Any, beneath: Any) -> Any:
    """An overlay without its marks `?`: `key?` lies over a key that is there beneath and not null, or is left out."""
    if not isinstance(overlay, Mapping):
        return overlay
    kept = {}
    for key, value in overlay.items():
        name = key.removesuffix("?") if isinstance(key, str) else key
        known = beneath.get(name) if isinstance(beneath, Mapping) else None
        if name == key or known is not None:
            found = _where_present(value, known)
            if found or not value or not isinstance(value, Mapping) or isinstance(known, Mapping):
                kept[name] = found  # what holds marked keys alone changes nothing that has no keys
    return kept


def with_base(files: list[Path]) -> list[Path]:
    """An overlay names the recipe it lies over in its first line, `# over: NAME.yaml`; that comes first."""
    if not files or not files[0].is_file():
        return files
    first_line = files[0].read_text().partition("\n")[0]
    if first_line.startswith("# over: "):
        return [*with_base([files[0].parent / first_line.removeprefix("# over: ").strip()]), *files]
    return files


def bind_recipe(values: Mapping[str, Any]) -> Recipe:
    """Bind every key of a recipe; no weight is loaded and nothing runs.

    Raises:
        RecipeError: an unknown or missing key, or a value that does not fit.
    """
    recipe: Recipe = bind(Recipe, values, "recipe")
    _check_stage_names(recipe)
    _check_rewards(recipe)
    _check_lengths(recipe)
    _check_spatial(recipe)
    return recipe


def _check_rewards(recipe: Recipe) -> None:
    """Refuse rewards that no answer of this recipe can earn."""
    nothing_said = recipe.answer.read("", View(recipe.markers.kind, SOME_FRAMES))
    try:
        recipe.rewards.check_earnable(nothing_said, recipe.markers.draw)
    except ValueError as error:
        raise RecipeError(f"recipe.rewards: {error}") from error


def _check_lengths(recipe: Recipe) -> None:
    """Refuse a penalty on long completions that is not laid out for the length that is sampled."""
    penalties = [term for term, _ in recipe.rewards.terms.values() if isinstance(term, OverlongPenalty)]
    for name, stage in recipe.stages.items():
        if not hasattr(stage, "objective") or not hasattr(stage, "sampling"):
            continue
        for penalty in penalties:
            if penalty.max_tokens != stage.sampling.max_new_tokens:
                raise RecipeError(
                    f"stages.{name}.sampling.max_new_tokens is {stage.sampling.max_new_tokens}, and a reward's "
                    f"max_tokens {penalty.max_tokens}: the penalty on long completions must end where they do"
                )


def _check_spatial(recipe: Recipe) -> None:
    """Refuse a spatial module that is needed and not named, and what it cannot be used with."""
    rewards, is_trained = recipe.rewards.needs_discriminator, False
    for name, stage in recipe.stages.items():
        if getattr(stage, "needs_spatial", False):
            is_trained = True
            _check_is_named(recipe, f"stages.{name}")
        lora = getattr(stage, "lora", None)
        if rewards and hasattr(stage, "discriminator") and lora and lora.vision_tower == "adapted":
            raise RecipeError(
                f"stages.{name}.lora.vision_tower: must be frozen: the discriminator, which does not learn, reads the "
                "tower's tokens, and remembers what it found in them"
            )
    if rewards:
        _check_is_named(recipe, "recipe.rewards")
    if is_trained and recipe.spatial is not None and recipe.spatial.dtype != "float32":
        raise RecipeError(
            f"recipe.spatial.dtype: a module that is trained needs weights in float32, not {recipe.spatial.dtype}: "
            "its adapter is merged into them (`machine.precision` may be bf16-mixed)"
        )


def _check_is_named(recipe: Recipe, where: str) -> None:
    if recipe.spatial is None:
        raise RecipeError(f"{where}: boxes of a spatial grounding module are needed: recipe.spatial must name one")


def _check_stage_names(recipe: Recipe) -> None:
    """Refuse a stage that begins with, scores or waits for something that no stage before it leaves."""
    earlier = [BASE]
    for name, stage in recipe.stages.items():
        named = {"models": tuple(getattr(stage, "models", ())), "seconds_of": tuple(getattr(stage, "seconds_of", ()))}
        named["start"] = (stage.start,) if hasattr(stage, "start") else ()
        for key in DETECTOR_KEYS:
            chosen = getattr(stage, key, OWN)
            is_stage = chosen != OWN and (chosen in recipe.stages or not _is_detector(chosen))
            named[key] = (chosen,) if is_stage else ()
        for key, others in named.items():
            for other in others:
                if other not in earlier:
                    raise RecipeError(
                        f"stages.{name}.{key}: there is no stage {other!r} before it; choose from {', '.join(earlier)}"
                    )
        earlier.append(name)


def _is_detector(name: str) -> bool:
    """Whether a text names a detector and no stage: a folder, a hub name with its owner, or the bundled one."""
    return name == TINY or "/" in name or Path(name).is_dir()


def fingerprint(values: Mapping[str, Any], stage: str) -> str:
    """A hash of everything that may change a stage's result: the shared keys and the stages up to it.

    The model, a reward's own file and a folder of shards count by their content, not by their name alone.
    """
    names = list(values["stages"])
    stages = {name: values["stages"][name] for name in names[: names.index(stage) + 1]}
    shared = {key: value for key, value in values.items() if key not in ("stages", "name", "runs")}
    contents = {text: content for text in _strings([shared, stages]) if (content := _content(text)) is not None}
    model = model_content(values["model"]["name"])
    detectors = []
    if values.get("spatial"):
        own = spatial_folder(values["model"]["name"])
        detectors += [values["spatial"]["name"]] + ([str(own)] if own else [])
        detectors += [stage[key] for stage in stages.values() for key in sorted(DETECTOR_KEYS & stage.keys())]
    parts = {
        "shared": shared,
        "stages": list(stages.items()),
        "contents": contents,
        "model": model,
        "detectors": [_detector_content(name) for name in detectors],
    }
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _strings(value: Any) -> Iterator[str]:
    """Every text in a nest of mappings and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(part)


def _content(text: str) -> str | None:
    """A hash of what a text names: a file of the user's own (`file.py`, `file.py:name`) or a folder of shards."""
    file = text if text.endswith(".py") else text.rpartition(":")[0]
    if file.endswith(".py") and Path(file).expanduser().is_file():
        return hashlib.sha256(Path(file).expanduser().read_bytes()).hexdigest()
    with suppress(OSError):  # a text too long for a path is none
        if (Path(text) / MANIFEST_NAME).is_file():
            return load_manifest(Path(text)).content_hash
    return None


def _detector_content(name: str) -> str | None:
    return model_content(str(TINY_DETECTOR_FOLDER) if name == TINY else name)


def model_content(name: str) -> str | None:
    """A hash of a local model: its files' names and sizes, and both ends of each; None for a name on the hub."""
    # A trained adapter's folder holds no model of its own, and is content all the same.
    local = Path(name).expanduser()
    folder = local if local.is_dir() else Path(model_folder(name))
    if not folder.is_dir():
        return None
    content = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.suffix in MODEL_SUFFIXES):
        size = file.stat().st_size
        content.update(f"{file.name}:{size}:".encode())
        with file.open("rb") as opened:
            content.update(opened.read(END_BYTES))
            opened.seek(max(size - END_BYTES, 0))
            content.update(opened.read())
    return content.hexdigest()


def view_of(truth: Truth, video: VideoSampling, markers: MarkerKind) -> View:
    """How a model would see a question; its frames only where the recipe tells what their sides are multiples of."""
    return View(markers, None if video.side_multiple is None else shown_frames(truth, video, video.side_multiple))
