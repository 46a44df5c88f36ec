"""Figures as SVG for a page, drawn by matplotlib without its global state and in colours for light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from stvg_lightning.reports.curves import Curve, finite, running_mean, smoothing_window

INK = "#010203"
"""Stands for the page's text colour: it becomes `currentColor` in the SVG."""

LINE_COLORS = ("#3b82f6", "#f08c00", "#16a34a", "#e0218a", "#8b5cf6", "#14b8a6", "#a8763e", "#8b93a1")
VERDICT_COLORS = {"gain": "#16a34a", "loss": "#dc4c3e", "chance": "#8b93a1"}
HISTOGRAM_COLORS = ("#3b82f6", "#c3c9d1", "#8b93a1")
FONT_POINTS = 9
MOST_POINTS = 250
"""Points drawn of one curve; longer ones are thinned evenly, so that the page stays small."""


def curves_svg(curves: Mapping[str, Curve], id_prefix: str) -> str:
    """Curves with their running means drawn over faint raw points.

    Args:
        curves: name -> curve, in the order of `LINE_COLORS`; values that are not finite are left out.
        id_prefix: what the ids inside the SVG begin with; unique on the page.
    """
    figure, axes = _figure()
    for index, curve in enumerate(curves.values()):
        points = finite(curve)
        steps, values = [step for step, _ in points], [value for _, value in points]
        smooth = running_mean(values, smoothing_window(len(values)))
        kept = _thinned(len(points))
        color = LINE_COLORS[index % len(LINE_COLORS)]
        raw = [values[i] for i in kept]
        axes.plot([steps[i] for i in kept], raw, "o", color=color, alpha=0.35, markersize=2.6, markeredgewidth=0)
        axes.plot([steps[i] for i in kept], [smooth[i] for i in kept], color=color, linewidth=1.6)
    low, high = axes.get_ylim()
    if low < 0 <= min((value for curve in curves.values() for _, value in finite(curve)), default=-1):
        # Losses, shares and lengths are never negative: their axis should not suggest it.
        axes.set_ylim(-0.02 * high, high)
    return _svg(figure, id_prefix)


def stacked_svg(curves: Mapping[str, Curve], id_prefix: str) -> str:
    """Curves stacked on each other, each smoothed by its running mean; a step without a value counts 0."""
    figure, axes = _figure()
    by_step = [dict(finite(curve)) for curve in curves.values()]
    steps = sorted(set().union(*by_step)) if by_step else []
    kept = _thinned(len(steps))
    window = smoothing_window(len(steps))
    layers = [running_mean([values.get(step, 0.0) for step in steps], window) for values in by_step]
    bottom = np.zeros(len(kept))
    for index, layer in enumerate(layers):
        top = bottom + np.array([layer[i] for i in kept])
        axes.fill_between(
            [steps[i] for i in kept], bottom, top, color=LINE_COLORS[index % len(LINE_COLORS)], alpha=0.85, linewidth=0
        )
        bottom = top
    axes.set_ylim(bottom=0)
    return _svg(figure, id_prefix)


def forest_svg(entries: Mapping[str, Mapping[str, Any]], verdicts: Sequence[str], id_prefix: str) -> str:
    """Means and 95 % intervals of differences in percentage points, one row each, around a line at 0.

    Args:
        entries: label -> `{"mean", "ci95": [low, high]}` in [-1, 1].
        verdicts: `gain`, `loss` or `chance` for each entry; gives its colour.
        id_prefix: what the ids inside the SVG begin with; unique on the page.
    """
    figure, axes = _figure(height_inches=0.55 + 0.24 * len(entries))
    axes.grid(False)
    axes.axvline(0, color=INK, alpha=0.5, linewidth=0.8)
    for row, (entry, verdict) in enumerate(zip(entries.values(), verdicts, strict=True)):
        mean, low, high = (100 * value for value in (entry["mean"], *entry["ci95"]))
        color = VERDICT_COLORS[verdict]
        axes.plot([low, high], [row, row], color=color, linewidth=2, solid_capstyle="round")
        axes.plot([mean], [row], "o", color=color, markersize=5, markeredgewidth=0)
    axes.set_yticks(range(len(entries)), list(entries))
    axes.set_ylim(len(entries) - 0.4, -0.6)
    axes.set_xlim(*forest_limits(list(entries.values())))
    axes.set_xlabel("percentage points", color=INK, fontsize=FONT_POINTS)
    return _svg(figure, id_prefix)


def histogram_svg(counts: Mapping[str, Sequence[int]], highest: int, id_prefix: str) -> str:
    """Counts of each tenth from 0 to 1, stacked on each other.

    Args:
        counts: name -> count of each tenth, in the order of `HISTOGRAM_COLORS`.
        highest: the end of the vertical axis, so that figures beside each other can be compared.
        id_prefix: what the ids inside the SVG begin with; unique on the page.
    """
    figure, axes = _figure(height_inches=1.7)
    bottom = np.zeros(len(next(iter(counts.values()))))
    left = np.arange(len(bottom)) / len(bottom)
    for of_name, color in zip(counts.values(), HISTOGRAM_COLORS, strict=True):
        axes.bar(left, of_name, 0.9 / len(bottom), bottom, align="edge", color=color, linewidth=0)
        bottom += of_name
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.05 * highest)
    return _svg(figure, id_prefix)


def forest_limits(entries: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Ends of an axis in percentage points that hold 0 and every interval, with a margin."""
    ends = [0.0, *(100 * float(end) for entry in entries for end in entry["ci95"])]
    margin = max(0.05 * (max(ends) - min(ends)), 0.5)
    return min(ends) - margin, max(ends) + margin


def _figure(height_inches: float = 2.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(3.8, height_inches), layout="constrained")
    axes = figure.add_subplot()
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(INK)
        spine.set_alpha(0.4)
    axes.grid(True, axis="y", color=INK, alpha=0.12, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=INK, labelsize=FONT_POINTS)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    return figure, axes


def _thinned(num_points: int) -> NDArray[np.int64]:
    """Indices of at most `MOST_POINTS` points, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, num_points - 1, min(num_points, MOST_POINTS)).round().astype(np.int64))


def _svg(figure: Figure, id_prefix: str) -> str:
    """The figure as an `<svg>` element that can stand in a page among others.

    Matplotlib's ids are random and its style element would act on the whole page: ids are numbered anew
    behind the prefix, and style, metadata, comments and namespaces are taken out.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    view_box = re.search(r'viewBox="([^"]+)"', svg)
    assert view_box is not None, svg[:200]
    opening = f'<svg viewBox="{view_box[1]}" stroke-linejoin="round" aria-hidden="true">'
    svg = re.sub(r"<svg[^>]*>", opening, svg, count=1)
    svg = svg.replace("xlink:href", "href").replace(INK, "currentColor")
    return re.sub(r">\s+<", "><", _with_own_ids(svg, id_prefix)).strip()


def _with_own_ids(svg: str, id_prefix: str) -> str:
    numbers: dict[str, int] = {}
    for found in re.findall(r'\bid="([^"]+)"', svg):
        numbers.setdefault(found, len(numbers))
    pattern = re.compile(r'(\bid="|href="#|url\(#)([^")]+)')
    return pattern.sub(lambda match: f"{match[1]}{id_prefix}-{numbers[match[2]]}", svg)
