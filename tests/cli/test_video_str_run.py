"""Video-STR's recipe in seconds: questions of all kinds drawn, learned, rewarded, scored for each kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stvg_lightning.cli.recipe import with_base
from stvg_lightning.data.shards import ShardFolder

ROOT = Path(__file__).parent.parent.parent
KINDS = ("counting", "relative_direction", "localisation", "motion")
SECONDS = """
name: video_str_in_seconds
runs: {runs}
model: {{name: {model}}}
video: {{fps: 2.0, min_frame_pixels: 1024, max_frame_pixels: 1024}}
stages:
  shards:
    splits: {{cold_start: 8, train: 8, test: 8}}
    world: {{min_things: 2, max_things: 2}}
    questions: {{kinds: [{kinds}], most_things: 2, most_frames: 3}}
  sft: {{settings: {{max_steps: 2}}, loading: {{batch_size: 4, num_workers: 0}}}}
  grpo:
    settings: {{max_rollouts: 4, group_size: 2}}
    loading: {{batch_size: 2, num_workers: 0}}
    sampling: {{max_new_tokens: 8}}
  evaluate: {{max_new_tokens: 8, batch_size: 4, num_workers: 0}}
  report: {{gallery: 2}}
"""


@pytest.mark.slow
def test_a_run_of_all_kinds_of_question(random_model_folder: Path, tmp_path: Path, stvg: Any) -> None:
    overlay = tmp_path / "seconds.yaml"
    overlay.write_text(SECONDS.format(runs=tmp_path, model=random_model_folder, kinds=", ".join(KINDS)))
    recipes = with_base([ROOT / "recipes" / "video_str_cold_start.yaml"])
    printed = stvg("run", *recipes, ROOT / "recipes" / "tiny.yaml", overlay)
    assert printed.code == 0, printed.err
    run = tmp_path / "video_str_in_seconds"
    truths = [sample.truth for sample in ShardFolder(run / "shards" / "train")]
    assert [truth.labels["kind"] for truth in truths] == [*KINDS, *KINDS]
    assert {truth.task for truth in truths} >= {"choice", "numeric"}
    rollouts = [json.loads(line) for line in (run / "grpo" / "rollouts.jsonl").read_text().splitlines()]
    assert {row["id"] for row in rollouts} == {truth.id for truth in truths}
    assert all(set(row["terms"]) == {"answer", "format", "nodes", "edges", "length"} for row in rollouts)
    assert all(row["terms"]["answer"] is not None for row in rollouts)
    scores = json.loads((run / "evaluate" / "scores.json").read_text())
    assert list(scores["models"]) == ["base", "sft", "grpo"]
    assert set(scores["models"]["grpo"]) >= {"accuracy", "relative_accuracy", "m_sIoU", "unreadable"}
    kinds = scores["labels"]["grpo"]["kind"]
    assert set(kinds) == set(KINDS) and "accuracy" in kinds["motion"] and "relative_accuracy" in kinds["counting"]
    assert "held-out scores in % for each kind" in printed.out and (run / "report.html").is_file()
