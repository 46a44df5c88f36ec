"""SARL-STG from its recipe to its report, in miniature; the pair of models in prediction; wrong keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stvg_lightning.cli.main import main
from stvg_lightning.cli.recipe import bind_recipe, load_values
from stvg_lightning.cli.stages.stage import Run
from stvg_lightning.cli.stages.training import grounder_of
from stvg_lightning.data.shards import ShardFolder
from stvg_lightning.models.adapters import load_trained, spatial_folder

ROOT = Path(__file__).parent.parent.parent
RECIPES = (ROOT / "recipes" / "sarl_stg.yaml", ROOT / "recipes" / "tiny.yaml")

MINIATURE = """
name: sarl_miniature
runs: {runs}
stages:
  shards: {{splits: {{train: 8, cold_start: 16, test: 4}}}}
  joint: # long enough for the form of an answer
    settings: {{max_steps: 40}}
    loading: {{batch_size: 8, num_workers: 0}}
  samples: {{rules: {{min_tiou: 0.0}}, batch_size: 8, num_workers: 0}}
  cold_start: {{settings: {{max_steps: 1}}, loading: {{batch_size: 4, num_workers: 0}}}}
  grpo: {{settings: {{max_rollouts: 2, group_size: 4}}, loading: {{batch_size: 4, num_workers: 0}}}}
  evaluate: {{batch_size: 4, num_workers: 0}}
  report: {{gallery: 2}}
"""


@pytest.fixture(scope="module")
def recipe_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("sarl")
    overlay = folder / "miniature.yaml"
    overlay.write_text(MINIATURE.format(runs=folder / "runs"))
    return (*RECIPES, overlay)


@pytest.fixture(scope="module")
def run(recipe_files: tuple[Path, ...]) -> Path:
    """A finished run; tests must not change it."""
    assert main(["run", *map(str, recipe_files)]) == 0
    return recipe_files[-1].parent / "runs" / "sarl_miniature"


def test_every_stage_leaves_what_the_next_one_needs(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert list(summary["models"]) == ["base", "joint", "cold_start", "grpo"]
    assert {"shards", "joint", "samples", "cold_start", "grpo", "evaluate", "report"} == set(summary["seconds"])
    spatial = run / "joint" / "model" / "spatial"
    for stage in ("joint", "cold_start", "grpo"):
        assert spatial_folder(str(run / stage / "model")) == spatial
    assert spatial_folder("tiny") is None
    counts = json.loads((run / "samples" / "yield.json").read_text())
    assert counts["questions"] == 16 and counts["answers"] == 128
    assert counts["answers_passed"] + sum(counts["refused"].values()) == 128
    kept = ShardFolder(run / "samples" / "kept")
    assert len(kept) == counts["questions_kept"] > 0
    written = {row["id"]: row for row in map(json.loads, (run / "samples" / "samples.jsonl").read_text().splitlines())}
    for index in range(len(kept)):
        sample = kept[index]
        assert sample.response == written[sample.truth.id]["kept"]
        assert sample.response in [answer["text"] for answer in written[sample.truth.id]["answers"]]


def test_rows_hold_the_boxes_that_were_found(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "evaluate" / "grpo.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    for row in rows:
        answered = row["predicted_span_seconds"]
        has_time = answered is not None and answered[0] < answered[1]
        assert ("located_boxes_xyxy" in row) == has_time
        if has_time:
            assert all(
                answered[0] - 0.13 <= int(frame) / 8 <= answered[1] + 0.13 for frame in row["located_boxes_xyxy"]
            )
            assert row["vIoU"] <= row["tIoU"] + 1e-6 and row["object_id_correct"] is None
        terms = row["terms"]
        assert set(terms) == {"spatio_temporal", "format", "think"}
        assert row["tIoU"] - 0.2 <= terms["spatio_temporal"] <= 2.0
    assert any(row["vIoU"] > 0 for row in rows), "the tiny models answer something"
    assert "data:video" in (run / "report.html").read_text()


def test_a_stage_without_a_module_is_no_discriminator(run: Path, tmp_path: Path) -> None:
    """`own` may mean the recipe's detector, where nothing has been trained yet; a stage that is named may not."""
    recipe, model = bind_recipe(load_values([run / "recipe.yaml"])), load_trained("tiny")
    trained, plain = Run(recipe, run), Run(recipe, tmp_path)
    (tmp_path / "joint" / "model").mkdir(parents=True)
    assert grounder_of(trained, model, "cold_start", "base").module.global_width == model.width
    with pytest.raises(FileNotFoundError, match="stage 'joint' has trained no spatial grounding module"):
        grounder_of(plain, model, "joint", "base")
    assert grounder_of(plain, model, "own", "base").module.global_width == model.width


def test_the_discriminators_cost_is_in_the_phase_log(run: Path) -> None:
    table = (run / "grpo" / "metrics" / "start_001" / "metrics.csv").read_text().splitlines()
    for name in ("discriminator/seconds_per_rollout", "discriminator/memory_mib", "seconds/discriminator"):
        assert name in table[0].split(",")


def test_the_pair_answers_about_a_video_of_ones_own(run: Path, tmp_path: Path, stvg: Any) -> None:
    sample = ShardFolder(run / "shards" / "test")[0]
    video = tmp_path / "own.mp4"
    video.write_bytes(sample.video)
    out = tmp_path / "drawn.mp4"
    printed = stvg("predict", run / "grpo" / "model", video, sample.truth.query, "--out", out)
    assert printed.code == 0, printed.err
    answer = json.loads(printed.out)
    start, end = answer["span_seconds"] or (0.0, 0.0)
    assert (len(answer["boxes_xyxy"]) > 0) == (start < end)
    assert out.stat().st_size > 1000


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("spatial=null", "recipe.spatial must name one"),
        ("stages.grpo.discriminator=evaluate", "there is no stage 'evaluate' before it"),
        ("stages.samples.sampling.temperature=0", "temperature above 0"),
        ("stages.grpo.discriminator=jont", "there is no stage 'jont' before it"),
        ("stages.joint.detector=grpo", "there is no stage 'grpo' before it"),
        ("spatial.dtype=bfloat16", "needs weights in float32"),
        ("spatial.reading.frames_at_once=0", "frames_at_once must be at least 1"),
        ("stages.joint.settings.clip_source=gold", "clip_source"),
        ("spatial.clip.fps=2", "clips"),
        ("stages.grpo.lora.vision_tower=adapted", "stages.grpo.lora.vision_tower: must be frozen"),
        ("stages.joint.spatial_lora.vision_tower=adapted", "vision_tower"),
    ],
)
def test_wrong_keys_are_refused_before_anything_runs(override: str, message: str, stvg: Any) -> None:
    printed = stvg("check", "--together", *RECIPES, override)
    assert printed.code == 1 and message in printed.err


def test_an_overlay_counts_only_where_its_key_is_there(tmp_path: Path, stvg: Any) -> None:
    for recipe in ("stvg_r1", "stvg_o1", "stvg_r1_sft", "sarl_stg_dapo"):
        assert stvg("check", "--together", ROOT / "recipes" / f"{recipe}.yaml", RECIPES[1]).code == 0
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("stages: {gpro: {settings: {max_rollouts: 3}}}")
    assert stvg("check", "--together", *RECIPES, overlay).code == 1, "without the mark a wrong name stays an error"
