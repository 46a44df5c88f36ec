"""The benchmark: any predictor, rows as they come; and a package that is light to import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest

from stvg_lightning.answers import id_span
from stvg_lightning.evaluation import benchmark
from stvg_lightning.tubes import Sample, Truth

BOX = (0.0, 0.0, 10.0, 10.0)


def sample_of(index: int) -> Sample:
    track = {frame: BOX for frame in range(100)}
    truth = Truth(f"v{index}", "q", 10.0, 100, 64, 48, (10, 10 + 10 * (index + 1)), track, 3, {3: track})
    return Sample(truth, Path("none.mp4"))


SAMPLES = [sample_of(index) for index in range(5)]


def gold(samples: Sequence[Sample]) -> list[str]:
    return [id_span.write(sample.truth) for sample in samples]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 9])
def test_the_gold_answers_score_one_in_order(batch_size: int) -> None:
    rows = list(benchmark(gold, SAMPLES, id_span.read, batch_size))
    assert [row["id"] for row in rows] == ["v0", "v1", "v2", "v3", "v4"]
    assert all(row["vIoU"] == 1.0 and row["object_id_correct"] for row in rows)


def test_a_constant_guess() -> None:
    guess = "<answer>Target ID: 3, Time range: 1.0 to 3.0</answer>"
    rows = list(benchmark(lambda batch: [guess] * len(batch), SAMPLES, id_span.read, 2))
    assert [row["tIoU"] for row in rows] == [0.5, 1.0, 2 / 3, 0.5, 0.4]


def test_rows_come_as_batches_are_answered() -> None:
    sizes: list[int] = []

    def predict(batch: Sequence[Sample]) -> list[str]:
        sizes.append(len(batch))
        return gold(batch)

    rows = benchmark(predict, iter(SAMPLES), id_span.read, 2)
    assert sizes == []
    assert len(list(islice(rows, 2))) == 2 and sizes == [2]
    assert len(list(rows)) == 3 and sizes == [2, 2, 1]


def test_a_predictor_that_loses_answers_is_refused() -> None:
    with pytest.raises(ValueError, match="1 texts for 2 samples, the first 'v2'"):
        list(benchmark(lambda batch: gold(batch)[: 1 if batch[0].truth.id == "v2" else 9], SAMPLES, id_span.read, 2))
    with pytest.raises(ValueError, match="at least 1, not 0"):
        list(benchmark(gold, SAMPLES, id_span.read, 0))


def test_scoring_needs_no_torchmetrics() -> None:
    code = "import sys, stvg_lightning.evaluation, stvg_lightning.rewards; print('torchmetrics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
