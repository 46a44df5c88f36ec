"""What the training modules share: the optimiser, its schedule, and one guarded step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from lightning import LightningModule
from torch import Tensor, nn

from stvg_lightning.tubes.choices import check_choice


@dataclass(frozen=True)
class Optimization:
    """AdamW and its schedule.

    Attributes:
        learning_rate: the largest rate, after warm-up.
        schedule: how the rate falls over the training: `constant`, `linear` or `cosine`, down to 0.
        warmup_share: share of the steps over which the rate first rises.
        weight_decay: AdamW's.
        max_gradient_norm: longer gradients are shortened to this.
    """

    learning_rate: float = 1e-6
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    warmup_share: float = 0.0
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate}")
        check_choice("schedule", self.schedule, ("constant", "linear", "cosine"))
        if not 0 <= self.warmup_share <= 1:
            raise ValueError(f"warmup_share must lie in [0, 1], not {self.warmup_share}")
        if not self.max_gradient_norm > 0:
            raise ValueError(f"max_gradient_norm must be above 0, not {self.max_gradient_norm}; .inf never shortens")


def check_at_least_one(settings: object, *names: str) -> None:
    """Refuse a count below 1; None, where a setting may be None, stands for its default."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")


class NonFiniteLoss(RuntimeError):
    """The loss became NaN or infinite; the weights are still those of the step before."""


def rate_factor(step: int, max_steps: int, settings: Optimization) -> float:
    """Share of the learning rate at a step, counted from 0.

    Example:
        >>> [round(rate_factor(step, 10, Optimization(warmup_share=0.2)), 3) for step in (0, 1, 2, 6, 10)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    warmup = round(settings.warmup_share * max_steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = min((step - warmup) / max(max_steps - warmup, 1), 1.0)
    if settings.schedule == "constant":
        return 1.0
    return 1.0 - progress if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    settings: Optimization,
    max_steps: int,
    others: Iterable[nn.Parameter] = (),
    rate_of_others: float | None = None,
) -> dict:
    """What `configure_optimizers` returns: AdamW over the trainable parameters, its rate set at every step.

    Args:
        parameters: frozen ones are left out.
        settings: AdamW's, and the schedule.
        max_steps: optimiser steps that the schedule is laid over.
        others: further parameters.
        rate_of_others: the largest rate of these; that of `settings` where None.
    """
    groups = [
        {"params": [parameter for parameter in group if parameter.requires_grad], "lr": rate}
        for group, rate in ((parameters, settings.learning_rate), (others, rate_of_others or settings.learning_rate))
    ]
    trained = [group for group in groups if group["params"]]
    optimizer = torch.optim.AdamW(trained, weight_decay=settings.weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, max_steps, settings))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def check_finite(loss: Tensor, step: int) -> None:
    """Stop the training before a broken loss reaches the weights.

    Raises:
        NonFiniteLoss: the loss is NaN or infinite; the step is named.
    """
    if not bool(torch.isfinite(loss)):
        raise NonFiniteLoss(
            f"the loss at step {step} is {loss.item()}: training stopped, the last checkpoint is kept. "
            "A smaller learning rate or dtype float32 often helps"
        )


def mean_over_processes(module: LightningModule, *counts: Tensor | float | int) -> list[float]:
    """Counts of what a batch holds, summed over all processes and divided by their number.

    What is divided by them adds up to a mean over the whole batch, since gradients are averaged over processes.
    """
    own = torch.tensor([float(count) for count in counts], dtype=torch.float32, device=module.device)
    return module.all_gather(own).float().reshape(-1, len(counts)).mean(dim=0).tolist()


def backward(module: LightningModule, loss: Tensor, last: bool) -> None:
    """Add a portion's gradients to those of the step; only the step's last portion exchanges them with other processes.

    The number of portions may differ between processes, whose batches may differ by a question.
    """
    apart = nullcontext if last else getattr(module.trainer.strategy, "block_backward_sync", nullcontext)
    with apart():
        module.manual_backward(loss)


def guarded_step(module: LightningModule, settings: Optimization) -> float:
    """Clip the gradients, take one optimiser step and one of the schedule, and clear the gradients.

    Returns:
        The norm of the gradient before clipping.

    Raises:
        NonFiniteLoss: the gradient is NaN or infinite.
    """
    optimizer = module.optimizers()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_gradient_norm)
    check_finite(norm, module.global_step)
    optimizer.step()
    module.lr_schedulers().step()
    optimizer.zero_grad()
    return float(norm)


def trainable_state(module: nn.Module) -> dict[str, Tensor]:
    """The parameters that training changes: all that a checkpoint of an adapter stage needs to hold."""
    return {name: parameter.detach() for name, parameter in module.named_parameters() if parameter.requires_grad}
