"""`stvg evaluate`: any predictor on any shards, gone on with after a kill, beside published and earlier figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stvg_lightning.cli import answering
from stvg_lightning.data.shards import BadSample, ShardFolder, WriteOptions, write_shards
from stvg_lightning.evaluation import ConstantGuess, score_answer
from stvg_lightning.evaluation.bootstrap import paired_difference_interval
from stvg_lightning.tubes import Sample, Truth, encode_mask
from stvg_lightning.tubes.jsonl import truth_to_json
from tests.helpers import assert_close


@pytest.fixture(scope="module")
def shards(world_samples: tuple[Sample, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six questions of object and time."""
    folder = tmp_path_factory.mktemp("shards") / "six"
    write_shards(iter(world_samples[:6]), folder, "the synthetic world", "Apache-2.0")
    return folder


@pytest.fixture
def truths_file(shards: Path, tmp_path: Path) -> Path:
    file = tmp_path / "truths.jsonl"
    file.write_text("".join(json.dumps(truth_to_json(sample.truth)) + "\n" for sample in ShardFolder(shards)))
    return file


def predictions(shards: Path, file: Path, wrong: tuple[int, ...] = ()) -> Path:
    """The truth of each question, and one second from the start for some."""
    lines = []
    for index, sample in enumerate(ShardFolder(shards)):
        truth = sample.truth
        assert truth.span_seconds is not None
        start, end = (0.0, 1.0) if index in wrong else truth.span_seconds
        text = f"<think>t</think><answer>Target ID: {truth.object_id}, Time range: {start} to {end}</answer>"
        lines.append(json.dumps({"id": truth.id, "text": text}) + "\n")
    file.write_text("".join(lines))
    return file


def scores_of(folder: Path) -> Any:
    scores = json.loads((folder / "scores.json").read_text())
    assert scores.pop("made_of")["questions"] > 0
    return scores


