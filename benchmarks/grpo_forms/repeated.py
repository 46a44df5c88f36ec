"""The same step with each prompt repeated for each of its completions, as released trainers do it.

With `runs_tower` every copy of a prompt takes its own copy of the video through the tower, in the rollout and again in
the pass of the reference and in that of the policy. Without it the tower runs once a video, as in the shared form, and
the text alone is repeated. In both the tower attends to frames in batches, as the shared form's does.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from types import MethodType

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from grpo_forms.bench import Bench
from stvg_lightning.models.flops import Work, prefill_work, repeated_work
from stvg_lightning.models.forward import (
    VideoFeatures,
    completion_states,
    encode_videos,
    evaluation_mode,
    language_states,
)
from stvg_lightning.models.group_forward import GroupPart
from stvg_lightning.models.head import next_token_log_probs
from stvg_lightning.models.positions import continued_position_ids
from stvg_lightning.models.prompts import PromptBatch, collate_prompts
from stvg_lightning.modules.collecting import Portion
from stvg_lightning.modules.grpo import GRPO
from stvg_lightning.rollouts.rollouts import Rollouts


class RepeatedForm:
    """A row for each completion, with a copy of its prompt."""

    def __init__(self, bench: Bench, runs_tower: bool) -> None:
        self.bench, self.runs_tower = bench, runs_tower
        self.of_question = [self._repeated([question]) for question in range(bench.case.num_prompts)]
        self.prompts = self.of_question[0]
        if bench.case.num_prompts > 1:
            self.prompts = self._repeated(range(bench.case.num_prompts))
        bench.module.policy_states = MethodType(self.policy_states, bench.module)
        bench.module.policy_parts = MethodType(self.policy_parts, bench.module)

    @torch.no_grad()
    def encode(self) -> VideoFeatures:
        """For the rollout: each video once for each row, or once."""
        if self.runs_tower:
            return encode_videos(self.bench.model.network, self.prompts)
        return self.bench.collector.encode(self.bench.batch)

    @torch.no_grad()
    def roll_out(self, features: VideoFeatures) -> Rollouts:
        """Every row is read, and keeps a cache of its own."""
        bench, network, prompts = self.bench, self.bench.model.network, self.prompts
        cache = DynamicCache(config=network.config.get_text_config())
        given = {cache_key(network): cache, "use_cache": True}
        features = features if self.runs_tower else features.repeated(bench.case.group_size)
        written: list[Tensor] = []
        with evaluation_mode(network):
            started = bench.now()
            hidden = language_states(network, prompts.input_ids, prompts.position_ids, features, **given)[:, -1]
            prefill_seconds = bench.now() - started
            for step in range(bench.case.completion_tokens):
                log_probs = next_token_log_probs(network, hidden)
                written.append(torch.multinomial(log_probs.exp(), 1)[:, 0])
                if step + 1 < bench.case.completion_tokens:
                    place = continued_position_ids(prompts.position_ids, 1, start=step)
                    hidden = language_states(network, written[-1][:, None], place, **given)[:, -1]
        spent = {"prefill": prefill_seconds, "generate": bench.now() - started - prefill_seconds}
        token_ids = torch.stack(written, 1)
        return replace(bench.invented_rollouts(), token_ids=token_ids, seconds=spent, decoding="transformers' cache")

    def work(self, prompt_tokens: int, patches: int) -> dict[str, Work]:
        """Everything once for each row, but for a tower that runs once."""
        case = self.bench.case
        of_pass = patches if self.runs_tower else 0
        each = {
            "vision": Work(patches=patches).times(case.group_size if self.runs_tower else 1),
            "prefill": prefill_work(prompt_tokens).times(case.group_size),
            "update": repeated_work(prompt_tokens, case.lengths, of_pass),
        }
        return {phase: work.times(case.num_prompts) for phase, work in each.items()}

    def policy_states(self, module: GRPO, portion: Portion) -> Tensor:
        """In place of the module's own: the states of all rows of a question, for reference and policy."""
        network, prompts = module.adapted.model.network, self.of_question[portion.questions.start]
        if self.runs_tower:
            features = encode_videos(network, prompts)
        else:
            features = portion.features.repeated(self.bench.case.group_size)
        return completion_states(network, prompts, portion.rollouts.completions, features)

    def policy_parts(self, module: GRPO, portion: Portion) -> list[GroupPart]:
        """The same for what is learned from: all rows in one pass."""
        states = self.policy_states(module, portion)
        return [GroupPart(slice(0, len(portion.rollouts.mask)), states, is_last=True)]

    def _repeated(self, questions: range | list[int]) -> PromptBatch:
        """A copy of each question's prompt and video for each of its completions."""
        size, examples = self.bench.case.group_size, self.bench.examples
        copies = [examples[question].prompt for question in questions for _ in range(size)]
        return collate_prompts(copies, self.bench.model.pad_token_id).to(self.bench.case.device)


def cache_key(network: PreTrainedModel) -> str:
    """What transformers calls a pass's cache: `cache` from 5.24 on, `past_key_values` before."""
    return "cache" if "cache" in inspect.signature(network.model.forward).parameters else "past_key_values"
