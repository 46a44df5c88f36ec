"""What is written of rollouts: rows of a file, and tables that no completion can break."""

from __future__ import annotations

import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.modules.callbacks.rollout_log import RolloutLog, rollout_table
from stvg_lightning.modules.grpo_settings import GRPOSettings
from tests.helpers import assert_close
from tests.small_trainings import adapted_copy, data_of, grpo_module, train


def test_every_completion_is_written(models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path) -> None:
    module = grpo_module(adapted_copy(models["qwen3_vl"]), GRPOSettings(max_rollouts=3, group_size=4))
    data = data_of(world_shards, module.adapted)
    train(module, data, tmp_path, 3, callbacks=[RolloutLog(tmp_path, show_every_steps=2)])
    rows = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1] * 8 + [2] * 8 + [3] * 8
    (scored,), last = module.last_collected, rows[16:]
    assert [row["text"] for row in last] == scored.rollouts.texts
    assert_close([row["total"] for row in last], scored.rewards.flatten())
    assert_close([row["advantage"] for row in last], module.objective.advantages(scored.rewards).flatten())
    assert [row["terms"]["roundness"] for row in last] == [row["total"] for row in last]
    assert last[0]["id"] == last[3]["id"] != last[4]["id"]
    assert data.sample(last[0]["id"]).truth.query == last[0]["query"]
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tables = board.Tensors("completions/text_summary")
    assert [table.step for table in tables] == [1, 3]
    assert [image.step for image in board.Images("frames")] == [1, 3]
    shown = tables[1].tensor_proto.string_val[0].decode()
    assert shown.count("\n|") == 6, "a head, a line, and one row a completion"
    assert {"reward/total", "grpo/kl", "rollout/log_prob_gap"} <= set(board.Tags()["scalars"])


def test_a_table_holds_whatever_a_model_writes() -> None:
    row = {
        "query": "the <b>dog</b>",
        "text": "a | b\n<script>alert(1)</script>",
        "terms": {"iou": 0.5, "id": None},
        "total": 0.5,
        "advantage": -1.25,
    }
    table = rollout_table([row])
    assert table.splitlines() == [
        "**the &lt;b&gt;dog&lt;/b&gt;**",
        "",
        "| completion | iou | id | total | advantage |",
        "|---|---|---|---|---|",
        "| a &#124; b &lt;script&gt;alert(1)&lt;/script&gt; | 0.50 | - | 0.50 | -1.25 |",
    ]
