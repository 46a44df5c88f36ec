"""A small run to report on: three synthetic videos, three models, and invented curves."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

from stvg_lightning.answers import Answer, id_span
from stvg_lightning.data.synthetic import make_sample
from stvg_lightning.data.video import decode_frames
from stvg_lightning.evaluation import score_answer, summarise_models
from stvg_lightning.prompting import Markers, draw_markers
from stvg_lightning.reports import GalleryChoice, GalleryItem, ReportInputs, choose_gallery, gallery_item
from stvg_lightning.tubes import Sample

HOSTILE = "<think>it may be <b>bold</b></think><script>alert('1')</script> & $x^2$ <answer>nothing</answer>"


@cache
def samples(num_samples: int = 3) -> tuple[Sample, ...]:
    return tuple(make_sample(seed) for seed in range(num_samples))


def completion(model: str, number: int, sample: Sample) -> str:
    """A base model that raves, a cold start that is late, and a last model that is right about two in three."""
    gold = id_span.write(sample.truth)
    if model == "base":
        return HOSTILE
    if (model == "grpo" and number % 3 != 2) or (model == "sft" and number % 3 == 1):
        return gold
    start, end = sample.truth.span_seconds
    return (
        f"<think>The thing that moves\nis {sample.truth.object_id}.</think><answer>Target ID: "
        f"{sample.truth.object_id}, Time range: {start + 1.2:.2f} to {end + 1.5:.2f}</answer>"
    )


def rows_of(model: str, num_samples: int = 3) -> list[dict]:
    rows = []
    for number, sample in enumerate(samples(num_samples)):
        row = score_answer(read(completion(model, number, sample)), sample.truth)
        terms = {"temporal_iou": row["tIoU"], "object_id": float(row["object_id_correct"]), "presence": None}
        rows.append({**row, "terms": terms, "total": row["tIoU"] + float(row["object_id_correct"])})
    return rows


def read(text: str) -> Answer:
    return id_span.read(text)


def gallery_of(rows: dict[str, list[dict]], count: int, num_samples: int = 3) -> list[GalleryItem]:
    by_id = {sample.truth.id: sample for sample in samples(num_samples)}
    texts = {row["id"]: row["text"] for row in rows["grpo"]}
    items = []
    for choice in choose_gallery(rows, count):
        items.append(_item(choice, by_id[choice.id], texts[choice.id]))
    return items


def _item(choice: GalleryChoice, sample: Sample, text: str) -> GalleryItem:
    truth = sample.truth
    clip = decode_frames(sample.video, range(truth.num_frames), truth.fps)
    marked = draw_markers(clip, replace(sample, masks={}), Markers())
    return gallery_item(choice, truth, marked.clip, read(text), "grpo")


def wavy(num_steps: int, start: float, end: float, noise: float) -> list[tuple[int, float]]:
    """A curve from `start` to `end` with a wobble that looks random and is not."""
    points = []
    for step in range(num_steps):
        share = 1 - math.exp(-4 * step / num_steps)
        points.append((step, start + (end - start) * share + noise * math.sin(step * step * 0.7)))
    return points


def curves(num_steps: int = 120) -> dict[str, dict[str, list[tuple[int, float]]]]:
    sft = {"sft/loss": wavy(num_steps, 3.0, 0.2, 0.08), "sft/gradient_norm": wavy(num_steps, 5.0, 0.6, 0.3)}
    grpo = {
        "reward/total": wavy(num_steps, 1.1, 2.3, 0.2),
        "reward/temporal_iou": wavy(num_steps, 0.2, 0.6, 0.08),
        "reward/temporal_iou_spread": wavy(num_steps, 0.3, 0.2, 0.03),
        "reward/object_id": wavy(num_steps, 0.4, 0.85, 0.1),
        "reward/object_id_spread": wavy(num_steps, 0.4, 0.3, 0.05),
        "rollout/equal_groups": wavy(num_steps, 0.1, 0.35, 0.06),
        "rollout/parse_failures": wavy(num_steps, 0.04, 0.0, 0.0),
        "rollout/length_tokens": wavy(num_steps, 44.0, 41.0, 2.0),
        "rollout/log_prob_gap": [(step, 3e-6 + 1e-6 * math.sin(step)) for step in range(num_steps)],
        "grpo/kl": wavy(num_steps, 0.0, 0.06, 0.005),
        "grpo/clip_fraction": [(step, 0.0) for step in range(num_steps)],
        "seconds/update": wavy(num_steps, 0.8, 0.8, 0.05),
        "seconds/generate": wavy(num_steps, 1.6, 1.5, 0.2),
        "seconds/vision": wavy(num_steps, 0.3, 0.3, 0.01),
        "seconds/reward": wavy(num_steps, 0.05, 0.05, 0.0),
        "mine/<odd> name": [(0, 1.0), (1, float("nan")), (2, 2.0)],
    }
    return {"sft": sft, "grpo": grpo}


def example_inputs(count: int = 3, num_samples: int = 3) -> ReportInputs:
    rows = {model: rows_of(model, num_samples) for model in ("base", "sft", "grpo")}
    summary = {**summarise_models(rows, num_resamples=500), "seconds": {"shards": 12.5, "sft": 95.0, "grpo": 260.0}}
    return ReportInputs(
        title="Quickstart <1>",
        recipe_text="# a recipe\nstages:\n  sft: {max_steps: 120}  # <script>\n",
        summary=summary,
        rows=rows,
        curves=curves(),
        gallery=gallery_of(rows, count, num_samples),
        versions={"python": "3.11.2", "torch": "2.15.0"},
    )
