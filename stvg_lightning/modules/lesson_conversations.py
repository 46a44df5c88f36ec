"""Questions and answers as token ids: one conversation after the first question, and several as one batch."""

from __future__ import annotations

import torch

from stvg_lightning.data.synthetic.reading import Question
from stvg_lightning.models.forward import Completions
from stvg_lightning.models.prompts import PromptEncoder

MAX_CONVERSATION_TOKENS = 256


def conversation_ids(
    encoder: PromptEncoder, asked: list[Question], max_tokens: int = MAX_CONVERSATION_TOKENS
) -> tuple[list[int], list[bool]]:
    """Token ids of everything after the first question, as many turns as fit, and which are the answers."""
    tokenizer = encoder.processor.tokenizer
    token_ids: list[int] = []
    scored: list[bool] = []
    for index, question in enumerate(asked):
        turn = f"\n<|im_start|>user\n{question.asked}<|im_end|>\n<|im_start|>assistant\n" if index > 0 else ""
        asked_ids, written_ids = tokenizer(turn)["input_ids"], tokenizer(f"{question.answer}<|im_end|>")["input_ids"]
        if index > 0 and len(token_ids) + len(asked_ids) + len(written_ids) > max_tokens:
            break
        token_ids += asked_ids + written_ids
        scored += [False] * len(asked_ids) + [True] * len(written_ids)
    return token_ids, scored


def pad_conversations(conversations: list[tuple[list[int], list[bool]]]) -> Completions:
    """Conversations of unequal length as one tensor; their answers are what is scored."""
    longest = max(len(token_ids) for token_ids, _ in conversations)
    token_ids = torch.zeros(len(conversations), longest, dtype=torch.long)
    mask = torch.zeros(len(conversations), longest, dtype=torch.bool)
    for row, (ids, scored) in enumerate(conversations):
        token_ids[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = torch.tensor(scored)
    return Completions(token_ids, mask)
