"""`stvg shards prompt` and the stage `ObjectPrompts`, with a detector and a tracker of a user's own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stvg_lightning.answers import Answer
from stvg_lightning.cli import prompting
from stvg_lightning.cli.binding import RecipeError
from stvg_lightning.cli.prompt_settings import read_settings
from stvg_lightning.cli.prompting import _Numbered
from stvg_lightning.cli.stages import ObjectPrompts
from stvg_lightning.cli.stages.evaluate import evaluation_row
from stvg_lightning.data import frames
from stvg_lightning.data.frames import VideoFrames
from stvg_lightning.data.shards import ShardFolder, WriteOptions, describe, read_manifest, verify, write_shards
from stvg_lightning.data.video import decode_frames, encode_mp4, upright_picture
from stvg_lightning.evaluation import Case, score_answer
from stvg_lightning.evaluation.protocols import stvg_r1
from stvg_lightning.prompting import Detection, Frame, Markers, NewInstanceRule, draw_markers, track_objects
from stvg_lightning.prompting.detectors import RtDetr, Yolo
from stvg_lightning.prompting.trackers import TransformersSam2
from stvg_lightning.rewards import ObjectId, WeightedSum
from stvg_lightning.rollouts.predictor import Prediction
from stvg_lightning.rollouts.preparation import Example
from stvg_lightning.tubes import Box, Sample, Truth, Tube, decode_mask, mask_box
from tests.cli.colours import COLOURS, ByColour, Colours

ROOT = Path(__file__).parents[2]
OWN = ROOT / "tests/cli/colours.py"
NUM_FRAMES, HEIGHT, WIDTH = 40, 64, 96
FPS = 8.0


def film(**tubes: Tube) -> bytes:
    """A video of coloured boxes."""
    frames = np.zeros((NUM_FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for name, tube in tubes.items():
        for frame, (x1, y1, x2, y2) in tube.items():
            frames[frame, int(y1) : int(y2), int(x1) : int(x2)] = COLOURS[name]
    return encode_mp4(frames, FPS, crf=1)


def standing(box: Box, start: int = 0, end: int = NUM_FRAMES) -> Tube:
    return dict.fromkeys(range(start, end), box)


LEFT, RIGHT, LOW = (8.0, 8.0, 28.0, 48.0), (60.0, 8.0, 80.0, 48.0), (36.0, 40.0, 52.0, 56.0)
TWO = film(person=standing(LEFT), dog=standing(RIGHT, 10))


def truth(identity: str, boxes: Tube, **others: Any) -> Truth:
    span = {"span_frames": (12, 32), **others}
    return Truth(identity, f"what is {identity}", FPS, NUM_FRAMES, WIDTH, HEIGHT, boxes_xyxy=boxes, **span)


def samples() -> list[Sample]:
    """Of two things that stand still one comes late; two sentences are about one video; of one video nothing is found,
    of one the target."""
    old = {7: standing(LOW)}
    both = {5: standing(LEFT), 6: standing(RIGHT)}
    return [
        Sample(truth("the person", standing(LEFT, 12, 32), tracks=old), TWO),
        Sample(truth("the dog", standing(RIGHT, 12, 32), object_id=7, tracks=old), TWO, thought="it is {target}"),
        Sample(truth("both", standing((8.0, 8.0, 80.0, 48.0)), tracks=both, object_ids=(5, 6), task="spatial"), TWO),
        Sample(truth("the time", {}, task="temporal"), film(ball=standing(LOW))),
        Sample(truth("nothing", standing(LEFT, 12, 32)), film()),
        Sample(truth("the hidden one", standing(RIGHT, 12, 32)), film(ball=standing(LOW))),
    ]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clean")
    write_shards(samples(), out, "coloured boxes", "CC0", WriteOptions(samples_per_shard=4))
    return out


def own(tally: Path | str = "") -> tuple[str, ...]:
    return f"detector={{use: '{OWN}:Colours', tally: '{tally}'}}", f"tracker={{use: '{OWN}:ByColour'}}"


def test_samples_get_the_objects_that_are_found(shards: Path, tmp_path: Path, stvg: Any) -> None:
    out, tally = tmp_path / "out", tmp_path / "tally"
    printed = stvg("shards", "prompt", "--shards", shards, "--out", out, *own(tally))
    assert printed.code == 0 and f"4 samples in 1 shards at {out}" in printed.out
    assert verify(out) == () and not (out / ".tracks").exists()
    assert len(tally.read_text().split()) == 3, "a video is gone through once, however many sentences are about it"
    found = {sample.truth.id: sample for sample in ShardFolder(out)}
    assert list(found) == ["the person", "the dog", "both", "the time"]
    person, dog, both, time = found.values()
    assert (person.truth.object_id, dog.truth.object_id, time.truth.object_id) == (1, 2, None)
    assert both.truth.object_ids == (1, 2) and both.truth.object_id is None and both.votes == {}
    assert person.categories == {1: "person", 2: "dog"} and person.votes == {1: 20} and dog.votes == {2: 20}
    assert dog.thought == "it is {target}" and dog.video == TWO and dog.truth.boxes_xyxy == standing(RIGHT, 12, 32)
    for sample in (person, dog, both):
        assert sample.truth.tracks[1] == standing(LEFT) and sample.truth.tracks[2] == standing(RIGHT, 10)
        masks = {i: {f: mask_box(decode_mask(rle)) for f, rle in rles.items()} for i, rles in sample.masks.items()}
        assert masks == {i: dict(tube) for i, tube in sample.truth.tracks.items()}
    assert time.truth.tracks == {1: standing(LOW)}


def test_what_is_left_out_is_told(shards: Path, tmp_path: Path, stvg: Any) -> None:
    out = tmp_path / "out"
    printed = stvg("shards", "prompt", "--shards", shards, "--out", out, *own())
    report = json.loads((out / "report.json").read_text())
    assert report["dropped"] == {
        "nothing was found in the video": {"count": 1, "examples": ["nothing"]},
        "no object overlaps the target": {"count": 1, "examples": ["the hidden one"]},
    }
    assert "dropped 1: no object overlaps the target" in printed.err
    quality = json.loads((out / "quality.json").read_text())
    rows = [json.loads(line) for line in (out / "quality.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["the person", "the dog", "nothing", "the hidden one"]
    assert quality["samples"] == 4 and quality["never_followed"] == 0.5 and quality["switches"] == 0
    assert quality["oracle"]["1/3"] == {"m_vIoU": 0.5, "vIoU@0.3": 0.5, "vIoU@0.5": 0.5}
    told = " ".join(printed.err.split())
    assert "50.0 % were never followed (no track reaches an IoU of 0.5 in any frame)" in told and "detected" not in told
    assert "m_vIoU" in printed.err


def test_a_test_set_can_be_kept_whole(shards: Path, tmp_path: Path, stvg: Any) -> None:
    """Every answer in ids to a question whose target no object overlaps scores 0, and counts."""
    out = tmp_path / "out"
    assert stvg("shards", "prompt", "--shards", shards, "--out", out, *own(), "keeps_undetected=true").code == 0
    assert [sample.truth.id for sample in ShardFolder(out)] == [sample.truth.id for sample in samples()]
    report = json.loads((out / "report.json").read_text())
    assert report["dropped"] == {} and {name: told["examples"] for name, told in report["changed"].items()} == {
        "kept without an object id: nothing was found in the video": ["nothing"],
        "kept without an object id: no object overlaps the target": ["the hidden one"],
    }
    nothing, hidden = (ShardFolder(out).of_id(name) for name in ("nothing", "the hidden one"))
    assert nothing.truth.tracks == {} and hidden.truth.tracks == {1: standing(LOW)} and hidden.categories == {1: "ball"}
    assert nothing.truth.boxes_xyxy == standing(LEFT, 12, 32) and hidden.truth.boxes_xyxy == standing(RIGHT, 12, 32)
    for sample in (nothing, hidden):
        assert sample.truth.target_ids == () and sample.votes == {}
        for ids in ((), (1,), (2, 3)):
            answer = Answer("", sample.truth.span_seconds, ids)
            for row in (score_answer(answer, sample.truth), stvg_r1.score(Case(answer, sample.truth))):
                assert row["vIoU"] == 0.0 and row["object_id_correct"] is (False if sample.truth.tracks else None)
            told = evaluation_row(
                Example(sample.truth, None, None, {}), Prediction(answer, 1), WeightedSum({"id": (ObjectId(), 1.0)})
            )
            assert told["terms"] == {"id": 0.0} and told["tIoU"] == 1.0
        sheet = draw_markers(decode_frames(sample.video, (12, 31), FPS), sample, Markers())
        assert set(sheet.marked_seconds) == set(sample.truth.tracks)


def test_several_targets_of_which_one_is_found_are_kept_without_any(tmp_path: Path, stvg: Any) -> None:
    tracks = {5: standing(LEFT), 6: standing(LOW)}
    boxes = standing((8.0, 8.0, 52.0, 56.0))
    both = Sample(truth("both", boxes, tracks=tracks, object_ids=(5, 6), task="spatial"), TWO)
    write_shards([both], tmp_path / "clean", "boxes", "CC0")
    command = ("shards", "prompt", "--shards", tmp_path / "clean", "--out", tmp_path / "out", *own())
    assert stvg(*command, "keeps_undetected=true").code == 0
    assert ShardFolder(tmp_path / "out")[0].truth.target_ids == ()


def test_targets_that_vote_for_one_object_are_told(tmp_path: Path, stvg: Any) -> None:
    """Upper and lower half of one person; those of whom each votes for another are no change."""
    upper, lower = standing((8.0, 8.0, 28.0, 28.0)), standing((8.0, 28.0, 28.0, 48.0))
    tracks, boxes = {4: upper, 5: lower}, standing(LEFT)
    halves = Sample(truth("halves", boxes, tracks=tracks, object_ids=(4, 5), task="spatial"), TWO)
    three = {**tracks, 6: standing(RIGHT)}
    more = Sample(truth("three", boxes, tracks=three, object_ids=(4, 5, 6), task="spatial"), TWO)
    write_shards([halves, more, samples()[2]], tmp_path / "clean", "boxes", "CC0")
    assert stvg("shards", "prompt", "--shards", tmp_path / "clean", "--out", tmp_path / "out", *own()).code == 0
    assert [sample.truth.target_ids for sample in ShardFolder(tmp_path / "out")] == [(1,), (1, 2), (1, 2)]
    assert json.loads((tmp_path / "out/report.json").read_text())["changed"] == {
        "several targets voted for one object: fewer objects are meant than were": {
            "count": 2,
            "examples": ["halves: 2 targets, object 1", "three: 3 targets, objects 1, 2"],
        }
    }


def test_two_workers_find_the_same(shards: Path, tmp_path: Path, stvg: Any) -> None:
    tally = tmp_path / "tally"
    assert stvg("shards", "prompt", "--shards", shards, "--out", tmp_path / "one", *own(tally)).code == 0
    in_one = set(tally.read_text().split())
    assert (
        stvg("shards", "prompt", "--shards", shards, "--out", tmp_path / "two", "--workers", 2, *own(tally)).code == 0
    )
    assert in_one == {str(os.getpid())} and len(set(tally.read_text().split()) - in_one) == 2
    assert read_manifest(tmp_path / "one").content_hash == read_manifest(tmp_path / "two").content_hash


def test_it_goes_on_where_it_was_killed(shards: Path, tmp_path: Path, stvg: Any) -> None:
    out, tally = tmp_path / "out", tmp_path / "tally"
    command = [
        sys.executable,
        "-m",
        "stvg_lightning.cli.main",
        "shards",
        "prompt",
        "--shards",
        str(shards),
        "--out",
        str(out),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "STVG_TEST_KILL_AT_VIDEO": "3"}
    done = subprocess.run([*command, *own(tally)], env=environment, cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL and not (out / "manifest.json").exists()
    assert len(list((out / ".tracks").iterdir())) == 2
    assert stvg("shards", "prompt", "--shards", shards, "--out", out, *own(tally)).code == 0
    assert len(tally.read_text().split()) == 4, "the third video alone is begun again"
    assert stvg("shards", "prompt", "--shards", shards, "--out", tmp_path / "quiet", *own()).code == 0
    assert read_manifest(out).content_hash == read_manifest(tmp_path / "quiet").content_hash


def test_other_settings_find_anew(shards: Path, tmp_path: Path, stvg: Any) -> None:
    out = tmp_path / "out"
    arguments = ("shards", "prompt", "--shards", shards, "--out", out, "--overwrite")
    assert stvg(*arguments, *own()).code == 0
    assert stvg(*arguments, *own(), "tracking.redetect_every_frames=null").code == 0
    assert [sample.truth.id for sample in ShardFolder(out)] == ["the person", "the time"]
    late = "tracking={redetect_every_frames: 15, backward: false}"
    assert stvg(*arguments, *own(), late).code == 0
    assert min(ShardFolder(out).of_id("the dog").truth.tracks[2]) == 15


def test_doubtful_votes_can_be_left_out(tmp_path: Path, stvg: Any) -> None:
    """The target's boxes move from the person to the dog after three quarters of the time."""
    moving = {**standing(LEFT, 12, 27), **standing(RIGHT, 27, 32)}
    write_shards([Sample(truth("unclear", moving), TWO), samples()[0]], tmp_path / "clean", "boxes", "CC0")
    for least, kept in ((0.7, ["unclear", "the person"]), (0.8, ["the person"])):
        out = tmp_path / str(least)
        assert (
            stvg(
                "shards", "prompt", "--shards", tmp_path / "clean", "--out", out, *own(), f"least_vote_share={least}"
            ).code
            == 0
        )
        assert [sample.truth.id for sample in ShardFolder(out)] == kept
    dropped = json.loads((out / "report.json").read_text())["dropped"]["the vote for the target is doubtful"]
    assert dropped["examples"] == ["unclear: the chosen object has 75 % of the votes"]


