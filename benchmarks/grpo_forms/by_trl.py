"""The same step by TRL's own trainer."""

from __future__ import annotations

from time import process_time
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from grpo_forms.case import (
    BETA,
    FRAME_SIDE,
    LEARNING_RATE,
    QUESTION,
    RANK,
    SCALES,
    Case,
    build_network,
    build_processor,
    share_of_even_letters,
    tokenizer_without_end,
)
from grpo_forms.measuring import memory_mib
from stvg_lightning.models.adapters import LANGUAGE_LAYERS
from stvg_lightning.rollouts.cost import clock_seconds


def measure_trl(case: Case, folder: str = "runs/benchmark_trl") -> dict[str, Any]:
    """Seconds and memory of TRL's steps on as many images as the video has steps of time."""
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import GRPOTrainer

    tokenizer = tokenizer_without_end(SCALES[case.scale]["text"]["vocab_size"])
    network = build_network(case, tokenizer)
    processor = build_processor(tokenizer)
    seconds: list[dict[str, float]] = []

    def now() -> float:
        return clock_seconds(torch.device(case.device))

    class Clock(TrainerCallback):
        """Seconds of whole steps."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            seconds.append({"step": -now(), "cpu_step": -process_time()})

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds[-1]["step"] += now()
            seconds[-1]["cpu_step"] += process_time()

    trainer = GRPOTrainer(
        model=network,
        reward_funcs=lambda completions, **_: [share_of_even_letters(each[0]["content"]) for each in completions],
        args=settings_of(case, network, folder),
        train_dataset=questions_of(case),
        processing_class=processor,
        peft_config=LoraConfig(r=RANK, lora_alpha=32, target_modules=LANGUAGE_LAYERS),
        callbacks=[Clock()],
    )
    sizes: list[tuple[int, int]] = []
    generate = trainer._generate_and_score_completions

    def timed(inputs: Any) -> Any:
        started, used = now(), process_time()
        made = generate(inputs)
        seconds[-1] |= {"rollout": now() - started, "cpu_rollout": process_time() - used}
        sizes.append((int(made["completion_mask"].sum()), made["prompt_ids"].shape[1]))
        return made

    trainer._generate_and_score_completions = timed
    trainer.train()
    written, prompt_tokens = sizes[0]
    if written != case.num_rows * case.completion_tokens:
        raise ValueError(f"TRL wrote {written} tokens, not {case.num_rows} x {case.completion_tokens}")
    for each in seconds:
        each |= {f"{kind}update": each[f"{kind}step"] - each[f"{kind}rollout"] for kind in ("", "cpu_")}
    return {"prompt_tokens": prompt_tokens, "runs": seconds[1:], "peak_mib": memory_mib(case.device)}


def settings_of(case: Case, network: PreTrainedModel, folder: str) -> Any:
    """TRL's settings for the same step."""
    from trl import GRPOConfig

    config = network.config
    media = [config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id]
    return GRPOConfig(
        output_dir=folder,
        use_cpu=case.device == "cpu",
        bf16=case.device == "cuda",
        gradient_checkpointing=case.scale == "7b" and not case.keep_activations,
        report_to="none",
        save_strategy="no",
        per_device_train_batch_size=case.group_size,
        gradient_accumulation_steps=case.num_prompts,
        num_generations=case.group_size,
        max_completion_length=case.completion_tokens,
        generation_kwargs={"suppress_tokens": media},
        beta=BETA,
        loss_type="grpo",
        learning_rate=LEARNING_RATE,
        max_steps=case.repeats + 1,
        disable_tqdm=True,
        logging_strategy="no",
        dataloader_pin_memory=False,
    )


def questions_of(case: Case) -> Any:
    """The questions of all steps, each about single images of noise."""
    from datasets import Dataset

    generator = np.random.default_rng(0)
    images = [
        Image.fromarray(generator.integers(0, 256, (FRAME_SIDE, FRAME_SIDE, 3), np.uint8))
        for _ in range(case.num_steps)
    ]
    row = {"prompt": [{"role": "user", "content": QUESTION}], "images": images}
    return Dataset.from_list([row] * ((case.repeats + 1) * case.num_prompts))
