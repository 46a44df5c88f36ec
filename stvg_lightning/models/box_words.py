"""Words for answers in boxes, which the tiny model's vocabulary lacks: coordinates, tags, the words of instructions.

A coordinate is one token here, whose embedding tells its place: neighbours have like ones, and a state that points
between two of them finds both likely. Written digit by digit, a box took 19 tokens, and was told badly (LOG.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from tokenizers import AddedToken
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

NUM_WAVES = 5
PERIOD = 1.3
"""Of the slowest wave, in sides of the frame: more than one, so that opposite edges are not alike."""

CODE_SIZE = 2 * NUM_WAVES
TAGS = ("<time>", " </time>", " <think_bbox>", " </think_bbox>", " <pred_bbox>", " </pred_bbox>")
SEPARATOR = "], "
"""Between two boxes: else the comma and the index after it would be read as a coordinate."""

SCHEMA = (" [second]", ". [x1", ", y1", ", x2", ", y2")
LEADS = (". [", ", ")
"""What stands before a coordinate: a box's first one, and the others."""


def place_code(shares: Float[Tensor, "*places"]) -> Float[Tensor, "*places code"]:
    """A length along a side of the frame as waves, of norm 1.

    Args:
        shares: of the side, from 0 to 1.

    Example:
        >>> [round(float(place_code(torch.tensor(0.5)) @ place_code(torch.tensor(x))), 2) for x in (0.5, 0.52, 1.0)]
        [1.0, 0.95, -0.03]
    """
    angles = shares[..., None] * torch.arange(1, NUM_WAVES + 1, device=shares.device) * (2 * math.pi / PERIOD)
    return torch.cat([angles.cos(), angles.sin()], dim=-1) / math.sqrt(NUM_WAVES)


@cache
def fixed_directions(width: int, count: int, seed: int) -> Float[Tensor, "count width"]:
    """Directions at right angles to each other, the same in every training."""
    assert count <= width, (count, width)
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, count, generator=generator)).Q.T


def add_box_words(
    network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, side_pixels: int, words: Sequence[str]
) -> None:
    """Give a tiny model one token each for coordinates, tags and further words, in free rows of its vocabulary.

    Args:
        network: whose embeddings of the new tokens are set.
        tokenizer: knows the new tokens after this.
        side_pixels: side of a frame, the largest coordinate.
        words: texts that shall be one token each.

    Raises:
        ValueError: more words than the vocabulary has rows.
    """
    embeddings = network.get_input_embeddings().weight
    num_known = len(tokenizer)
    norm = float(embeddings[:num_known].detach().norm(dim=1).mean())
    coordinates = [f"{lead}{pixel}" for lead in LEADS for pixel in range(side_pixels + 1)]
    added = [*coordinates, *TAGS, SEPARATOR, *SCHEMA, *words]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in added])
    if len(tokenizer) > len(embeddings):
        raise ValueError(f"{len(tokenizer)} tokens do not fit in a vocabulary of {len(embeddings)}")
    generator = torch.Generator().manual_seed(29)
    new = torch.randn(len(tokenizer) - num_known, embeddings.shape[1], generator=generator)
    codes = place_code(torch.arange(side_pixels + 1) / side_pixels)
    for order in range(len(LEADS)):
        rows = slice(order * len(codes), (order + 1) * len(codes))
        new[rows] = codes @ fixed_directions(embeddings.shape[1], CODE_SIZE, seed=31 + order)
    with torch.no_grad():
        embeddings[num_known : len(tokenizer)] = norm * F.normalize(new, dim=-1)


def words_of(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[str]:
    """The words of some texts that a tokenizer takes apart, each with the space before it, in order of first use."""
    words = [word for text in texts for word in f" {text}".replace("\n", " ").split(" ")[1:]]
    plain = [f" {word}" for word in words if word.isalpha()]
    return [word for word in dict.fromkeys(plain) if len(tokenizer(word)["input_ids"]) > 1]
