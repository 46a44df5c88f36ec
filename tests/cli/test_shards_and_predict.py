"""`stvg shards` on a user's own videos, and `stvg predict` on one of them."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stvg_lightning.answers import id_span
from stvg_lightning.cli import predicting
from stvg_lightning.data.shards import ShardFolder
from stvg_lightning.data.video import decode_frames, probe_video
from stvg_lightning.models.adapters import load_trained
from stvg_lightning.rollouts.predictor import ModelPredictor
from stvg_lightning.rollouts.rollouts import Sampling
from stvg_lightning.tubes import Sample
from stvg_lightning.tubes.jsonl import truth_to_json
from tests.small_models import preparation_of


@pytest.fixture
def own_videos(world_samples: tuple[Sample, ...], tmp_path: Path) -> tuple[Path, Path]:
    """Truth lines and a folder of videos, as a user has them; the first sample with its masks."""
    videos, annotations = tmp_path / "videos", tmp_path / "truth.jsonl"
    videos.mkdir()
    with annotations.open("w") as file:
        for sample in world_samples[:3]:
            (videos / f"{sample.truth.id}.mp4").write_bytes(sample.video)
            record = truth_to_json(sample.truth)
            if sample is world_samples[0]:
                masks = {str(i): {str(f): rle for f, rle in rles.items()} for i, rles in sample.masks.items()}
                record |= {"masks": masks}
            file.write(json.dumps(record) + "\n")
    return annotations, videos


def test_shards_are_built_and_inspected(
    own_videos: tuple[Path, Path], world_samples: tuple[Sample, ...], tmp_path: Path, stvg: Any
) -> None:
    annotations, videos = own_videos
    out, sheet = tmp_path / "shards", tmp_path / "sheet.png"
    arguments = ("--annotations", annotations, "--videos", videos, "--out", out, "--licence", "CC-BY-4.0")
    printed = stvg("shards", "build", "--format", "jsonl", *arguments)
    assert printed.code == 0 and f"3 samples in 1 shards at {out}" in printed.out
    stored = list(ShardFolder(out))
    assert [sample.truth.query for sample in stored] == [sample.truth.query for sample in world_samples[:3]]
    assert stored[0].masks == world_samples[0].masks and not stored[1].masks
    printed = stvg("shards", "inspect", out, "--sheet", sheet)
    description = json.loads(printed.out)
    assert (description["num_samples"], description["licence"]) == (3, "CC-BY-4.0")
    assert description["bad_samples"] == [] and description["differences"] == []
    assert f"contact sheet: {sheet}" in printed.err
    with Image.open(sheet) as picture:
        assert np.asarray(picture).std() > 10


def test_what_cannot_be_used_is_told(own_videos: tuple[Path, Path], tmp_path: Path, stvg: Any) -> None:
    annotations, videos = own_videos
    out = tmp_path / "shards"
    gone = ("shards", "build", "--annotations", tmp_path / "no.jsonl", "--videos", videos, "--out", out)
    assert "no.jsonl" in stvg(*gone).message
    with annotations.open("a") as file:
        file.write('{"id": "last", "query": "who"}\n')
    printed = stvg("shards", "build", "--annotations", annotations, "--videos", videos, "--out", out)
    assert f"{annotations}:4" in printed.message
    assert "no-such-folder" in stvg("shards", "inspect", tmp_path / "no-such-folder").message


def prediction(stvg: Any, *arguments: object) -> dict[str, Any]:
    printed = stvg("predict", *arguments)
    assert printed.code == 0, printed.err
    return json.loads(printed.out)


def test_a_video_is_asked_about(
    random_model_folder: Path,
    recipe_files: tuple[Path, Path],
    own_videos: tuple[Path, Path],
    world_samples: tuple[Sample, ...],
    tmp_path: Path,
    stvg: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample = world_samples[0]
    video, drawn = own_videos[1] / f"{sample.truth.id}.mp4", tmp_path / "drawn.mp4"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        recipe_files[0].read_text().replace("min_frame_pixels: 4096", "min_frame_pixels: 1024")
        .replace("max_frame_pixels: 4096", "max_frame_pixels: 1024").replace("fps: 4.0", "fps: 2.0")
    )  # fmt: skip
    few = Sampling(6, temperature=0.0)  # a random model would go on to the limit of 1,024
    monkeypatch.setattr(predicting, "ModelPredictor", partial(ModelPredictor, sampling=few))
    options = ("--recipe", recipe, "--out", drawn)
    arguments = (random_model_folder, video, sample.truth.query, "--tracks", own_videos[0], *options)
    found = prediction(stvg, *arguments)
    assert found.keys() == {"query", "span_seconds", "object_ids", "boxes_xyxy", "text", "problems", "video"}
    model = load_trained(str(random_model_folder))
    expected = ModelPredictor(model, preparation_of(model), few)([sample])[0]
    assert (found["query"], found["text"]) == (sample.truth.query, expected)
    assert found["problems"] and found["span_seconds"] is None and found["object_ids"] == []
    info = probe_video(drawn)
    assert found["video"] == str(drawn) and info.num_frames > 10
    frames = decode_frames(drawn, (0,), info.fps).frames
    assert frames.std() > 10, "the drawn video shows something"
    without = prediction(stvg, *arguments[:3], *options)
    assert without["query"] == sample.truth.query
    # A model that was trained without numbers in the video is asked for the time alone.
    clean = re.sub(r"\n  object_id:.*?(?=\n  \w)", "", recipe.read_text(), flags=re.DOTALL)
    recipe.write_text(clean.replace("\nmarkers:", "\nmarkers:\n  draw: false", 1))
    asked: list[str] = []
    instruction = id_span.instruction
    monkeypatch.setattr(id_span, "instruction", lambda *of: (asked.append(instruction(*of)), asked[-1])[1])
    prediction(stvg, *arguments[:3], *options)
    assert len(asked) == 1 and asked[0].startswith("Find the time") and "number" not in asked[0]


def test_a_video_that_cannot_be_asked_about_is_named(
    random_model_folder: Path, own_videos: tuple[Path, Path], tmp_path: Path, stvg: Any
) -> None:
    video = next(own_videos[1].iterdir())
    gone = tmp_path / "gone.mp4"
    assert str(gone) in stvg("predict", random_model_folder, gone, "who").message
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(video.read_bytes()[:500])
    assert str(broken) in stvg("predict", random_model_folder, broken, "who").message
    nothing = tmp_path / "nothing"
    assert f"there is no model at {nothing}" in stvg("predict", nothing, video, "who").message


def test_tracks_must_fit_the_video(
    random_model_folder: Path, own_videos: tuple[Path, Path], tmp_path: Path, stvg: Any
) -> None:
    annotations, videos = own_videos
    record = json.loads(annotations.read_text().splitlines()[1]) | {"num_frames": 200}
    (tmp_path / "other.jsonl").write_text(json.dumps(record) + "\n")
    video = videos / f"{record['id']}.mp4"
    printed = stvg("predict", random_model_folder, video, "who", "--tracks", tmp_path / "other.jsonl")
    assert "200 frames of 128 x 128 are described" in printed.message
    slow = json.loads(annotations.read_text().splitlines()[1]) | {"fps": 4}
    (tmp_path / "other.jsonl").write_text(json.dumps(slow) + "\n")
    printed = stvg("predict", random_model_folder, video, "who", "--tracks", tmp_path / "other.jsonl")
    assert "the video has 8 frames a second, the truth says 4" in printed.message
    stranger = tmp_path / "stranger.mp4"
    stranger.write_bytes(video.read_bytes())
    printed = stvg("predict", random_model_folder, stranger, "who", "--tracks", annotations)
    assert f"no line of {annotations} names stranger.mp4 as its `video`" in printed.message
    lines = annotations.read_text().splitlines()
    twice = [json.loads(line) | {"video": video.name} for line in lines[1:3]]
    (tmp_path / "twice.jsonl").write_text("".join(json.dumps(line) + "\n" for line in twice))
    printed = stvg("predict", random_model_folder, video, "who", "--tracks", tmp_path / "twice.jsonl")
    assert "are of" in printed.message and "with different tracks or masks" in printed.message


def test_a_video_at_another_rate_is_skipped(own_videos: tuple[Path, Path], tmp_path: Path, stvg: Any) -> None:
    annotations, videos = own_videos
    records = [json.loads(line) for line in annotations.read_text().splitlines()]
    records[1]["fps"] = 4  # every second of it would be another
    annotations.write_text("".join(json.dumps(record) + "\n" for record in records))
    out = tmp_path / "shards"
    build = ("shards", "build", "--annotations", annotations, "--videos", videos, "--out", out)
    printed = stvg(*build)
    assert "the video has 8 frames a second, the truth says 4" in printed.message
    assert "1 of 3 samples cannot be used" in printed.message and not list(out.glob("*.tar"))
