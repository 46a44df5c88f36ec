"""The letter or the number that a text answers with."""

from __future__ import annotations

import re

from stvg_lightning.answers.reading import last_answer

LETTERS = "ABCDE"
PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        rf"\(([{LETTERS}])\)",
        rf"\bAns(?:wer)?\s{{0,9}}[:=]\s{{0,9}}['\"]?([{LETTERS}])\b",
        rf"\bOption\s{{1,9}}([{LETTERS}])\b",
        rf"\b([{LETTERS}])\s{{0,9}}(?:is|was)\s{{0,9}}correct",
        rf"\b([{LETTERS}])[.)][ \t]{{0,9}}$",
    )
)
"""Where STI-Bench looks for a letter, in its order (github.com/MINT-SJTU/STI-Bench, opensource_test.py)."""

NUMBER = re.compile(r"-?(?:[0-9]{1,15}(?:\.[0-9]{1,15})?|\.[0-9]{1,15})")


def chosen_letter(text: str) -> str | None:
    """The letter that a text chooses; None where it chooses none.

    Example:
        >>> chosen_letter("It turns left, so (B)."), chosen_letter("c"), chosen_letter("")
        ('B', None, None)
    """
    content = last_answer(text)
    said = text if content is None else content
    for pattern in PATTERNS:
        found = pattern.search(said)
        if found:
            return found[1].upper()
    last = said.strip()[-1:]
    return last if last and last in LETTERS else None


def stated_number(text: str) -> float | None:
    """The last number of the last `<answer>`, or of the whole text where there is none.

    Example:
        >>> stated_number("<think>3 or 4</think><answer>about 2.5 m</answer>"), stated_number("none")
        (2.5, None)
    """
    content = last_answer(text)
    found = NUMBER.findall(text if content is None else content)
    return float(found[-1]) if found else None
