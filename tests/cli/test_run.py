"""`stvg run`: a whole run in miniature, what it leaves, and how it goes on after whatever stopped it."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from stvg_lightning.models.adapters import load_trained
from tests.helpers import assert_close

ROOT = Path(__file__).parent.parent.parent
STAGES = ("shards", "sft", "grpo", "evaluate", "report")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a folder: when it was last written, and what it holds."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def copied_run(finished_run: Path, runs: Path, name: str, stages: tuple[str, ...]) -> Path:
    """A run of which only some stages are done."""
    for stage in stages:
        shutil.copytree(finished_run / stage, runs / name / stage)
    return runs / name


def test_a_run_leaves_what_it_promises(finished_run: Path) -> None:
    summary = json.loads((finished_run / "summary.json").read_text())
    assert summary.keys() == {"models", "differences", "seconds"}
    assert list(summary["models"]) == ["base", "sft", "grpo"]
    assert list(summary["differences"]) == ["sft-base", "grpo-sft"]
    # The evaluation writes it, so the stages after that are added by the report.
    assert {"shards", "sft", "grpo", "evaluate"} <= set(summary["seconds"]) and min(summary["seconds"].values()) > 0
    for metrics in (*summary["models"].values(), *summary["differences"].values()):
        for entry in metrics.values():
            low, high = entry["ci95"]
            assert low <= entry["mean"] <= high
    for model in ("base", "sft", "grpo"):
        rows = rows_of(finished_run / "evaluate" / f"{model}.jsonl")
        assert len(rows) == 4 and len({row["id"] for row in rows}) == 4
        assert set(rows[0]["terms"]) == {"temporal_iou", "object_id", "format", "own"}
        mean = sum(row["vIoU"] for row in rows) / 4
        assert_close(summary["models"][model]["m_vIoU"]["mean"], mean)
    for name in ("recipe.yaml", "versions.json", "report.html"):
        assert (finished_run / name).stat().st_size > 50
    versions = json.loads((finished_run / "versions.json").read_text())
    assert versions["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    for stage in STAGES:
        assert json.loads((finished_run / stage / "done.json").read_text())["seconds"] > 0


def test_a_user_s_own_reward_takes_part(finished_run: Path) -> None:
    rows = rows_of(finished_run / "grpo" / "rollouts.jsonl")
    assert [row["step"] for row in rows] == [step for step in (1, 2, 3, 4) for _ in range(2 * 3)]
    for row in rows:
        own = max(0.0, 1 - len(row["text"]) / 100)
        assert_close(row["terms"]["own"], own)
        assert_close(row["total"], sum(value for value in row["terms"].values() if value) - 0.5 * own)
    assert len({row["terms"]["own"] for row in rows}) > 2


def test_each_stage_moves_the_model_on(finished_run: Path, random_model_folder: Path) -> None:
    names = (str(random_model_folder), str(finished_run / "sft" / "model"), str(finished_run / "grpo" / "model"))
    weights = [
        load_trained(name).network.model.language_model.layers[0].self_attn.q_proj.weight.detach() for name in names
    ]
    assert (weights[0] - weights[1]).abs().max() > 1e-6
    assert (weights[1] - weights[2]).abs().max() > 1e-6


def test_a_second_run_does_nothing_but_say_so(finished_run: Path, recipe_files: tuple[Path, Path], stvg: Any) -> None:
    before = state_of(finished_run)
    printed = stvg("run", *recipe_files)
    assert printed.code == 0
    for number, stage in enumerate(STAGES, start=1):
        assert f"{number}/5 {stage}: done before, in" in printed.out
    assert state_of(finished_run) == before


def test_other_settings_are_refused_and_nothing_is_changed(
    finished_run: Path, recipe_files: tuple[Path, Path], stvg: Any
) -> None:
    before = state_of(finished_run)
    message = stvg("run", *recipe_files, "stages.sft.settings.max_steps=5").message
    assert "holds work of stage 'sft' under other settings" in message
    assert "name=..." in message and str(finished_run / "sft") in message
    assert "no stage 'gpro': its stages are shards, sft" in stvg("run", *recipe_files, "--only", "gpro").message
    assert state_of(finished_run) == before


def test_a_report_can_be_written_again(
    finished_run: Path, recipe_files: tuple[Path, Path], tmp_path: Path, stvg: Any
) -> None:
    folder = tmp_path / "runs" / "again"
    shutil.copytree(finished_run, folder)
    (folder / "report.html").unlink()
    printed = stvg("report", folder)
    assert printed.code == 0 and printed.out.strip().endswith("report.html")
    page = (folder / "report.html").read_text()
    assert "<title>miniature</title>" in page and not re.search(r"(?:src|href)=.https?:", page)
    assert "is no run folder" in stvg("report", tmp_path).message


def test_a_model_scored_on_two_sets_keeps_both_scores(
    recipe_files: tuple[Path, Path], finished_run: Path, tmp_path: Path, stvg: Any
) -> None:
    folder = copied_run(finished_run, tmp_path, "miniature", ("shards", "sft", "grpo", "evaluate"))
    more = "use: stvg_lightning.cli.stages.Evaluate, shards: run/shards/train, models: [base, sft]"
    again = f"stages.evaluate_more={{{more}, max_new_tokens: 8, batch_size: 4, num_workers: 0}}"
    printed = stvg("run", *recipe_files, f"runs={tmp_path}", again, "--only", "evaluate_more")
    assert printed.code == 0, printed.err
    summary = json.loads((folder / "summary.json").read_text())
    first, more = (json.loads((folder / stage / "scores.json").read_text()) for stage in ("evaluate", "evaluate_more"))
    other = "(evaluate_more)"
    assert list(summary["models"]) == ["base", "sft", "grpo", f"base {other}", f"sft {other}"]
    assert list(summary["differences"]) == ["sft-base", "grpo-sft", f"sft {other}-base {other}"]
    assert summary["models"]["sft"] == first["models"]["sft"]
    assert summary["models"][f"sft {other}"] == more["models"]["sft"]
    assert summary["differences"][f"sft {other}-base {other}"] == more["differences"]["sft-base"]
    printed = stvg("report", folder)
    assert printed.code == 0 and f"sft {other}" in (folder / "report.html").read_text()


def test_a_run_may_begin_with_the_model_of_another(
    recipe_files: tuple[Path, Path], tmp_path: Path, finished_run: Path, stvg: Any
) -> None:
    arguments = (
        "run", *recipe_files, f"runs={tmp_path}", "name=onward", f"model.name={finished_run / 'sft' / 'model'}",
        "stages.shards=null", "stages.sft=null", "stages.report=null", "stages.grpo.start=base",
        "stages.evaluate.models=[base,grpo]",
        f"stages.grpo.shards={finished_run / 'shards/train'}", f"stages.evaluate.shards={finished_run / 'shards/test'}",
    )  # fmt: skip
    printed = stvg(*arguments)
    assert printed.code == 0, printed.err
    base, onward = (
        (run / "evaluate" / f"{name}.jsonl").read_text()
        for run, name in ((finished_run, "sft"), (tmp_path / "onward", "base"))
    )
    assert [json.loads(line)["text"] for line in base.splitlines()] == [
        json.loads(line)["text"] for line in onward.splitlines()
    ]


def test_shards_that_no_stage_makes_are_missed_at_once(
    recipe_files: tuple[Path, Path], tmp_path: Path, stvg: Any
) -> None:
    arguments = ("run", *recipe_files, f"runs={tmp_path}", "name=early")
    message = stvg(*arguments, f"stages.evaluate.shards={tmp_path / 'nowhere'}").message
    assert "stage 'evaluate': there is no" in message and "nowhere" in message
    assert not (tmp_path / "early").exists()


def test_one_stage_alone_needs_those_before_it(
    recipe_files: tuple[Path, Path], tmp_path: Path, finished_run: Path, stvg: Any
) -> None:
    copied_run(finished_run, tmp_path, "alone", ("shards",))
    arguments = ("run", *recipe_files, f"runs={tmp_path}", "name=alone")
    message = stvg(*arguments, "--only", "grpo").message
    assert "stage 'sft' has left no model" in message and "run it first" in message
    printed = stvg(*arguments, "--only", "shards")
    assert printed.code == 0 and "done before" in printed.out


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_checkpoint(
    recipe_files: tuple[Path, Path], finished_run: Path, tmp_path: Path, stvg: Any
) -> None:
    # Moving the stages that are done is part of the test: their models name each other by relative paths.
    folder = copied_run(finished_run, tmp_path, "killed", ("shards", "sft"))
    arguments = ["run", *map(str, recipe_files), f"runs={tmp_path}", "name=killed"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "STVG_TEST_KILL_AT_STEP": "3"}
    command = [sys.executable, "-m", "stvg_lightning.cli.main", *arguments]
    killed = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    grpo = folder / "grpo"
    assert not (grpo / "done.json").exists() and not (grpo / "model").exists()
    assert torch.load(grpo / "last.ckpt", weights_only=False)["global_step"] == 2
    assert {row["step"] for row in rows_of(grpo / "rollouts.jsonl")} == {1, 2, 3}
    printed = stvg(*arguments)
    assert printed.code == 0 and "2/5 sft: done before" in printed.out and "3/5 grpo: done in" in printed.out
    # What comes out is what an uninterrupted run gives: texts, weights and scores.
    for file in ("grpo/rollouts.jsonl", "evaluate/grpo.jsonl"):
        expected, found = rows_of(finished_run / file), rows_of(folder / file)
        assert [(row["id"], row["text"]) for row in found] == [(row["id"], row["text"]) for row in expected]
    found, expected = (load_trained(str(run / "grpo" / "model")).network.state_dict() for run in (folder, finished_run))
    for name, weights in expected.items():
        assert_close(found[name], weights, atol=1e-6)


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """A disk that is nearly full: a file that grows beyond the limit cannot be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("stages", "num_bytes"), [((), 20_000), (("shards",), 200_000), (("shards", "sft", "grpo"), 300)]
)
def test_a_full_disk_is_named_and_loses_nothing(
    recipe_files: tuple[Path, Path],
    finished_run: Path,
    tmp_path: Path,
    stvg: Any,
    stages: tuple[str, ...],
    num_bytes: int,
) -> None:
    folder = copied_run(finished_run, tmp_path, "full", stages)
    before = state_of(folder) if stages else {}
    # The run writes its resolved recipe first: it is there already, so that the stage itself meets the full disk.
    folder.mkdir(exist_ok=True)
    arguments = ("run", *recipe_files, f"runs={tmp_path}", "name=full")
    with files_of_at_most(num_bytes):
        message = stvg(*arguments).message
    assert "the disk is full" in message and "run the same command again" in message
    now = state_of(folder)
    assert {name: now[name] for name in before} == before
    assert not [name for name in now if Path(name).name.startswith(".")], "no half-written file is left"


