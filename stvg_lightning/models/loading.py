"""Load a vision-language model by name or folder: weights, processor, and the family's layout of positions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PretrainedConfig, PreTrainedModel

from stvg_lightning.models.families import FAMILIES, shows_frames_as_images
from stvg_lightning.models.fused_layers import fuse_layers
from stvg_lightning.models.positions import PositionRule
from stvg_lightning.models.prompts import PromptEncoder
from stvg_lightning.models.row_attention import use_row_attention
from stvg_lightning.models.vision_attention import batch_vision_attention
from stvg_lightning.tubes.choices import check_choice

TINY = "tiny"
TINY_BOXES = "tiny_boxes"
BUNDLED = (TINY, TINY_BOXES)
"""Names of the bundled models, which are those of their folders."""
TINY_DETECTOR_FOLDER = Path(__file__).parent / "tiny_detector"
PROMPT_FILE = "stvg_prompt.json"
"""Beside a model's weights: the sampling and the markers that it was trained with."""

Network = PreTrainedModel
"""What a loaded model is to the floors above: transformers' own class."""

Dtype = Literal["float32", "bfloat16"]
DTYPES: dict[Dtype, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class VideoLanguageModel:
    """A model and what prepares its prompts; `network` is transformers' own class, perhaps with adapters injected.

    `adapters` are those of earlier stages that are in its layers and not merged into its weights.
    """

    network: PreTrainedModel
    encoder: PromptEncoder
    adapters: PeftModel | None = None

    @property
    def width(self) -> int:
        """Of a token's state; those of a video's tokens are as wide."""
        return self.network.get_input_embeddings().embedding_dim

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def pad_token_id(self) -> int:
        return self.encoder.processor.tokenizer.pad_token_id

    @property
    def end_token_id(self) -> int:
        """The token that gold answers end with."""
        return self.encoder.processor.tokenizer.eos_token_id

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """Every token that ends a completion: some families have more than one."""
        config = self.network.generation_config
        stated = config.eos_token_id if config is not None else None
        others = stated if isinstance(stated, list) else [] if stated is None else [stated]
        return tuple(sorted({self.end_token_id, *others}))


def model_folder(name: str) -> str:
    """The folder or hub name that a model's name stands for; `tiny` and `tiny_boxes` are bundled.

    Raises:
        FileNotFoundError: the name looks like a path and nothing is there.
    """
    if name in BUNDLED:
        return str(Path(__file__).parent / name)
    looks_local = name.startswith((".", "/", "~")) or Path(name).exists()
    if looks_local and not (Path(name).expanduser() / "config.json").is_file():
        raise FileNotFoundError(f"there is no model at {name}: a folder with a config.json is expected")
    return str(Path(name).expanduser()) if looks_local else name


def position_rule(config: PretrainedConfig) -> PositionRule:
    """How a family lays out positions, from its config.

    Raises:
        ValueError: a family that is not supported.
    """
    if config.model_type not in FAMILIES:
        raise ValueError(f"model type {config.model_type!r} is not supported: choose from {', '.join(FAMILIES)}")
    if shows_frames_as_images(config):
        return PositionRule(merge_size=1, frames_in_text=False, counts_tokens=True)
    vision = config.vision_config
    if config.model_type == "qwen3_vl":
        return PositionRule(vision.spatial_merge_size, frames_in_text=True)
    tokens_per_second = float(vision.tokens_per_second)
    return PositionRule(vision.spatial_merge_size, frames_in_text=False, tokens_per_second=tokens_per_second)


def load_encoder(name: str) -> PromptEncoder:
    """What prepares prompts for a model, without its weights."""
    folder = model_folder(name)
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.padding_side = "left"
    return PromptEncoder(processor, position_rule(AutoConfig.from_pretrained(folder)))


def load_model(name: str, dtype: Dtype = "float32") -> VideoLanguageModel:
    """Load weights, processor and layout.

    Args:
        name: `tiny`, `tiny_boxes`, a folder, or a hub name such as `Qwen/Qwen2.5-VL-7B-Instruct`.
        dtype: precision of the weights in memory.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: an unknown precision or a family that is not supported.
    """
    check_choice("dtype", dtype, DTYPES)
    encoder = load_encoder(name)
    network = AutoModelForImageTextToText.from_pretrained(model_folder(name), dtype=DTYPES[dtype])
    return wrap_model(network, encoder)


def load_structure(name: str, dtype: Dtype = "float32") -> VideoLanguageModel:
    """A model without its weights, for what can be told of it beforehand; call it under `torch.device("meta")`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: an unknown precision or a family that is not supported.
    """
    check_choice("dtype", dtype, DTYPES)
    encoder = load_encoder(name)
    config = AutoConfig.from_pretrained(model_folder(name))
    return wrap_model(AutoModelForImageTextToText.from_config(config, dtype=DTYPES[dtype]), encoder)


def wrap_model(
    network: PreTrainedModel, encoder: PromptEncoder, adapters: PeftModel | None = None
) -> VideoLanguageModel:
    """A loaded or newly made network with its encoder.

    Its tower is set to attend to all frames at once, its language model to rows of groups; on a GPU its norms, gates
    and rotations are fused.
    """
    if not shows_frames_as_images(network.config):
        batch_vision_attention(network)
    use_row_attention(network)
    fuse_layers(network)
    return VideoLanguageModel(network, encoder, adapters)
