"""The TorchMetrics classes give what `summarise` gives, on one process and on two."""

from __future__ import annotations

import json
import math
import multiprocessing
import sys
from pathlib import Path

import pytest
import torch

from stvg_lightning.evaluation import METRICS, summarise
from stvg_lightning.evaluation.stvg_metrics import RowMean, StvgMetrics
from tests.helpers import assert_close


def row_of(index: int) -> dict[str, object]:
    # The first two rows score 0 throughout: a batch in which all figures are equal.
    score = 0.0 if index < 2 else (index * 37 % 11) / 10
    temporal = index % 4 == 3
    boxes = {"sIoU": score, "vIoU": score / 2, "gt_vIoU": score / 3, "object_id_correct": score > 0.5}
    if temporal:
        boxes = dict.fromkeys(boxes)
    questions = {"correct": index % 3 == 0, "relative_accuracy": score / 4}
    return {"id": f"v{index}", "tIoU": score**2, "unreadable": False, **boxes, **questions}


ROWS = [row_of(index) for index in range(11)]


def test_they_agree_with_the_table() -> None:
    metrics = StvgMetrics()
    for start in range(0, len(ROWS), 2):
        metrics.update(ROWS[start : start + 2])
    computed, table = metrics.compute(), summarise(ROWS)
    assert list(computed) == list(METRICS)
    for name in METRICS:
        assert_close(computed[name], table[name], atol=1e-12)
    metrics.reset()
    metrics.update(ROWS[4:5])
    assert_close(metrics.compute()["m_tIoU"], ROWS[4]["tIoU"], atol=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_a_single_figure_agrees_with_the_table(name: str) -> None:
    metric = RowMean(name)
    metric.update(ROWS[:7])
    metric.update(ROWS[7:])
    assert_close(metric.compute(), summarise(ROWS)[name], atol=1e-12)


def test_rows_without_the_metric_are_not_counted() -> None:
    metric = RowMean("m_vIoU")
    metric.update([ROWS[3]])
    assert math.isnan(metric.compute())


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="choose from m_tIoU"):
        RowMean("m_xIoU")


def compute_on_one_of_two(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2)
    share = slice(0, 7) if rank == 0 else slice(7, None)
    metrics, single = StvgMetrics(), RowMean("m_vIoU")
    metrics.update(ROWS[share])
    single.update(ROWS[share])
    values = {name: float(value) for name, value in metrics.compute().items()}
    (folder / f"{rank}.json").write_text(json.dumps(values | {"single": float(single.compute())}))
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform != "linux", reason="forks, so that the processes need not import everything again")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_processes_equal_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=compute_on_one_of_two, args=(rank, tmp_path)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    table = summarise(ROWS)
    for rank in (0, 1):
        values = json.loads((tmp_path / f"{rank}.json").read_text())
        for name, expected in (table | {"single": table["m_vIoU"]}).items():
            assert_close(values[name], expected, atol=1e-12)
