"""STI-Bench's score: the share of multiple-choice questions whose letter is right.

The letter is looked for as `(C)`, after `Answer` or `Option`, before `is correct`, and at the end of a line, in this
order; else the last character of the answer counts. (github.com/MINT-SJTU/STI-Bench, opensource_test.py)
"""

from __future__ import annotations

from stvg_lightning.evaluation.case import Case
from stvg_lightning.evaluation.protocols.protocol import Row, share
from stvg_lightning.evaluation.questions import chosen_letter

TASKS = ("choice",)
METRICS = {"accuracy": share("correct")}


def score(case: Case) -> Row:
    """Whether the letter is right."""
    letter = chosen_letter(case.answer.text)
    return {"correct": letter is not None and letter == case.truth.answer, "chosen": letter, "true": case.truth.answer}
