"""One self-contained HTML page about a run: results, curves, a gallery, and how it was made."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from stvg_lightning.data.difficulty_epochs import Distribution
from stvg_lightning.reports import figures
from stvg_lightning.reports.curves import Curve, Panel, finite, panels_of
from stvg_lightning.reports.drawing import PREDICTED_COLOR, TRUE_COLOR
from stvg_lightning.reports.gallery import CASES, GalleryItem, ModelView, Rows, item_time_bar, model_view
from stvg_lightning.reports.results import (
    HEADLINE_METRICS,
    Difference,
    comparisons,
    duration_words,
    headline_metrics,
    headline_table,
    model_name,
)
from stvg_lightning.tubes.files import replacing

TEMPLATE_NAME = "report.html.j2"
DIFFICULTY_WORDS = {"chosen": "trained on", "left_out": "not trained on", "alike": "not trained on, all answers alike"}


@dataclass(frozen=True)
class ReportInputs:
    """Everything a report tells of a run.

    Attributes:
        title: heading of the page.
        recipe_text: the resolved recipe.
        summary: what `summary.json` holds: `models`, `differences` and `seconds`.
        rows: model -> its evaluation rows, of which those of the gallery are shown; a row may hold `terms`
            (reward -> value or None) and `total` besides its scores.
        curves: stage -> metric -> `(step, value)` pairs; a stage without curves may be left out.
        gallery: what to show, in this order.
        difficulty: stage that chose its questions by difficulty -> how hard they were, each moment with its title.
        versions: package -> version.
    """

    title: str
    recipe_text: str
    summary: Mapping[str, Any]
    rows: Mapping[str, Rows]
    curves: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict)
    gallery: Sequence[GalleryItem] = ()
    difficulty: Mapping[str, Sequence[tuple[str, Distribution]]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DrawnPanel:
    """A figure with the words around it, and the colour of each line where it has several."""

    title: str
    caption: str
    svg: Markup
    legend: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DrawnDistribution:
    """How hard a stage's questions were at one moment: a title, a figure, and its figures in words."""

    title: str
    svg: Markup
    words: str


@dataclass(frozen=True)
class DrawnComparison:
    """Two models' differences: the main one in a sentence, all in a list, and their forest plot."""

    sentence: str
    differences: tuple[Difference, ...]
    svg: Markup


@dataclass(frozen=True)
class DrawnItem:
    """A gallery item with its video and time bar, and what each model said."""

    item: GalleryItem
    shown_name: str
    video_uri: str
    time_bar: Markup
    models: tuple[ModelView, ...]


def write_report(inputs: ReportInputs, path: Path) -> None:
    """Write the page; a page that was there before is replaced at once or, on an error, not at all.

    Args:
        inputs: what to tell.
        path: an `.html` file in a folder that exists.

    Raises:
        ValueError: a gallery item without a row of each model, or differences of unknown models.
        OSError: the file cannot be written.
    """
    page = render_report(inputs)
    with replacing(path) as beside:
        # A lone surrogate, which JSON can hold and UTF-8 cannot, is shown as its escape.
        beside.write_text(page, encoding="utf-8", errors="backslashreplace")


def render_report(inputs: ReportInputs) -> str:
    """The page as text; the same inputs give the same text.

    Raises:
        ValueError: as `write_report`.
    """
    seconds = {stage: float(spent) for stage, spent in inputs.summary.get("seconds", {}).items()}
    longest = max(seconds.values(), default=0.0) or 1.0
    return _template().render(
        title=inputs.title,
        num_videos=max((len(rows) for rows in inputs.rows.values()), default=0),
        metrics=[HEADLINE_METRICS[metric] for metric in headline_metrics(inputs.summary)],
        table=headline_table(inputs.summary),
        comparisons=_drawn_comparisons(inputs.summary),
        stages=_drawn_stages(inputs.curves),
        difficulty=_drawn_difficulty(inputs.difficulty),
        equal_groups=equal_groups(inputs.curves),
        gallery=[_drawn_item(item, inputs.rows) for item in inputs.gallery],
        cases=[case for case in CASES if any(item.case == case for item in inputs.gallery)],
        recipe_text=inputs.recipe_text,
        versions=inputs.versions,
        seconds=[(stage, duration_words(spent), 100 * spent / longest) for stage, spent in seconds.items()],
        total_time=duration_words(sum(seconds.values(), 0.0)),
        colors={"true": TRUE_COLOR, "predicted": PREDICTED_COLOR, **figures.VERDICT_COLORS},
        difficulty_legend=tuple(zip(DIFFICULTY_WORDS.values(), figures.HISTOGRAM_COLORS, strict=True)),
    )


def _drawn_comparisons(summary: Mapping[str, Any]) -> list[DrawnComparison]:
    drawn = []
    for index, pair in enumerate(comparisons(summary)):
        entries = {HEADLINE_METRICS[metric]: entry for metric, entry in pair.entries.items()}
        verdicts = [difference.verdict for difference in pair.differences]
        svg = Markup(figures.forest_svg(entries, verdicts, f"forest-{index}"))
        drawn.append(DrawnComparison(pair.sentence, pair.differences, svg))
    return drawn


def _drawn_stages(curves: Mapping[str, Mapping[str, Curve]]) -> list[tuple[str, list[tuple[str, list[DrawnPanel]]]]]:
    stages = []
    for stage_index, (stage, of_metric) in enumerate(curves.items()):
        groups, count = [], 0
        for title, panels in panels_of(of_metric):
            drawn = [_drawn_panel(panel, f"curve-{stage_index}-{count + i}") for i, panel in enumerate(panels)]
            groups.append((title, drawn))
            count += len(panels)
        if groups:
            stages.append((model_name(stage), groups))
    return stages


def equal_groups(curves: Mapping[str, Mapping[str, Curve]]) -> list[tuple[str, float]]:
    """Stages that sample groups, with the share of their groups, over all steps, whose rewards were all equal.

    Example:
        >>> equal_groups({"grpo": {"rollout/equal_groups": [(0, 0.5), (1, 0.0)]}})
        [('GRPO', 0.25)]
    """
    shares = {stage: [value for _, value in finite(of.get("rollout/equal_groups", ()))] for stage, of in curves.items()}
    return [(model_name(stage), sum(values) / len(values)) for stage, values in shares.items() if values]


def _drawn_difficulty(
    difficulty: Mapping[str, Sequence[tuple[str, Distribution]]],
) -> list[tuple[str, list[DrawnDistribution]]]:
    stages = []
    for stage_index, (stage, moments) in enumerate(difficulty.items()):
        counts = [asdict(distribution) for _, distribution in moments]
        highest = max((sum(tenth) for of in counts for tenth in zip(*of.values())), default=0) or 1
        drawn = []
        for index, (title, distribution) in enumerate(moments):
            svg = figures.histogram_svg(counts[index], highest, f"difficulty-{stage_index}-{index}")
            totals = {words: sum(counts[index][kind]) for kind, words in DIFFICULTY_WORDS.items()}
            words = ", ".join(f"{number} {kind}" for kind, number in totals.items() if number)
            if not totals[DIFFICULTY_WORDS["chosen"]]:
                words = f"{distribution.num_questions} questions"
            drawn.append(DrawnDistribution(title, Markup(svg), words))
        stages.append((model_name(stage), drawn))
    return stages


def _drawn_panel(panel: Panel, id_prefix: str) -> DrawnPanel:
    draw = figures.stacked_svg if panel.stacked else figures.curves_svg
    colors = [figures.LINE_COLORS[i % len(figures.LINE_COLORS)] for i in range(len(panel.curves))]
    legend = tuple(zip(panel.curves, colors, strict=True)) if len(panel.curves) > 1 or panel.stacked else ()
    num_left_out = sum(len(curve) - len(finite(curve)) for curve in panel.curves.values())
    note = f" Not drawn, since no finite numbers: {num_left_out}." if num_left_out else ""
    return DrawnPanel(panel.title, panel.caption + note, Markup(draw(panel.curves, id_prefix)), legend)


def _drawn_item(item: GalleryItem, rows_by_model: Mapping[str, Rows]) -> DrawnItem:
    found = {}
    for model, rows in rows_by_model.items():
        row = next((row for row in rows if row["id"] == item.id), None)
        if row is None:
            raise ValueError(f"model {model!r} has no row for the gallery's sample {item.id!r}")
        found[model] = row
    if item.shown_model not in found:
        raise ValueError(f"sample {item.id!r} shows model {item.shown_model!r}; there are {', '.join(found)}")
    uri = f"data:video/mp4;base64,{base64.b64encode(item.video_mp4).decode('ascii')}"
    views = tuple(model_view(model_name(model), row, model == item.shown_model) for model, row in found.items())
    return DrawnItem(item, model_name(item.shown_model), uri, Markup(item_time_bar(item, found)), views)


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE_NAME)
