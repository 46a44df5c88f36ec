"""Recordings of a decoding step without a GPU: what a CUDA graph would do, and whether it could."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stvg_lightning.models.decoding import FixedDecoder
from stvg_lightning.models.decoding_prompts import DecodingPrompts
from stvg_lightning.models.fixed_prompts import FixedPrompts
from stvg_lightning.models.loading import VideoLanguageModel

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique", "lift_fresh")
"""Operations that make the CPU wait for a GPU, or bring a number of Python's to it."""


class Tape:
    """Records a step as a CUDA graph does: the same operations on the same places of memory, whatever Python says."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.num_recorded, self.num_replayed = device, 0, 0

    def __call__(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Record a step; what is given back repeats it."""
        with _Operations() as seen:
            states = step()
        self.num_recorded += 1

        @torch.autocast("cpu", enabled=False)  # casts are among the operations
        def replay() -> Tensor:
            for operation, args, options, result in seen.operations:
                again = operation(*args, **options)
                # What an operation writes or shows of its arguments is there already.
                if all(again.data_ptr() != each.data_ptr() for each in _tensors((args, options))):
                    result.copy_(again)
            self.num_replayed += 1
            return states

        return replay


class _Operations(TorchDispatchMode):
    """All that torch is asked to do, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple, dict, Any]] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.operations.append((operation, args, kwargs or {}, result))
        return result


class OnGPU(TorchDispatchMode):
    """Refuses what cannot be recorded: waiting for a GPU, and tensors that are not on it."""

    def __init__(self) -> None:
        super().__init__()
        self.num_operations = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        name = str(operation)
        assert not any(each in name for each in WAITING), f"{name} waits"
        for each in _tensors((args, kwargs, result)):
            assert each.device.type == "cuda", f"{name} meets a tensor on {each.device}"
        self.num_operations += 1
        return result


@contextmanager
def autocast_on_an_imagined_gpu(dtype: torch.dtype) -> Iterator[None]:
    """As `torch.autocast`, which asks for a GPU that is there."""
    torch.set_autocast_dtype("cuda", dtype)
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_cache_enabled(True)


def step_on_an_imagined_gpu(
    model: VideoLanguageModel, dtype: torch.dtype, adapter_dtype: torch.dtype, is_cast: bool
) -> int:
    """One step of six completions on a GPU that torch imagines; how many operations it was.

    Args:
        model: with an adapter.
        dtype: of its weights.
        adapter_dtype: of the adapter's.
        is_cast: whether the step runs under autocast to `dtype`.
    """
    network, text = copy.deepcopy(model.network).requires_grad_(False), model.network.config.get_text_config()
    channels = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    with FakeTensorMode(), torch.no_grad(), torch.device("cuda:0"):
        _imagine(network, dtype, adapter_dtype)

        def table() -> Tensor:
            return torch.zeros(2, text.num_key_value_heads, 50, channels, dtype=dtype)

        tables = {layer: (table(), table()) for layer in range(text.num_hidden_layers)}
        grown = DecodingPrompts(tables, torch.zeros(2, 50), [3, 3])
        prompts = FixedPrompts.of(grown, torch.zeros(3, 6, dtype=torch.long), 10)
        decoder = FixedDecoder.of(network, prompts, None)
        casting = autocast_on_an_imagined_gpu(dtype) if is_cast else nullcontext()
        with casting, OnGPU() as seen:
            states = decoder._step()
    assert states.shape == (6, text.hidden_size) and states.dtype == dtype
    return seen.num_operations


def _imagine(network: nn.Module, dtype: torch.dtype, adapter_dtype: torch.dtype) -> None:
    """Weights of the same shapes on the imagined GPU."""
    for where, part in network.named_modules():
        for name, weights in part._parameters.items():
            if weights is not None:
                own = adapter_dtype if "lora_" in where else dtype
                part._parameters[name] = nn.Parameter(torch.empty(weights.shape, dtype=own), requires_grad=False)
        for name, values in part._buffers.items():
            if values is not None:
                part._buffers[name] = torch.empty(values.shape, dtype=values.dtype)


def _tensors(values: Any) -> list[Tensor]:
    return [each for each in tree_leaves(values) if isinstance(each, Tensor)]
