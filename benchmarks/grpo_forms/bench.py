"""One module, some questions, and the phases of a step, each of which can be run again."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from lightning import Trainer

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
from stvg_lightning.answers import Answer, id_span
from stvg_lightning.data.video import VideoSampling
from stvg_lightning.models.adapters import Lora, add_adapter
from stvg_lightning.models.flops import Work, prefill_work, shared_work
from stvg_lightning.models.forward import VideoFeatures
from stvg_lightning.models.loading import VideoLanguageModel, position_rule, wrap_model
from stvg_lightning.models.prompts import PromptEncoder
from stvg_lightning.models.tiny_architecture import SPECIAL_TOKENS
from stvg_lightning.modules.batches import make_batch
from stvg_lightning.modules.collecting import Collected, Collector
from stvg_lightning.modules.grpo import GRPO
from stvg_lightning.modules.grpo_settings import GRPOSettings
from stvg_lightning.modules.optimization import Optimization
from stvg_lightning.objectives import grpo
from stvg_lightning.prompting import Markers
from stvg_lightning.rewards import WeightedSum, reward
from stvg_lightning.rollouts.cost import clock_seconds
from stvg_lightning.rollouts.preparation import Example, Preparation
from stvg_lightning.rollouts.rollouts import Rollouts, Sampling
from stvg_lightning.tubes import Clip, Truth


class Form(Protocol):
    """What differs between the forms of a step."""

    def encode(self) -> VideoFeatures:
        """Videos through the tower for the rollout, as often as the form does it."""
        ...

    def roll_out(self, features: VideoFeatures) -> Rollouts:
        """Completions of all questions."""
        ...

    def work(self, prompt_tokens: int, patches: int) -> dict[str, Work]:
        """What goes through the model in `vision`, in `prefill`, and in each pass of `update`."""
        ...


class Attached(Trainer):
    """A trainer to which a module belongs, without a training: enough for gradients."""

    def __init__(self, module: GRPO, device: str) -> None:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        super().__init__(accelerator="gpu" if device == "cuda" else "cpu", devices=1, **quiet)
        self.strategy.connect(module)
        module.trainer = self


class Bench:
    """One case: its questions about videos of noise, its module, and its form once that is set."""

    form: Form

    def __init__(self, case: Case) -> None:
        self.case = case
        tokenizer = tokenizer_without_end(SCALES[case.scale]["text"]["vocab_size"])
        network = build_network(case, tokenizer)
        encoder = PromptEncoder(build_processor(tokenizer), position_rule(network.config))
        self.adapted = add_adapter(wrap_model(network, encoder), Lora(rank=RANK))
        if case.scale == "7b" and not case.keep_activations:
            self.adapted.recompute_activations()
        self.examples = [example_of_noise(case, encoder, number) for number in range(case.num_prompts)]
        self.batch = make_batch(self.examples, tokenizer).to(case.device)
        self.sampling = Sampling(case.completion_tokens, decoding=case.decoding)
        rewards = WeightedSum({"even": (evenness, 1.0)})
        preparation = Preparation(encoder, VideoSampling(), Markers(), id_span)
        self.collector = Collector(
            self.adapted,
            preparation,
            rewards,
            self.sampling,
            case.group_size,
            tokens_per_rollout=case.tokens_per_rollout,
        )
        settings = GRPOSettings(
            max_rollouts=1,
            group_size=case.group_size,
            micro_batch_prompts=1 if case.tokens_per_pass is None else None,
            tokens_per_pass=case.tokens_per_pass,
        )
        self.module = GRPO(self.adapted, self.collector, grpo(beta=BETA), settings, Optimization())
        Attached(self.module, case.device)
        trained = [p for p in self.adapted.adapter.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)

    @property
    def model(self) -> VideoLanguageModel:
        return self.adapted.model

    @property
    def prompt_tokens(self) -> int:
        """Of each question."""
        return int(self.batch.prompts.attention_mask[0].sum())

    @property
    def patches(self) -> int:
        """Of each question's video."""
        return len(self.batch.prompts.patches) // self.case.num_prompts

    def roll_out(self) -> tuple[dict[str, float], VideoFeatures, str]:
        """Vision, prefill and generation; what the tower made of the videos, and how completions were written."""
        with self.case.autocast():
            started = self.now()
            features = self.form.encode()
            spent = {"vision": self.now() - started}
            rollouts = self.form.roll_out(features)
        return {**spent, **rollouts.seconds}, features, rollouts.decoding

    def update(self, rollouts: Rollouts, features: VideoFeatures) -> dict[str, float]:
        """Reference, policy, the way back, and one step of AdamW."""
        started = self.now()
        rewards = torch.tensor([share_of_even_letters(text) for text in rollouts.texts], device=self.case.device)
        spent = {"reward": self.now() - started}
        of_groups = rewards.view(-1, self.case.group_size)
        collected = Collected(self.batch, features, rollouts, [], of_groups, 0, {}, {})
        portions = self.module.portions([collected])
        started = self.now()
        with self.case.autocast():
            self.module.accumulate_gradients(portions, self.module.credits(portions))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {**spent, "update": self.now() - started}

    def invented_rollouts(self) -> Rollouts:
        """Completions of random tokens: the same for every form."""
        shape = (self.case.num_rows, self.case.completion_tokens)
        generator = torch.Generator().manual_seed(1)
        token_ids = torch.randint(len(SPECIAL_TOKENS), 1024, shape, generator=generator).to(self.case.device)
        mask = torch.ones_like(token_ids, dtype=torch.bool)
        texts = [self.model.encoder.processor.tokenizer.decode(row) for row in token_ids]
        log_probs = torch.full(shape, -6.0, device=self.case.device)
        return Rollouts(token_ids, mask, log_probs, texts, ~mask[:, 0], self.case.group_size)

    def now(self) -> float:
        return clock_seconds(torch.device(self.case.device))


class SharedForm:
    """As this package does it: the tower once a video, each prompt once for its group."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def encode(self) -> VideoFeatures:
        """Each video once."""
        return self.bench.collector.encode(self.bench.batch)

    def roll_out(self, features: VideoFeatures) -> Rollouts:
        """The package's own sampler."""
        return self.bench.collector.roll_out(self.bench.batch, features)

    def work(self, prompt_tokens: int, patches: int) -> dict[str, Work]:
        """Everything once; the update takes the rollout's features."""
        case = self.bench.case
        each = {
            "vision": Work(patches=patches),
            "prefill": prefill_work(prompt_tokens),
            "update": shared_work(prompt_tokens, case.lengths),
        }
        return {phase: work.times(case.num_prompts) for phase, work in each.items()}


def example_of_noise(case: Case, encoder: PromptEncoder, number: int) -> Example:
    """A question about a video of noise."""
    shape = (2 * case.num_steps, FRAME_SIDE, FRAME_SIDE, 3)
    frames = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
    clip = Clip(frames, tuple(range(0, 4 * len(frames), 4)), 8.0)
    truth = Truth(f"noise {number}", QUESTION, 8.0, 4 * len(frames), FRAME_SIDE, FRAME_SIDE, span_frames=(0, 8))
    return Example(truth, encoder.encode(clip, QUESTION, FRAME_SIDE, FRAME_SIDE), None, {})


@reward
def evenness(answer: Answer, truth: Truth) -> float:
    """What differs from completion to completion."""
    return share_of_even_letters(answer.text)