def test_a_constant_guess_is_scored_question_by_question(shards: Path, tmp_path: Path, stvg: Any) -> None:
    printed = stvg("evaluate", "constant:middle_half", "--shards", shards, "--out", tmp_path / "guess")
    assert printed.code == 0 and "m_vIoU" in printed.out and str(tmp_path / "guess") in printed.out
    guess = ConstantGuess("middle_half")
    expected = [score_answer(guess.answer([sample.truth])[0], sample.truth) for sample in ShardFolder(shards)]
    mean = sum(row["vIoU"] for row in expected) / 6
    assert_close(scores_of(tmp_path / "guess")["canonical"]["m_vIoU"]["mean"], mean, atol=1e-9)
    rows = [json.loads(line) for line in (tmp_path / "guess" / "rows.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [row["id"] for row in expected]
    assert rows[0]["protocol"] == "canonical" and rows[0]["vIoU"] == expected[0]["vIoU"]


def test_a_file_has_the_figures_of_stvg_score(shards: Path, truths_file: Path, tmp_path: Path, stvg: Any) -> None:
    file = predictions(shards, tmp_path / "p.jsonl", wrong=(2, 4))
    names = "canonical,hcstvg,stvg_r1"
    evaluated = stvg("evaluate", file, "--shards", shards, "--out", tmp_path / "e", "--protocol", names, "--json")
    scored = stvg("score", "--truth", truths_file, "--predictions", file, "--protocol", names, "--json")
    found = json.loads(evaluated.out)
    expected = {"questions": 6, "questions_of_papers": None, "repair": "as each protocol has it"}
    assert found.pop("made_of") == expected and found == json.loads(scored.out)
    assert 0.3 < json.loads(scored.out)["canonical"]["m_vIoU"] < 1


def test_a_prediction_too_few_counts_zero_and_one_too_many_is_refused(shards: Path, tmp_path: Path, stvg: Any) -> None:
    file = predictions(shards, tmp_path / "p.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    printed = stvg("evaluate", file, "--shards", shards, "--out", tmp_path / "e")
    assert "1 of 6 questions have no prediction and count 0: " in printed.out
    assert_close(scores_of(tmp_path / "e")["canonical"]["id_accuracy"]["mean"], 5 / 6, atol=1e-9)
    again = json.loads(stvg("evaluate", file, "--shards", shards, "--out", tmp_path / "e", "--json").out)
    assert again["missing"] == [ShardFolder(shards).truth(5).id]
    file.write_text("".join(lines) + '{"id": "other", "text": ""}\n')
    assert (
        "'other' is not among the 6 truths"
        in stvg("evaluate", file, "--shards", shards, "--out", tmp_path / "e2").message
    )


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the questions that a predictor was really asked."""
    asked: list[str] = []
    load = answering.load_predictor

    def noting(*arguments: Any) -> Any:
        predictor = load(*arguments)
        inner = predictor.prepare
        object.__setattr__(predictor, "prepare", lambda sample: asked.append(sample.truth.id) or inner(sample))
        return predictor

    monkeypatch.setattr(answering, "load_predictor", noting)
    return asked


def test_what_was_answered_before_a_kill_is_kept(shards: Path, tmp_path: Path, stvg: Any, counted: list[str]) -> None:
    command = ("evaluate", predictions(shards, tmp_path / "p.jsonl", wrong=(1,)), "--shards", shards)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    stvg(*command, "--out", whole)
    assert len(counted) == 6
    stvg(*command, "--out", cut)
    answers = cut / "answers-0.jsonl"
    lines = answers.read_text().splitlines(keepends=True)
    answers.write_text("".join(lines[:3]) + lines[3][: len(lines[3]) // 2])  # killed in the middle of a line
    for file in ("rows.jsonl", "scores.json"):
        (cut / file).unlink()
    counted.clear()
    stvg(*command, "--out", cut)
    assert len(counted) == 3
    assert (cut / "rows.jsonl").read_text() == (whole / "rows.jsonl").read_text()
    assert (cut / "scores.json").read_text() == (whole / "scores.json").read_text()
    counted.clear()
    stvg(*command, "--out", cut, "--protocol", "hcstvg")  # other scores of the same answers cost no question
    assert counted == [] and list(scores_of(cut)) == ["hcstvg"]
    answers.write_text('{"index": 0, "id": "another"}\n')
    assert "answers-0.jsonl:1 is no answer to these questions" in stvg(*command, "--out", cut).message
    answers.write_text(lines[0].replace('"span_seconds": [', '"span_seconds": ["a", ', 1))
    assert "answers-0.jsonl:1 is no answer to these questions" in stvg(*command, "--out", cut).message


def test_several_processes_give_what_one_gives(shards: Path, tmp_path: Path, stvg: Any) -> None:
    command = ("evaluate", "constant:whole_video", "--shards", shards, "--batch-size", 2)
    stvg(*command, "--out", tmp_path / "one")
    stvg(*command, "--out", tmp_path / "two", "--processes", 2)
    assert (tmp_path / "two" / "answers-1.jsonl").is_file()
    assert (tmp_path / "one" / "rows.jsonl").read_text() == (tmp_path / "two" / "rows.jsonl").read_text()


def test_a_folder_of_another_evaluation_is_refused(shards: Path, tmp_path: Path, stvg: Any) -> None:
    out = ("--shards", shards, "--out", tmp_path / "e")
    stvg("evaluate", "constant:whole_video", *out)
    assert "an evaluation of another predictor" in stvg("evaluate", "constant:middle_half", *out).message


def test_an_earlier_evaluation_is_compared_question_by_question(shards: Path, tmp_path: Path, stvg: Any) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    stvg("evaluate", predictions(shards, tmp_path / "p.jsonl", wrong=(0, 3)), "--shards", shards, "--out", first)
    better = predictions(shards, tmp_path / "q.jsonl")
    printed = stvg("evaluate", better, "--shards", shards, "--out", second, "--against", first)
    assert "difference to the earlier evaluation, paired by question" in " ".join(printed.out.split())
    rows = {
        folder: {row["id"]: row["vIoU"] for row in map(json.loads, (folder / "rows.jsonl").read_text().splitlines())}
        for folder in (first, second)
    }
    interval = paired_difference_interval(rows[second], rows[first])
    found = scores_of(second)["differences"]["canonical"]["m_vIoU"]
    assert found == {"mean": interval.mean, "ci95": [interval.low, interval.high]} and interval.mean > 0
    lines = (first / "rows.jsonl").read_text().splitlines(keepends=True)
    (first / "rows.jsonl").write_text("".join(lines[:-1]))
    command = ("evaluate", better, "--shards", shards, "--out", second, "--against")
    assert "1 questions are in one of the two evaluations only" in stvg(*command, first).message
    assert "there are no rows" in stvg(*command, tmp_path).message
    (first / "rows.jsonl").write_text('{"id": "a", "protocol": "hcstvg"}\n')
    assert "none of the protocols asked for" in stvg(*command, first / "rows.jsonl").message
    for value in ('"0.5"', "[1]", "5.0", "null"):
        broken = [line.replace('"vIoU": ', f'"vIoU": {value}, "old": ', 1) for line in lines]
        (first / "rows.jsonl").write_text("".join(broken))
        if value != "null":  # a score that the rows lack is left out of the comparison
            assert "rows of canonical" in stvg(*command, first).message
    (first / "rows.jsonl").write_text("".join([*lines, lines[0]]))
    assert "two rows have the id" in stvg(*command, first).message


def test_boxes_are_compared_with_ids_in_what_both_have(shards: Path, tmp_path: Path, stvg: Any) -> None:
    boxes = [
        {"id": s.truth.id, "span_frames": list(s.truth.span_frames), "boxes_xyxy": {str(f): list(b) for f, b in
         s.truth.boxes_xyxy.items()}} for s in ShardFolder(shards)
    ]  # fmt: skip
    (tmp_path / "boxes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in boxes))
    stvg("evaluate", tmp_path / "boxes.jsonl", "--shards", shards, "--out", tmp_path / "boxes")
    ids = predictions(shards, tmp_path / "ids.jsonl")
    printed = stvg("evaluate", ids, "--shards", shards, "--out", tmp_path / "ids", "--against", tmp_path / "boxes")
    assert printed.code == 0, printed.err
    found = scores_of(tmp_path / "ids")["differences"]["canonical"]
    assert "m_vIoU" in found and "id_accuracy" not in found and found["m_vIoU"]["mean"] == pytest.approx(0, abs=1e-6)


def test_a_benchmark_takes_its_tasks_and_protocols_and_shows_published_figures(
    world_samples: tuple[Sample, ...], tmp_path: Path, stvg: Any
) -> None:
    tasks = ("temporal", "stvg", "temporal")
    samples = [
        replace(sample, truth=replace(sample.truth, task=task))
        for sample, task in zip(world_samples, tasks, strict=False)
    ]
    write_shards(iter(samples), tmp_path / "mixed", "the synthetic world", "Apache-2.0")
    command = ("evaluate", "constant:middle_half", "--shards", tmp_path / "mixed", "--out", tmp_path / "e")
    printed = stvg(*command, "--benchmark", "charades_sta")
    assert list(scores_of(tmp_path / "e")) == ["time_r1", "timezero", "canonical"]
    assert scores_of(tmp_path / "e")["time_r1"]["m_tIoU"]["num_questions"] == 2
    out = " ".join(printed.out.split())
    assert (
        "Time-R1" in out and "78.1" in out and "this evaluation" in out and "STVG-R1 (arXiv:2602.11730), Table 4" in out
    )
    assert "these shards hold 2 questions, and papers score 3720 of Charades-STA test" in out
    assert "holds no question of the tasks choice" in stvg(*command, "--benchmark", "sti_bench").message
    assert "is of task 'temporal': protocol hcstvg scores stvg" in stvg(*command, "--protocol", "hcstvg").message


def test_letters_are_asked_for_in_their_own_words(
    world_samples: tuple[Sample, ...], random_model_folder: Path, tmp_path: Path, stvg: Any
) -> None:
    truth = replace(world_samples[0].truth, task="choice", answer="A", query="What?\n(A) this\n(B) that")
    write_shards(iter([replace(world_samples[0], truth=truth)]), tmp_path / "s", "the synthetic world", "Apache-2.0")
    command = ("--shards", tmp_path / "s", "--benchmark", "sti_bench", "--max-new-tokens", 4)
    printed = stvg("evaluate", random_model_folder, *command, "--out", tmp_path / "e")
    assert printed.code == 0, printed.err
    assert scores_of(tmp_path / "e")["sti_bench"]["accuracy"]["num_questions"] == 1
    answer = json.loads((tmp_path / "e" / "answers-0.jsonl").read_text())
    assert answer["object_ids"] == [] and answer["span_seconds"] is None


def test_a_recipes_run_has_the_figures_of_its_own_evaluation(finished_run: Path, tmp_path: Path, stvg: Any) -> None:
    recipe, shards = finished_run / "recipe.yaml", finished_run / "shards" / "test"
    printed = stvg("evaluate", recipe, "--shards", shards, "--out", tmp_path / "e", "--batch-size", 3)
    assert printed.code == 0, printed.err
    own = json.loads((finished_run / "evaluate" / "scores.json").read_text())["models"]["grpo"]
    found = scores_of(tmp_path / "e")["canonical"]
    assert own.keys() == found.keys()
    for metric, entry in own.items():
        assert_close(found[metric]["mean"], entry["mean"], atol=1e-9)
    texts = [json.loads(line)["text"] for line in (finished_run / "evaluate" / "grpo.jsonl").read_text().splitlines()]
    answers = [json.loads(line)["text"] for line in (tmp_path / "e" / "answers-0.jsonl").read_text().splitlines()]
    assert answers == texts
    base = stvg("evaluate", recipe, "--stage", "base", "--shards", shards, "--out", tmp_path / "b", "--two-stage")
    assert base.code == 0, base.err
    assert "choose from base, shards" in stvg("evaluate", recipe, "--stage", "other", "--shards", shards).message


def test_a_video_that_cannot_be_read_counts_zero_and_is_named(
    world_samples: tuple[Sample, ...], random_model_folder: Path, tmp_path: Path, stvg: Any
) -> None:
    broken = replace(world_samples[1], video=b"this is no video")
    unchecked = WriteOptions(check_videos=False)
    write_shards(iter([world_samples[0], broken]), tmp_path / "s", "the synthetic world", "Apache-2.0", unchecked)
    command = ("evaluate", random_model_folder, "--shards", tmp_path / "s", "--max-new-tokens", 4)
    printed = stvg(*command, "--out", tmp_path / "e")
    assert printed.code == 0, printed.err
    assert f"1 of 2 questions have a video that cannot be read and count 0: {broken.truth.id}" in printed.out
    assert scores_of(tmp_path / "e")["canonical"]["m_vIoU"]["num_questions"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny"], "say what to evaluate on"),
        (["tiny", "--benchmark", "hcstvg"], "benchmark 'hcstvg' is unknown: choose from hcstvg_v1"),
        (["tiny", "--benchmark", "tvgbench"], "are made by: stvg shards build --format tvgbench --annotations"),
        (["tiny", "--shards", "nowhere"], "there is no manifest.json in nowhere"),
        (["constant:middle"], "guess 'middle' is unknown: choose from whole_video, middle_half"),
        (["constant:whole_video", "--two-stage"], "--two-stage has no meaning for a constant: it is for endpoint"),
        (["none.jsonl"], "there is no file none.jsonl"),
        (["none.yaml"], "there is no file none.yaml"),
        (["none.yaml", "--recipe", "x.yaml"], "--recipe has no meaning for a recipe"),
        (["http://localhost:1/v1"], "an endpoint needs --model"),
        (["tiny", "--coordinates", "input"], "--coordinates is for --two-stage"),
        (["tiny", "seed=1"], "only a recipe takes overlays and key=value"),
        (["tiny", "--stage", "base"], "--stage has no meaning for a model: it is for recipe"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_is_loaded(
    arguments: list[str], message: str, tmp_path: Path, stvg: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in stvg("evaluate", *arguments).message
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_that_was_not_run_says_so(recipe_files: tuple[Path, Path], shards: Path, stvg: Any) -> None:
    message = stvg("evaluate", *recipe_files, "name=never_run", "--shards", shards).message
    assert "never_run holds no trained model: run the recipe first, or say --stage base" in message


def test_objects_without_numbers_are_not_asked_for_by_number(
    world_samples: tuple[Sample, ...], random_model_folder: Path, tmp_path: Path, stvg: Any
) -> None:
    bare = replace(world_samples[0], truth=replace(world_samples[0].truth, tracks={}, object_id=None), masks={})
    write_shards(iter([bare]), tmp_path / "s", "the synthetic world", "Apache-2.0")
    command = ("evaluate", random_model_folder, "--shards", tmp_path / "s", "--max-new-tokens", 4)
    assert "holds no objects to number" in stvg(*command, "--out", tmp_path / "e").message
    assert stvg(*command, "--out", tmp_path / "e", "--two-stage").code == 0
    assert (
        "--two-stage answers in boxes, and mevis scores masks"
        in stvg(*command, "--out", tmp_path / "f", "--two-stage", "--protocol", "mevis").message
    )


def test_masks_are_scored_against_what_was_annotated(
    world_samples: tuple[Sample, ...], tmp_path: Path, stvg: Any
) -> None:
    """A tracker's masks that are elsewhere score what they are worth, though the answered object is the voted one."""
    sample = world_samples[0]
    assert sample.truth.object_id is not None
    target = sample.masks[sample.truth.object_id]
    nothing_of_it = np.zeros((sample.truth.height, sample.truth.width), dtype=bool)
    nothing_of_it[:4, :4] = True
    wrong = {frame: encode_mask(nothing_of_it) for frame in target}
    truth = replace(sample.truth, task="spatial")
    numbered = replace(sample, truth=truth, masks={sample.truth.object_id: wrong}, target_masks=target)
    for name, each in (("right", replace(sample, truth=truth)), ("wrong", numbered)):
        write_shards(iter([each]), tmp_path / name, "the synthetic world", "Apache-2.0")
        assert ShardFolder(tmp_path / name)[0].target_masks == each.target_masks
        line = {"id": truth.id, "object_id": truth.object_id}
        (tmp_path / "p.jsonl").write_text(json.dumps(line) + "\n")
        stvg("evaluate", tmp_path / "p.jsonl", "--shards", tmp_path / name, "--out", tmp_path / f"e_{name}",
             "--protocol", "mevis")  # fmt: skip
    again = ("evaluate", tmp_path / "p.jsonl", "--protocol", "mevis", "--shards")
    assert "measure the choice alone" in stvg(*again, tmp_path / "right", "--out", tmp_path / "e_right").out
    assert "measure the choice alone" not in stvg(*again, tmp_path / "wrong", "--out", tmp_path / "e_wrong").out
    assert scores_of(tmp_path / "e_right")["mevis"]["J&F"]["mean"] == 1.0
    assert scores_of(tmp_path / "e_wrong")["mevis"]["J"]["mean"] < 0.1
    boxes = {"id": truth.id, "boxes_xyxy": {"0": [0, 0, 5, 5]}}
    (tmp_path / "b.jsonl").write_text(json.dumps(boxes) + "\n")
    command = ("evaluate", tmp_path / "b.jsonl", "--shards", tmp_path / "right", "--protocol", "mevis")
    assert "answered in boxes, and masks are compared" in stvg(*command, "--out", tmp_path / "e_boxes").message


def test_a_sample_whose_video_is_damaged_counts_zero(
    shards: Path, random_model_folder: Path, tmp_path: Path, stvg: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ShardFolder.__getitem__

    def damaged(self: ShardFolder, index: int) -> Sample:
        if index == 2:
            raise BadSample("the shard ends inside its part 'mp4'")
        return whole(self, index)

    monkeypatch.setattr(ShardFolder, "__getitem__", damaged)
    command = ("evaluate", random_model_folder, "--shards", shards, "--max-new-tokens", 4, "--out", tmp_path / "e")
    printed = stvg(*command)
    assert printed.code == 0, printed.err
    assert "1 of 6 questions have a video that cannot be read" in printed.out


def test_an_edited_language_is_another_evaluation(shards: Path, finished_run: Path, tmp_path: Path, stvg: Any) -> None:
    own = tmp_path / "mine.py"
    own.write_text("from stvg_lightning.answers.id_span import *\n")
    command = ("evaluate", finished_run / "recipe.yaml", f"answer={own}", "--shards", shards, "--out", tmp_path / "e",
               "--max-new-tokens", 4)  # fmt: skip
    assert stvg(*command).code == 0
    own.write_text("from stvg_lightning.answers.id_span import *\n# edited\n")
    assert "an evaluation of another predictor" in stvg(*command).message


def test_scores_are_told_for_each_label(world_samples: tuple[Sample, ...], tmp_path: Path, stvg: Any) -> None:
    """STI-Bench's accuracy per task and scene: from shards, and from truth lines."""
    labelled = []
    for index, sample in enumerate(world_samples[:4]):
        labels = {"Task": ("size", "speed")[index % 2], "Scene": "indoor"}
        truth = Truth(sample.truth.id, "q", 8.0, sample.truth.num_frames, 128, 128, task="choice", answer="A")
        labelled.append(replace(sample, truth=replace(truth, labels=labels), masks={}))
    write_shards(iter(labelled), tmp_path / "shards", "the synthetic world", "Apache-2.0")
    assert ShardFolder(tmp_path / "shards").truth(1).labels == {"Task": "speed", "Scene": "indoor"}
    texts = ["(A)", "(A)", "(B)", "(A)"]  # the first and third ask for sizes
    lines = [json.dumps({"id": s.truth.id, "text": text}) + "\n" for s, text in zip(labelled, texts)]
    (tmp_path / "predictions.jsonl").write_text("".join(lines))
    told = {"Task": {"size": {"accuracy": 0.5, "num_questions": 2}, "speed": {"accuracy": 1.0, "num_questions": 2}},
            "Scene": {"indoor": {"accuracy": 0.75, "num_questions": 4}}}  # fmt: skip
    command = ("evaluate", tmp_path / "predictions.jsonl", "--benchmark", "sti_bench", "--shards", tmp_path / "shards")
    printed = stvg(*command, "--out", tmp_path / "out", "--language", "choice")
    assert printed.code == 0, printed
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["labels"] == {"sti_bench": told}
    shown = " ".join(printed.out.split())
    assert "Task" in shown and "│ size │ 50.00 ±" in shown and "│ speed │ 100.00 ± 0.00 │ 2 │" in shown
    truths = tmp_path / "truths.jsonl"
    truths.write_text("".join(json.dumps(truth_to_json(sample.truth)) + "\n" for sample in labelled))
    scored = stvg("score", "--truth", truths, "--predictions", tmp_path / "predictions.jsonl", "--protocol",
                  "sti_bench", "--language", "choice", "--json")  # fmt: skip
    assert json.loads(scored.out) == {"sti_bench": {"accuracy": 0.75}, "labels": {"sti_bench": told}}
