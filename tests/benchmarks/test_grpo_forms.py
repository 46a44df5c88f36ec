"""The forms of a step that `benchmarks/grpo_step.py` compares: one result, and the arithmetic that torch counts."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpo_step
import pytest
import torch
from grpo_forms.bench import Bench
from grpo_forms.case import Case
from grpo_forms.measuring import bench_of, flops_of, generate_bytes, measure
from grpo_forms.ratios import COLUMNS, ratios_of, table_of
from torch.utils.flop_counter import FlopCounterMode

from stvg_lightning.models.families import tower_of
from stvg_lightning.models.flops import shape_of
from tests.helpers import assert_close

OURS = ("shared", "repeated_text", "repeated")
CASE = Case("shared", prompt_tokens=100, num_prompts=2, group_size=3, completion_tokens=4)
PATCHES = 256
"""One step of time: 16 x 16 patches."""


def matrices_of(counter: FlopCounterMode) -> int:
    counted = {str(name): flops for name, flops in counter.get_flop_counts()["Global"].items()}
    return sum(flops for name, flops in counted.items() if "attention" not in name)


def flops_without_attention(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """As the benchmark counts them, but for attention: torch counts hidden pairs too."""
    monkeypatch.setattr("grpo_forms.measuring.shape_of", lambda network: replace(shape_of(network), layers=0))
    return flops_of(bench)


@pytest.mark.parametrize("form", OURS)
def test_arithmetic_of_a_rollout_is_what_torch_counts(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(replace(CASE, form=form, completion_tokens=1))
    with FlopCounterMode(display=False) as vision:
        features = bench.form.encode()
    with FlopCounterMode(display=False) as rest:
        bench.form.roll_out(features)
    found = flops_without_attention(bench, monkeypatch)
    assert matrices_of(vision) == found["vision"]
    assert matrices_of(rest) == found["prefill"] + found["generate"]
    copies = {"shared": (1, 1), "repeated_text": (1, 3), "repeated": (3, 3)}[form]
    once = flops_without_attention(bench_of(replace(CASE, completion_tokens=1)), monkeypatch)
    assert (found["vision"], found["prefill"]) == (copies[0] * once["vision"], copies[1] * once["prefill"])


@pytest.mark.parametrize("form", OURS)
def test_arithmetic_of_an_update_is_what_torch_counts(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of(replace(CASE, form=form))
    features = bench.form.encode()
    with FlopCounterMode(display=False) as counter:
        bench.update(bench.invented_rollouts(), features)
    predicted = flops_without_attention(bench, monkeypatch)["update"]
    # Nothing flows back to what the first layer's attention reads, and the reference goes without the adapter: 3 %.
    assert matrices_of(counter) < predicted < 1.035 * matrices_of(counter)


def test_every_form_takes_the_same_step() -> None:
    gradients: dict[str, dict[str, torch.Tensor]] = {}
    for form in OURS:
        bench = bench_of(replace(CASE, form=form))
        bench.optimizer.zero_grad = bench.optimizer.step = lambda: None
        bench.update(bench.invented_rollouts(), bench.form.encode())
        trained = bench.adapted.adapter.named_parameters()
        gradients[form] = {name: p.grad for name, p in trained if p.grad is not None and "lora_B" in name}
    whole = torch.stack([each.norm() for each in gradients["shared"].values()]).norm()
    assert whole > 0
    for form in OURS[1:]:
        assert gradients[form].keys() == gradients["shared"].keys()
        for name, gradient in gradients[form].items():
            expected = gradients["shared"][name]
            assert (gradient - expected).norm() <= 1e-5 * max(expected.norm(), 0.01 * whole), name


@pytest.mark.parametrize(
    ("form", "rollout", "update"),
    # Two questions; two passes of an update, each question by itself.
    [("shared", [2], []), ("repeated_text", [2], []), ("repeated", [6], [3, 3, 3, 3])],
)
def test_the_tower_reads_as_many_videos_as_a_form_says(form: str, rollout: list[int], update: list[int]) -> None:
    bench = bench_of(replace(CASE, form=form))
    read: list[int] = []
    tower_of(bench.model.network).register_forward_pre_hook(lambda _, given: read.append(len(given[0])))
    _, features, _ = bench.roll_out()
    assert [patches / PATCHES for patches in read] == rollout
    read.clear()
    bench.update(bench.invented_rollouts(), features)
    assert [patches / PATCHES for patches in read] == update


def test_transformers_is_asked_in_words_that_it_will_know() -> None:
    bench = bench_of(replace(CASE, form="repeated", completion_tokens=2))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        bench.roll_out()
    assert not [str(warning.message) for warning in told if "past_key_values" in str(warning.message)]


def test_a_case_is_measured() -> None:
    found = measure(replace(CASE, num_prompts=1, decoding="fixed"))
    assert found["decoding"] == "fixed" and len(found["runs"]) == 1
    assert found["runs"][0].keys() >= {"vision", "prefill", "generate", "update", "step", "cpu_step"}
    assert found["flops"]["step"] == sum(flops for phase, flops in found["flops"].items() if phase != "step")
    assert 1e8 < found["copied_bytes_per_second"] < 1e14


def test_bytes_that_generation_reads_by_hand() -> None:
    bench = bench_of(replace(CASE, num_prompts=1, group_size=2, completion_tokens=3))
    layers = sum(p.numel() for p in bench.model.network.model.language_model.layers.parameters())
    head, of_token = 1024 * 384, 2 * 6 * 2 * 64
    # Two steps after the prefill; each row reads one token of its own in the first, two in the second.
    expected = 2 * layers + 3 * head + of_token * (2 * bench.prompt_tokens + 2 * (1 + 2))
    assert generate_bytes(bench) == 4 * expected
    # In two parts, one for each question, the weights are read twice as often.
    two = bench_of(replace(CASE, num_prompts=2, group_size=2, completion_tokens=3, tokens_per_rollout=1))
    weights = 2 * layers + 3 * head
    assert generate_bytes(two) == 4 * (2 * weights + 2 * (expected - weights))
    repeated = Case("repeated", 100, group_size=2, completion_tokens=3)
    assert generate_bytes(bench_of(repeated)) == 4 * (expected + of_token * 2 * bench.prompt_tokens)


def measured(seconds: float, flops: float, memory: float) -> dict:
    phases = ("vision", "prefill", "generate", "update", "step", "rollout")
    return {
        "prompt_tokens": 1234,
        "seconds": {**dict.fromkeys(phases, seconds), **{f"cpu_{name}": 2 * seconds for name in phases[3:]}},
        "flops": dict.fromkeys(phases, flops),
        "memory": {"held_mib": 10.0, "peak_mib": 10.0 + memory},
        "peak_mib": 5 * memory,
        "matrix_flops_per_second": 50.0,
        "generate_bytes": 30.0,
        "copied_bytes_per_second": 20.0,
        "decoding": "graphs",
    }


def test_ratios_by_hand() -> None:
    row = {
        "wanted_prompt_tokens": 1200,
        "shared": measured(2.0, 40.0, 100.0),
        "repeated": measured(12.0, 160.0, 400.0),
        "repeated_text": {"failures": ["MemoryError"]},
        "trl": {"seconds": {"step": 9.0}, "peak_mib": 1000.0},
    }
    ratios = ratios_of(row)
    assert ratios.keys() == {"shared", "repeated", "trl"} and ratios["trl"] == {
        "step_speed_up": 4.5,
        "process_memory_share": 0.5,
    }
    of_repeated = ratios["repeated"]
    assert (of_repeated["update_speed_up"], of_repeated["update_flops_ratio"]) == (6.0, 4.0)
    assert of_repeated["update_share_of_flops_ratio"] == 1.5 and of_repeated["update_memory_share"] == 0.25
    floors = ratios["shared"]
    assert_close(floors["update_seconds_over_matrix_products"], 2.5)
    assert floors["generate_seconds_over_memory_floor"] == round(2.0 / 1.5, 3)
    assert (floors["update_utilisation"], floors["update_utilisation_repeated"]) == (0.4, 1.6)
    lines = table_of([{**row, "ratios": ratios}]).splitlines()
    assert lines[2].startswith("| 1,234 | repeated | 4.00 | 6.00 |") and lines[2].count("|") == len(COLUMNS) + 3
    assert "1,234, repeated_text: MemoryError" in lines and "| 1,234 | completions written by | graphs |" in lines
    failed = {"wanted_prompt_tokens": 7, "shared": {"failures": ["MemoryError"]}, "ratios": {}}
    assert ratios_of(failed) == {} and table_of([failed]).endswith("\n7, shared: MemoryError")


def test_phases_run_as_a_training_in_mixed_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU all forms are cast to bfloat16 as TRL is, in the rollout and in both passes of an update."""
    bench, seen = bench_of(CASE), []
    asked: list[str] = []

    @contextmanager
    def autocast(case: Case):
        asked.append(case.device)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            yield

    monkeypatch.setattr(Case, "autocast", autocast)
    bench.model.network.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    bench.model.network.model.language_model.register_forward_pre_hook(
        lambda *_: seen.append(torch.is_autocast_enabled("cpu"))
    )
    tower_of(bench.model.network).register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    _, features, _ = bench.roll_out()
    bench.update(bench.invented_rollouts(), features)
    assert len(seen) > 4 and all(seen) and asked == ["cpu", "cpu"]
    monkeypatch.undo()
    assert not CASE.autocast()._enabled


