"""M-RoPE position ids: the one place that computes them, for every pass.

A token's position is three numbers: time, height and width. Text advances all three together; the
tokens of a video share the time of their frame and spread over its rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

VIDEO_TOKEN_TYPE = 2


@dataclass(frozen=True)
class PositionRule:
    """How a family of models lays out positions.

    Attributes:
        merge_size: patches per side that become one token.
        frames_in_text: the family writes each frame's time as text between frames (Qwen3-VL), so
            every frame is a block of its own; otherwise one block holds the whole video (Qwen2.5-VL).
        tokens_per_second: positions per second of video, for families that space frames by time.
        counts_tokens: positions count tokens, whatever they show (InternVL3).
    """

    merge_size: int
    frames_in_text: bool
    tokens_per_second: float = 0.0
    counts_tokens: bool = False


def prompt_position_ids(
    token_types: Int[Tensor, " tokens"],
    grid_thw: Int[Tensor, "videos 3"],
    rule: PositionRule,
    seconds_per_step: float = 1.0,
) -> Int[Tensor, "3 tokens"]:
    """Positions of a prompt's tokens, as the family's checkpoints were trained.

    Text after a block of vision starts one after the largest position in the block, as in the
    models' original code; transformers 5.23 starts it at `start + max(height, width)` instead, which
    for a Qwen2.5-VL video lies before the times of its later frames.

    Args:
        token_types: 0 for text, 2 for video placeholders.
        grid_thw: time steps, rows and columns of patches of each video.
        rule: the family's layout.
        seconds_per_step: seconds between two time steps; used where `tokens_per_second` is above 0.

    Returns:
        Time, height and width of every token, from 0.

    Raises:
        ValueError: the placeholders do not match the grids.
    """
    blocks = _vision_blocks(grid_thw, rule)
    num_placeholders = int((token_types == VIDEO_TOKEN_TYPE).sum())
    num_features = sum(steps * rows * columns for steps, rows, columns in blocks)
    if num_placeholders != num_features:
        raise ValueError(f"{num_placeholders} video placeholders stand in the prompt for {num_features} video features")
    positions = torch.zeros(3, len(token_types), dtype=torch.long)
    next_position, token = 0, 0
    types = token_types.tolist()
    remaining = iter(blocks)
    while token < len(types):
        if types[token] != VIDEO_TOKEN_TYPE:
            positions[:, token] = next_position
            token, next_position = token + 1, next_position + 1
            continue
        block = _block_positions(next(remaining), rule, seconds_per_step)
        positions[:, token : token + block.shape[1]] = block + next_position
        next_position += int(block.max()) + 1
        token += block.shape[1]
    return positions


def continued_position_ids(
    prompt_position_ids: Int[Tensor, "3 prompts prompt_tokens"], num_tokens: int, start: int = 0
) -> Int[Tensor, "3 prompts num_tokens"]:
    """Positions of tokens that follow left-padded prompts: text, one after the prompt's last token.

    Args:
        prompt_position_ids: positions of the prompts; the last token of each is text.
        num_tokens: how many positions.
        start: number of completion tokens before the first of them.
    """
    last = prompt_position_ids[:, :, -1:]
    return last + 1 + start + torch.arange(num_tokens, device=last.device)


def _vision_blocks(grid_thw: Int[Tensor, "videos 3"], rule: PositionRule) -> list[tuple[int, int, int]]:
    """Time steps, rows and columns of tokens in each block of neighbouring vision tokens."""
    blocks: list[tuple[int, int, int]] = []
    for steps, rows, columns in grid_thw.tolist():
        rows, columns = rows // rule.merge_size, columns // rule.merge_size
        blocks += [(1, rows, columns)] * steps if rule.frames_in_text else [(steps, rows, columns)]
    return blocks


def _block_positions(
    block: tuple[int, int, int], rule: PositionRule, seconds_per_step: float
) -> Int[Tensor, "3 tokens"]:
    steps, rows, columns = block
    spacing = rule.tokens_per_second * seconds_per_step if rule.tokens_per_second > 0 else 1.0
    times = (torch.arange(steps) * spacing).long()
    grid = torch.meshgrid(times, torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack(grid).reshape(3, -1)
