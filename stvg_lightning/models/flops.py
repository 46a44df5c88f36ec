"""How much arithmetic a step is: the floor that its seconds are held against.

A pass through the language model costs, forward,

    2 * weights * tokens + 4 * layers * attention width * pairs + 2 * head weights * scored tokens

and through the tower 2 * weights * patches (or tokens of video, behind its merger) more,
floating point operations, where a pair is a query and a key that it sees. Going backward costs the same once
more for what flows to the layers before, and once more for the gradient of each weight that is trained.
What is computed again to save memory is not counted: it is no progress.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from time import perf_counter

import torch
from torch import nn
from transformers import PreTrainedModel

from stvg_lightning.models.families import image_side, shows_frames_as_images, tower_modules, tower_of

MATRIX_SIDES = {"cpu": 1024, "cuda": 8192}


@dataclass(frozen=True)
class TowerShape:
    """What of a vision tower decides its arithmetic; its attention, which windows and frames keep small, is left out.

    Attributes:
        patch_weights: used once a patch, adapters included.
        token_weights: used once a token of video, behind the merger or projector.
        trained_patch_weights: those of the first that are trained.
        trained_token_weights: those of the second that are trained.
        stem_weights: those of the first that read pixels, to which nothing flows back.
        patches_per_token: patches that become one token.
        patches_in_one: patches of the tower in each that a prompt counts: those of a whole image where frames are
            shown as images.
    """

    patch_weights: int
    token_weights: int
    trained_patch_weights: int
    trained_token_weights: int
    stem_weights: int
    patches_per_token: int
    patches_in_one: int = 1

    @property
    def is_trained(self) -> bool:
        """Whether any of its weights are, adapters among them."""
        return self.trained_patch_weights + self.trained_token_weights > 0

    def forward_flops(self, patches: int) -> float:
        """Of one pass without a gradient over so many patches."""
        patches *= self.patches_in_one
        return 2.0 * (self.patch_weights * patches + self.token_weights * patches / self.patches_per_token)

    def training_flops(self, patches: int) -> float:
        """Of one pass and the way back through it.

        Where adapters alone are trained, nothing flows back to what the first layer's attention reads: that
        part is counted all the same.
        """
        forward = self.forward_flops(patches)
        patches *= self.patches_in_one
        trained = self.trained_patch_weights * patches + self.trained_token_weights * patches / self.patches_per_token
        return 2.0 * (forward - self.stem_weights * patches + trained)


@dataclass(frozen=True)
class ModelShape:
    """What of a model decides its arithmetic.

    Attributes:
        weights: in the linear layers of the language model, adapters left out.
        adapter_weights: in the adapters of those layers.
        layers: of the language model.
        attention_width: heads times channels of the language model's queries.
        head_weights: of the layer that makes logits.
        trains_weights: all weights of the language model are trained, not adapters alone.
        tower: what decides the tower's arithmetic.
    """

    weights: int
    adapter_weights: int
    layers: int
    attention_width: int
    head_weights: int
    trains_weights: bool
    tower: TowerShape


@dataclass(frozen=True)
class Work:
    """What goes through a model.

    Attributes:
        tokens: through the language model.
        pairs: of a query and a key that it sees.
        scored: tokens through the head.
        patches: of videos through the tower, each as often as it goes.
    """

    tokens: int = 0
    pairs: int = 0
    scored: int = 0
    patches: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))

    def times(self, count: int) -> Work:
        """The same work so many times."""
        return Work(*(count * each for each in vars(self).values()))

    def forward_flops(self, shape: ModelShape) -> float:
        """Of one pass without a gradient."""
        linear = 2.0 * (shape.weights + shape.adapter_weights) * self.tokens
        attention = 4.0 * shape.layers * shape.attention_width * self.pairs
        tower = shape.tower.forward_flops(self.patches)
        return linear + attention + 2.0 * shape.head_weights * self.scored + tower

    def training_flops(self, shape: ModelShape) -> float:
        """Of one pass and the way back through it, and through a tower that is trained."""
        trained = (shape.weights + shape.adapter_weights) if shape.trains_weights else shape.adapter_weights
        head = 2.0 * shape.head_weights * self.scored if shape.trains_weights else 0.0
        # Attention's way back is twice its way forth: to queries and keys, and to values and shares.
        attention = 4.0 * shape.layers * shape.attention_width * self.pairs
        language = 2.0 * replace(self, patches=0).forward_flops(shape) + attention + 2.0 * trained * self.tokens + head
        tower = shape.tower
        of_tower = tower.training_flops(self.patches) if tower.is_trained else tower.forward_flops(self.patches)
        return language + of_tower


def prefill_work(prompt_tokens: int, patches: int = 0) -> Work:
    """Reading a prompt before its first completion token is chosen.

    Args:
        prompt_tokens: its length.
        patches: of its video, if the tower reads it in this pass.

    Example:
        >>> prefill_work(3, patches=8)
        Work(tokens=3, pairs=6, scored=1, patches=8)
    """
    return Work(prompt_tokens, _causal_pairs(prompt_tokens), 1, patches)


def shared_work(prompt_tokens: int, completion_tokens: Sequence[int], patches: int = 0) -> Work:
    """A group with its prompt read once; the last token of a completion is chosen but not read.

    Args:
        prompt_tokens: length of the prompt.
        completion_tokens: length of each completion.
        patches: of the prompt's video, if the tower reads it in this pass: once.

    Example:
        >>> shared_work(3, [2, 1], patches=8)
        Work(tokens=4, pairs=10, scored=3, patches=8)
    """
    read = [length - 1 for length in completion_tokens]
    pairs = sum(length * prompt_tokens + _causal_pairs(length) for length in read)
    return Work(prompt_tokens + sum(read), _causal_pairs(prompt_tokens) + pairs, sum(completion_tokens), patches)


def repeated_work(prompt_tokens: int, completion_tokens: Sequence[int], patches: int = 0) -> Work:
    """A group with its prompt repeated for each completion, without padding.

    Args:
        prompt_tokens: length of the prompt.
        completion_tokens: length of each completion.
        patches: of the prompt's video, if each copy takes it through the tower in this pass.

    Example:
        >>> repeated_work(3, [2, 1], patches=8)
        Work(tokens=9, pairs=25, scored=3, patches=16)
    """
    rows = [prompt_tokens + length for length in completion_tokens]
    pairs = sum(_causal_pairs(row) for row in rows)
    return Work(sum(rows), pairs, sum(completion_tokens), patches * len(rows))


def total(work: Iterable[Work]) -> Work:
    """All of it together."""
    return sum(work, Work())


def shape_of(model: PreTrainedModel) -> ModelShape:
    """The shape of a network, which may stand on torch's device `meta`."""
    config = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    linear = {
        name: layer.weight.numel()
        for name, layer in model.model.language_model.layers.named_modules()
        if isinstance(layer, nn.Linear)
    }
    adapters = sum(size for name, size in linear.items() if "lora_" in name)
    return ModelShape(
        weights=sum(linear.values()) - adapters,
        adapter_weights=adapters,
        layers=config.num_hidden_layers,
        attention_width=config.num_attention_heads * width,
        head_weights=config.hidden_size * config.vocab_size,
        trains_weights=all(p.requires_grad for p in model.model.language_model.layers.parameters()),
        tower=_tower_shape(model),
    )