def test_a_vote_among_what_is_marked(tmp_path: Path, stvg: Any) -> None:
    """A small dog beside a large one of the same kind is marked at theta 0 alone."""
    video = film(person=standing((4.0, 4.0, 56.0, 56.0)), dog=standing((70.0, 8.0, 80.0, 18.0)))
    boxes = standing((70.0, 8.0, 80.0, 18.0), 12, 32)
    write_shards([Sample(truth("small", boxes), video), samples()[0]], tmp_path / "clean", "boxes", "CC0")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"# over: {ROOT / 'recipes/stvg_r1.yaml'}\nmarkers: {{theta_within: frame}}\n")
    marked = ("--recipe", recipe, *own(), "vote_among=marked", "num_workers=1")
    assert stvg("shards", "prompt", "--shards", tmp_path / "clean", "--out", tmp_path / "all", *own()).code == 0
    assert stvg("shards", "prompt", "--shards", tmp_path / "clean", "--out", tmp_path / "marked", *marked).code == 0
    assert [sample.truth.id for sample in ShardFolder(tmp_path / "all")] == ["small", "the person"]
    assert [sample.truth.id for sample in ShardFolder(tmp_path / "marked")] == ["the person"]
    dropped = json.loads((tmp_path / "marked/report.json").read_text())["dropped"]
    assert dropped == {"no marked object overlaps the target": {"count": 1, "examples": ["small"]}}


