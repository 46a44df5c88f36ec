"""What several answer languages read alike: tags, thoughts and times, whatever the text holds.

All patterns run on text whose blanks are collapsed to single spaces, and repeat no two groups that could match the
same characters: reading takes time proportional to the length of the text.
"""

from __future__ import annotations

import re

from stvg_lightning.tubes import Span

LONGEST_NUMBER = 32
"""Digits beyond which a written time is no time; it keeps hostile texts cheap to read."""

OPENING, CLOSING = r"""[ \[({"'*#]{0,4}""", r"""[ \])}"'*]{0,4}"""
"""What may stand before and after a value."""

_ANSWER_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE | re.ASCII)
_SECONDS = r"([0-9]+(?:\.[0-9]*)?)(?![0-9]|[.:][0-9]|e[+-]?[0-9]) ?(?:s|secs?|seconds?)?"
_RANGE = re.compile(
    rf"{OPENING}{_SECONDS}{CLOSING}(?:to\b|and\b|[-\u2013\u2014]){OPENING}{_SECONDS}", re.IGNORECASE | re.ASCII
)
_RANGE_ALONE = re.compile(rf"{_RANGE.pattern}{CLOSING}[.!]?$", _RANGE.flags)


def last_answer(text: str) -> str | None:
    """What stands in the last closed pair of answer tags, the innermost one where they nest."""
    content, opened_at = None, None
    for tag in _ANSWER_TAG.finditer(text):
        if not tag[1]:
            opened_at = tag.end()
        elif opened_at is not None:
            content, opened_at = text[opened_at : tag.start()], None
    return content


def plain_reply(text: str) -> str:
    """What answers in a text of no language: what stands in its last `<answer>`, or all of it where it has none."""
    content = last_answer(text)
    return text if content is None else content


def between(text: str, tag: str) -> str | None:
    """What stands between the first opening tag of a name and the next closing one, stripped; or None."""
    _, opening, rest = text.partition(f"<{tag}>")
    content, closing, _ = rest.partition(f"</{tag}>")
    return content.strip() if opening and closing else None


def last_between(text: str, tag: str) -> str | None:
    """What stands between the last closing tag of a name and the opening one before it, stripped; or None."""
    before, closing, _ = text.rpartition(f"</{tag}>")
    _, opening, content = before.rpartition(f"<{tag}>")
    return content.strip() if opening and closing else None


def is_row_of_tags(text: str, *tags: str) -> bool:
    """Whether a text is one pair of each tag in this order, blanks between them, and nothing else."""
    rest = text.strip()
    for tag in tags:
        if text.count(f"<{tag}>") != 1 or text.count(f"</{tag}>") != 1 or not rest.startswith(f"<{tag}>"):
            return False
        rest = rest.partition(f"</{tag}>")[2].lstrip()
    return not rest


def read_span(content: str, position: int, to_the_end: bool = False) -> Span | None:
    """The two times in seconds that stand at a position of a text with single spaces, as written; or None.

    They are joined by `to`, `and` or a dash, in brackets or not, with or without `s`; `to_the_end` asks that nothing
    else follows.
    """
    match = (_RANGE_ALONE if to_the_end else _RANGE).match(content, position)
    if match is None or max(len(match[1]), len(match[2])) > LONGEST_NUMBER:
        return None
    return float(match[1]), float(match[2])
