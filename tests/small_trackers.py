"""Detectors and trackers of random weights, small enough for a CPU, built from their own configurations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import (
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
    Sam2ImageProcessor,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VideoProcessor,
    Sam2VideoVideoProcessor,
)

SIDE = 128


@contextlib.contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """The same random weights each time; what comes after is not touched."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    yield
    torch.set_rng_state(state)


def save_sam2(folder: Path) -> Path:
    """A tiny SAM 2 for transformers."""
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "num_attention_heads": 1,
        "image_size": [SIDE, SIDE],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 1, 1],
        "window_size_per_stage": [8, 4, 8, 4],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [4, 4],
    }
    stride = SIDE // 16
    config = Sam2VideoConfig(
        vision_config={
            "model_type": "sam2_vision_model",
            "backbone_config": backbone,
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[4 * stride] * 2, [2 * stride] * 2, [stride] * 2],
            "fpn_hidden_size": 128,
        },
        prompt_encoder_config={"hidden_size": 128, "image_size": SIDE, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
        image_size=SIDE,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[stride, stride],
        memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=32,
    )
    with seeded():
        network = Sam2VideoModel(config)
    _make_everything_visible(network.mask_decoder.pred_obj_score_head)
    network.save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    processor = Sam2VideoProcessor(
        Sam2ImageProcessor(size=size, mask_size={"height": SIDE // 4, "width": SIDE // 4}),
        Sam2VideoVideoProcessor(size=size),
        target_size=SIDE,
    )
    processor.save_pretrained(folder)
    return folder


def meta_sam2() -> Any:
    """A tiny SAM 2 of the package `sam2`."""
    import sam2  # noqa: F401 - hydra finds its configurations then
    from hydra import compose
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    changes = [
        "model._target_=sam2.sam2_video_predictor.SAM2VideoPredictor",
        "model.image_encoder.trunk.embed_dim=8",
        "model.image_encoder.trunk.stages=[1,1,2,1]",
        "model.image_encoder.trunk.global_att_blocks=[3]",
        "model.image_encoder.neck.backbone_channel_list=[64,32,16,8]",
        "model.memory_attention.num_layers=1",
        f"model.image_size={SIDE}",
        "model.memory_attention.layer.self_attention.feat_sizes=[8,8]",
        "model.memory_attention.layer.cross_attention.feat_sizes=[8,8]",
    ]
    config = compose(config_name="configs/sam2.1/sam2.1_hiera_t.yaml", overrides=changes)
    OmegaConf.resolve(config)
    with seeded():
        predictor = instantiate(config.model, _recursive_=True).eval()
    _make_everything_visible(predictor.sam_mask_decoder.pred_obj_score_head)
    return predictor


def _make_everything_visible(head: Any) -> None:
    """Random weights would say of most things that they are out of sight; then every mask is empty."""
    last = next(m for m in head.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 1)
    torch.nn.init.constant_(last.bias, 10.0)


def save_rt_detr(folder: Path) -> Path:
    """A tiny RT-DETR v2 of three categories."""
    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
        out_indices=[2, 3, 4],
    )
    config = RTDetrV2Config(
        backbone_config=backbone,
        encoder_hidden_dim=16,
        encoder_in_channels=[16, 16, 16],
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        d_model=16,
        num_queries=12,
        decoder_in_channels=[16, 16, 16],
        decoder_ffn_dim=16,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_denoising=0,
        id2label={0: "person", 1: "bicycle", 2: "car"},
    )
    with seeded():
        RTDetrV2ForObjectDetection(config).save_pretrained(folder)
    RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder
