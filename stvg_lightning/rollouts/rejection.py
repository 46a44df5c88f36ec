"""Rejection sampling for a cold start (SARL-STG, supplement, section 5.1): which completions are worth learning.

The paper keeps those of a tIoU above 0.8 and drops thoughts that repeat themselves or change their language; what
counts as either it does not say, so the rules and their numbers are ours, as are those against an empty thought and a
thought whose times contradict the answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from stvg_lightning.answers import Answer
from stvg_lightning.answers.questions import chosen_letter
from stvg_lightning.tubes import Truth, span_iou

Reason = Literal[
    "unreadable", "form", "answer", "time", "thought", "length", "repetition", "language", "contradiction", "span"
]
REASONS: tuple[Reason, ...] = get_args(Reason)

_WORD = re.compile(r"\w+")
_TIME = re.compile(
    r"(?<![\w.:])(?:([0-9]{1,4}):([0-9]{2}(?:\.[0-9]+)?)|([0-9]{1,6}\.[0-9]+)(?![0-9:]|\.[0-9])"
    r"|([0-9]{1,6})(?= ?s(?:ecs?|econds?)?\b))",
    re.ASCII,
)
_TAG = re.compile(r"</?(?:think|time|timestep|answer)>", re.IGNORECASE)
_SLACK_SECONDS = 0.011
"""Times are told with two decimals: a hundredth is rounding."""


@dataclass(frozen=True)
class KeepRules:
    """What a completion must satisfy.

    Attributes:
        min_tiou: its tIoU with the true time must be above this ("tIoU > 0.8").
        phrase_words: runs of so many words are counted as phrases.
        max_repeated_share: at most this share of its thought's phrases may have been said before in it.
        max_foreign_share: at most this share of its thought's letters may be of a script that the query has none of.
        max_characters: of its thought; None allows any number.
        max_span_share: the true time may be at most this share of its video: what fills it teaches little.
        max_seconds_off: where the true time takes the answered one's place, the thought's times may lie outside it by
            so much: models tell their own, and learning to think one time and answer another is worth nothing.

    Raises:
        ValueError: a share outside [0, 1], phrases of no words, or seconds below 0.
    """

    min_tiou: float = 0.8
    phrase_words: int = 4
    max_repeated_share: float = 0.3
    max_foreign_share: float = 0.05
    max_characters: int | None = None
    max_span_share: float = 1.0
    max_seconds_off: float = 0.5

    def __post_init__(self) -> None:
        for name in ("min_tiou", "max_repeated_share", "max_foreign_share", "max_span_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {getattr(self, name)}")
        if not 0 <= self.max_seconds_off < float("inf"):
            raise ValueError(f"max_seconds_off must be at least 0 seconds, not {self.max_seconds_off}")
        if self.phrase_words < 1:
            raise ValueError(f"phrase_words must be at least 1, not {self.phrase_words}")

    def refusal(self, answer: Answer, truth: Truth, takes_truth: bool = False) -> Reason | None:
        """Why a completion is dropped, by the first rule that it breaks; None where it is kept.

        Args:
            answer: the completion.
            truth: what it answers.
            takes_truth: whether its thought is to be followed by the true time instead of its own.

        Raises:
            ValueError: a truth without a time.

        Example:
            >>> truth = Truth("a", "a man sits", 10.0, 100, 64, 48, span_frames=(20, 40), task="temporal")
            >>> said = Answer("", (2.0, 3.9), thought="From 5.00 to 6.00 he sits.", well_formed=True)
            >>> KeepRules().refusal(said, truth)
            'contradiction'
        """
        thought = answer.thought or ""
        if answer.span_seconds is None:
            return "unreadable"
        if not answer.well_formed or _TAG.search(thought):
            return "form"
        if truth.task == "choice" and chosen_letter(answer.reply) != truth.answer:
            return "answer"
        if self.tiou(answer, truth) <= self.min_tiou:
            return "time"
        if not thought.strip():
            return "thought"
        if self.max_characters is not None and len(thought) > self.max_characters:
            return "length"
        if repeated_share(thought, self.phrase_words) > self.max_repeated_share:
            return "repetition"
        if foreign_share(thought, truth.query) > self.max_foreign_share:
            return "language"
        replaced = replace(answer, span_seconds=truth.span_seconds)
        if contradicts_itself(answer) or (takes_truth and contradicts_itself(replaced, self.max_seconds_off)):
            return "contradiction"
        return "span" if span_share(truth) > self.max_span_share else None

    def tiou(self, answer: Answer, truth: Truth) -> float:
        """The tIoU of an answer."""
        if truth.span_seconds is None:
            raise ValueError(f"truth {truth.id!r} has no time that an answer could be held against")
        return 0.0 if answer.span_seconds is None else span_iou(answer.span_seconds, truth.span_seconds)

    def best(self, answers: Sequence[Answer], truth: Truth, takes_truth: bool = False) -> int | None:
        """Which of a question's completions to keep: the one of the highest tIoU, the first of several; or None."""
        kept = [i for i, answer in enumerate(answers) if self.refusal(answer, truth, takes_truth) is None]
        return max(kept, key=lambda index: self.tiou(answers[index], truth), default=None)


