"""Time bars: geometry against numbers worked by hand."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.reports import TimeBarRow, time_bar_svg
from stvg_lightning.reports.time_bar import tick_seconds

# 416 pixels leave a track of 400 between margins of 8: at 8 seconds, a second is 50 pixels.
WIDTH, DURATION = 416, 8.0


def bars(*spans, duration=DURATION) -> list[dict[str, float]]:
    rows = [TimeBarRow(f"row {i}", span, "#123456") for i, span in enumerate(spans)]
    root = ElementTree.fromstring(time_bar_svg(rows, duration, WIDTH))
    found = [rect.attrib for rect in root.iter("rect") if rect.get("class") == "span"]
    return [{"x": float(rect["x"]), "width": float(rect["width"]), "y": float(rect["y"])} for rect in found]


def test_spans_stand_where_their_seconds_are():
    assert bars((1.0, 3.0), (0.0, 8.0), (7.5, 8.0)) == [
        {"x": 58.0, "width": 100.0, "y": 17.0},
        {"x": 8.0, "width": 400.0, "y": 47.0},
        {"x": 383.0, "width": 25.0, "y": 77.0},
    ]


def test_what_lies_outside_the_video_is_cut_and_empty_spans_have_no_bar():
    assert bars((-2.0, 1.0), (6.0, 99.0)) == [
        {"x": 8.0, "width": 50.0, "y": 17.0},
        {"x": 308.0, "width": 100.0, "y": 47.0},
    ]
    assert bars(None, (3.0, 2.0), (2.0, 2.0), (8.0, 9.0), (-2.0, 0.0)) == []


def test_a_very_short_span_is_still_seen():
    assert bars((2.0, 2.001)) == [{"x": 108.0, "width": 1.0, "y": 17.0}]


def test_labels_are_escaped_and_say_what_the_model_wrote():
    svg = time_bar_svg([TimeBarRow("<b>&", (3.0, 2.0), "red"), TimeBarRow("x", None, "red")], DURATION, WIDTH)
    texts = [text.text for text in ElementTree.fromstring(svg).iter("text")]
    assert texts[:4] == ["<b>&", "3.00 to 2.00 s, which is no time", "x", "no time"]
    assert texts[4:] == [f"{second} s" for second in range(8)]
    assert " id=" not in svg


@given(st.floats(0.05, 100_000))
def test_ticks_start_at_zero_are_round_and_stay_inside(duration):
    ticks = tick_seconds(duration)
    assert ticks[0] == 0 and 1 <= len(ticks) <= 9 and ticks[-1] < duration
    assert all(later > earlier for earlier, later in pairwise(ticks))


def test_a_video_without_length_is_refused():
    with pytest.raises(ValueError, match="duration_seconds must be above 0"):
        time_bar_svg([], 0.0)
