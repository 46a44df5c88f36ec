"""Letters and numbers as models reply with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.answers.questions import chosen_letter, stated_number


@pytest.mark.parametrize(
    "reply",
    ["B", "(B)", "B.", "B)", "B. left", "B) 3 m", "B: left", "**B**", "**B.** left", "**(B)** left", "The answer is B",
     "The answer is B.", "the correct answer is **B**", "Answer: B", "Answer is: B", "Option B", r"\boxed{B}",
     "so\nB. left"],
)  # fmt: skip
def test_letters_as_models_write_them(reply: str) -> None:
    assert chosen_letter(reply) == "B"


@pytest.mark.parametrize("reply", ["A man", "The answer is A man", "left", "b", "", "U.S. roads", "Bob", "()"])
def test_what_chooses_no_letter(reply: str) -> None:
    assert chosen_letter(reply) is None


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("2.5", 2.5), ("-3", -3.0), (".5 m", 0.5), ("about 2.5 m", 2.5), ("5.", 5.0), ("1,200", 1200.0),
        ("1,234,567.5 m", 1234567.5), ("3e2", 300.0), ("1.5E-2", 0.015), ("2.5 m (8.2 ft)", 2.5), ("5 m2", 5.0),
        ("5m", 5.0), ("2-3", 2.0), ("area m2: 4", 4.0), ("none", None), ("m2", None), ("1.2.3", None), ("1,5", None),
        ("9" * 40, None), ("", None),
    ],
)  # fmt: skip
def test_numbers_as_models_write_them(reply: str, number: float | None) -> None:
    assert stated_number(reply) == number


@given(st.text(alphabet="0123456789.,eE+-() ABm*") | st.text())
def test_any_reply_is_read(reply: str) -> None:
    number, letter = stated_number(reply), chosen_letter(reply)
    assert number is None or abs(number) < 1e115
    assert letter is None or letter in reply
