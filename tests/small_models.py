"""Small random models of all families for tests, and their log-probabilities by transformers' own forward pass."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from stvg_lightning.answers import id_span
from stvg_lightning.data.video import VideoSampling
from stvg_lightning.models.families import tower_of
from stvg_lightning.models.head import banned_token_ids
from stvg_lightning.models.loading import VideoLanguageModel, position_rule, wrap_model
from stvg_lightning.models.prompts import EncodedPrompt, PromptBatch, PromptEncoder, collate_prompts
from stvg_lightning.models.tiny_architecture import (
    CHAT_TEMPLATE,
    SPECIAL_TOKENS,
    VOCABULARY_SIZE,
    build_processor,
    build_tiny_model,
)
from stvg_lightning.prompting import Markers
from stvg_lightning.rollouts.preparation import Preparation
from stvg_lightning.tubes import Clip, Sample

FAMILIES = ("qwen3_vl", "qwen2_5_vl", "internvl")
QWEN_FAMILIES = FAMILIES[:2]
SIDE = 32
SAMPLING = VideoSampling(fps=2.0, min_frame_pixels=SIDE * SIDE, max_frame_pixels=SIDE * SIDE)
MARKERS = Markers(size=80.0, color="black")


def build_qwen3_vl(tokenizer: PreTrainedTokenizerFast) -> VideoLanguageModel:
    """The package's own tiny architecture with random weights."""
    torch.manual_seed(1)
    network = build_tiny_model(tokenizer).eval()
    return wrap_model(network, PromptEncoder(build_processor(tokenizer), position_rule(network.config)))


def build_qwen2_5_vl(tokenizer: PreTrainedTokenizerFast) -> VideoLanguageModel:
    """A Qwen2.5-VL of the same size: a tower with windows of two by two tokens and one layer of full attention."""
    token_ids = dict(zip(SPECIAL_TOKENS, tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)), strict=True))
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCABULARY_SIZE,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            "initializer_range": 0.06,
            "bos_token_id": None,
            "eos_token_id": token_ids["<|im_end|>"],
            "pad_token_id": token_ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 3,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 32,
            "fullatt_block_indexes": [1],
            "out_hidden_size": 64,
            "initializer_range": 0.06,
        },
        image_token_id=token_ids["<|image_pad|>"],
        video_token_id=token_ids["<|video_pad|>"],
        vision_start_token_id=token_ids["<|vision_start|>"],
        vision_end_token_id=token_ids["<|vision_end|>"],
    )
    torch.manual_seed(2)
    network = Qwen2_5_VLForConditionalGeneration(config).eval()
    sizes = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**sizes),
        chat_template=CHAT_TEMPLATE.replace("<|video_pad|>", "<|vision_start|><|video_pad|><|vision_end|>"),
    )
    return wrap_model(network, PromptEncoder(processor, position_rule(config)))


def build_internvl(tokenizer: PreTrainedTokenizerFast) -> VideoLanguageModel:
    """An InternVL3 of the same size: frames are single images of 32 x 32 pixels, four tokens each."""
    tokenizer = copy.deepcopy(tokenizer)
    tokens = {
        "start_image": "vision_start",
        "end_image": "vision_end",
        "context_image": "image_pad",
        "video": "video_pad",
    }
    for name, token in tokens.items():
        setattr(tokenizer, f"{name}_token", f"<|{token}|>")
        setattr(tokenizer, f"{name}_token_id", tokenizer.convert_tokens_to_ids(f"<|{token}|>"))
    config = InternVLConfig(
        text_config={
            "model_type": "qwen2",
            "vocab_size": VOCABULARY_SIZE,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "initializer_range": 0.06,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "num_hidden_layers": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_attention_heads": 4,
            "patch_size": 8,
            "image_size": SIDE,
            "initializer_range": 0.06,
        },
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=4,
    )
    torch.manual_seed(3)
    network = InternVLForConditionalGeneration(config).eval()
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size={"height": SIDE, "width": SIDE}),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size={"height": SIDE, "width": SIDE}),
        image_seq_length=4,
        chat_template=CHAT_TEMPLATE,
    )
    return wrap_model(network, PromptEncoder(processor, position_rule(config)))


def copied(model: VideoLanguageModel) -> VideoLanguageModel:
    """A copy whose weights and layers may be changed."""
    return VideoLanguageModel(copy.deepcopy(model.network), model.encoder)