def span_share(truth: Truth) -> float:
    """The share of its video that a true time fills; 0 where none is known."""
    if truth.span_seconds is None:
        return 0.0
    start, end = truth.span_seconds
    return (end - start) / truth.duration_seconds


def repeated_share(text: str, phrase_words: int) -> float:
    """The share of a text's phrases, runs of so many words, that it has said before.

    Example:
        >>> repeated_share("it moves and it moves and it moves", 2)
        0.5714285714285714
    """
    words = _WORD.findall(text.lower())
    phrases = Counter(tuple(words[i : i + phrase_words]) for i in range(len(words) - phrase_words + 1))
    return 1 - len(phrases) / phrases.total() if phrases else 0.0


def foreign_share(text: str, query: str) -> float:
    """The share of a text's letters whose script (Latin, Cyrillic, CJK, ...) the query holds none of.

    Example:
        >>> foreign_share("a man \u5750\u4e0b", "the man sits down")
        0.3333333333333333
    """
    known = {_script(letter) for letter in query if letter.isalpha()}
    letters = [letter for letter in text if letter.isalpha()]
    return sum(_script(letter) not in known for letter in letters) / len(letters) if letters else 0.0


def contradicts_itself(answer: Answer, slack_seconds: float = _SLACK_SECONDS) -> bool:
    """Whether a thought tells times outside the answered one, by more than the slack, and not the answered one itself.

    Example:
        >>> contradicts_itself(Answer("", (2.0, 4.0), thought="He sits from 5 s to 6 s."))
        True
        >>> contradicts_itself(Answer("", (2.0, 4.0), thought="He enters at 0.50 and sits from 2.00 to 4.00."))
        False
    """
    told = times_told(answer.thought or "")
    if answer.span_seconds is None or not told:
        return False
    start, end = answer.span_seconds
    is_told = all(any(abs(time - known) < slack_seconds for time in told) for known in (start, end))
    return not is_told and any(not start - slack_seconds < time < end + slack_seconds for time in told)


def times_told(text: str) -> list[float]:
    """The times of a text, in seconds: numbers with a point, numbers of seconds, and minutes with seconds.

    Example:
        >>> times_told("At 3.20 one of 4 people, from 5 s on, until 1:07.")
        [3.2, 5.0, 67.0]
    """
    return [
        60 * int(minutes) + float(seconds) if minutes else float(decimal or whole)
        for minutes, seconds, decimal, whole in _TIME.findall(text)
    ]


def _script(letter: str) -> str:
    return unicodedata.name(letter, "?").split()[0]


__all__ = ["REASONS", "KeepRules", "contradicts_itself", "foreign_share", "repeated_share", "times_told"]
