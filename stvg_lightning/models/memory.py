"""How much memory a pass and its way back will need, found on torch's device `meta`, without computing anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from stvg_lightning.models.families import own_position_ids

PLANNED = "planned"
PROBE_TOKENS = 64


def saved_bytes_per_token(model: PreTrainedModel) -> float:
    """What the language model's layers keep of each token for the gradient, nothing computed again.

    Args:
        model: on the device `meta`, with what is trained of it asking for gradients.
    """
    with _planned_attention(model):
        return _saved_bytes(model, PROBE_TOKENS) / PROBE_TOKENS


def bytes_of(parameters: Iterator[nn.Parameter] | list[nn.Parameter]) -> int:
    """What parameters hold."""
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def _saved_bytes(model: PreTrainedModel, tokens: int) -> int:
    """Of all tensors that a pass keeps, each once, without the weights among them."""
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    width = model.config.get_text_config().hidden_size
    embedded = torch.empty(1, tokens, width, device="meta", dtype=model.dtype)
    positions = own_position_ids(model.config, torch.zeros(3, 1, tokens, dtype=torch.long, device="meta"))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model.language_model(inputs_embeds=embedded, position_ids=positions, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)


@contextmanager
def _planned_attention(model: PreTrainedModel) -> Iterator[None]:
    """Attention that keeps what fused kernels keep: on `meta` torch would plan for the whole table of scores."""
    AttentionInterface.register(PLANNED, _attend)
    config = model.model.language_model.config
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
