"""One GRPO step at the real width: a two-layer Qwen2.5-VL-7B with random weights on a real video.

    python benchmarks/full_width_step.py VIDEO.mp4 --max-new-tokens 32

Width, heads, vocabulary and pixel budget are those of STVG-R1 (Qwen2.5-VL-7B, 2048 * 28 * 28 pixels, 2
frames a second, 8 completions); only the layers are few and the weights random. Prints seconds per phase
and the peak memory of the process, in GiB.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from pathlib import Path

import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from stvg_lightning.answers import id_span
from stvg_lightning.data.shards import write_shards
from stvg_lightning.data.video import VideoSampling, probe_video
from stvg_lightning.models.adapters import Lora, add_adapter
from stvg_lightning.models.loading import load_encoder, position_rule, wrap_model
from stvg_lightning.models.prompts import PromptEncoder
from stvg_lightning.models.tiny_architecture import SPECIAL_TOKENS
from stvg_lightning.modules.collecting import Collector
from stvg_lightning.modules.datamodule import GroundingData, Loading
from stvg_lightning.modules.grpo import GRPO
from stvg_lightning.modules.grpo_settings import GRPOSettings
from stvg_lightning.modules.optimization import Optimization
from stvg_lightning.modules.trainer import Machine, Steps, fit
from stvg_lightning.objectives import grpo
from stvg_lightning.prompting import Markers
from stvg_lightning.rewards import WeightedSum, temporal_iou, well_formed
from stvg_lightning.rollouts.preparation import Preparation
from stvg_lightning.rollouts.rollouts import Sampling
from stvg_lightning.tubes import Sample, Truth

VOCABULARY_SIZE = 152_064


def build_model(language_layers: int, tower_layers: int, dtype: torch.dtype) -> Qwen2_5_VLForConditionalGeneration:
    """Qwen2.5-VL-7B's widths with few layers; the bundled tokenizer's special tokens."""
    tokenizer = load_encoder("tiny").processor.tokenizer
    ids = dict(zip(SPECIAL_TOKENS, tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)), strict=True))
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCABULARY_SIZE,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": language_layers,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "bos_token_id": None,
        },
        vision_config={"depth": tower_layers, "hidden_size": 1280, "out_hidden_size": 3584, "tokens_per_second": 2},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.set_default_dtype(dtype)
    model = Qwen2_5_VLForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    return model


def main() -> None:
    """Build, write one shard, take one step, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", type=Path)
    parser.add_argument("--language-layers", type=int, default=2)
    parser.add_argument("--tower-layers", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    torch.manual_seed(0)
    network = build_model(options.language_layers, options.tower_layers, getattr(torch, options.dtype))
    tokenizer = load_encoder("tiny").processor.tokenizer
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=tokenizer.chat_template or load_encoder("tiny").processor.chat_template,
    )
    adapted = add_adapter(wrap_model(network, PromptEncoder(processor, position_rule(network.config))), Lora(rank=64))
    info = probe_video(options.video)
    size = {"num_frames": info.num_frames, "width": info.width, "height": info.height}
    span = (0, info.num_frames // 2)
    truth = Truth("real", "a person eats some food", info.fps, **size, span_frames=span, task="temporal")
    with tempfile.TemporaryDirectory() as folder:
        write_shards([Sample(truth, options.video)], Path(folder) / "shards", "a real video", "unknown")
        preparation = Preparation(adapted.model.encoder, VideoSampling(), Markers(), id_span)
        data = GroundingData(Path(folder) / "shards", preparation, Loading(batch_size=1, num_workers=0))
        rewards = WeightedSum({"temporal_iou": (temporal_iou, 1.0), "format": (well_formed, 1.0)})
        sampling = Sampling(max_new_tokens=options.max_new_tokens)
        settings = GRPOSettings(max_rollouts=1, group_size=8)
        collector = Collector(adapted, preparation, rewards, sampling, settings.group_size)
        module = GRPO(adapted, collector, grpo(), settings, Optimization())
        trainer = fit(module, data, Path(folder), Machine(accelerator="cpu"), Steps(1))
        measured = {name: float(value) for name, value in trainer.logged_metrics.items()}
        prompt = preparation(data.folder[0]).prompt
    measured["prompt_tokens"] = len(prompt.input_ids)
    measured["patches"] = len(prompt.patches)
    measured["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({name: round(value, 6) for name, value in sorted(measured.items())}, indent=2))


if __name__ == "__main__":
    main()
