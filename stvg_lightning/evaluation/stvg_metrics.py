"""The table's figures as TorchMetrics, which add up rows over batches and processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from stvg_lightning.evaluation.scoring import METRICS
from stvg_lightning.tubes.choices import check_choice


class RowMean(Metric):
    """The mean of one of `scoring.METRICS` over rows of `score_answer`, in [0, 1].

    Rows of tasks that do not have the metric are not counted; the mean of none is NaN.

    Args:
        metric: one of `m_tIoU`, `m_sIoU`, `m_vIoU`, `vIoU@0.3`, `vIoU@0.5`, `tIoU@0.3`, `tIoU@0.5`,
            `id_accuracy`, `unreadable`.
        options: of `torchmetrics.Metric`.

    Raises:
        ValueError: a metric that does not exist.

    Example:
        >>> mean = RowMean("m_tIoU")
        >>> mean.update([{"tIoU": 0.5}, {"tIoU": 0.25}, {"tIoU": None}])
        >>> mean.compute()
        tensor(0.3750, dtype=torch.float64)
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, metric: str, **options: Any) -> None:
        super().__init__(**options)
        check_choice("metric", metric, METRICS)
        self.metric = metric
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows of `score_answer`."""
        total, count = _total_and_count(rows, self.metric)
        self.total += total
        self.count += count

    def compute(self) -> Float[Tensor, ""]:
        """The mean over all rows so far, of all processes."""
        return self.total / self.count


class StvgMetrics(Metric):
    """All of `scoring.METRICS` at once: what `summarise` gives, over batches and processes.

    One class rather than a collection: TorchMetrics' collections allow no dot in a name, and merge
    metrics whose states are equal after the first update, as those of a batch that scores 0 are.

    Args:
        options: of `torchmetrics.Metric`.
    """

    full_state_update = False
    totals: Tensor
    counts: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("totals", torch.zeros(len(METRICS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(len(METRICS), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows of `score_answer`."""
        sums = [_total_and_count(rows, metric) for metric in METRICS]
        totals, counts = torch.tensor(sums, dtype=torch.float64, device=self.totals.device).unbind(dim=1)
        self.totals += totals
        self.counts += counts

    def compute(self) -> dict[str, Float[Tensor, ""]]:
        """Metric -> mean over all rows so far, of all processes; NaN where no row has it."""
        return dict(zip(METRICS, self.totals / self.counts, strict=True))


def _total_and_count(rows: Sequence[Mapping[str, Any]], metric: str) -> tuple[float, int]:
    values = [value for row in rows if (value := METRICS[metric](row)) is not None]
    return float(sum(values)), len(values)
