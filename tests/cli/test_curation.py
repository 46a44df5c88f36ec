"""Given thoughts sifted for a cold start: what is kept, with whose answer, and why the rest is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stvg_lightning.answers import time_pair
from stvg_lightning.cli.stages import Curation
from stvg_lightning.cli.stages.stage import Run
from stvg_lightning.data.shards import ShardFolder, write_shards
from stvg_lightning.prompting import Markers
from stvg_lightning.rollouts.rejection import KeepRules, span_share
from stvg_lightning.tubes import Sample, Truth


def given(truth: Truth, thought: str = "He sits down and stays there.", shift: float = 0.0) -> str:
    assert truth.span_seconds is not None
    start, end = truth.span_seconds
    return f"<think>{thought}</think> <time>[{start:.2f}, {end + shift:.2f}]</time>"


@pytest.fixture
def curated(world_samples: tuple[Sample, ...], tmp_path: Path) -> tuple[Path, list[Sample]]:
    """Samples: one good, one for each of some reasons, and two of choice, the first of them good."""
    samples = []
    for index, sample in enumerate(world_samples):
        truth = replace(sample.truth, task="temporal", span_frames=(4, 4 + sample.truth.num_frames // 2))
        if index >= 6:
            truth = replace(truth, task="choice", answer="B", boxes_xyxy={}, object_id=None)
        length = (truth.span_frames[1] - truth.span_frames[0]) / truth.fps  # type: ignore[index]
        texts = [
            given(truth, "It begins early and goes on for a while.", shift=0.1 * length),
            given(truth, shift=length),  # a tIoU of a half
            "<time>[1.0, 2.0]</time>",
            given(truth, "It lasts. " * 700),
            given(truth, "\u5750\u4e0b\u5750\u4e0b\u5750\u4e0b"),
            "nothing at all",
            given(truth) + r" \boxed{B}",
            given(truth) + r" \boxed{A}",
        ]
        samples.append(replace(sample, truth=truth, response=texts[index]))
    write_shards(iter(samples), tmp_path / "given", "a larger model", "CC0")
    recipe: Any = SimpleNamespace(answer=time_pair, markers=Markers(draw=False), seed=0)
    folder = tmp_path / "run" / "curation"
    folder.mkdir(parents=True)
    Curation(str(tmp_path / "given"))(Run(recipe, tmp_path / "run"), folder)
    return folder, samples


def test_the_good_is_kept_with_the_annotated_answer(curated: tuple[Path, list[Sample]]) -> None:
    folder, samples = curated
    kept = list(ShardFolder(folder / "kept"))
    assert [sample.truth.id for sample in kept] == [samples[0].truth.id, samples[6].truth.id]
    assert kept[1].response.endswith(r"\boxed{B}")
    answer, truth = time_pair.read(kept[0].response), samples[0].truth
    assert answer.thought == "It begins early and goes on for a while." and answer.well_formed
    assert answer.span_seconds == pytest.approx(truth.span_seconds, abs=0.005)
    assert kept[0].video == samples[0].video


def test_the_yield_tells_why_the_rest_is_not(curated: tuple[Path, list[Sample]]) -> None:
    report = json.loads((curated[0] / "yield.json").read_text())
    assert (report["questions"], report["questions_kept"]) == (8, 2)
    found = {reason: count for reason, count in report["refused"].items() if count}
    assert found == {"time": 1, "form": 1, "length": 1, "language": 1, "unreadable": 1, "answer": 1}


@pytest.mark.parametrize(
    ("thought", "refusal"),
    [
        ("He sits <time>[1, 2]</time> there.", "form"),
        ("He sits from 1.00 to 8.40.", None),  # the true end is 8.00
        ("He sits from 1.00 to 9.00.", "contradiction"),
        ("He sits from 1.00 to 8.00.", None),
    ],
)
def test_a_thought_must_fit_the_annotated_time_too(thought: str, refusal: str | None) -> None:
    truth = Truth("a", "the man sits", 10.0, 100, 64, 48, (10, 80), task="temporal")
    end = 9.0 if "9.00" in thought else 8.4
    answer = time_pair.read(f"<think>{thought}</think> <time>[1.00, {end:.2f}]</time>")
    assert KeepRules(min_tiou=0.7).refusal(answer, truth, takes_truth=True) == refusal
    if refusal != "form":
        assert KeepRules(min_tiou=0.7).refusal(answer, truth) is None  # with its own time there is nothing against it


def test_a_truth_without_a_time_is_refused() -> None:
    truth = Truth("a", "the man sits", 10.0, 100, 64, 48, task="temporal")
    with pytest.raises(ValueError, match="truth 'a' has no time that an answer could be held against"):
        KeepRules().refusal(time_pair.read("<think>t</think> <time>[1, 2]</time>"), truth)


def test_its_table_bears_its_name(capsys: pytest.CaptureFixture[str], curated: tuple[Path, list[Sample]]) -> None:
    printed = capsys.readouterr().out
    assert "curation" in printed and "rejection sampling" not in printed


def test_a_time_that_fills_its_video_teaches_little() -> None:
    truth = Truth("a", "the man sits", 10.0, 100, 64, 48, (10, 80), task="temporal")
    assert span_share(truth) == pytest.approx(0.7)
    answer = time_pair.read(given(truth))
    assert KeepRules(max_span_share=0.7).refusal(answer, truth) is None
    longer = replace(truth, span_frames=(10, 81))
    assert KeepRules(max_span_share=0.7).refusal(time_pair.read(given(longer)), longer) == "span"
