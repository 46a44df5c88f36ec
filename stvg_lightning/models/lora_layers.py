"""Linear layers with LoRA adapters in as few operations as there are products of matrices.

peft copies a layer's input to the adapter's precision, and goes over the layer's whole output twice more, to scale the
update and to add it; backward it does so again. In a model of many layers that takes as long as a third of its
products, and while tokens are written most of what is started is such small work. Here each update is added by the
product that makes it, forward and backward, and the layer keeps its input once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from peft.tuners.lora import Linear
from torch import Tensor, nn

from stvg_lightning.models.prefix_attention import in_one_precision


class Update(NamedTuple):
    """One adapter of a layer: the layer's output gains `scale * (input @ down.T) @ up.T`."""

    down: Float[Tensor, "rank inputs"]
    up: Float[Tensor, "outputs rank"]
    scale: float


@runtime_checkable
class Shortcut(Protocol):
    """Computes layers in another way for some time; see `lora_siblings`."""

    @property
    def is_current(self) -> bool:
        """Whether it still gives what the layers would."""
        ...

    def output_of(self, layer: LeanLoraLinear, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """What a layer gives of an input."""
        ...


class LeanLoraLinear(Linear):
    """peft's layer, computed by `lora_linear` wherever its adapters are plain ones without dropout."""

    shortcut: Shortcut | None = None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """As peft's, of (..., inputs): (..., outputs)."""
        if args or kwargs or not self.is_plain:
            return super().forward(x, *args, **kwargs)
        if self.disable_adapters:
            return self.base_layer(x)
        if self.shortcut is not None and self.shortcut.is_current:
            return self.shortcut.output_of(self, x)
        return lora_linear(x, self.base_layer.weight, self.base_layer.bias, self.updates)

    @property
    def is_plain(self) -> bool:
        """Nothing but products of matrices; the layer's own weights are not trained."""
        drops = any(
            isinstance(self.lora_dropout[name], nn.Dropout) and self.training
            for name in self.active_adapters
            if name in self.lora_dropout
        )
        learns = any(parameter.requires_grad for parameter in self.base_layer.parameters())
        return self.is_matrix and not drops and not learns

    @property
    def is_matrix(self) -> bool:
        """Whether `updated_weight` is all that it multiplies by in evaluation mode."""
        has_bias = any(self.lora_bias.get(name) for name in self.active_adapters)
        is_linear = type(self.base_layer) is nn.Linear and not self.fan_in_fan_out
        return is_linear and not (has_bias or self.lora_variant or self.merged)

    @property
    def updated_weight(self) -> Float[Tensor, "outputs inputs"]:
        """The layer's matrix with the updates of the adapters in use."""
        weight = self.base_layer.weight
        for down, up, scale in [] if self.disable_adapters else self.updates:
            weight = torch.addmm(weight, up, down, alpha=scale)
        return weight

    @property
    def updates(self) -> list[Update]:
        """Of the adapters in use."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        return [Update(self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]) for name in names]


def make_lora_lean(network: nn.Module) -> None:
    """Let every adapted linear layer of a network compute as `LeanLoraLinear` does; its weights stay what they are."""
    for layer in network.modules():
        if type(layer) is Linear:
            layer.__class__ = LeanLoraLinear


def lora_linear(
    x: Float[Tensor, "*batch inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"] | None,
    updates: Sequence[Update],
) -> Float[Tensor, "*batch outputs"]:
    """A frozen linear layer with adapters: `x @ weight.T + bias + sum(scale * (x @ down.T) @ up.T)`.

    Everything is computed in the precision of `x`, or of autocast. Gradients reach `x` and the adapters.
    """
    x, weight, *more = in_one_precision(x, weight, *([] if bias is None else [bias]))
    scales = tuple(update.scale for update in updates)
    matrices = [matrix.to(x.dtype) for update in updates for matrix in (update.down, update.up)]
    return _LoraLinear.apply(x, weight, more[0] if more else None, scales, *matrices)


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, scales: tuple, *matrices: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        narrows = [rows @ down.T for down in matrices[::2]]
        ups = [up.T for up in matrices[1::2]]
        output = _sum_of_products([*zip(narrows, ups, scales, strict=True), (rows, weight.T, 1.0)], bias)
        ctx.save_for_backward(x, weight, *matrices, *narrows)
        ctx.scales = scales
        return output.view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *saved = ctx.saved_tensors
        count = len(ctx.scales)
        matrices, narrows = saved[: 2 * count], saved[2 * count :]
        (gradient,) = gradients
        above, rows = gradient.reshape(-1, gradient.shape[-1]), x.reshape(-1, x.shape[-1])
        wants_x, wants = ctx.needs_input_grad[0], ctx.needs_input_grad[4:]
        of_narrows = [(above @ up) * scale for scale, up in zip(ctx.scales, matrices[1::2], strict=True)]
        found: list[Tensor | None] = []
        for place, (scale, narrow, of_narrow) in enumerate(zip(ctx.scales, narrows, of_narrows, strict=True)):
            found.append(of_narrow.T @ rows if wants[2 * place] else None)
            found.append(above.T @ (narrow * scale) if wants[2 * place + 1] else None)
        if not wants_x:
            return None, None, None, None, *found
        small = [(of_narrow, down, 1.0) for of_narrow, down in zip(of_narrows, matrices[::2], strict=True)]
        return _sum_of_products([*small, (above, weight, 1.0)]).view_as(x), None, None, None, *found


def _sum_of_products(
    products: Sequence[tuple[Tensor, Tensor, float]], bias: Tensor | None = None
) -> Float[Tensor, "rows outputs"]:
    """`sum(scale * left @ right) + bias`, with the largest product last.

    A product adds what is there while it multiplies: behind a large one a small one would read and write everything
    once more, before it that costs nothing.
    """
    left, right, _ = products[0]
    output = left.new_empty(len(left), right.shape[1])
    for place, (left, right, scale) in enumerate(products):
        if place == 0 and bias is not None:
            torch.addmm(bias, left, right, alpha=scale, out=output)
        else:
            torch.addmm(output, left, right, beta=float(place > 0), alpha=scale, out=output)
    return output
