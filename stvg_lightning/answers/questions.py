"""The letter or the number that a reply states."""

from __future__ import annotations

import re

CHOICES = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        r"\\boxed\{\s{0,9}\(?([A-Z])\b",
        r"\(([A-Z])\)",
        r"\b(?i:answer|option)\s{0,9}(?:is\b)?\s{0,9}[:=]?[\s*]{0,9}"
        r"([A-Z])\b(?!(?<=A) (?!is\b|because\b|since\b)[a-z])",  # "the answer is A man" chooses none
        r"^[\s*]{0,9}([A-Z])[*\s]{0,9}(?:[.:)](?:[*\s]|$)|$)",
    )
)
"""How a letter is chosen: boxed as in LaTeX, in brackets, after `answer` or `option`, or at the start of a line, alone
or before a point, a colon or a bracket; `*` marks bold letters."""

RELATIVE_TOLERANCES = (0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05)
"""How far a number may be off, as a share of the true one (VSI-Bench, arXiv 2412.14171)."""

NUMBER = re.compile(
    r"(?<![\w.,])-?(?:(?:[0-9]{1,3}(?:,[0-9]{3}){1,4}|[0-9]{1,15})(?:\.[0-9]{1,15})?|\.[0-9]{1,15})"
    r"(?:e[+-]?[0-9]{1,2})?(?![0-9]|[.,][0-9])",
    re.IGNORECASE | re.ASCII,
)
"""With commas between thousands and with an exponent or without; a part of a word or of a longer figure is none."""


def chosen_letter(reply: str) -> str | None:
    """The letter that a reply chooses; None where it chooses none.

    Args:
        reply: what a language takes for the answer; see `Answer.reply`.

    Example:
        >>> chosen_letter("(B)"), chosen_letter("C. three"), chosen_letter("A man")
        ('B', 'C', None)
    """
    found = (pattern.search(reply) for pattern in CHOICES)
    return next((match[1] for match in found if match), None)


def stated_number(reply: str) -> float | None:
    """The first number of a reply; None where it holds none.

    Args:
        reply: what a language takes for the answer; see `Answer.reply`.

    Example:
        >>> stated_number("about 2.5 m (8.2 ft)"), stated_number("1,200"), stated_number("none")
        (2.5, 1200.0, None)
    """
    found = NUMBER.search(reply)
    return float(found[0].replace(",", "")) if found else None


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
