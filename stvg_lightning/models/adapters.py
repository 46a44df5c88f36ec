"""LoRA adapters: one for each training stage, upon those of the stages before it.

So "the model without this stage's adapter" is the model the stage began with: for GRPO after a cold
start, the reference policy is the cold-started model and not the base.

Earlier adapters are merged into weights of float32, where that is exact and faster. In bfloat16 a
merge would round most of a small update away, so there they stay as they are, in the layers.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from stvg_lightning.models.loading import BUNDLED, Dtype, VideoLanguageModel, load_encoder, load_model, wrap_model
from stvg_lightning.models.lora_layers import make_lora_lean
from stvg_lightning.tubes.choices import check_choice

STAGE_ADAPTER = "default"
"""What peft calls the adapter that a stage trains; those of earlier stages are called after their place."""

LINEAGE_FILE = "stvg_model.json"
SPATIAL_FOLDER = "spatial"
LANGUAGE_LAYERS = r".*language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
TOWER_LAYERS = (
    r".*visual\.(?!patch_embed).*\.(qkv|proj|linear_fc1|linear_fc2|gate_proj|up_proj|down_proj|mlp\.[02])"
    r"|.*vision_tower\..*\.(q_proj|k_proj|v_proj|projection_layer|fc1|fc2)|.*multi_modal_projector\.linear_[12]"
)


@dataclass(frozen=True)
class Lora:
    """Which layers of a vision-language model a stage adapts, and with what rank.

    Attributes:
        rank: width of the low-rank update.
        alpha: the update is scaled by `alpha / rank`.
        dropout: dropout on the update's input; GRPO needs 0, or its two passes over a token disagree.
        vision_tower: `frozen`, or `adapted`: the tower's linear layers get adapters too.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    vision_tower: Literal["frozen", "adapted"] = "frozen"

    def __post_init__(self) -> None:
        check_rank(self.rank, self.alpha)
        check_choice("vision_tower", self.vision_tower, ("frozen", "adapted"))


def check_rank(rank: int, alpha: int) -> None:
    """Refuse an adapter without width or scale."""
    if rank < 1 or alpha < 1:
        raise ValueError(f"LoRA rank {rank} and alpha {alpha} must be at least 1")


@dataclass(frozen=True)
class AdaptedModel:
    """A model with a new adapter in its layers: `model.network` runs with it, `without_adapter` without."""

    model: VideoLanguageModel
    adapter: PeftModel
    settings: Lora

    @property
    def tower_is_frozen(self) -> bool:
        return self.settings.vision_tower == "frozen"

    def recompute_activations(self) -> None:
        """Keep each layer's input alone in a forward pass, and compute the rest again for the gradient."""
        self.model.network.gradient_checkpointing_enable({"use_reentrant": False})

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The model as this stage found it: the reference policy."""
        earlier = _earlier(self.adapter)
        if not earlier:
            with self.adapter.disable_adapter():
                yield
            return
        self.adapter.base_model.set_adapter(earlier, inference_mode=True)
        try:
            yield
        finally:
            _activate_all(self.adapter)


def add_adapter(model: VideoLanguageModel, settings: Lora) -> AdaptedModel:
    """Freeze a model and put a new adapter, whose update starts at zero, into its linear layers."""
    targets = LANGUAGE_LAYERS
    if settings.vision_tower == "adapted":
        targets = f"({LANGUAGE_LAYERS})|({TOWER_LAYERS})"
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=targets
    )
    if model.adapters is None:
        adapter = get_peft_model(model.network, config)
    else:
        adapter = model.adapters
        adapter.add_adapter(STAGE_ADAPTER, config)
        _activate_all(adapter)
    make_lora_lean(adapter)
    adapter.train()
    return AdaptedModel(wrap_model(adapter.get_base_model(), model.encoder), adapter, settings)


def save_adapted(
    adapted: AdaptedModel,
    folder: Path,
    started_from: str,
    parts: Mapping[str, Callable[[Path], None]] = MappingProxyType({}),
) -> None:
    """Save the adapter, and what it stands on, as a folder that `load_trained` reads.

    The folder is complete or absent: it is written beside its place and then renamed.

    Args:
        adapted: the trained model.
        folder: where; replaced if it is there.
        started_from: the name or folder of the model before this adapter.
        parts: folders in it for what else belongs to the model, and what writes each of them.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    replaced = temporary.with_name(f"{temporary.name}.old")
    try:
        adapted.adapter.save_pretrained(temporary, save_embedding_layers=False, selected_adapters=[STAGE_ADAPTER])
        (temporary / LINEAGE_FILE).write_text(json.dumps(_lineage(started_from, folder), indent=2) + "\n")
        for name, write in parts.items():
            write(temporary / name)
        if folder.exists():
            folder.rename(replaced)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)


