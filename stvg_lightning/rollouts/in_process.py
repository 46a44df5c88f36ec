"""The in-process sampler: each prompt is read once, and its group decodes from one shared cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import compress

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stvg_lightning.models.decoding import Decoder, decoder_of, decoding_of
from stvg_lightning.models.decoding_prompts import prompts_in_tables
from stvg_lightning.models.forward import VideoFeatures, evaluation_mode
from stvg_lightning.models.group_forward import prefill
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.models.lora_siblings import adapters_held
from stvg_lightning.models.prompts import PromptBatch
from stvg_lightning.rollouts.choosing import Chooser, Groups, chooser_of
from stvg_lightning.rollouts.cost import Phase, clock_seconds
from stvg_lightning.rollouts.rollouts import Rollouts, Sampling, is_end, joined, written_mask


@dataclass(frozen=True)
class InProcessSampler:
    """Samples with the model that is being trained, as it is at that moment.

    Attributes:
        model: the model.
        most_tokens: at most so many tokens, of prompts, each as long as the longest beside it, and of completions at
            their longest, are held at once, at least one group; None: all prompts of a batch.
    """

    model: VideoLanguageModel
    most_tokens: int | None = None

    def sample(
        self,
        prompts: PromptBatch,
        features: VideoFeatures,
        group_size: int,
        sampling: Sampling,
        prompt_seeds: Sequence[int],
    ) -> Rollouts:
        """Sample a group of completions for every prompt.

        Args:
            prompts: a batch of prompts.
            features: their videos, once through the tower.
            group_size: completions a prompt.
            sampling: length and temperature.
            prompt_seeds: one seed a prompt: the same prompt, seed and weights give the same group,
                in whatever batch and on whatever process it is sampled.
        """
        lengths = prompts.attention_mask.sum(dim=1).tolist()
        parts = prompts_in_tables(lengths, [group_size * sampling.max_new_tokens] * len(lengths), self.most_tokens)
        return joined(
            [
                self._sample(prompts.select(part), features.select(part), group_size, sampling, prompt_seeds[part])
                for part in parts
            ],
            self.model.pad_token_id,
        )

    def _sample(
        self,
        prompts: PromptBatch,
        features: VideoFeatures,
        group_size: int,
        sampling: Sampling,
        prompt_seeds: Sequence[int],
    ) -> Rollouts:
        network = self.model.network
        device = prompts.input_ids.device
        chooser = chooser_of(Groups(network, sampling.temperature, prompt_seeds, group_size), device)
        decoding = decoding_of(sampling.decoding, network)
        reading = Phase(device)
        # In training mode layers whose activations are recomputed refuse the cache.
        with torch.no_grad(), evaluation_mode(network), adapters_held(network):
            read = prefill(network, prompts, features, group_size)
            reading.end()
            last_positions = prompts.position_ids[:, :, -1].repeat_interleave(group_size, dim=1)
            must_record = sampling.decoding == "graphs"
            most_tokens = sampling.max_new_tokens - 1
            decoder = decoder_of(decoding, network, read.prompts, last_positions, most_tokens, must_record)
            hidden = read.last_hidden.repeat_interleave(group_size, dim=0)
            token_ids, log_probs, finished = self._decode(hidden, decoder, chooser, sampling.max_new_tokens)
        rollouts = self._rollouts(token_ids, log_probs, ~finished, group_size)
        spent = clock_seconds(device) - reading.started
        seconds = {"prefill": reading.seconds, "generate": spent - reading.seconds}
        return replace(rollouts, seconds=seconds, decoding=decoder.decoding)

    def _decode(
        self, hidden: Float[Tensor, "rows width"], decoder: Decoder, chooser: Chooser, max_new_tokens: int
    ) -> tuple[Int[Tensor, "rows tokens"], Float[Tensor, "rows tokens"], Bool[Tensor, " rows"]]:
        """Token after token of every completion: their ids, their log-probabilities, and which have ended.

        A completion that has ended leaves the batch; where the next token is read ahead, its last one is read as well.
        """
        num_rows = len(hidden)
        shape = (num_rows, max_new_tokens)
        token_ids = torch.full(shape, self.model.pad_token_id, device=hidden.device)
        log_probs = torch.zeros(shape, device=hidden.device)
        writing, is_ahead = torch.arange(num_rows, device=hidden.device), reads_ahead(hidden.device)
        for step in range(max_new_tokens):
            chosen, chosen_log_probs = chooser.choose(hidden, writing, step)
            token_ids[writing, step], log_probs[writing, step] = chosen, chosen_log_probs
            goes_on = ~is_end(chosen, self.model.end_token_ids)
            do_all_go_on = told_later(goes_on.all())
            is_last = step + 1 == max_new_tokens
            if is_ahead and not is_last:
                hidden = decoder.read(chosen)
            if not do_all_go_on():
                writing = writing[goes_on]
                if is_last or not len(writing):
                    break
                decoder.keep(goes_on)
                chosen, hidden = chosen[goes_on], hidden[goes_on]
            if not is_ahead and not is_last:
                hidden = decoder.read(chosen)
        finished = torch.ones(num_rows, dtype=torch.bool, device=hidden.device).index_fill(0, writing, False)
        return token_ids[:, : step + 1], log_probs[:, : step + 1], finished

    def _rollouts(
        self, token_ids: Int[Tensor, "rows tokens"], log_probs: Tensor, truncated: Tensor, group_size: int
    ) -> Rollouts:
        # The padding token of some families is also an end token: the mask asks for the first end only.
        mask = written_mask(token_ids, self.model.end_token_ids)
        tokenizer = self.model.encoder.processor.tokenizer
        written = zip(token_ids.tolist(), mask.tolist(), strict=True)  # from a GPU all at once
        texts = [tokenizer.decode(list(compress(*row)), skip_special_tokens=True) for row in written]
        return Rollouts(token_ids, mask, log_probs * mask, texts, truncated, group_size)


def reads_ahead(device: torch.device) -> bool:
    """Whether the next token is read before it is asked who has ended: a GPU would have nothing to do until then."""
    return device.type == "cuda"


def told_later(flag: Bool[Tensor, ""]) -> Callable[[], bool]:
    """What a flag says, to be asked for after a GPU was given more to do: none of that is waited for."""
    if flag.device.type != "cuda":
        return lambda: bool(flag)
    told = torch.empty_like(flag, device="cpu", pin_memory=True).copy_(flag, non_blocking=True)
    copied = torch.cuda.current_stream(flag.device).record_event()

    def answer() -> bool:
        copied.synchronize()
        return bool(told)

    return answer