def preparation_of(model: VideoLanguageModel) -> Preparation:
    """Samples as small prompts: two frames a second of 32 x 32 pixels."""
    return Preparation(model.encoder, SAMPLING, MARKERS, id_span)


def prompts_of(model: VideoLanguageModel, samples: Sequence[Sample]) -> list[EncodedPrompt]:
    """Prompts of samples; their lengths differ."""
    return [preparation_of(model)(sample).prompt for sample in samples]


def batch_of(model: VideoLanguageModel, prompts: Sequence[EncodedPrompt]) -> PromptBatch:
    """Prompts padded on the left."""
    return collate_prompts(prompts, model.pad_token_id)


def noise_clip(num_frames: int, height: int, width: int, fps: float = 8.0, every: int = 4, seed: int = 0) -> Clip:
    """Frames of noise, every fourth of a video's."""
    frames = np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)
    return Clip(frames, tuple(range(0, num_frames * every, every)), fps)


def random_completions(num_rows: int, num_tokens: int, seed: int = 0) -> Tensor:
    """Token ids without special ones."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(len(SPECIAL_TOKENS), VOCABULARY_SIZE, (num_rows, num_tokens), generator=generator)


@contextmanager
def own_tower_attention(network: PreTrainedModel) -> Iterator[None]:
    """Let the tower attend as transformers does by itself: one segment after the other."""
    config = tower_of(network).config
    ours, config._attn_implementation = config._attn_implementation, "sdpa"
    try:
        yield
    finally:
        config._attn_implementation = ours


def plain_logits(model: VideoLanguageModel, prompt: EncodedPrompt, written: Tensor) -> Tensor:
    """Logits before each written token and after the last, by one plain pass without padding, cache or shared video.

    The positions of Qwen3-VL and InternVL3 are transformers' own; those of Qwen2.5-VL differ by design.
    """
    network = model.network
    token_ids = torch.cat([prompt.input_ids, written])[None]
    if network.config.model_type == "internvl":
        frames = prompt.patches.view(-1, 3, SIDE, SIDE)
        return network(input_ids=token_ids, pixel_values=frames, use_cache=False).logits[0, len(prompt.input_ids) - 1 :]
    types = 2 * (token_ids == network.config.video_token_id).int()
    positions = None
    if network.config.model_type == "qwen2_5_vl":
        after = prompt.position_ids[:, -1:] + 1 + torch.arange(len(written))
        positions = torch.cat([prompt.position_ids, after], dim=1)[:, None]
    with own_tower_attention(network):
        output = network(
            input_ids=token_ids,
            position_ids=positions,
            pixel_values_videos=prompt.patches.to(network.dtype),
            video_grid_thw=prompt.grid_thw,
            mm_token_type_ids=types,
            use_cache=False,
        )
    return output.logits[0, len(prompt.input_ids) - 1 :]


def allowed_log_probs(model: VideoLanguageModel, logits: Tensor, temperature: float = 1.0) -> Tensor:
    """A full softmax in double precision over the tokens that are not banned."""
    allowed = torch.ones(logits.shape[-1], dtype=torch.bool)
    allowed[banned_token_ids(model.network)] = False
    scores = (logits.double() / temperature).masked_fill(~allowed, float("-inf"))
    return scores - scores.exp().sum(dim=-1, keepdim=True).log()


def plain_log_probs(
    model: VideoLanguageModel, prompt: EncodedPrompt, completion: Tensor, temperature: float = 1.0
) -> Tensor:
    """Log-probability of each token of a completion, token by token from the full softmax."""
    log_probs = allowed_log_probs(model, plain_logits(model, prompt, completion), temperature)
    return torch.stack([log_probs[place, token] for place, token in enumerate(completion.tolist())])


class BiasedHead(nn.Module):
    """A language model's head that likes some tokens more."""

    def __init__(self, head: nn.Module, bias: dict[int, float]) -> None:
        super().__init__()
        self.head, self.bias = head, bias

    def forward(self, hidden: Tensor) -> Tensor:
        added = torch.zeros(VOCABULARY_SIZE, dtype=hidden.dtype, device=hidden.device)
        added[list(self.bias)] = added.new_tensor(list(self.bias.values()))
        return self.head(hidden) + added


def with_biased_head(model: VideoLanguageModel, bias: dict[int, float]) -> VideoLanguageModel:
    """The model with a head that adds something to the logits of some tokens."""
    biased = copied(model)
    biased.network.lm_head = BiasedHead(biased.network.lm_head, bias)
    return biased