def load_trained(name: str, dtype: Dtype = "float32") -> VideoLanguageModel:
    """Load a model by name or folder, with the adapters of all stages that led to a trained folder.

    Raises:
        FileNotFoundError: no model there.
        ValueError: an unknown precision, or a family that is not supported.
    """
    lineage = Path(name) / LINEAGE_FILE
    if not lineage.is_file():
        return load_model(name, dtype)
    model = load_trained(_started_from(lineage), dtype)
    if dtype == "float32":
        merged = PeftModel.from_pretrained(model.network, name).merge_and_unload()
        return wrap_model(merged.requires_grad_(False), model.encoder)
    if model.adapters is None:
        adapters = PeftModel.from_pretrained(model.network, name, adapter_name="stage_1")
    else:
        adapters = model.adapters
        adapters.load_adapter(name, f"stage_{len(adapters.peft_config) + 1}")
    _drop_nothing(adapters)
    make_lora_lean(adapters)
    adapters.base_model.set_adapter(_earlier(adapters), inference_mode=True)
    return wrap_model(adapters.get_base_model(), model.encoder, adapters)


def load_trained_encoder(name: str):
    """What prepares prompts for a model that `load_trained` would load, without weights."""
    lineage = Path(name) / LINEAGE_FILE
    return load_trained_encoder(_started_from(lineage)) if lineage.is_file() else load_encoder(name)


def spatial_folder(name: str) -> Path | None:
    """The spatial grounding module that was trained with a model, or with one that led to it; None without any."""
    while (lineage := Path(name) / LINEAGE_FILE).is_file():
        if (found := Path(name) / SPATIAL_FOLDER).is_dir():
            return found
        name = _started_from(lineage)
    return None


def _earlier(adapter: PeftModel) -> list[str]:
    return [name for name in adapter.peft_config if name != STAGE_ADAPTER]


def _drop_nothing(adapter: PeftModel) -> None:
    """An earlier stage's dropout is over: in a later training it would make rollout and update disagree."""
    for module in adapter.modules():
        for name in getattr(module, "lora_dropout", {}):
            module.lora_dropout[name] = nn.Identity()


def _activate_all(adapter: PeftModel) -> None:
    """Every adapter takes part; only the stage's own is trained."""
    adapter.base_model.set_adapter([*_earlier(adapter), STAGE_ADAPTER])
    for name, parameter in adapter.named_parameters():
        parameter.requires_grad_("lora_" in name and f".{STAGE_ADAPTER}." in name)


def _lineage(started_from: str, folder: Path) -> dict[str, str]:
    """The start of an adapter's folder: a name as it is, a folder both seen from here and from the root.

    A run may be moved alone, or together with the model that it began with: one of the two still leads there.
    """
    if started_from in BUNDLED or not Path(started_from).exists():
        return {"started_from": started_from}
    start = Path(started_from).resolve()
    return {"started_from": os.path.relpath(start, folder.resolve()), "absolute": str(start)}


def _started_from(lineage: Path) -> str:
    record = json.loads(lineage.read_text())
    beside = lineage.parent / record["started_from"]
    if "absolute" not in record:
        return record["started_from"]
    return str(beside.resolve()) if beside.exists() else record["absolute"]
