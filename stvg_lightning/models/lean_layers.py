"""A language model's layers as the matrices they multiply by, for completions that are written on a CPU.

A step of a small model reads a few tokens there, and going through transformers' modules takes as long as their
products. Here adapters are added to their matrices once for all prompts that are written together, and a layer is some
twenty operations. What it computes is what the parts of `KINDS` compute, to rounding; where there are others, or
something was hooked into them, `why_not_lean` says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from stvg_lightning.models.decoding_prompts import DecodingPrompts
from stvg_lightning.models.families import own_position_ids
from stvg_lightning.models.fused_layers import plain_kind
from stvg_lightning.models.lora_layers import LeanLoraLinear
from stvg_lightning.models.lora_siblings import SIBLINGS

KINDS = (
    *("Qwen2_5_VLDecoderLayer", "Qwen2_5_VLAttention", "Qwen2_5_VLRMSNorm"),
    *("Qwen2DecoderLayer", "Qwen2Attention", "Qwen2MLP", "Qwen2RMSNorm"),
    *("Qwen3VLTextDecoderLayer", "Qwen3VLTextAttention", "Qwen3VLTextMLP", "Qwen3VLTextRMSNorm"),
    *("Qwen3DecoderLayer", "Qwen3Attention", "Qwen3MLP", "Qwen3RMSNorm"),
    *("LlamaDecoderLayer", "LlamaAttention", "LlamaMLP", "LlamaRMSNorm"),
)
"""Norm, attention with turned queries and keys, norm, gated layer; Qwen3's have norms of queries and keys besides."""
LINEAR_LAYERS = (*chain(*SIBLINGS), "o_proj", "down_proj")
MOST_BYTES = 2**27
"""Of all matrices. With some 190 MiB of them hardly anything is gained; with 960 a rollout took a fifth longer."""


