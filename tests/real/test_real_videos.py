"""Real codecs, sizes, frame rates and lengths through the whole pipeline, with the tiny model."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stvg_lightning.cli.main import main
from stvg_lightning.data.annotations import tube_of_masks, vote_object_id
from stvg_lightning.data.video import encode_mp4, probe_video
from stvg_lightning.tubes import encode_mask, mask_box

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("STVG_REAL_DATA", ROOT / "../shared/data"))
DAVIS_FPS = 24.0
SEQUENCES = {
    "bmx-trees": "a rider jumps with a bicycle",
    "car-shadow": "a car drives along the street",
    "motocross-jump": "a motorcyclist jumps over a hill",
}
VIDSTG_VIDEOS = ("3843663025", "4591061010", "8665030691")

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}: set STVG_REAL_DATA")


def davis_record(sequence: str, sentence: str, videos: Path) -> dict:
    """A DAVIS sequence as a truth line: its true mask as the target, a real segmenter's masks as the tracks."""
    folder = DATA / "videos/davis"
    pictures = sorted((folder / "JPEGImages" / sequence).glob("*.jpg"))
    frames = np.stack([np.asarray(Image.open(picture).convert("RGB")) for picture in pictures])
    (videos / f"{sequence}.mp4").write_bytes(encode_mp4(frames, DAVIS_FPS))
    masks: dict[str, dict[str, dict]] = {}
    true_boxes = {}
    for frame, picture in enumerate(pictures):
        name = f"{picture.stem}.png"
        labels = np.asarray(Image.open(folder / "osvos_predictions" / sequence / name))
        for object_id in np.unique(labels[labels > 0]).tolist():
            masks.setdefault(str(object_id), {})[str(frame)] = encode_mask(labels == object_id)
        box = mask_box(np.asarray(Image.open(folder / "Annotations" / sequence / name)) > 0)
        if box is not None:
            true_boxes[str(frame)] = list(box)
    span = [len(frames) // 4, 3 * len(frames) // 4]
    return {
        "id": sequence,
        "query": sentence,
        "fps": DAVIS_FPS,
        "num_frames": len(frames),
        "width": frames.shape[2],
        "height": frames.shape[1],
        "span_frames": span,
        "boxes_xyxy": {frame: box for frame, box in true_boxes.items() if span[0] <= int(frame) < span[1]},
        "masks": masks,
        "categories": {object_id: "object" for object_id in masks},
    }


def temporal_record(id_: str, sentence: str, span_seconds: tuple[float, float], video: Path) -> dict:
    """A sentence with a time and no boxes, its span clamped to the video."""
    info = probe_video(video)
    start, end = (min(round(seconds * info.fps), info.num_frames) for seconds in span_seconds)
    return {
        "id": id_,
        "query": sentence,
        "fps": info.fps,
        "num_frames": info.num_frames,
        "width": info.width,
        "height": info.height,
        "span_frames": [start, end],
        "task": "temporal",
        "video": video.name,
    }


@pytest.fixture(scope="module")
def real_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of DAVIS (with masks), Charades-STA and VidSTG (with times), built by the command."""
    folder = tmp_path_factory.mktemp("real")
    videos = folder / "videos"
    videos.mkdir()
    records = [davis_record(sequence, sentence, videos) for sequence, sentence in SEQUENCES.items()]
    charades = (DATA / "annotations/charades_sta/charades_sta_test.txt").read_text().splitlines()
    for index, line in enumerate(line for line in charades if line.split(" ")[0] in ("5INX3", "OHOFG")):
        times, sentence = line.split("##")
        name, start, end = times.split(" ")
        video = videos / f"{name}.mp4"
        if not video.exists():
            video.symlink_to((DATA / "videos/charades" / video.name).resolve())
        records.append(temporal_record(f"{name}-{index}", sentence, (float(start), float(end)), video))
    vidstg = json.loads((DATA / "annotations/vidstg/val_annotations_subset.json").read_text())
    for index, record in enumerate(record for record in vidstg if record["vid"] in VIDSTG_VIDEOS):
        video = videos / f"{record['vid']}.mp4"
        if not video.exists():
            video.symlink_to((DATA / "videos/vidor_vidstg" / video.name).resolve())
        start, end = (record["temporal_gt"][key] / record["fps"] for key in ("begin_fid", "end_fid"))
        sentence = record["captions"][0]["description"]
        records.append(temporal_record(f"{record['vid']}-{index}", sentence, (start, end), video))
    annotations = folder / "truth.jsonl"
    annotations.write_text("".join(json.dumps(record) + "\n" for record in records[:12]))
    command = ["shards", "build", "--annotations", str(annotations), "--videos", str(videos)]
    assert main([*command, "--out", str(folder / "shards")]) == 0
    return folder / "shards"


def test_the_target_is_voted_among_a_segmenters_tracks(tmp_path: Path) -> None:
    record = davis_record("car-shadow", "a car", tmp_path)
    true_boxes = {int(frame): tuple(box) for frame, box in record["boxes_xyxy"].items()}
    tracks = {
        int(object_id): tube_of_masks({int(frame): rle for frame, rle in rles.items()})
        for object_id, rles in record["masks"].items()
    }
    object_id, share = vote_object_id(true_boxes, tracks)
    assert object_id == 1
    assert share == 1.0


def test_real_videos_go_from_shards_to_report(real_shards: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "real.yaml"
    overlay.write_text(
        f"""
name: real
runs: {tmp_path}
video: {{fps: 1.0, max_frames: 16, min_frame_pixels: 4096, max_frame_pixels: 8192}}
markers: {{size: 20.0, color: red}}
stages:
  shards: null
  sft: {{shards: {real_shards}, loading: {{batch_size: 4}}, settings: {{max_steps: 2}}}}
  grpo:
    shards: {real_shards}
    loading: {{batch_size: 2}}
    settings: {{max_rollouts: 2, group_size: 4}}
    sampling: {{max_new_tokens: 48}}
  evaluate: {{shards: {real_shards}, batch_size: 4, max_new_tokens: 48}}
  report: {{gallery: 4}}
"""
    )
    assert main(["--traceback", "run", str(ROOT / "recipes/quickstart.yaml"), str(overlay)]) == 0
    summary = json.loads((tmp_path / "real/summary.json").read_text())
    assert set(summary["models"]) == {"base", "sft", "grpo"}
    rows = [json.loads(line) for line in (tmp_path / "real/evaluate/grpo.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert {row["task"] for row in rows} == {"stvg", "temporal"}
    assert (tmp_path / "real/report.html").stat().st_size > 10_000


def test_a_language_model_and_a_detector_learn_together_from_real_videos(real_shards: Path, tmp_path: Path) -> None:
    """SARL-STG on videos of several sizes and rates, some of their questions without boxes."""
    overlay = tmp_path / "real.yaml"
    overlay.write_text(
        f"""
name: real_sarl
runs: {tmp_path}
video: {{fps: 1.0, max_frames: 16, min_frame_pixels: 4096, max_frame_pixels: 8192}}
spatial: {{clips: {{fps: 2.0, max_frames: 8}}}}
stages:
  shards: null
  joint: {{shards: {real_shards}, loading: {{batch_size: 6}}, settings: {{max_steps: 2, micro_batch_size: 2}}}}
  samples: null
  cold_start: null
  grpo:
    shards: {real_shards}
    start: joint
    loading: {{batch_size: 6}}
    settings: {{max_rollouts: 2, group_size: 4, micro_batch_prompts: 2}}
    sampling: {{max_new_tokens: 48}}
  evaluate: {{shards: {real_shards}, models: [base, joint, grpo], batch_size: 4, max_new_tokens: 48}}
  report: {{gallery: 4}}
"""
    )
    recipes = [ROOT / "recipes/sarl_stg.yaml", ROOT / "recipes/tiny.yaml", overlay]
    assert main(["--traceback", "run", *map(str, recipes)]) == 0
    summary = json.loads((tmp_path / "real_sarl/summary.json").read_text())
    assert set(summary["models"]) == {"base", "joint", "grpo"}
    rows = [json.loads(line) for line in (tmp_path / "real_sarl/evaluate/joint.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    for row in rows:
        answered = row["predicted_span_seconds"] is not None
        assert ("located_boxes_xyxy" in row) <= (answered and row["task"] == "stvg")