def test_inspect_tells_of_objects_and_votes(shards: Path, tmp_path: Path, stvg: Any) -> None:
    out = tmp_path / "out"
    assert stvg("shards", "prompt", "--shards", shards, "--out", out, *own()).code == 0
    described = describe(out)
    assert described["votes"] == {"samples": 2, "share": {"min": 1.0, "mean": 1.0, "max": 1.0}, "doubtful": []}
    assert described["categories"] == {"dog": 3, "person": 3, "ball": 1}
    printed = stvg("shards", "inspect", out, "--sheet", tmp_path / "sheet.png")
    assert printed.code == 0 and json.loads(printed.out)["votes"]["samples"] == 2


def test_a_damaged_video_is_left_out_and_named(shards: Path, tmp_path: Path, stvg: Any) -> None:
    broken = Sample(truth("broken", standing(LEFT, 12, 32)), TWO[:400])
    options = WriteOptions(check_videos=False)
    write_shards([broken, *samples()[:2]], tmp_path / "clean", "boxes", "CC0", options)
    assert stvg("shards", "prompt", "--shards", tmp_path / "clean", "--out", tmp_path / "out", *own()).code == 0
    assert len(ShardFolder(tmp_path / "out")) == 2
    report = json.loads((tmp_path / "out/report.json").read_text())
    told = report["dropped"]["the sample or its video cannot be read"]
    assert told["count"] == 1 and told["examples"][0].startswith("broken: a video of 400 bytes cannot be decoded")


