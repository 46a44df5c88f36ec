"""One GRPO step three ways: the prompt shared by its group, the prompt repeated, and TRL's GRPOTrainer.

    python benchmarks/grpo_step.py --json                                the whole comparison on this machine's CPU
    python benchmarks/grpo_step.py --json --trl-python venv_trl/bin/python   with TRL from an environment of its own
    python benchmarks/grpo_step.py --json --device cuda --scale 7b       Qwen2.5-VL-7B's shape on a GPU, in bfloat16

A Qwen2.5-VL with random weights and a LoRA adapter answers one question about a video of noise: 8 completions of 128
tokens, none of which ends early, one update with a divergence from the reference (beta 0.04). All three run the same
weights in the same precision and reward the same. TRL trains on no video: it is shown as many frames as the video has
steps of time, as single images of the same size, which makes as many visual tokens and patches. The repeated form
runs the tower once and attends to frames in batches, as the shared form does; TRL runs it as it does by itself.

Each variant and size has a process of its own; memory is measured in further ones, where freed memory goes back at
once. `pip install stvg-lightning[benchmark]` brings TRL.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, process_time
from types import MethodType
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from PIL import Image
from torch import Tensor
from transformers import (
    DynamicCache,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from stvg_lightning.answers import id_span
from stvg_lightning.data.video import VideoSampling
from stvg_lightning.models.adapters import LANGUAGE_LAYERS, Lora, add_adapter
from stvg_lightning.models.flops import (
    Work,
    measured_flops_per_second,
    prefill_work,
    repeated_work,
    shape_of,
    shared_work,
)
from stvg_lightning.models.forward import (
    VideoFeatures,
    completion_states,
    evaluation_mode,
    language_states,
    next_token_log_probs,
)
from stvg_lightning.models.group_forward import GroupPart
from stvg_lightning.models.loading import VideoLanguageModel, load_encoder, position_rule, wrap_model
from stvg_lightning.models.positions import continued_position_ids
from stvg_lightning.models.prompts import PromptEncoder
from stvg_lightning.models.tiny_architecture import SPECIAL_TOKENS
from stvg_lightning.modules.batches import make_batch
from stvg_lightning.modules.collecting import Collected, Collector, Portion
from stvg_lightning.modules.grpo import GRPO
from stvg_lightning.modules.grpo_settings import GRPOSettings
from stvg_lightning.modules.optimization import Optimization
from stvg_lightning.objectives import grpo
from stvg_lightning.prompting import Markers
from stvg_lightning.rewards import WeightedSum
from stvg_lightning.rollouts.preparation import Example, Preparation
from stvg_lightning.rollouts.rollouts import Rollouts, Sampling
from stvg_lightning.tubes import Clip, Truth

VARIANTS = ("shared", "repeated", "trl")
PROMPT_TOKENS = (500, 1500, 4000)
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
    """What is measured in one process."""

    variant: str
    prompt_tokens: int
    group_size: int
    completion_tokens: int
    repeats: int
    device: str
    scale: str
    only_update: bool

    @property
    def num_steps(self) -> int:
        return max(1, round((self.prompt_tokens - 35) / TOKENS_PER_STEP))

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device == "cuda" else torch.float32


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


class Attached(Trainer):
    """A trainer to which a module belongs, without a training: enough for gradients."""

    def __init__(self, module: GRPO, device: str) -> None:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        super().__init__(accelerator="gpu" if device == "cuda" else "cpu", devices=1, **quiet)
        self.strategy.connect(module)
        module.trainer = self


class Bench:
    """One question, a module, and the phases of a step; each phase can be run again."""

    def __init__(self, case: Case) -> None:
        self.case = case
        tokenizer = tokenizer_without_end(SCALES[case.scale]["text"]["vocab_size"])
        network = build_network(case, tokenizer)
        encoder = PromptEncoder(build_processor(tokenizer), position_rule(network.config))
        self.adapted = add_adapter(wrap_model(network, encoder), Lora(rank=RANK))
        if case.scale == "7b":
            self.adapted.recompute_activations()
        frames = np.random.default_rng(0).integers(0, 256, (2 * case.num_steps, FRAME_SIDE, FRAME_SIDE, 3), np.uint8)
        clip = Clip(frames, tuple(range(0, 4 * len(frames), 4)), 8.0)
        truth = Truth("noise", QUESTION, 8.0, 4 * len(frames), FRAME_SIDE, FRAME_SIDE, span_frames=(0, 8))
        prompt = encoder.encode(clip, QUESTION, FRAME_SIDE, FRAME_SIDE)
        self.batch = make_batch([Example(truth, prompt, None, {})], tokenizer).to(case.device)
        self.sampling = Sampling(case.completion_tokens)
        rewards = WeightedSum({"even": (_even, 1.0)})
        preparation = Preparation(encoder, VideoSampling(), Markers(), id_span)
        self.collector = Collector(self.adapted, preparation, rewards, self.sampling, case.group_size)
        settings = GRPOSettings(max_rollouts=1, group_size=case.group_size)
        self.module = GRPO(self.adapted, self.collector, grpo(beta=BETA), settings, Optimization())
        Attached(self.module, case.device)
        if case.variant == "repeated":
            self.module.policy_states = MethodType(repeated_states, self.module)
            self.module.policy_parts = MethodType(repeated_parts, self.module)
        trained = [p for p in self.adapted.adapter.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)

    @property
    def model(self) -> VideoLanguageModel:
        return self.adapted.model

    def roll_out(self) -> tuple[dict[str, float], VideoFeatures]:
        """Vision, prefill and generation, and what the tower made of the video."""
        started = self.now()
        features = self.collector.encode(self.batch)
        spent = {"vision": self.now() - started}
        if self.case.variant == "repeated":
            rollouts = repeated_rollout(self, features)
        else:
            rollouts = self.collector.roll_out(self.batch, features)
        return {**spent, **rollouts.seconds}, features

    def update(self, rollouts: Rollouts, features: VideoFeatures) -> dict[str, float]:
        """Reference, policy, the way back, and one step of AdamW."""
        started = self.now()
        rewards = torch.tensor([[share_of_even_letters(text) for text in rollouts.texts]], device=self.case.device)
        spent = {"reward": self.now() - started}
        collected = Collected(self.batch, features, rollouts, [], rewards, 0, {}, {})
        portions = [Portion(collected, slice(0, 1))]
        started = self.now()
        self.module.accumulate_gradients(portions, self.module.credits(portions))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {**spent, "update": self.now() - started}

    def invented_rollouts(self) -> Rollouts:
        """Completions of random tokens: the same for every variant."""
        shape = (self.case.group_size, self.case.completion_tokens)
        generator = torch.Generator().manual_seed(1)
        token_ids = torch.randint(len(SPECIAL_TOKENS), 1024, shape, generator=generator).to(self.case.device)
        mask = torch.ones_like(token_ids, dtype=torch.bool)
        texts = [self.model.encoder.processor.tokenizer.decode(row) for row in token_ids]
        log_probs = torch.full(shape, -6.0, device=self.case.device)
        return Rollouts(token_ids, mask, log_probs, texts, ~mask[:, 0], self.case.group_size)

    def now(self) -> float:
        if self.case.device == "cuda":
            torch.cuda.synchronize()
        return perf_counter()


def _even(answers: Any, truth: Truth) -> float:
    return share_of_even_letters(answers.text)


def repeated_states(module: GRPO, portion: Portion) -> Tensor:
    """In place of the module's own: each prompt repeated for each of its completions."""
    network = module.adapted.model.network
    return completion_states(network, portion.batch.prompts, portion.rollouts.completions, portion.features)