def test_the_command_line_passes_on_what_a_case_is(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "{}", "")

    monkeypatch.setattr(subprocess, "run", run)
    for tokens in (None, 500):
        grpo_step.run_case(replace(CASE, tokens_per_rollout=tokens), "python")
    told = [[option for option in command if "tokens-per-rollout" in option] for command in commands]
    assert told == [[], ["--tokens-per-rollout=500"]]
    monkeypatch.setattr(sys, "argv", commands[1][1:])
    assert grpo_step.parsed().tokens_per_rollout == 500


def round_of(seconds: float) -> dict:
    found = measured(seconds, 40.0, 100.0)
    return {**found, "runs": [found["seconds"]]}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_round_that_fails_hides_no_other_and_is_told(monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    rounds = [round_of(2.0), round_of(4.0)]
    rounds.insert(place, {"failed": "OutOfMemoryError"})
    answers = iter([*rounds, {"failed": "killed"}])
    monkeypatch.setattr(grpo_step, "run_case", lambda *_: next(answers))
    row = grpo_step.measured_size(CASE, 3, ["shared"], "python")
    assert [run["step"] for run in row["shared"]["runs"]] == [2.0, 4.0]
    assert row["shared"]["seconds"]["step"] == 3.0 and row["ratios"]["shared"]
    told = table_of([row]).splitlines()[-2:]
    assert told == ["1,234, shared: OutOfMemoryError", "1,234, shared: memory: killed"]


def test_a_form_whose_rounds_all_fail_has_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([round_of(2.0), {"failed": "no TRL"}, round_of(4.0), {"failed": "no TRL"}, {"held_mib": 1.0}])
    monkeypatch.setattr(grpo_step, "run_case", lambda *_: next(answers))
    row = grpo_step.measured_size(CASE, 2, ["shared", "trl"], "python")
    assert row["trl"] == {"failures": ["no TRL", "no TRL"]} and row["ratios"].keys() == {"shared"}
    assert table_of([row]).splitlines()[-2:] == ["1,234, trl: no TRL"] * 2


@pytest.mark.slow
def test_the_script_compares_forms() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "grpo_step.py"
    sizes = ["--prompt-tokens=100", "--rounds=1", "--group-size=2", "--completion-tokens=2"]
    command = [sys.executable, str(script), "--json", *sizes, "--forms", "shared", "repeated"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (size,) = json.loads(done.stdout)["sizes"]
    assert size["ratios"].keys() == {"shared", "repeated"}
    assert size["ratios"]["repeated"]["vision_flops_ratio"] == 2.0
    assert size["ratios"]["repeated"]["update_memory_share"] > 0