def test_a_video_that_ends_early_is_left_out_and_named(tmp_path: Path, stvg: Any) -> None:
    """The file stops after 30 of 40 frames: the rest would count as frames without any object."""
    pictures = np.zeros((30, HEIGHT, WIDTH, 3), dtype=np.uint8)
    pictures[:, 8:48, 8:28] = COLOURS["person"]
    cut = Sample(truth("cut short", standing(LEFT, 12, 32)), encode_mp4(pictures, FPS, crf=1))
    write_shards([samples()[0], cut], tmp_path / "clean", "boxes", "CC0", WriteOptions(check_videos=False))
    assert stvg("shards", "prompt", "--shards", tmp_path / "clean", "--out", tmp_path / "out", *own()).code == 0
    assert [sample.truth.id for sample in ShardFolder(tmp_path / "out")] == ["the person"]
    told = json.loads((tmp_path / "out/report.json").read_text())["dropped"][prompting.UNREADABLE]
    assert told["count"] == 1 and "ends early: it has 30 frames, the truth says 40" in told["examples"][0]
    assert told["examples"][0].startswith("cut short: a video of ")


@pytest.mark.parametrize("num_frames", [200, 600])
def test_no_more_frames_are_held_than_the_window(num_frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thing that comes at the end is followed back through the whole video, in windows of 16 frames."""
    held = {"now": 0, "most": 0}

    def counted(frame: Any) -> np.ndarray:
        picture = upright_picture(frame)
        held["now"] += 1
        held["most"] = max(held.values())
        weakref.finalize(picture, lambda: held.update(now=held["now"] - 1))
        return picture

    monkeypatch.setattr(frames, "upright_picture", counted)
    pictures = np.zeros((num_frames, HEIGHT, WIDTH, 3), dtype=np.uint8)
    pictures[:, 8:48, 8:28] = COLOURS["person"]
    pictures[:, 8:48, 60:80] = COLOURS["dog"]
    source = _Numbered(VideoFrames(encode_mp4(pictures, FPS, crf=1), window_frames=16))
    finder = Colours().load("cpu")

    def late(frame: Frame) -> list[Detection]:
        return [found for found in finder(frame) if found.category == "person" or frame.index > num_frames - 20]

    tracks = track_objects(source, late, ByColour())
    assert [(track.category, len(track.masks)) for track in tracks] == [("person", num_frames), ("dog", num_frames)]
    assert held["most"] <= 16 + 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("trackin.backward=false",), "has no key 'trackin': did you mean 'tracking'"),
        (("tracking.redetect_every_frames=0",), "redetect_every_frames must be at least 1, or null, not 0"),
        (("detector={use: stvg_lightning.prompting.Markers}",), "is a Markers, not a DetectorChoice"),
        (("vote_among=most",), "'most' is not one of all, marked"),
        (("least_vote_share=2",), "least_vote_share must lie in [0, 1], not 2"),
        (("window_frames=0",), "window_frames must be at least 1, not 0"),
    ],
)
def test_wrong_keys_are_named(keys: tuple[str, ...], message: str) -> None:
    with pytest.raises(RecipeError) as refused:
        read_settings(keys, None, None)
    assert message in str(refused.value)


def test_settings_are_the_papers_or_a_recipes() -> None:
    settings, markers = read_settings((), None, 3)
    assert (settings.detector, settings.tracker, settings.num_workers) == (RtDetr(), TransformersSam2(), 3)
    assert settings.tracking.redetect_every_frames == 15 and settings.tracking.backward and markers == Markers()
    released, markers = read_settings((), ROOT / "recipes/stvg_r1_released_prompts.yaml", None)
    assert released.tracking.memory == "restart" and not released.tracking.backward
    assert released.tracking.new_instance == NewInstanceRule(compare="masks", swallowing="replace")
    assert released.vote_among == "marked" and markers.theta_within == "frame"
    changed, _ = read_settings(("detector={use: stvg_lightning.prompting.detectors.Yolo}",), None, None)
    assert changed.detector == Yolo()
    with pytest.raises(RecipeError, match="has no stage of ObjectPrompts"):
        read_settings((), ROOT / "recipes/stvg_o1.yaml", None)


def test_shards_are_not_written_over_themselves(shards: Path, tmp_path: Path, stvg: Any) -> None:
    assert "choose another folder" in stvg("shards", "prompt", "--shards", shards, "--out", shards, *own()).message
    shutil.copytree(shards, tmp_path / "there")
    assert (
        "already holds complete shards"
        in stvg("shards", "prompt", "--shards", shards, "--out", tmp_path / "there").message
    )


def test_the_stage_makes_what_later_stages_read(shards: Path, tmp_path: Path, stvg: Any) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(
        f"""
name: numbered
runs: {tmp_path}
stages:
  prompts:
    shards: {{train: {shards}, test: {shards}}}
    settings: {{detector: {{use: "{OWN}:Colours"}}, tracker: {{use: "{OWN}:ByColour"}}}}
"""
    )
    command = ("run", ROOT / "recipes/stvg_r1.yaml", overlay, "--only", "prompts")
    assert stvg(*command).code == 0
    for split, num_samples in (("train", 4), ("test", 6)):
        assert len(ShardFolder(tmp_path / "numbered/prompts" / split)) == num_samples
        assert (tmp_path / "numbered/prompts" / split / "quality.json").is_file()
    assert "prompts: done before" in stvg(*command).out


def test_a_split_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="keeps_undetected_in 'tests' is unknown: choose from train, test"):
        ObjectPrompts({"train": "a", "test": "b"}, keeps_undetected_in=("tests",))


@pytest.mark.parametrize(("num_devices", "devices"), [(0, ["cpu"] * 3), (2, ["cuda:0", "cuda:1", "cuda:0"])])
def test_workers_share_the_gpus(num_devices: int, devices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompting.torch.cuda, "device_count", lambda: num_devices)
    found = []
    for number in range(3):
        monkeypatch.setattr(prompting, "worker_number", lambda number=number: number)
        found.append(prompting._device())
    assert found == devices