def repeated_parts(module: GRPO, portion: Portion) -> list[GroupPart]:
    """The same for what is learned from: all rows in one pass."""
    return [GroupPart(slice(0, len(portion.rollouts.mask)), repeated_states(module, portion), is_last=True)]


@torch.no_grad()
def repeated_rollout(bench: Bench, features: VideoFeatures) -> Rollouts:
    """As a trainer does that repeats its rows before it generates: every row is read, and keeps a cache of its own."""
    network, prompts, size = bench.model.network, bench.batch.prompts, bench.case.group_size
    cache = DynamicCache(config=network.config.get_text_config())
    positions = prompts.position_ids.repeat_interleave(size, dim=1)
    rows = prompts.input_ids.repeat_interleave(size, dim=0)
    given = {"past_key_values": cache, "use_cache": True}
    written: list[Tensor] = []
    with evaluation_mode(network):
        started = bench.now()
        hidden = language_states(network, rows, positions, features.repeated(size), **given)[:, -1]
        prefill_seconds = bench.now() - started
        for step in range(bench.case.completion_tokens):
            log_probs = next_token_log_probs(network, hidden)
            written.append(torch.multinomial(log_probs.exp(), 1)[:, 0])
            if step + 1 < bench.case.completion_tokens:
                place = continued_position_ids(positions, 1, start=step)
                hidden = language_states(network, written[-1][:, None], place, **given)[:, -1]
    spent = {"prefill": prefill_seconds, "generate": bench.now() - started - prefill_seconds}
    return replace(bench.invented_rollouts(), token_ids=torch.stack(written, 1), seconds=spent)


