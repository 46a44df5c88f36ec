"""Adapted layers while they do not learn: adapters are cast once, and layers that read the same input run together.

While tokens are written a layer's two small products take half as long as its large one, and most of that passes before
they start. So the first of them run beside the large one, those of layers that read the same input as one, and these
layers beside each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stvg_lightning.models.lora_layers import LeanLoraLinear, Update
from stvg_lightning.models.prefix_attention import in_one_precision

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers of one parent that read the same input, as transformers names them."""
NARROW = -1
"""The branch of the small products; each layer has another, of which 0 is the current stream."""
MOST_ROWS_BESIDE = 1024
"""Products of more rows fill a GPU by themselves."""


@contextmanager
def adapters_held(network: nn.Module) -> Iterator[None]:
    """Adapted layers as they are now, for passes without gradients between which their weights do not change.

    A layer whose adapters in use are others than at the beginning, and any with gradients, computes as always.
    """
    layers: list[LeanLoraLinear] = []
    for parent in network.modules():
        adapted = {name: layer for name, layer in parent.named_children() if isinstance(layer, LeanLoraLinear)}
        for names in SIBLINGS:
            siblings = [adapted.pop(name) for name in names if name in adapted]
            layers += _share(siblings)
        for layer in adapted.values():
            layers += _share([layer])
    try:
        yield
    finally:
        for layer in layers:
            layer.shortcut = None


def _share(layers: Sequence[LeanLoraLinear]) -> Sequence[LeanLoraLinear]:
    layers = [layer for layer in layers if layer.updates and layer.is_plain]
    if layers:
        shared = _Siblings(layers)
        for layer in layers:
            layer.shortcut = shared
    return layers


class _Siblings:
    """Layers that read the same input: the first that is asked computes the outputs of all."""

    def __init__(self, layers: Sequence[LeanLoraLinear]) -> None:
        self.layers = layers
        self.adapters = [list(layer.active_adapters) for layer in layers]
        self.updates = [layer.updates for layer in layers]
        self._downs: Tensor | None = None
        self._input: Tensor | None = None
        self._outputs: dict[LeanLoraLinear, Tensor] = {}

    @property
    def is_current(self) -> bool:
        """Whether the layers still have the adapters of the beginning, and nothing is to be learned."""
        adapters = [list(layer.active_adapters) for layer in self.layers]
        return not torch.is_grad_enabled() and adapters == self.adapters

    def output_of(self, layer: LeanLoraLinear, x: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """What a layer gives of an input."""
        if x is not self._input or layer not in self._outputs:
            self._input, self._outputs = x, dict(zip(self.layers, self._outputs_of_all(x), strict=True))
        output = self._outputs.pop(layer)
        if not self._outputs:
            self._input = None
        return output

    @torch.no_grad()
    def _outputs_of_all(self, x: Float[Tensor, "*batch inputs"]) -> list[Tensor]:
        (rows,) = in_one_precision(x.reshape(-1, x.shape[-1]))
        downs = self._downs_in(rows.dtype)
        beside = _Beside(rows.device, len(rows) <= MOST_ROWS_BESIDE)
        with beside.branch(NARROW):
            narrow = rows @ downs.T
        outputs, column = [], 0
        for place, (layer, updates) in enumerate(zip(self.layers, self.updates, strict=True)):
            with beside.branch(place):
                bias = layer.base_layer.bias
                weights = layer.base_layer.weight, *(() if bias is None else (bias,))
                output = F.linear(rows, *(weight.to(rows.dtype) for weight in weights))
                beside.wait_for(NARROW, by=place)
                for _, up, scale in updates:
                    # In `lora_linear` these come first. Here the large product need not wait for what they read.
                    torch.addmm(output, narrow[:, column : column + up.shape[1]], up.T, alpha=scale, out=output)
                    column += up.shape[1]
            outputs.append(output.view(*x.shape[:-1], output.shape[-1]))
        for place in range(1, len(self.layers)):
            beside.wait_for(place, by=0)
        return outputs

    def _downs_in(self, dtype: torch.dtype) -> Float[Tensor, "ranks inputs"]:
        """The first matrices of all updates, one under the other; the second ones are cast as well, both once."""
        if self._downs is None or self._downs.dtype != dtype:
            self._downs = torch.cat([update.down for updates in self.updates for update in updates]).to(dtype)
            self.updates = [[Update(d, up.to(dtype), scale) for d, up, scale in updates] for updates in self.updates]
        return self._downs


class _Beside:
    """Branches of work on streams of a GPU; elsewhere, and where not wanted, everything runs one after the other.

    Branch 0 is the current stream. Others begin when it has done what came before; where it waits for them at the end,
    memory can pass between them as if there were one.
    """

    def __init__(self, device: torch.device, is_wanted: bool) -> None:
        self.device, self.is_possible = device, is_wanted and device.type == "cuda"
        if self.is_possible:
            self.streams = {0: torch.cuda.current_stream(device)}
            self.before = self.streams[0].record_event()
            self.ends: dict[int, torch.cuda.Event] = {}

    @contextmanager
    def branch(self, place: int) -> Iterator[None]:
        """What is started within belongs to a branch."""
        if not self.is_possible or place == 0:
            yield
            return
        stream = self.streams[place] = _stream(self.device, place)
        stream.wait_event(self.before)
        with torch.cuda.stream(stream):
            yield
        self.ends[place] = stream.record_event()

    def wait_for(self, place: int, by: int) -> None:
        """Let a branch go on when another has ended."""
        if self.is_possible:
            self.streams[by].wait_event(self.ends[place])


@cache
def _stream(device: torch.device, place: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
