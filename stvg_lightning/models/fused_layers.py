"""What transformers writes down operation by operation, at once on a GPU: norms, gates, and rotations by positions.

Each of them goes over its input many times, some with a copy in float32. In a GRPO step of a 7B model on an H200 norms
took a tenth of the update and rotations a thirtieth, and of each written token rotations took a twelfth.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import cache, wraps
from importlib.util import find_spec
from subprocess import SubprocessError
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import SiLUActivation

ROTATION, IS_FUSED = "apply_rotary_pos_emb", "is_fused"
GATED = ("gate_proj", "up_proj", "down_proj", "act_fn")
"""What a gated layer is made of, as transformers names it."""
Rotation = Callable[..., tuple[Tensor, Tensor]]


def fuse_layers(network: nn.Module) -> None:
    """Let a network's norms, gates and rotations compute at once on a GPU; its weights stay what they are.

    Layers change their class wherever they are, since a model may move; elsewhere than on a GPU they compute as before.
    Rotations are a function of transformers' module and not of a layer: all models of that kind have the shorter way
    from then on.
    """
    for part in network.modules():
        kind = plain_kind(part)
        home = sys.modules[kind.__module__]
        if kind.__name__.endswith("RMSNorm") and hasattr(part, "variance_epsilon"):
            part.__class__ = _fused(kind, _norm)
        if all(hasattr(part, name) for name in GATED) and isinstance(part.act_fn, SiLUActivation | nn.SiLU):
            part.__class__ = _fused(kind, _gate)
        rotation = getattr(home, ROTATION, None)
        if kind.__name__.endswith("Attention") and rotation and not hasattr(rotation, IS_FUSED):
            setattr(home, ROTATION, _fused_rotation(rotation))


def plain_kind(part: nn.Module) -> Any:
    """The class of a layer, fused or not, as transformers has it; one that builds upon a fused class is another."""
    return vars(type(part)).get("plain_kind", type(part))


@cache
def runs_triton(device: torch.device) -> bool:
    """Whether kernels in Triton run on a device: an NVIDIA GPU from Ampere on, where Triton can compile.

    Tried once, with the smallest of ours; where that fails a warning tells why, and torch's operations do the work.
    """
    if device.type != "cuda" or find_spec("triton") is None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    states = torch.ones(1, 1, 1, 2, device=device)
    try:
        from stvg_lightning.models.rotary_kernel import rotate

        rotate(states, states, states[0], states[0])
        torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        raise
    except (ImportError, OSError, RuntimeError, SubprocessError) as error:  # no compiler, or one that fails
        warnings.warn(f"Triton does not run on {device} ({error}): torch's operations do", RuntimeWarning, stacklevel=2)
        return False
    return True


def _norm(self: Any, hidden_states: Tensor) -> Tensor:
    """As transformers' norm, of (..., channels); rounded to half precision once instead of twice."""
    is_half = hidden_states.dtype == self.weight.dtype and hidden_states.dtype.itemsize == 2
    if not (hidden_states.is_cuda and is_half):
        return self.plain_kind.forward(self, hidden_states)
    # torch's kernel has a way back; while tokens are written, of a few rows at a time, ours takes less.
    if not torch.is_grad_enabled() and runs_triton(hidden_states.device):
        from stvg_lightning.models.norm_kernel import normed

        return normed(hidden_states, self.weight, self.variance_epsilon)
    with torch.autocast("cuda", enabled=False):  # it would ask for float32
        return F.rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)


def _gate(self: Any, x: Tensor) -> Tensor:
    """As transformers' gated layer, of (..., channels); what passes the gate is rounded to half precision once."""
    if not runs_triton(x.device):
        return self.plain_kind.forward(self, x)
    from stvg_lightning.models.gating_kernel import gated

    return self.down_proj(gated(self.gate_proj(x), self.up_proj(x)))


@cache
def _fused(kind: Any, forward: Callable[..., Tensor]) -> Any:
    """A class of transformers' layers with a shorter way on a GPU; `plain_kind` is what it was."""

    def reduced(self: Any) -> tuple[Any, ...]:
        return _empty, (kind, forward), self.__dict__

    return type(f"Fused{kind.__name__}", (kind,), {"plain_kind": kind, "forward": forward, "__reduce__": reduced})


def _empty(kind: Any, forward: Callable[..., Tensor]) -> Any:
    """A fused layer for its state to be put into: classes made in functions cannot be found by those who unpickle."""
    made = _fused(kind, forward)
    return made.__new__(made)


def _fused_rotation(theirs: Rotation) -> Rotation:
    """A function of transformers that turns queries and keys, with a shorter way on a GPU."""

    @wraps(theirs)
    def rotation(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        is_one_precision = len({each.dtype for each in (q, k, cos, sin)}) == 1
        is_whole = unsqueeze_dim == 1 and cos.dim() == 3 and cos.shape[-1] == q.shape[-1]
        if q.is_cuda and is_one_precision and is_whole and runs_triton(q.device):
            from stvg_lightning.models.rotary_kernel import rotate

            return rotate(q, k, cos, sin)
        return theirs(q, k, cos, sin, unsqueeze_dim)

    vars(rotation)[IS_FUSED] = True
    return rotation