def measure(case: Case) -> dict[str, Any]:
    """Seconds of each phase, after a step that does not count; or the memory of the update."""
    bench = Bench(case)
    found: dict[str, Any] = {"prompt_tokens": int(bench.batch.prompts.attention_mask.sum())}
    if case.only_update:
        rollouts = bench.invented_rollouts()
        features = bench.collector.encode(bench.batch)  # made before, as in a step
        bench.update(rollouts, features)  # what libraries hold for good from their first use on is no part of it
        held = memory_mib(case.device, begin=True)
        bench.update(rollouts, features)
        return {**found, "held_mib": held, "peak_mib": memory_mib(case.device)}
    for _ in range(case.repeats + 1):
        used = process_time()
        spent, features = bench.roll_out()
        rollout_used = process_time() - used
        spent |= bench.update(bench.invented_rollouts(), features)
        phases = {"step": sum(spent.values()), "rollout": sum(spent.values()) - spent["update"], **spent}
        used = process_time() - used
        phases |= {"cpu_step": used, "cpu_rollout": rollout_used, "cpu_update": used - rollout_used}
        found.setdefault("runs", []).append(phases)
    del found["runs"][0]
    found["flops"] = flops_of(bench, found["prompt_tokens"])
    found["matrix_flops_per_second"] = measured_flops_per_second(case.device, case.dtype)
    return found


def flops_of(bench: Bench, prompt_tokens: int) -> dict[str, float]:
    """Arithmetic of each phase, as this variant does it."""
    case, shape = bench.case, shape_of(bench.model.network)
    lengths = [case.completion_tokens] * case.group_size
    shared = case.variant == "shared"
    update = (shared_work if shared else repeated_work)(prompt_tokens, lengths)
    prefill = prefill_work(prompt_tokens)
    prefill = prefill if shared else Work(*(count * case.group_size for count in vars(prefill).values()))
    group = shared_work(prompt_tokens, lengths)
    prompt = prefill_work(prompt_tokens)
    generated = Work(group.tokens - prompt.tokens, group.pairs - prompt.pairs, group.scored)
    found = {
        "prefill": prefill.forward_flops(shape),
        "generate": generated.forward_flops(shape),
        "update": update.forward_flops(shape) + update.training_flops(shape),
    }
    return {**found, "step": sum(found.values())}


def memory_mib(device: str, begin: bool = False) -> float:
    """The most memory held since the last beginning; at a beginning, what is held then."""
    if device == "cuda":
        if begin:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 2**20
    if begin:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak counts from here
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**10


def measure_trl(case: Case, folder: str = "runs/benchmark_trl") -> dict[str, Any]:
    """TRL's own trainer on as many images as the video has steps of time."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = tokenizer_without_end(SCALES[case.scale]["text"]["vocab_size"])
    network = build_network(case, tokenizer)
    processor = build_processor(tokenizer)
    generator = np.random.default_rng(0)
    images = [
        Image.fromarray(generator.integers(0, 256, (FRAME_SIDE, FRAME_SIDE, 3), np.uint8))
        for _ in range(case.num_steps)
    ]
    row = {"prompt": [{"role": "user", "content": QUESTION}], "images": images}
    media = [network.config.image_token_id, network.config.video_token_id]
    media += [network.config.vision_start_token_id, network.config.vision_end_token_id]
    settings = GRPOConfig(
        output_dir=folder,
        use_cpu=case.device == "cpu",
        bf16=case.device == "cuda",
        gradient_checkpointing=case.scale == "7b",
        report_to="none",
        save_strategy="no",
        per_device_train_batch_size=case.group_size,
        gradient_accumulation_steps=1,
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
    seconds: list[dict[str, float]] = []

    class Clock(TrainerCallback):
        """Seconds of whole steps."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            seconds.append({"step": -perf_counter(), "cpu_step": -process_time()})

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds[-1]["step"] += perf_counter()
            seconds[-1]["cpu_step"] += process_time()

    trainer = GRPOTrainer(
        model=network,
        reward_funcs=lambda completions, **_: [share_of_even_letters(each[0]["content"]) for each in completions],
        args=settings,
        train_dataset=Dataset.from_list([row] * (case.repeats + 1)),
        processing_class=processor,
        peft_config=LoraConfig(r=RANK, lora_alpha=32, target_modules=LANGUAGE_LAYERS),
        callbacks=[Clock()],
    )
    lengths: list[int] = []
    generate = trainer._generate_and_score_completions

    def timed(inputs: Any) -> Any:
        started, used = perf_counter(), process_time()
        made = generate(inputs)
        seconds[-1] |= {"rollout": perf_counter() - started, "cpu_rollout": process_time() - used}
        lengths.append(int(made["completion_mask"].sum()))
        lengths.append(made["prompt_ids"].shape[1])
        return made

    trainer._generate_and_score_completions = timed
    trainer.train()
    if lengths[0] != case.group_size * case.completion_tokens:
        raise ValueError(f"TRL wrote {lengths[0]} tokens, not {case.group_size} x {case.completion_tokens}")
    for each in seconds:
        each |= {f"{kind}update": each[f"{kind}step"] - each[f"{kind}rollout"] for kind in ("", "cpu_")}
    return {"prompt_tokens": lengths[1], "runs": seconds[1:]}