@cache
def measured_flops_per_second(device: str, dtype: torch.dtype) -> float:
    """The best that one large product of matrices reaches here, of five."""
    kind = torch.device(device).type
    side = MATRIX_SIDES.get(kind, 1024)
    # Of its own generator: a training's noise must not depend on whether this was measured.
    drawn = torch.Generator(device).manual_seed(0)
    first, second = (torch.randn(side, side, device=device, generator=drawn).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(6):
        started = perf_counter()
        product = first @ second
        product[0, 0].item()  # waits for a GPU
        seconds.append(perf_counter() - started)
    return 2.0 * side**3 / min(seconds[1:])


def _causal_pairs(tokens: int) -> int:
    return tokens * (tokens + 1) // 2


def _tower_shape(model: PreTrainedModel) -> TowerShape:
    as_images, vision = shows_frames_as_images(model.config), model.config.vision_config
    merged = round(1 / model.config.downsample_ratio) if as_images else vision.spatial_merge_size
    sides = image_side(model.config) // int(vision.patch_size[0]) if as_images else 1
    counts, trained, stem = [0, 0], [0, 0], 0
    tower = tower_of(model)
    for part in tower_modules(model):
        for name, layer in part.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.Conv3d):
                is_of_tokens = part is not tower or "merger" in name
                counts[is_of_tokens] += layer.weight.numel()
                trained[is_of_tokens] += layer.weight.numel() * layer.weight.requires_grad
                stem += layer.weight.numel() * (not isinstance(layer, nn.Linear))
    return TowerShape(
        patch_weights=counts[0],
        token_weights=counts[1],
        trained_patch_weights=trained[0],
        trained_token_weights=trained[1],
        stem_weights=stem,
        patches_per_token=merged**2,
        patches_in_one=sides**2,
    )
