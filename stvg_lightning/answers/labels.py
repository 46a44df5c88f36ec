"""The labels under which object ids are drawn and answered: numbers, letters, or a mix of both."""

from __future__ import annotations

import re
import string
from typing import Literal, get_args

MarkerKind = Literal["number", "upper", "lower", "mix"]
MARKER_KINDS: tuple[str, ...] = get_args(MarkerKind)

LARGEST_SINGLE_DIGIT = 9


def label_of(object_id: int, kind: MarkerKind = "number") -> str:
    """The label of an object id (STVG-R1, Table 5).

    Args:
        object_id: 1 or above.
        kind: `number` 1, 2, 3; `upper` A, B, ... Z, AA; `lower` a, b; `mix` 1 to 9, then A, B, ...

    Example:
        >>> [label_of(n, "mix") for n in (1, 9, 10, 36)]
        ['1', '9', 'A', 'AA']
    """
    if object_id < 1:
        raise ValueError(f"object ids start at 1, not {object_id}")
    if kind == "number" or (kind == "mix" and object_id <= LARGEST_SINGLE_DIGIT):
        return str(object_id)
    letters = _letters(object_id - LARGEST_SINGLE_DIGIT if kind == "mix" else object_id)
    return letters.lower() if kind == "lower" else letters


def object_id_of(label: str, kind: MarkerKind = "number") -> int | None:
    """The object id that a label stands for, or None where it is no label of this kind; case is ignored.

    Example:
        >>> object_id_of("b", "upper"), object_id_of("B", "number"), object_id_of("A", "mix")
        (2, None, 10)
    """
    if label.isascii() and label.isdigit():
        return int(label) if kind in ("number", "mix") and len(label) <= 9 else None
    if kind == "number" or not re.fullmatch(r"[A-Za-z]{1,3}", label):
        return None
    index = 0
    for letter in label.upper():
        index = index * 26 + string.ascii_uppercase.index(letter) + 1
    return index + (LARGEST_SINGLE_DIGIT if kind == "mix" else 0)


def _letters(index: int) -> str:
    """1 -> A, 26 -> Z, 27 -> AA, as spreadsheet columns are named."""
    letters = ""
    while index > 0:
        index, remainder = divmod(index - 1, 26)
        letters = string.ascii_uppercase[remainder] + letters
    return letters
