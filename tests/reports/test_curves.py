"""Curves: what CSVLogger wrote, sorted into panels and smoothed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.reports import read_curves
from stvg_lightning.reports.curves import finite, panels_of, running_mean, smoothing_window
from stvg_lightning.reports.figures import curves_svg, stacked_svg
from tests.helpers import assert_close


def test_what_lightnings_logger_wrote_comes_back(tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(tmp_path, name="", version="")
    logger.log_metrics({"sft/loss": 2.5, "epoch": 0}, step=4)
    logger.log_metrics({"sft/learning_rate": 1e-4}, step=4)
    logger.log_metrics({"sft/loss": 1.25, "epoch": 1}, step=9)
    logger.save()
    curves = read_curves(tmp_path / "metrics.csv")
    assert curves == {"sft/loss": [(4, 2.5), (9, 1.25)], "sft/learning_rate": [(4, 1e-4)]}


def test_steps_logged_again_after_going_on_replace_the_first(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,a\n0,1,1.0\n0,2,2.0\n0,3,3.0\n0,2,20.0\n0,3,nan\n0,4,\n")
    curve = read_curves(path)["a"]
    assert curve[:2] == [(1, 1.0), (2, 20.0)] and curve[2][0] == 3 and math.isnan(curve[2][1]) and len(curve) == 3
    assert finite(curve) == curve[:2]


@pytest.mark.parametrize(
    "text, message", [("a,b\n1,2\n", "no column 'step'"), ("step,a\n1,2\n2,x\n", "line 3: could not")]
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_curves(path)


@given(st.lists(st.floats(-100, 100), max_size=30), st.integers(1, 12))
def test_running_mean_against_a_loop(values, window):
    half = window // 2
    expected = []
    for i in range(len(values)):
        near = [values[j] for j in range(len(values)) if i - half <= j <= i + half]
        expected.append(sum(near) / len(near))
    assert_close(running_mean(values, window), expected, atol=1e-9)


def test_windows_are_odd_and_a_tenth():
    assert [smoothing_window(n) for n in (0, 5, 29, 30, 120, 10_000)] == [1, 1, 3, 3, 13, 51]
    with pytest.raises(ValueError, match="window"):
        running_mean([1.0], 0)


def test_panels_are_grouped_by_prefix_in_a_fixed_order():
    point = [(0, 1.0)]
    names = "zoo seconds/update seconds/mine seconds/vision grpo/kl reward/total reward/total_spread reward/my_term"
    names += " reward/my_term_spread reward/format_spread sft/loss rollout/new"
    groups = panels_of({name: point for name in names.split()})
    assert [(title, [(panel.title, list(panel.curves)) for panel in panels]) for title, panels in groups] == [
        ("Supervised fine-tuning", [("Loss per answer token", ["sft/loss"])]),
        ("Rewards", [
            ("Total reward", ["reward/total"]),
            ("Spread of the total in a group", ["reward/total_spread"]),
            ("Reward: my_term", ["reward/my_term"]),
            ("Spread of each term", ["format", "my_term"]),
        ]),
        ("Rollouts", [("rollout/new", ["rollout/new"])]),
        ("Objective", [("KL to the reference", ["grpo/kl"])]),
        ("Time", [("Seconds of each phase", ["vision", "update", "mine"])]),
        ("Other measures", [("zoo", ["zoo"])]),
    ]  # fmt: skip
    assert all(panel.caption.endswith(".") for _, panels in groups for panel in panels)
    assert panels_of({}) == []


@pytest.mark.parametrize("draw", [curves_svg, stacked_svg])
@pytest.mark.parametrize("curve", [[], [(0, math.nan)], [(3, 1.0)], [(i, float(i % 7)) for i in range(5000)]])
def test_figures_of_odd_curves_have_their_own_ids_and_stay_small(draw, curve):
    svg = draw({"a": curve, "b": [(1, 2.0)]}, "mark-7")
    assert svg.startswith("<svg viewBox=") and svg.endswith("</svg>") and len(svg) < 80_000
    assert "currentColor" in svg and "<style" not in svg and "http" not in svg and "xlink" not in svg
    assert svg.count('id="') == svg.count('id="mark-7-') > 0
    assert svg == draw({"a": curve, "b": [(1, 2.0)]}, "mark-7")
