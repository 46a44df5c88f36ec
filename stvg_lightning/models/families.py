"""What differs between families of models: placeholders, positions, and how a tower's output goes in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

FAMILIES = ("qwen2_5_vl", "qwen3_vl", "internvl")


@dataclass
class TowerOutput:
    """A tower's output in the shape that transformers takes in place of a pass through the tower."""

    pooler_output: Any
    deepstack_features: list[tuple[Tensor, ...]]


def shows_frames_as_images(config: PretrainedConfig) -> bool:
    """Whether a video is a row of single images to the model (InternVL3), with positions that count tokens."""
    return config.model_type == "internvl"


def placeholder_token_id(config: PretrainedConfig) -> int:
    """The token in whose places a video's features stand."""
    return config.image_token_id if shows_frames_as_images(config) else config.video_token_id


def own_position_ids(config: PretrainedConfig, position_ids: Int[Tensor, "3 batch tokens"]) -> Int[Tensor, "*shape"]:
    """Positions as a family takes them: three numbers a token, or one."""
    return position_ids[0] if shows_frames_as_images(config) else position_ids


def tower_of(model: PreTrainedModel) -> nn.Module:
    """The vision tower."""
    return model.model.vision_tower if shows_frames_as_images(model.config) else model.model.visual


def tower_modules(model: PreTrainedModel) -> list[nn.Module]:
    """All that stands between pixels and the language model: the tower, and a projector where that stands apart."""
    projector = getattr(model.model, "multi_modal_projector", None)
    return [tower_of(model)] if projector is None else [tower_of(model), projector]


def tower_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The tower's layers, all alike."""
    tower: Any = tower_of(model)
    return tower.encoder.layer if shows_frames_as_images(model.config) else tower.blocks


def tower_layer_output(model: PreTrainedModel, states: Float[Tensor, "patches width"]) -> Tensor:
    """A pass through the tower's first layer, patches attending to all others, on whatever device they are."""
    layer = tower_layers(model)[0]
    if shows_frames_as_images(model.config):
        return layer(states[None])
    num_patches, vision = len(states), model.config.vision_config
    angles = states.new_ones(num_patches, vision.hidden_size // vision.num_heads, dtype=torch.float32)
    ends = torch.tensor([0, num_patches], dtype=torch.int32, device="cpu")
    return layer(states, cu_seqlens=ends, position_embeddings=(angles, angles))


def tower_output(
    model: PreTrainedModel, patches: Float[Tensor, "patches channels"], grid_thw: Int[Tensor, "videos 3"]
) -> TowerOutput:
    """A pass through the tower: the features of each video, and of each video for each level of deepstack."""
    if not shows_frames_as_images(model.config):
        output = model.model.get_video_features(patches, grid_thw, return_dict=True)
        levels = getattr(output, "deepstack_features", None) or ()
        return TowerOutput(tuple(output.pooler_output), [tuple(level) for level in levels])
    side = image_side(model.config)
    output = model.model.get_image_features(
        patches.view(-1, 3, side, side),
        vision_feature_layer=model.config.vision_feature_layer,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
        return_dict=True,
    )
    per_video = output.pooler_output.split(grid_thw[:, 0].tolist())
    return TowerOutput(tuple(frames.flatten(0, 1) for frames in per_video), [])


def encoder_outputs(
    config: PretrainedConfig, tokens: Sequence[Tensor], deepstack: Sequence[tuple[Tensor, ...]]
) -> dict[str, TowerOutput]:
    """Features of videos as transformers takes them in place of a pass through the tower."""
    if shows_frames_as_images(config):
        return {"image": TowerOutput(torch.cat(list(tokens)), [])}
    return {"video": TowerOutput(tuple(tokens), list(deepstack))}


def image_side(config: PretrainedConfig) -> int:
    """The side in pixels of the square images that InternVL's tower takes."""
    return int(config.vision_config.image_size[0])
