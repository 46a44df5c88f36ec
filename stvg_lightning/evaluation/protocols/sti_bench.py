"""STI-Bench's score: the share of multiple-choice questions whose letter is right.

The letter is looked for as `(C)`, after `Ans =`, after `Answer:`, after `Option`, before `is correct`, and at the end
of a line, in this order, in the whole text, thoughts included, and in either case; the first letter of a word counts
too ("Answer: Because" chooses B). Else the text's last character counts, if it is a capital.
(github.com/MINT-SJTU/STI-Bench, opensource_test.py)
"""

from __future__ import annotations

import re

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.protocols.protocol import Row, share

TASKS = ("choice",)
METRICS = {"accuracy": share("correct")}
LETTERS = "ABCDE"
PATTERNS = tuple(
    re.compile(pattern.replace("X", f"([{LETTERS}])"), re.IGNORECASE | re.MULTILINE)
    for pattern in (r"\(X\)", r"Ans\s*=\s*['\"]?X", r"Answer\s*[:=]\s*X", r"Option\s+X", r"\bX\s*(?:is|was)\s*correct",
                    r"\bX[.)]\s*$")
)  # fmt: skip


def score(case: Case) -> Row:
    """Whether the letter is right."""
    letter = letter_of(case.answer.text)
    return {"correct": letter is not None and letter == case.truth.answer, "chosen": letter, "true": case.truth.answer}


def letter_of(text: str) -> str | None:
    """The letter that STI-Bench's own program finds.

    Example:
        >>> letter_of("It turns left, so (b)."), letter_of("Answer: Because"), letter_of("I say C"), letter_of("c")
        ('B', 'B', 'C', None)
    """
    for pattern in PATTERNS:
        if found := pattern.search(text):
            return found[1].upper()
    last = text.strip()[-1:]
    return last if last and last in LETTERS else None
