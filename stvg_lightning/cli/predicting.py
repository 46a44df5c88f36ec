"""`stvg predict`: ask a model about one video, print the answer, draw it."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from stvg_lightning.cli.predictors import module_of, shared_keys
from stvg_lightning.cli.stages.numbered import names_objects
from stvg_lightning.data.annotations import tube_of_masks
from stvg_lightning.data.video import VideoSampling, check_rate, probe_video
from stvg_lightning.evaluation import predicted_tube
from stvg_lightning.models.adapters import load_trained
from stvg_lightning.reports import TimedTube, drawn_video
from stvg_lightning.rollouts.predictor import ModelPredictor
from stvg_lightning.rollouts.preparation import Preparation
from stvg_lightning.tubes import Sample, Truth, check_counts
from stvg_lightning.tubes.jsonl import EXTRA_KEYS, parse_truth, read_json_lines

SHOWN_FPS = 10.0


def predict_video(options: Namespace) -> dict[str, Any]:
    """Answer one question; writes the drawn video and returns what is printed.

    Raises:
        FileNotFoundError: no video, model or recipe there.
        ValueError: the video cannot be read, or the tracks do not fit it.
    """
    sample = _sample(options)
    shared = shared_keys(options.model, options.recipe)
    if not shared.markers.draw and names_objects(shared.language, shared.markers):
        # It was trained without numbers to name objects by: there is a time to ask for, and no place.
        sample = replace(sample, truth=replace(sample.truth, task="temporal"))
    model = load_trained(options.model, options.dtype or shared.dtype)
    model.network.to("cuda" if torch.cuda.is_available() else "cpu")
    preparation = Preparation(model.encoder, shared.video, shared.markers, shared.language, keeps_video=True)
    predictor = ModelPredictor(model, preparation, discriminator=module_of(options.model, model, shared.spatial))
    answer = predictor.complete([preparation(sample)])[0].answer
    span_frames, boxes = predicted_tube(answer, sample.truth)
    out = options.out or Path(f"{options.video.stem}_predicted.mp4")
    clip = replace(preparation, video=VideoSampling(fps=SHOWN_FPS)).marked_clip(sample).clip
    out.write_bytes(drawn_video(clip, None, TimedTube(span_frames, boxes), sample.truth.duration_seconds))
    return {
        "query": sample.truth.query,
        "span_seconds": answer.span_seconds,
        "object_ids": list(answer.object_ids),
        "boxes_xyxy": {str(frame): list(box) for frame, box in boxes.items()},
        "text": answer.text,
        "problems": list(answer.problems),
        "video": str(out),
    }


def _sample(options: Namespace) -> Sample:
    """The question as a sample; objects are marked where their tracks are given."""
    info = probe_video(options.video)
    if options.tracks is None:
        size = info.num_frames, info.width, info.height
        return Sample(Truth(options.video.stem, options.sentence, info.fps, *size), options.video)
    where, record = _line_of_video(options.tracks, options.video)
    record = {**record, "query": options.sentence, "video": options.video.name}
    truth, extras = parse_truth(record, where, EXTRA_KEYS)
    for rles in extras.masks.values():
        for rle in rles.values():
            check_counts(rle)
    tracks = truth.tracks or {object_id: tube_of_masks(rles) for object_id, rles in extras.masks.items()}
    if (truth.num_frames, truth.width, truth.height) != (info.num_frames, info.width, info.height):
        raise ValueError(
            f"{where}: {truth.num_frames} frames of {truth.width} x {truth.height} are described, but "
            f"{options.video} has {info.num_frames} of {info.width} x {info.height}"
        )
    check_rate(truth, info)
    # What the line may tell of the answer is not for the model, nor for the drawing.
    asked = replace(truth, tracks=tracks, boxes_xyxy={}, object_id=None, span_frames=None, task="stvg")
    return Sample(asked, options.video, extras.masks, extras.categories)


def _line_of_video(file: Path, video: Path) -> tuple[str, dict[str, Any]]:
    """The only line of a file, or of several one that names the video or bears its name as id."""
    lines = list(read_json_lines(file))
    if len(lines) > 1:
        lines = [line for line in lines if video.name == line[1].get("video") or video.stem == line[1].get("id")]
        if not lines:
            raise ValueError(f"no line of {file} names {video.name} as its `video`, or has the id {video.stem!r}")
    first, *others = ([record.get(key) for key in ("tracks", "masks", "categories")] for _, record in lines)
    if any(other != first for other in others):
        raise ValueError(f"several lines of {file} are of {video.name}, with different tracks or masks")
    return lines[0]
