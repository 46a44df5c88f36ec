"""What numbering the objects of videos came to, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stvg_lightning.cli.prompting import PromptedShards
from stvg_lightning.evaluation.identities import LEAST_IOU
from stvg_lightning.evaluation.prompt_quality import THETAS


def print_prompted(prompted: PromptedShards, out: Path) -> None:
    """Tell what was written and left out, and how good it is, the latter two on standard error."""
    console = Console(stderr=True)
    for line in prompted.report.lines():
        console.print(line, markup=False, highlight=False)
    for skipped in prompted.built.skipped:
        console.print(f"skipped {skipped.id}: {skipped.reason}", markup=False, highlight=False)
    if prompted.quality is not None:
        console.print(quality_table(prompted.quality))
        for line in quality_lines(prompted.quality):
            console.print(line, markup=False, highlight=False)
    print(f"{prompted.built.num_written} samples in {len(prompted.built.manifest.shards)} shards at {out}")


def quality_lines(quality: dict[str, Any]) -> list[str]:
    """What became of the targets, for people."""
    share = {name: f"{100 * quality[name]:.1f} %" for name in ("never_followed", "switched", "fragmented")}
    return [
        f"of {quality['samples']} targets {share['never_followed']} were never followed (no track reaches an IoU of "
        f"{LEAST_IOU:g} in any frame), {share['switched']} changed their number ({quality['switches']} times in all), "
        f"{share['fragmented']} were lost and found again ({quality['fragments']} times)",
        f"{quality['objects_per_video']:.1f} objects in a video on average",
    ]


def quality_table(quality: dict[str, Any]) -> Table:
    """The upper bounds for people, as Table 6 has them."""
    table = Table(title="vIoU of the right object at the right time, in %")
    for column in ("theta", "m_vIoU", "vIoU@0.3", "vIoU@0.5", "m_vIoU, marked boxes alone"):
        table.add_column(column, justify="right")
    for theta in THETAS:
        scores = quality["oracle"][theta]
        marked = quality["oracle_marked"][theta]["m_vIoU"]
        cells = (*(scores[name] for name in ("m_vIoU", "vIoU@0.3", "vIoU@0.5")), marked)
        table.add_row(theta, *(f"{100 * cell:.1f}" for cell in cells))
    return table
