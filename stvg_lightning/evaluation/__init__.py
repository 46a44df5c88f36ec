"""Floor 3: scores, benchmarks and intervals. The evaluator receives a predictor and knows no model.

The TorchMetrics classes are in `stvg_lightning.evaluation.stvg_metrics`, imported only where they are used.
"""

from stvg_lightning.evaluation.benchmark import benchmark
from stvg_lightning.evaluation.bootstrap import Interval, mean_interval, paired_difference_interval
from stvg_lightning.evaluation.metrics import (
    FrameSpan,
    recall_at,
    spatial_iou,
    temporal_iou_frames,
    video_iou,
)
from stvg_lightning.evaluation.scoring import (
    METRICS,
    Row,
    metric_values,
    missing_parts,
    predicted_tube,
    score_answer,
    summarise,
)
from stvg_lightning.evaluation.summary import difference_summary, model_summary, summarise_models

__all__ = [
    "METRICS",
    "FrameSpan",
    "Interval",
    "Row",
    "benchmark",
    "difference_summary",
    "mean_interval",
    "metric_values",
    "missing_parts",
    "model_summary",
    "paired_difference_interval",
    "predicted_tube",
    "recall_at",
    "score_answer",
    "spatial_iou",
    "summarise",
    "summarise_models",
    "temporal_iou_frames",
    "video_iou",
]
