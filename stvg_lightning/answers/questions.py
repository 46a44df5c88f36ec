"""The letter or the number that a text answers with."""

from __future__ import annotations

import re

from stvg_lightning.answers.reading import last_answer

CHOICES = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"\(([A-Z])\)",
        r"\b(?i:answer|option)\s{0,9}[:=]?\s{0,9}([A-Z])\b",
        r"^\s{0,9}([A-Z])[.)]?\s{0,9}$",
    )
)
"""How a letter is chosen: in brackets, after `answer` or `option`, or alone on a line."""

NUMBER = re.compile(r"-?(?:[0-9]{1,15}(?:\.[0-9]{1,15})?|\.[0-9]{1,15})")


def chosen_letter(text: str) -> str | None:
    """The letter that the last `<answer>`, or the whole text where there is none, chooses; None where it chooses none.

    Example:
        >>> chosen_letter("<think>(A) or (B)</think><answer>(B)</answer>"), chosen_letter("C."), chosen_letter("A man")
        ('B', 'C', None)
    """
    content = last_answer(text)
    found = (pattern.search(text if content is None else content) for pattern in CHOICES)
    return next((match[1] for match in found if match), None)


def stated_number(text: str) -> float | None:
    """The last number of the last `<answer>`, or of the whole text where there is none.

    Example:
        >>> stated_number("<think>3 or 4</think><answer>about 2.5 m</answer>"), stated_number("none")
        (2.5, None)
    """
    content = last_answer(text)
    found = NUMBER.findall(text if content is None else content)
    return float(found[-1]) if found else None