def test_a_broken_video_in_the_evaluation_is_named(
    recipe_files: tuple[Path, Path], finished_run: Path, tmp_path: Path, stvg: Any
) -> None:
    folder = copied_run(finished_run, tmp_path, "broken", ("shards", "sft", "grpo"))
    shard = folder / "shards" / "test" / "shard-00000.tar"
    data = bytearray(shard.read_bytes())
    first = data.index(b"ftypisom")
    data[first + 200 : first + 3000] = bytes(2800)
    shard.write_bytes(data)
    arguments = ("run", *recipe_files, f"runs={tmp_path}", "name=broken", "stages.evaluate.models=[base]")
    assert "1 of 4 samples" in stvg(*arguments, "--only", "evaluate").message
    rows = rows_of(folder / "evaluate" / "base.jsonl")
    assert len(rows) == 4 and sum("skipped" in row for row in rows) == 1


@pytest.mark.parametrize("num_workers", [0, 1])
def test_too_many_bad_samples_stop_a_training(
    recipe_files: tuple[Path, Path], finished_run: Path, tmp_path: Path, stvg: Any, num_workers: int
) -> None:
    folder = copied_run(finished_run, tmp_path, "bad", ("shards",))
    shard = folder / "shards" / "cold_start" / "shard-00000.tar"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    workers = f"stages.sft.loading.num_workers={num_workers}"
    message = stvg("run", *recipe_files, f"runs={tmp_path}", "name=bad", workers).message
    assert re.match(r"3 of \d samples were bad, more than the allowed share of 0.05; the first:\n", message)
    assert message.count("shard-00000.tar") == 3
