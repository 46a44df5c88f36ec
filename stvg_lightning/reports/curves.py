"""Training curves: read them from Lightning's `metrics.csv`, sort them into panels, and smooth them."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Curve = Sequence[tuple[int, float]]
"""`(step, value)` in the order of the steps."""

GROUPS: dict[str, str] = {
    "sft": "Supervised fine-tuning",
    "reward": "Rewards",
    "rollout": "Rollouts",
    "grpo": "Objective",
    "seconds": "Time",
}
OTHER_GROUP = "Other measures"
PHASES = ("decode", "vision", "prefill", "generate", "shuffled", "reward", "update")
NOT_CURVES = ("epoch", "step")
SPREAD = "_spread"

KNOWN: dict[str, tuple[str, str]] = {
    "sft/loss": (
        "Loss per answer token",
        "A healthy run falls fast while it learns the format, then slowly; a late rise means too high a learning rate.",
    ),
    "sft/gradient_norm": ("Gradient norm", "Healthy: falls with the loss, without single steps far above the rest."),
    "sft/learning_rate": ("Learning rate", "As the recipe says: a short rise if it warms up, then its schedule."),
    "reward/total": (
        "Total reward",
        "A healthy run climbs, noisily, and levels off; a jump to a constant suggests that a term is being gamed.",
    ),
    "reward/total_spread": (
        "Spread of the total in a group",
        "Healthy: clearly above 0, since groups without spread teach nothing; it shrinks as the model grows sure.",
    ),
    "reward/temporal_iou": ("Reward: temporal IoU", "Healthy: rises slowly and for long; times are learned last."),
    "reward/object_id": ("Reward: object ID", "Healthy: rises from about chance towards its largest value."),
    "reward/format": ("Reward: format", "Healthy: at its largest value within a few steps, and stays there."),
    "rollout/equal_groups": (
        "Share of groups with equal rewards",
        "Healthy: below about half; such groups give no gradient, and near 1 the training has stopped.",
    ),
    "rollout/parse_failures": ("Answers that cannot be read", "Healthy: near 0 after a cold start, and stays there."),
    "rollout/length_tokens": (
        "Length of completions in tokens",
        "Healthy: steady or drifting; a collapse means the reasoning is gone, a climb to the limit means rambling.",
    ),
    "rollout/truncated": ("Share of completions cut off", "Healthy: near 0; if not, completions need more tokens."),
    "rollout/log_prob_gap": (
        "Log-probability, sampled against recomputed",
        "Healthy: below 1e-4 in float32; more means that sampling and training read different inputs.",
    ),
    "grpo/loss": ("Loss", "Says little by itself: its policy part has mean 0 by construction, so look at the rewards."),
    "grpo/policy_loss": ("Policy part of the loss", "Healthy: scattered around 0."),
    "grpo/kl": (
        "KL to the reference",
        "Starts at 0; a healthy run grows slowly, a steep climb means it runs away from the cold start.",
    ),
    "grpo/clip_fraction": (
        "Clip fraction",
        "Exactly 0 with one update per rollout, where the ratio is 1; else healthy up to a few per cent.",
    ),
    "grpo/ratio_mean": ("Mean probability ratio", "Healthy: close to 1."),
    "grpo/gradient_norm": ("Gradient norm", "Healthy: the same order of magnitude throughout, without lone peaks."),
    "grpo/learning_rate": ("Learning rate", "As the recipe says: a short rise if it warms up, then its schedule."),
}
"""Metric -> its title and one sentence on what a healthy run looks like, in the order of the page."""

SPREADS_CAPTION = "Deviation over the answers of a batch; healthy: a term that can still teach keeps clearly above 0."
SECONDS_CAPTION = "Stacked; healthy: flat. Generation usually takes most; decode is the wait for videos."
TERM_CAPTION = "Mean of this reward term; healthy: rises, or stays where it cannot rise further."
OTHER_CAPTION = "Logged by this run; healthy: a trend without sudden jumps."


@dataclass(frozen=True)
class Panel:
    """One small figure: a title, a sentence on what is healthy, and the curves in it by the name of their line."""

    title: str
    caption: str
    curves: Mapping[str, Curve]
    stacked: bool = False


def read_curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the `metrics.csv` that Lightning's CSVLogger writes.

    Args:
        path: a file with a `step` column and one column per metric; a blank is a step without a value.

    Returns:
        Metric -> `(step, value)` in ascending order of steps. Where a step was logged twice, as after
        going on from a checkpoint, the later line counts.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no `step` column, or a value that is no number, with its line.
    """
    curves: dict[str, dict[int, float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        metrics = [name for name in reader.fieldnames or () if name not in NOT_CURVES]
        if "step" not in (reader.fieldnames or ()):
            raise ValueError(f"{path} has no column 'step', only {', '.join(metrics) or 'nothing'}")
        for row in reader:
            given = {metric: row[metric] for metric in metrics if row[metric]}
            if not given:
                continue
            try:
                step = int(float(row["step"]))
                values = {metric: float(value) for metric, value in given.items()}
            except ValueError as error:
                raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
            for metric, value in values.items():
                curves.setdefault(metric, {})[step] = value
    return {metric: sorted(values.items()) for metric, values in curves.items()}


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """The mean of each value and its neighbours, over a window that is cut off at both ends.

    Args:
        values: finite numbers.
        window: how many values are averaged, at least 1; an even one counts as the next odd one.

    Example:
        >>> running_mean([0.0, 3.0, 6.0, 0.0], 3)
        [1.5, 3.0, 3.0, 3.0]
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    half = window // 2
    means = []
    for index in range(len(values)):
        near = values[max(index - half, 0) : index + half + 1]
        means.append(math.fsum(near) / len(near))
    return means


def smoothing_window(num_values: int) -> int:
    """Values over which a curve is smoothed: a tenth of them, odd, from 1 to 51."""
    return min(num_values // 10 // 2 * 2 + 1, 51)


def finite(curve: Curve) -> list[tuple[int, float]]:
    """A curve without its NaN and infinite values."""
    return [(step, value) for step, value in curve if math.isfinite(value)]


def panels_of(curves: Mapping[str, Curve]) -> list[tuple[str, list[Panel]]]:
    """Sort a stage's curves into panels, grouped by the prefix of their names.

    Args:
        curves: metric -> curve. Known metrics that are absent are left out; unknown ones get a panel each.

    Returns:
        `(group title, panels)` in a fixed order; groups without panels are left out. All metrics under
        `seconds/` share one stacked panel, and so do the spreads of reward terms.
    """
    order = list(KNOWN)
    names = sorted(curves, key=lambda name: (order.index(name) if name in KNOWN else len(order), name))
    groups: dict[str, list[Panel]] = {}
    for prefix, title in [*GROUPS.items(), (None, OTHER_GROUP)]:
        members = [name for name in names if (_prefix(name) if _prefix(name) in GROUPS else None) == prefix]
        shared = [name for name in members if prefix == "seconds" or _is_term_spread(name)]
        panels = [_single_panel(name, curves[name]) for name in members if name not in shared]
        if shared:
            panels.append(_shared_panel(prefix == "seconds", {_leaf(name): curves[name] for name in shared}))
        if panels:
            groups[title] = panels
    return list(groups.items())


def _single_panel(name: str, curve: Curve) -> Panel:
    if name in KNOWN:
        title, caption = KNOWN[name]
    elif _prefix(name) == "reward":
        title, caption = f"Reward: {_leaf(name)}", TERM_CAPTION
    else:
        title, caption = name, OTHER_CAPTION
    return Panel(title, caption, {name: curve})


def _shared_panel(is_seconds: bool, curves: dict[str, Curve]) -> Panel:
    if not is_seconds:
        named = {name.removesuffix(SPREAD): curve for name, curve in curves.items()}
        return Panel("Spread of each term", SPREADS_CAPTION, named)
    known = [phase for phase in PHASES if phase in curves]
    ordered = {phase: curves[phase] for phase in [*known, *(name for name in curves if name not in PHASES)]}
    return Panel("Seconds of each phase", SECONDS_CAPTION, ordered, stacked=True)


def _is_term_spread(name: str) -> bool:
    return name.startswith("reward/") and name.endswith(SPREAD) and name not in KNOWN


def _prefix(name: str) -> str:
    return name.partition("/")[0]


def _leaf(name: str) -> str:
    return name.partition("/")[2]
