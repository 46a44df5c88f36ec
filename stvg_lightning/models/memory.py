"""How much memory a pass and its way back will need, found on torch's device `meta`, without computing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel

from stvg_lightning.models.families import (
    own_position_ids,
    tower_layer_output,
    tower_layers,
    tower_modules,
    tower_of,
)

PLANNED = "planned"
PROBE_TOKENS = 64


def saved_bytes_per_token(model: PreTrainedModel) -> float:
    """What the language model's layers keep of each token for the gradient, nothing computed again.

    Args:
        model: on the device `meta`, with what is trained of it asking for gradients.
    """
    language = model.model.language_model
    width = model.config.get_text_config().hidden_size
    embedded = torch.empty(1, PROBE_TOKENS, width, device="meta", dtype=model.dtype)
    positions = own_position_ids(model.config, torch.zeros(3, 1, PROBE_TOKENS, dtype=torch.long, device="meta"))
    with _planned_attention(language.config):
        kept = _saved_bytes(model, lambda: language(inputs_embeds=embedded, position_ids=positions, use_cache=False))
    return kept / PROBE_TOKENS


def saved_bytes_per_patch(model: PreTrainedModel) -> float:
    """What the tower's layers keep of each patch for the gradient while some of the tower is trained; else 0.

    Args:
        model: as in `saved_bytes_per_token`.
    """
    if not any(weights.requires_grad for part in tower_modules(model) for weights in part.parameters()):
        return 0.0
    states = torch.empty(PROBE_TOKENS, model.config.vision_config.hidden_size, device="meta", dtype=model.dtype)
    with _planned_attention(tower_of(model).config):
        kept = _saved_bytes(model, lambda: tower_layer_output(model, states.requires_grad_()))
    return len(tower_layers(model)) * kept / PROBE_TOKENS


def bytes_of(parameters: Iterator[nn.Parameter] | list[nn.Parameter]) -> int:
    """What parameters hold."""
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def _saved_bytes(model: PreTrainedModel, run: Callable[[], object]) -> int:
    """Of all tensors that a pass keeps, each once, without the weights among them."""
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)


@contextmanager
def _planned_attention(config: PretrainedConfig) -> Iterator[None]:
    """Attention that keeps what fused kernels keep: on `meta` torch would plan for the whole table of scores."""
    AttentionInterface.register(PLANNED, _attend)
    own, config._attn_implementation = config._attn_implementation, PLANNED
    try:
        yield
    finally:
        config._attn_implementation = own


def _attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object):
    times = query.shape[1] // key.shape[1]
    keys, values = (each.repeat_interleave(times, dim=1) for each in (key, value))
    output = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, keys, values, is_causal=True)[0]
    return output.transpose(1, 2), None
