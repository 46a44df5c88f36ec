"""Draw docs/result.png from a run: a held-out video with both tubes, and the scores of the three models.

python docs/result_picture.py runs/quickstart
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from stvg_lightning.cli.recipe import bind_recipe, load_values
from stvg_lightning.cli.stages.rows import read_rows
from stvg_lightning.cli.stages.stage import Run
from stvg_lightning.data.shards import ShardFolder
from stvg_lightning.data.video import VideoSampling
from stvg_lightning.evaluation import predicted_tube
from stvg_lightning.models.adapters import load_trained_encoder
from stvg_lightning.reports import TimedTube, tubes_video
from stvg_lightning.rollouts.preparation import Preparation

NUM_FRAMES = 6
METRIC = "m_vIoU"
NAMES = {"base": "base", "sft": "cold start", "grpo": "GRPO"}


def main(folder: Path) -> None:
    """Choose the video with the median score among those that GRPO improved and answered well."""
    recipe = bind_recipe(load_values([folder / "recipe.yaml"]))
    run = Run(recipe, folder)
    evaluation = recipe.stages["evaluate"]
    rows = {name: {row["id"]: row for row in read_rows(folder / f"evaluate/{name}.jsonl")} for name in NAMES}
    good = [i for i, row in rows["grpo"].items() if row["vIoU"] > 0.5 and row["vIoU"] > rows["sft"][i]["vIoU"]]
    chosen = sorted(good, key=lambda i: rows["grpo"][i]["vIoU"])[len(good) // 2]
    sample = ShardFolder(run.path(evaluation.shards)).of_id(chosen)
    truth = sample.truth
    preparation = Preparation(load_trained_encoder(recipe.model.name), recipe.video, recipe.markers, recipe.answer)
    clip = replace(preparation, video=VideoSampling(fps=truth.fps)).marked_clip(sample).clip
    answer = preparation.read(rows["grpo"][chosen]["text"], sample.truth)
    true = TimedTube(truth.span_frames, truth.boxes_xyxy)
    frames = tubes_video(clip, true, TimedTube(*predicted_tube(answer, truth)))
    draw(frames, clip.times_seconds, truth, answer, json.loads((folder / "summary.json").read_text()))


def draw(frames: np.ndarray, times_seconds: tuple, truth, answer, summary: dict) -> None:
    """Frames above, spans on a bar below them, scores on the right."""
    figure = Figure(figsize=(12, 3.1), dpi=110, layout="constrained")
    grid = figure.add_gridspec(2, NUM_FRAMES + 2, height_ratios=[4, 1])
    for column, index in enumerate(np.linspace(0, len(frames) - 1, NUM_FRAMES).astype(int)):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(frames[index])
        axes.set_title(f"{times_seconds[index]:.2f} s", fontsize=9)
        axes.set_axis_off()
    bar = figure.add_subplot(grid[1, :NUM_FRAMES])
    for place, (span, color) in enumerate(((answer.span_seconds, "magenta"), (truth.span_seconds, "green"))):
        bar.barh(place, span[1] - span[0], left=span[0], color=color)
    bar.set_yticks([0, 1], ["predicted", "true"])
    bar.set_xlim(0, truth.duration_seconds)
    bar.set_xlabel("seconds")
    scores = figure.add_subplot(grid[:, NUM_FRAMES:])
    entries = [summary["models"][name][METRIC] for name in NAMES]
    means = [100 * entry["mean"] for entry in entries]
    errors = np.abs(np.array([[100 * edge for edge in entry["ci95"]] for entry in entries]).T - means)
    scores.bar(list(NAMES.values()), means, yerr=errors, color=["lightgray", "silver", "magenta"], capsize=4)
    scores.set_title(f"{METRIC}, %, held-out videos", fontsize=10)
    figure.suptitle(f'"{truth.query}"', fontsize=12)
    figure.savefig(Path(__file__).with_name("result.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