class Product(NamedTuple):
    """A linear layer, or several that read the same, one under the other; adapters are in the matrix."""

    weight: Float[Tensor, "outputs inputs"]
    bias: Float[Tensor, " outputs"] | None

    @classmethod
    def of(cls, *layers: nn.Linear | LeanLoraLinear) -> Product:
        """Of linear layers with or without adapters, which all have a bias or none has."""
        weights: list[Tensor] = [
            layer.updated_weight if isinstance(layer, LeanLoraLinear) else layer.weight for layer in layers
        ]
        biases: list[Tensor] = [bias for layer in layers if (bias := _linear_of(layer).bias) is not None]
        assert len(biases) in (0, len(layers)), layers
        return cls(torch.cat(weights) if len(layers) > 1 else weights[0], torch.cat(biases) if biases else None)

    def __call__(self, rows: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        return F.linear(rows, self.weight, self.bias)

    def added_to(
        self, states: Float[Tensor, "rows outputs"], rows: Float[Tensor, "rows inputs"]
    ) -> Float[Tensor, "rows outputs"]:
        """States and what the layer makes of rows, summed by the product itself."""
        if self.bias is not None:
            states = states + self.bias
        return torch.addmm(states, rows, self.weight.T)


class Norm(NamedTuple):
    """A norm by the root of the mean square."""

    weight: Float[Tensor, " channels"]
    epsilon: float

    @classmethod
    def of(cls, norm: Any) -> Norm:
        """Of a norm of transformers."""
        return cls(norm.weight, norm.variance_epsilon)

    def __call__(self, rows: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows channels"]:
        return F.rms_norm(rows, self.weight.shape, self.weight, self.epsilon)


@dataclass(frozen=True)
class LeanLayer:
    """One layer.

    Attributes:
        before_attention: norm of what attention reads.
        to_heads: gives queries, keys and values.
        of_queries_and_keys: norms of each query and of each key; None: there are none.
        from_heads: reads what attention gives.
        before_gate: norm of what the gated layer reads.
        to_gate: gives what opens the gate, and what goes through it.
        activation: of the gate.
        from_gate: reads what has come through.
        num_heads: of queries, of keys and of values.
        scaling: factor of the dot products of queries and keys.
    """

    before_attention: Norm
    to_heads: Product
    of_queries_and_keys: tuple[Norm, Norm] | None
    from_heads: Product
    before_gate: Norm
    to_gate: Product
    activation: nn.Module
    from_gate: Product
    num_heads: tuple[int, int, int]
    scaling: float

    @classmethod
    def of(cls, layer: Any) -> LeanLayer:
        """Of a layer of transformers."""
        attention, gated = layer.self_attn, layer.mlp
        has_norms = hasattr(attention, "q_norm")
        projections = attention.q_proj, attention.k_proj, attention.v_proj
        queries, keys, values = (_linear_of(each).out_features // attention.head_dim for each in projections)
        return cls(
            before_attention=Norm.of(layer.input_layernorm),
            to_heads=Product.of(*projections),
            of_queries_and_keys=(Norm.of(attention.q_norm), Norm.of(attention.k_norm)) if has_norms else None,
            from_heads=Product.of(attention.o_proj),
            before_gate=Norm.of(layer.post_attention_layernorm),
            to_gate=Product.of(gated.gate_proj, gated.up_proj),
            activation=gated.act_fn,
            from_gate=Product.of(gated.down_proj),
            num_heads=(queries, keys, values),
            scaling=attention.scaling,
        )

    def heads(self, states: Float[Tensor, "rows width"], turn: Turn) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens, each (rows, heads, channels)."""
        heads = self.to_heads(self.before_attention(states)).view(len(states), sum(self.num_heads), -1)
        query, key, value = heads.split(self.num_heads, dim=1)
        if self.of_queries_and_keys is None:  # both are turned at once
            turned = turn(heads[:, : -self.num_heads[2]])
            return turned[:, : self.num_heads[0]], turned[:, self.num_heads[0] :], value
        of_queries, of_keys = self.of_queries_and_keys
        return turn(of_queries(query)), turn(of_keys(key)), value

    def gated(self, states: Float[Tensor, "rows width"]) -> Float[Tensor, "rows inner"]:
        """What comes through the gate."""
        gate, through = self.to_gate(self.before_gate(states)).chunk(2, dim=-1)
        return self.activation(gate) * through


class Turn(NamedTuple):
    """The rotation of queries and keys by their positions.

    Attributes:
        cosines: of each channel's angle.
        sines: likewise, those of the first half with a minus.
    """

    cosines: Float[Tensor, "rows 1 channels"]
    sines: Float[Tensor, "rows 1 channels"]

    @classmethod
    def of(cls, cosines: Float[Tensor, "1 rows channels"], sines: Float[Tensor, "1 rows channels"]) -> Turn:
        """From what transformers' layers are given."""
        first, second = sines.transpose(0, 1).chunk(2, dim=-1)
        return cls(cosines.transpose(0, 1), torch.cat([-first, second], dim=-1))

    def __call__(self, heads: Float[Tensor, "rows heads channels"]) -> Float[Tensor, "rows heads channels"]:
        halves_changed = heads.roll(heads.shape[-1] // 2, dims=-1)
        return torch.addcmul(heads * self.cosines, halves_changed, self.sines)


@dataclass(frozen=True)
class LeanLayers:
    """The layers of a vision-language model; only good until its weights or adapters change."""

    model: PreTrainedModel
    layers: tuple[LeanLayer, ...]

    @classmethod
    @torch.no_grad()
    def of(cls, model: PreTrainedModel) -> LeanLayers:
        """Of a model for which `why_not_lean` finds no reason."""
        return cls(model, tuple(LeanLayer.of(layer) for layer in model.model.language_model.layers))

    def step(
        self, token_ids: Int[Tensor, " rows"], positions: Int[Tensor, "3 rows"], prompts: DecodingPrompts
    ) -> Float[Tensor, "rows width"]:
        """Read one more token of every completion; see `group_forward.decode_step`."""
        language_model: Any = self.model.model.language_model
        states = language_model.embed_tokens(token_ids)
        turn = Turn.of(*language_model.rotary_emb(states, own_position_ids(self.model.config, positions[:, None])))
        for number, layer in enumerate(self.layers):
            query, key, value = layer.heads(states, turn)
            taken = prompts.attend_rows(number, query, key, value, layer.scaling)
            states = layer.from_heads.added_to(states, taken.flatten(1))
            states = layer.from_gate.added_to(states, layer.gated(states))
        return Norm.of(language_model.norm)(states)


def why_not_lean(model: PreTrainedModel) -> str | None:
    """What keeps a model's layers from being taken apart; None: nothing does."""
    language_model = model.model.language_model
    parameters = list(language_model.parameters())
    if any(parameter.device.type != "cpu" for parameter in parameters):
        return "the model is not on the CPU"
    if any(parameter.dtype != torch.float32 for parameter in parameters) or torch.is_autocast_enabled("cpu"):
        return "not everything is computed in float32"
    if unknown := sorted({kind for kind in _kinds(language_model) if kind not in KINDS}):
        return f"parts of the kind {unknown[0]} are not known"
    for name, part in language_model.named_modules():
        if part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part):
            return f"something is hooked into {name or 'the language model'}"
    if [layer.self_attn.layer_idx for layer in language_model.layers] != [
        *range(language_model.config.num_hidden_layers)
    ]:
        return "its layers are not those of its configuration, in order"
    for name, layer in _linear_layers(language_model):
        if not (type(layer) is nn.Linear or (isinstance(layer, LeanLoraLinear) and layer.is_matrix)):
            return f"{name} is more than a matrix with plain adapters"
    for part, names in product(language_model.layers.modules(), SIBLINGS):
        siblings = [_linear_of(layer) for name, layer in part.named_children() if name in names]
        if len({layer.bias is None for layer in siblings}) > 1:
            return f"of {', '.join(names)} some have a bias and some have none"
    num_bytes = sum(_linear_of(layer).weight.nbytes for _, layer in _linear_layers(language_model))
    return f"its matrices have more than {MOST_BYTES >> 20} MiB" if num_bytes > MOST_BYTES else None


def _kinds(language_model: Any) -> Iterator[str]:
    """Of the parts that are taken apart, activations and linear layers aside."""
    for name, part in language_model.layers.named_modules():
        *above, last = name.split(".")
        if name and not {*above, last} & {*LINEAR_LAYERS, "act_fn"}:
            yield plain_kind(part).__name__
    yield plain_kind(language_model.norm).__name__


def _linear_layers(language_model: Any) -> Iterator[tuple[str, nn.Module]]:
    for name, layer in language_model.layers.named_modules():
        if name.rpartition(".")[2] in LINEAR_LAYERS:
            yield name, layer


def _linear_of(layer: Any) -> nn.Linear:
    """A linear layer without its adapters."""
    return layer.base_layer if isinstance(layer, LeanLoraLinear) else layer
