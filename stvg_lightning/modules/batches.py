"""Batches of grounding examples: what the SFT and GRPO modules train on."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from stvg_lightning.models.forward import Completions
from stvg_lightning.models.prompts import PromptBatch, Tokenizer, collate_prompts
from stvg_lightning.rollouts.preparation import Example
from stvg_lightning.tubes import Truth


@dataclass(frozen=True)
class GroundingBatch:
    """Questions as a model reads them, with their truths and gold answers (None unless every truth has one).

    `number` counts the batches of a process from 0, `epoch` the passes over the shards, whose first batch was number
    `epoch_start`; all are the same however often the training was interrupted. `decode_seconds` is how long the
    training waited for it: what of decoding its videos was not done ahead. `encoded_videos` are files or their paths,
    for a model that reads frames of its own.
    """

    prompts: PromptBatch
    gold: Completions | None
    truths: tuple[Truth, ...]
    marked_seconds: tuple[Mapping[int, tuple[float, ...]], ...]
    encoded_videos: tuple[bytes | Path, ...] | None = None
    number: int = 0
    epoch: int = 0
    decode_seconds: float = 0.0
    epoch_start: int = 0

    def __len__(self) -> int:
        return len(self.truths)

    @property
    def gold_answers(self) -> Completions:
        """The gold answers.

        Raises:
            ValueError: a truth of the batch does not hold its answer.
        """
        if self.gold is None:
            raise ValueError(f"gold answers are needed, but one of {[truth.id for truth in self.truths]} has none")
        return self.gold

    @property
    def videos(self) -> tuple[bytes | Path, ...]:
        """The encoded videos, of a preparation that keeps them."""
        assert self.encoded_videos is not None, "the preparation must keep videos"
        return self.encoded_videos

    def to(self, device: torch.device | str) -> GroundingBatch:
        """The same batch with every tensor on a device."""
        return replace(self, prompts=self.prompts.to(device), gold=self.gold and self.gold.to(device))

    def select(self, questions: slice) -> GroundingBatch:
        """Some neighbouring questions of the batch."""
        gold = self.gold
        if gold is not None:
            longest = int(gold.mask[questions].sum(dim=1).max())
            gold = Completions(gold.token_ids[questions, :longest], gold.mask[questions, :longest])
        return GroundingBatch(
            self.prompts.select(questions),
            gold,
            self.truths[questions],
            self.marked_seconds[questions],
            None if self.encoded_videos is None else self.encoded_videos[questions],
            self.number,
            self.epoch,
            epoch_start=self.epoch_start,
        )

    def sampling_seeds(self, seed: int) -> list[int]:
        """One seed a question, from its id and the epoch: sampling depends on nothing else."""
        return [zlib.crc32(f"{seed}:{self.epoch}:{truth.id}".encode()) for truth in self.truths]

    def micro_batches(self, size: int | None) -> list[slice]:
        """Slices of at most `size` neighbouring questions; one of all where size is None."""
        size = size or len(self)
        return [slice(first, min(first + size, len(self))) for first in range(0, len(self), size)]


def make_batch(examples: Sequence[Example], tokenizer: Tokenizer) -> GroundingBatch:
    """Collate prepared examples: prompts padded on the left, gold answers on the right, ended by the end token."""
    golds = [example.gold for example in examples if example.gold is not None]
    videos = tuple(example.video for example in examples if example.video is not None)
    gold_ids = [tokenizer(gold)["input_ids"] + [tokenizer.eos_token_id] for gold in golds]
    return GroundingBatch(
        collate_prompts([example.prompt for example in examples], tokenizer.pad_token_id),
        pad_completions(gold_ids, tokenizer.pad_token_id) if len(gold_ids) == len(examples) else None,
        tuple(example.truth for example in examples),
        tuple(example.marked_seconds for example in examples),
        videos if len(videos) == len(examples) else None,
    )


def pad_completions(token_ids: Sequence[Sequence[int]], pad_token_id: int) -> Completions:
    """Completions of unequal length as one tensor, all of their tokens scored."""
    longest = max(len(ids) for ids in token_ids)
    padded = torch.full((len(token_ids), longest), pad_token_id)
    mask = torch.zeros(len(token_ids), longest, dtype=torch.bool)
    for row, ids in enumerate(token_ids):
        padded[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = True
    return Completions(padded, mask)
