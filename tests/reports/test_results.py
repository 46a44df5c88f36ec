"""The headline table and differences in words."""

from __future__ import annotations

import pytest

from stvg_lightning.reports.results import comparisons, headline_table, verdict


def entry(mean: float, low: float, high: float) -> dict:
    return {"mean": mean, "ci95": [low, high]}


SUMMARY = {
    "models": {
        "base": {"m_vIoU": entry(0.1, 0.05, 0.15), "unreadable": entry(0.5, 0.4, 0.6)},
        "sft-long": {"m_vIoU": entry(0.4, 0.35, 0.45), "m_sIoU": entry(1, 1, 1), "unreadable": entry(0.0, 0.0, 0.0)},
        "grpo": {
            "m_vIoU": entry(0.4, 0.351, 0.449),
            "m_tIoU": entry(0.61, 0.5, 0.7),
            "unreadable": entry(0.01, 0, 0.02),
        },
    },
    "differences": {
        "sft-long-base": {"m_vIoU": entry(0.3, 0.2, 0.4), "unreadable": entry(-0.5, -0.6, -0.4)},
        "grpo-sft-long": {"m_vIoU": entry(-0.0001, -0.05, 0.04), "unreadable": entry(0.01, 0.001, 0.02)},
    },
}


def test_table_has_the_headline_metrics_in_order_with_the_best_marked():
    table = headline_table(SUMMARY)
    assert [name for name, _ in table] == ["base", "sft-long", "GRPO"]
    assert all([cell.metric for cell in cells] == ["m_tIoU", "m_vIoU", "unreadable"] for _, cells in table)
    assert [[(cell.mean, cell.interval, cell.best) for cell in cells] for _, cells in table] == [
        [("–", "", False), ("10.0", "5.0 to 15.0", False), ("50.0", "40.0 to 60.0", False)],
        [("–", "", False), ("40.0", "35.0 to 45.0", True), ("0.0", "0.0 to 0.0", True)],
        [("61.0", "50.0 to 70.0", True), ("40.0", "35.1 to 44.9", True), ("1.0", "0.0 to 2.0", False)],
    ]


def test_of_moments_alone_the_overlap_of_boxes_is_the_headline():
    models = {"sft": {"m_sIoU": entry(0.3, 0.2, 0.4)}, "grpo": {"m_sIoU": entry(0.5, 0.4, 0.6)}}
    summary = {"models": models, "differences": {"grpo-sft": {"m_sIoU": entry(0.2, 0.1, 0.3)}}}
    assert [cell.metric for cell in headline_table(summary)[0][1]] == ["m_sIoU"]
    assert comparisons(summary)[0].sentence == "GRPO over SFT: +20.0 points of m_sIoU, 95 % interval 10.0 to 30.0"


def test_nothing_is_best_of_one_model():
    cells = headline_table({"models": {"base": SUMMARY["models"]["base"]}})[0][1]
    assert not any(cell.best for cell in cells)


def test_differences_in_words():
    first, second = comparisons(SUMMARY)
    assert first.sentence == "Sft-long over base: +30.0 points of m_vIoU, 95 % interval 20.0 to 40.0"
    assert [(difference.words, difference.verdict) for difference in first.differences] == [
        ("+30.0 points of m_vIoU, 95 % interval 20.0 to 40.0", "gain"),
        ("\u221250.0 points of unreadable answers, 95 % interval \u221260.0 to \u221240.0", "gain"),
    ]
    assert second.sentence == "GRPO over sft-long: 0.0 points of m_vIoU, 95 % interval \u22125.0 to 4.0"
    assert [difference.verdict for difference in second.differences] == ["chance", "loss"]


@pytest.mark.parametrize(
    "low, high, expected",
    [(0.01, 0.2, "gain"), (-0.2, -0.01, "loss"), (0.0, 0.2, "chance"), (-0.1, 0.1, "chance")],
)
def test_verdicts(low, high, expected):
    assert verdict("m_vIoU", entry(0.0, low, high)) == expected
    mirrored = {"gain": "loss", "loss": "gain", "chance": "chance"}[expected]
    assert verdict("unreadable", entry(0.0, low, high)) == mirrored


def test_differences_of_unknown_models_are_refused():
    with pytest.raises(ValueError, match="'grpo-other' does not name two of the models base"):
        comparisons({"models": {"base": {}}, "differences": {"grpo-other": {}}})
