"""Floor 3: scores, benchmarks and intervals. The evaluator receives a predictor and knows no model.

The TorchMetrics classes are in `stvg_lightning.evaluation.stvg_metrics`, imported only where they are used.
"""

from stvg_lightning.evaluation.bootstrap import Interval, mean_interval, mean_intervals, paired_difference_interval
from stvg_lightning.evaluation.case import Case, case_of, predicted_tube
from stvg_lightning.evaluation.guesses import ConstantGuess
from stvg_lightning.evaluation.masks import boundary_accuracy, region_similarity
from stvg_lightning.evaluation.metrics import (
    ground_truth_video_iou,
    recall_at,
    spatial_iou,
    temporal_iou_frames,
    video_iou,
    volume_iou,
)
from stvg_lightning.evaluation.overlap import FrameSpan, TubeOverlap, compare_tubes
from stvg_lightning.evaluation.predictor import Predictor, answers_of
from stvg_lightning.evaluation.scoring import (
    METRICS,
    Row,
    metric_values,
    missing_parts,
    score_answer,
    score_case,
    summarise,
)
from stvg_lightning.evaluation.summary import difference_summary, model_summary, summarise_models

__all__ = [
    "METRICS",
    "Case",
    "ConstantGuess",
    "FrameSpan",
    "Interval",
    "Predictor",
    "Row",
    "TubeOverlap",
    "answers_of",
    "boundary_accuracy",
    "case_of",
    "compare_tubes",
    "difference_summary",
    "ground_truth_video_iou",
    "mean_interval",
    "mean_intervals",
    "metric_values",
    "missing_parts",
    "model_summary",
    "paired_difference_interval",
    "predicted_tube",
    "recall_at",
    "region_similarity",
    "score_answer",
    "score_case",
    "spatial_iou",
    "summarise",
    "summarise_models",
    "temporal_iou_frames",
    "video_iou",
    "volume_iou",
]
