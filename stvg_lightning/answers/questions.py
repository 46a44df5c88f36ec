"""The letter or the number that a text answers with."""

from __future__ import annotations

import re

from stvg_lightning.answers.reading import last_answer

CHOICES = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"\\boxed\{\s{0,9}\(?([A-Z])\b",
        r"\(([A-Z])\)",
        r"\b(?i:answer|option)\s{0,9}[:=]?\s{0,9}([A-Z])\b",
        r"^\s{0,9}([A-Z])[.)]?\s{0,9}$",
    )
)
"""How a letter is chosen: boxed as in LaTeX, in brackets, after `answer` or `option`, or alone on a line."""

RELATIVE_TOLERANCES = (0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05)
"""How far a number may be off, as a share of the true one (VSI-Bench, arXiv 2412.14171)."""

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


def relative_accuracy(answered: float, true: float) -> float:
    """Mean relative accuracy of a number: the share of ten tolerances, 50 % down to 5 %, within which it lies.

    Args:
        answered: any finite number.
        true: the right one. Where it is 0, only 0 is right.

    Returns:
        One of 0, 0.1, ..., 1 (VSI-Bench, arXiv 2412.14171).

    Example:
        >>> relative_accuracy(9.0, 10.0)
        0.9
    """
    if true == 0:
        return float(answered == 0)
    off = abs(answered - true) / abs(true)
    # 1e-9 absorbs the binary rounding of shares such as 0.1.
    return sum(off <= tolerance + 1e-9 for tolerance in RELATIVE_TOLERANCES) / len(RELATIVE_TOLERANCES)
