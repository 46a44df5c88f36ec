"""What is measured in one process, and the model that every form trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from stvg_lightning.models.decoding import Decoding
from stvg_lightning.models.loading import load_encoder
from stvg_lightning.models.tiny_architecture import SPECIAL_TOKENS

TOKENS_PER_STEP = 64
"""Tokens of one step of a video's time: 8 x 8 cells of 28 pixels."""
FRAME_SIDE = 224
QUESTION = "At what time does the thing that the sentence describes do so, and which of the numbered things is it?"
BETA, LEARNING_RATE, RANK = 0.04, 1e-5, 16
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'video') %}<|vision_start|><|{{ part['type'] }}_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SCALES: dict[str, dict[str, dict[str, Any]]] = {
    "small": {
        "text": {
            "vocab_size": 1024,
            "hidden_size": 384,
            "intermediate_size": 1024,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "mrope_section": [8, 12, 12],
        },
        "vision": {
            "depth": 4,
            "hidden_size": 320,
            "intermediate_size": 1024,
            "num_heads": 5,
            "fullatt_block_indexes": [3],
        },
    },
    "7b": {
        "text": {
            "vocab_size": 152_064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "mrope_section": [16, 24, 24],
        },
        "vision": {"depth": 32, "hidden_size": 1280},
    },
}


@dataclass(frozen=True)
class Case:
    """What is measured in one process.

    Attributes:
        form: one of those that `grpo_step.py` compares.
        prompt_tokens: about how many, most of them of video.
        num_prompts: questions of a step; each has a group.
        group_size: completions of each.
        completion_tokens: of each completion, none of which ends early.
        repeats: steps that count, after one that does not.
        device: `cpu` or `cuda`.
        scale: one of `SCALES`.
        decoding: how the shared form writes completions; see `Sampling`.
        tokens_per_rollout: of the shared form; see `GRPOSettings`.
        tokens_per_pass: of the shared form's update, likewise; None: question by question.
        keep_activations: what a way back needs is kept; otherwise, in the large model, each layer's input alone, and
            the rest is computed again.
        only_update: the memory of the update is measured, and nothing else.
    """

    form: str
    prompt_tokens: int
    num_prompts: int = 1
    group_size: int = 8
    completion_tokens: int = 128
    repeats: int = 1
    device: str = "cpu"
    scale: str = "small"
    decoding: Decoding = "auto"
    tokens_per_rollout: int | None = None
    tokens_per_pass: int | None = None
    keep_activations: bool = False
    only_update: bool = False

    @property
    def num_steps(self) -> int:
        """Of time in the video."""
        return max(1, round((self.prompt_tokens - 35) / TOKENS_PER_STEP))

    @property
    def num_rows(self) -> int:
        """Completions of all questions."""
        return self.num_prompts * self.group_size

    @property
    def lengths(self) -> list[int]:
        """Tokens of each completion of a question."""
        return [self.completion_tokens] * self.group_size

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device == "cuda" else torch.float32

    def autocast(self) -> torch.autocast:
        """As `precision: bf16-mixed` trains on a GPU; elsewhere nothing is cast."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device == "cuda")


def share_of_even_letters(text: str) -> float:
    """A reward that differs from completion to completion."""
    return sum(ord(letter) % 2 == 0 for letter in text) / max(len(text), 1)


def tokenizer_without_end(vocabulary_size: int) -> PreTrainedTokenizerFast:
    """The bundled tokenizer with an end token that the model cannot write: every completion has full length."""
    tokenizer = load_encoder("tiny").processor.tokenizer
    fillers = [f"<|filler_{number}|>" for number in range(vocabulary_size - len(tokenizer))]
    tokenizer.add_tokens(fillers)
    tokenizer.add_special_tokens({"eos_token": "<|end_beyond_the_vocabulary|>"})
    assert tokenizer.eos_token_id == vocabulary_size, (tokenizer.eos_token_id, vocabulary_size)
    return tokenizer


def build_network(case: Case, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    """Random weights; the same for the same scale."""
    ids = dict(zip(SPECIAL_TOKENS, tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)), strict=True))
    text, vision = (dict(SCALES[case.scale][part]) for part in ("text", "vision"))
    section = text.pop("mrope_section")
    config = Qwen2_5_VLConfig(
        text_config={
            **text,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": section},
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={**vision, "out_hidden_size": text["hidden_size"], "tokens_per_second": 2},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(case.dtype)
    with torch.device(case.device):
        network = Qwen2_5_VLForConditionalGeneration(config).eval()
    torch.set_default_dtype(before)
    return network


def build_processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    area = FRAME_SIDE * FRAME_SIDE
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size={"shortest_edge": area, "longest_edge": area}),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )
