"""What `stvg evaluate` shows to people: scores, differences, published figures, and what counts 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from rich.console import Console
from rich.table import Table

from stvg_lightning.cli.scoring import MISSING, SHOWN_IDS, Rows, print_scores
from stvg_lightning.evaluation.benchmarks import Benchmark
from stvg_lightning.evaluation.protocols import EvaluationProtocol
from stvg_lightning.evaluation.published import PublishedRow, published_on

UNREAD_VIDEOS = "unreadable_videos"


def print_evaluation(
    protocols: Sequence[EvaluationProtocol],
    rows: Mapping[str, Rows],
    differences: Mapping[str, Any],
    benchmark: Benchmark | None,
    with_ablations: bool,
) -> None:
    """Print a table for each protocol, the differences, and our figures beside the published ones."""
    console = Console()
    for protocol in protocols:
        print_scores(console, protocol, rows[protocol.name])
    for name, metrics in differences.items():
        console.print(f"[bold]{name}[/bold]: difference to the earlier evaluation, paired by question")
        console.print(difference_table(metrics))
    published = [] if benchmark is None else published_on(benchmark.name, with_ablations)
    if benchmark is not None and published:
        print_published(console, benchmark, protocols, rows, published)


def difference_table(metrics: Mapping[str, Any]) -> Table:
    """Ours less the earlier figures, in points of a hundred."""
    table = Table()
    table.add_column("metric")
    table.add_column("points", justify="right")
    table.add_column("95 % interval", justify="right")
    for metric, entry in metrics.items():
        low, high = entry["ci95"]
        table.add_row(metric, f"{100 * entry['mean']:+.2f}", f"{100 * low:+.2f} to {100 * high:+.2f}")
    return table


def print_published(
    console: Console,
    benchmark: Benchmark,
    protocols: Sequence[EvaluationProtocol],
    rows: Mapping[str, Rows],
    published: Sequence[PublishedRow],
) -> None:
    """Print our figures under each protocol below those that papers print, in percent, with sources and notes."""
    printed = {metric for row in published for metric in row.percent}
    metrics = [m for m in dict.fromkeys(m for protocol in protocols for m in protocol.metrics) if m in printed]
    metrics += sorted(printed.difference(metrics))
    sources = list(dict.fromkeys(row.source for row in published))
    table = Table()
    table.add_column("model")
    for metric in (*metrics, "source"):
        table.add_column(metric, justify="right")
    for row, after in zip_longest(published, published[1:]):
        cells = [f"{row.percent[metric]:.1f}" if metric in row.percent else "-" for metric in metrics]
        ends = after is None or after.source != row.source
        table.add_row(row.model, *cells, str(sources.index(row.source) + 1), end_section=ends)
    for protocol in protocols:
        means = protocol.means(rows[protocol.name])
        cells = [f"{100 * means[metric]:.1f}" if metric in means else "-" for metric in metrics]
        table.add_row(f"this evaluation, {protocol.name}", *cells, "", style="bold")
    console.print(f"[bold]{benchmark.title}[/bold]: what papers print, each by its own evaluator, and ours, in %")
    console.print(table)
    for number, source in enumerate(sources, start=1):
        console.print(f"{number}: {source}", highlight=False)
    for note in dict.fromkeys(row.note for row in published if row.note):
        models = [f"{row.model} ({sources.index(row.source) + 1})" for row in published if row.note == note]
        console.print(f"{', '.join(models)}: {note}", highlight=False)


def tell_incomplete(benchmark: Benchmark, num_questions: int) -> None:
    """Say that a score is not the benchmark's, where the shards hold other questions than papers score."""
    known = benchmark.num_questions
    if known is not None and num_questions != known:
        why = "their report.json says what was dropped" if num_questions < known else "another split?"
        print(
            f"these shards hold {num_questions} questions, and papers score {known} of {benchmark.title}: the figures "
            f"are not the benchmark's ({why})"
        )


def tell_unanswered(found: Mapping[str, Sequence[str]], num_questions: int) -> None:
    """Name them for people."""
    reasons = {MISSING: "have no prediction", UNREAD_VIDEOS: "have a video that cannot be read"}
    for kind, ids in found.items():
        named = ", ".join(ids[:SHOWN_IDS]) + (", ..." if len(ids) > SHOWN_IDS else "")
        print(f"{len(ids)} of {num_questions} questions {reasons[kind]} and count 0: {named}")
