"""SARL-STG's answers of time: what is written is read back, what is broken is named."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stvg_lightning.answers import timesteps
from stvg_lightning.tubes import Truth
from tests.helpers import assert_close

TRUTH = Truth("v", "a man sits down", 10.0, 100, 64, 48, span_frames=(45, 92))


@given(st.integers(0, 399), st.integers(1, 400), st.sampled_from([8.0, 25.0, 29.97]))
def test_what_is_written_is_read_back(start: int, length: int, fps: float) -> None:
    truth = Truth("v", "a man sits down", fps, 800, 64, 48, span_frames=(start, start + length))
    for thought in ("", "He is there."):
        answer = timesteps.read(timesteps.write(truth, thought))
        assert answer.well_formed and not answer.problems
        assert all(abs(a - b) <= 0.005 + 1e-9 for a, b in zip(answer.span_seconds, truth.span_seconds, strict=True))
        assert answer.thought == thought or not thought


def test_gold_by_hand() -> None:
    assert timesteps.write(TRUTH, "So.") == "<think>So.</think><answer>4.50 to 9.20</answer>"
    assert "4.50 to 9.20" in timesteps.read(timesteps.write(TRUTH)).thought


def test_the_instruction_tells_the_format_and_nothing_of_the_answer() -> None:
    text = timesteps.instruction(TRUTH)
    assert TRUTH.query in text and not re.search(r"[0-9]", text)
    assert all(tag in text for tag in ("<think>", "<timestep>", "<answer>[start] to [end]</answer>"))


@pytest.mark.parametrize(
    ("text", "span", "thought", "well_formed"),
    [
        ("<think>a</think><answer>4.50 to 9.22</answer>", (4.5, 9.22), "a", True),
        ("<think>a</think>\n<timestep>4.5, 9</timestep>\n<answer>4.5 to 9</answer>", (4.5, 9.0), "a\n4.5, 9", True),
        ("<think>a</think><answer>from 4.50 to 9.22</answer>", None, "a", False),
        ("<think>a</think><answer>[4.50s - 9.22s]</answer>", (4.5, 9.22), "a", False),  # read, but not the template
        ("<think>a</think><answer>\n4.5 to 9.22\n</answer>", (4.5, 9.22), "a", True),
        ("<think>a</think><answer>9.22 to 4.50</answer>", (9.22, 4.5), "a", False),
        ("<think>a</think><answer>4.50 to 4.50</answer>", (4.5, 4.5), "a", False),
        ("<think>a</think><answer>soon</answer>", None, "a", False),
        ("<think>a</think><answer>4.50 to 9.22, or 1 to 2, or never</answer>", None, "a", False),
        ("<think>a</think><answer>4.50 to 9.22.</answer>", (4.5, 9.22), "a", False),
        ("<timestep>1</timestep><think>a</think><answer>1 to 2</answer>", (1.0, 2.0), "a\n1", False),
        ("So <think>a</think><answer>1 to 2</answer>", (1.0, 2.0), "a", False),
        ("<answer>1 to 2</answer>", (1.0, 2.0), None, False),
        ("<think>a</think><answer>1 to 2</answer><answer>3 to 4</answer>", (3.0, 4.0), "a", False),
        ("1 to 2", None, None, False),
    ],
)  # fmt: skip
def test_reading_by_hand(text: str, span: tuple[float, float] | None, thought: str | None, well_formed: bool) -> None:
    answer = timesteps.read(text)
    assert answer.well_formed is well_formed and answer.thought == thought
    assert bool(answer.problems) == (span is None)
    if span is None:
        assert answer.span_seconds is None
    else:
        assert_close(answer.span_seconds, span, atol=1e-12)


@given(st.text(alphabet="0123456789. <>/tohinkaswerp", max_size=200))
@settings(deadline=None)
def test_any_text_is_read_into_an_answer_that_holds_together(text: str) -> None:
    for whole in (text, f"<think>{text}</think><answer>{text}</answer>", f"{text}<answer>4.5 to 9</answer>"):
        answer = timesteps.read(whole)
        assert answer.text == whole and (answer.span_seconds is None) == bool(answer.problems)
        if answer.span_seconds is not None:
            assert "<answer>" in whole and all(0 <= seconds < math.inf for seconds in answer.span_seconds)
        if answer.well_formed:
            assert answer.thought is not None and answer.span_seconds[0] < answer.span_seconds[1]
            assert whole.strip().startswith("<think>") and whole.strip().endswith("</answer>")


def test_what_the_language_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="know the tasks stvg, temporal, not 'spatial'"):
        timesteps.instruction(Truth("v", "q", 10.0, 100, 64, 48, task="spatial"))
    with pytest.raises(ValueError, match="no span_frames"):
        timesteps.write(Truth("v", "q", 10.0, 100, 64, 48))
    for thought in ("so </answer>", "<think>"):
        with pytest.raises(ValueError, match="holds a tag"):
            timesteps.write(TRUTH, thought)


def test_sentences_of_labels_are_left_out() -> None:
    for thought, kept in {
        "The red cross is number {target}. It sits from 0.50 to 1.25.": "It sits from 0.50 to 1.25.",
        "A man sits.": "A man sits.",
        "It is {target}.": timesteps.read(timesteps.write(TRUTH)).thought,
    }.items():
        assert timesteps.read(timesteps.write(TRUTH, thought)).thought == kept