def run_case(case: Case, python: str) -> dict[str, Any]:
    """A case in a process of its own."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in vars(case).items() if name != "only_update"]
    command = [python, __file__, *options, *(["--only-update"] if case.only_update else [])]
    environment = dict(os.environ)
    if case.only_update:  # what is freed goes back to the system at once, so that the peak is what is needed
        environment |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit status {done.returncode}"
        return {"failed": last}
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(cases: Callable[..., Case], sizes: list[int], rounds: int, trl_python: str) -> list[dict[str, Any]]:
    """All variants at all sizes, and the ratios between them."""
    rows = []
    for size in sizes:
        row: dict[str, Any] = {"wanted_prompt_tokens": size}
        for _ in range(rounds):  # in turn, so that what else the machine does falls on all of them
            for variant in VARIANTS:
                found = run_case(cases(variant, size, False), trl_python if variant == "trl" else sys.executable)
                row.setdefault(variant, found)
                if row[variant] is not found:
                    row[variant].setdefault("runs", []).extend(found.get("runs", []))
        for variant in VARIANTS:
            runs = row[variant].get("runs")
            if runs:
                row[variant]["seconds"] = {name: statistics.median(each[name] for each in runs) for name in runs[0]}
        for variant in ("shared", "repeated"):
            row[variant]["memory"] = run_case(cases(variant, size, True), sys.executable)
        rows.append({**row, "ratios": ratios_of(row)})
        print(json.dumps(rows[-1]["ratios"]), file=sys.stderr)
    return rows


def ratios_of(row: dict[str, Any]) -> dict[str, float]:
    """How many times faster and smaller the shared form is, and how near to plain products of matrices.

    `cpu_...` are ratios of the processes' own CPU time, which another process on the machine does not lengthen.
    """
    shared, repeated = row["shared"], row["repeated"]
    found: dict[str, float] = {}
    for phase in ("prefill", "update"):
        found[f"{phase}_speed_up"] = repeated["seconds"][phase] / shared["seconds"][phase]
        found[f"{phase}_flops_ratio"] = repeated["flops"][phase] / shared["flops"][phase]
        found[f"{phase}_share_of_flops_ratio"] = found[f"{phase}_speed_up"] / found[f"{phase}_flops_ratio"]
        floor = shared["flops"][phase] / shared["matrix_flops_per_second"]
        found[f"{phase}_seconds_over_matrix_products"] = shared["seconds"][phase] / floor
    for phase in ("generate", "step", "cpu_update", "cpu_rollout", "cpu_step"):
        found[f"{phase}_speed_up"] = repeated["seconds"][phase] / shared["seconds"][phase]
    needs = [each["memory"]["peak_mib"] - each["memory"]["held_mib"] for each in (shared, repeated)]
    found["update_memory_share"] = needs[0] / needs[1]
    if "seconds" in row["trl"]:
        for phase in ("rollout", "update", "step", "cpu_step"):
            found[f"{phase}_speed_up_over_trl"] = row["trl"]["seconds"][phase] / shared["seconds"][phase]
    return {name: round(value, 3) for name, value in found.items()}


def main() -> None:
    """Measure one case, or compare them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=VARIANTS, help="measure this one alone")
    parser.add_argument("--prompt-tokens", type=int, nargs="+", default=list(PROMPT_TOKENS))
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--completion-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=1, help="steps that count in each process (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each variant, in turn (default: 3)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--scale", choices=tuple(SCALES), default="small")
    parser.add_argument("--only-update", action="store_true", help="measure the update's memory alone")
    parser.add_argument("--trl-python", help="a Python that has TRL; by default this one, if it has")
    parser.add_argument("--json", action="store_true", help="print all figures instead of the ratios")
    options = parser.parse_args()
    common = {
        name: getattr(options, name) for name in ("group_size", "completion_tokens", "repeats", "device", "scale")
    }

    def case_of(variant: str, size: int, only_update: bool) -> Case:
        return Case(variant=variant, prompt_tokens=size, only_update=only_update, **common)

    if options.variant:
        case = case_of(options.variant, options.prompt_tokens[0], options.only_update)
        print(json.dumps(measure_trl(case) if case.variant == "trl" else measure(case)))
        return
    rows = compare(case_of, options.prompt_tokens, options.rounds, options.trl_python or sys.executable)
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    report = {**common, "device": device, "torch": torch.__version__, "sizes": rows}
    print(
        json.dumps(report if options.json else {row["wanted_prompt_tokens"]: row["ratios"] for row in rows}, indent=2)
    )


if __name__ == "__main__":
    main()
