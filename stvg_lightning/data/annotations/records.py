"""Records of annotation files: JSON read one record at a time, however large the file, and its values checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO, TypeVar

from stvg_lightning.data.report import Dropped
from stvg_lightning.tubes.json_values import is_integer, is_number, read_integer, read_text, refuse, strict_decoder

CHUNK_CHARACTERS = 1 << 20
LONGEST_NUMBER = 400
BLANKS = " \t\r\n"
AFTER_VALUE = (*BLANKS, ",", ":", "]", "}")
MISSING = object()
T = TypeVar("T")


def json_records(path: Path, *keys: str, raw: bool = False) -> Iterator[tuple[str, str | int, Any]]:
    """The values of a JSON list or object, one after another; memory holds one of them and a piece of the file.

    Args:
        path: a JSON file.
        keys: the way down to the list or object through objects; none where it is the whole file.
        raw: give each value as its JSON text, checked but not kept decoded.

    Yields:
        `("path[place]", place, value)`; the place is an index from 0 or a key.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not UTF-8, not strict JSON, or neither list nor object there; it begins with file and record.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no annotation file at {path}")
    with path.open(encoding="utf-8-sig") as file:
        scanner = _Scanner(file, str(path))
        try:
            yield from scanner.members(keys, raw)
            scanner.expect_end()
        except UnicodeDecodeError as error:
            raise ValueError(f"{scanner.where}: not UTF-8: {error.reason}") from None
    if not scanner.found:
        raise ValueError(f"{path}: key {keys[-1]!r} is missing")


def whole_json(path: Path) -> Any:
    """A JSON file as one value, for small files; fails as `json_records`."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no annotation file at {path}")
    with path.open(encoding="utf-8-sig") as file:
        scanner = _Scanner(file, str(path))
        try:
            value, _ = scanner.value()
            scanner.expect_end()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8: {error.reason}") from None
    return value


class _Scanner:
    """A place in a JSON text that is read piece by piece."""

    def __init__(self, file: TextIO, where: str) -> None:
        self.where = where
        self.found = False
        self._file = file
        self._decoder = strict_decoder()
        self._text = ""
        self._at = 0
        self._complete = False

    def members(self, keys: tuple[str, ...], raw: bool) -> Iterator[tuple[str, str | int, Any]]:
        """Values of the list or object at the end of the way `keys`; what lies beside the way is checked and left."""
        opening = self._peek()
        if opening not in ("{", "[") or (keys and opening != "{"):
            self._fail("a JSON object is expected" if keys else "a JSON list or object is expected")
        outer = self.where
        for place in self._places(opening):
            self.where = f"{outer}[{place!r}]"
            if keys and place == keys[0]:
                yield from self.members(keys[1:], raw)
                continue
            value, text = self.value(raw=raw and not keys)
            if not keys:
                yield self.where, place, text if raw else value
        self.where = outer
        self.found = self.found or not keys

    def value(self, raw: bool = False) -> tuple[Any, str]:
        """The value that begins here, and its text where that is asked for."""
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # Only an error near the end, or a text without its closing quote, may be mended by reading on.
                near = len(self._text) - error.pos < LONGEST_NUMBER or error.msg.startswith("Unterminated string")
                if near and self._read_on():
                    continue
                self._fail(f"broken JSON: {error.msg}" + (": the file may be cut short" if near else ""))
            except RecursionError:
                self._fail("broken JSON: it is nested too deeply")
            except ValueError as error:  # a constant, a doubled key or a number of too many digits
                self._fail(str(error))
            # A number at the end of what was read may go on: of "0." the decoder takes the "0".
            near = len(self._text) - end < LONGEST_NUMBER
            if near and self._text[end : end + 1] not in AFTER_VALUE and self._read_on():
                continue
            text = self._text[self._at : end] if raw else ""
            self._at = end
            return value, text

    def expect_end(self) -> None:
        if self._peek():
            self._fail("broken JSON: something stands after its end")

    def _places(self, opening: str) -> Iterator[str | int]:
        """The keys of an object or the indices of a list, the scanner standing at each value in turn."""
        closing = "}" if opening == "{" else "]"
        self._at += 1
        seen: set[str] = set()
        index = 0
        if self._peek() == closing:
            self._at += 1
            return
        while True:
            yield self._key(seen) if opening == "{" else index
            index += 1
            following = self._peek()
            self._at += 1
            if following == closing:
                return
            if following != ",":
                self._fail(f"broken JSON: ',' or '{closing}' is expected" + ("" if following else ", the file ends"))

    def _key(self, seen: set[str]) -> str:
        key, _ = self.value()
        if not isinstance(key, str):
            self._fail("broken JSON: a key is expected")
        if key in seen:
            self._fail(f"key {key!r} stands twice in one object")
        seen.add(key)
        if self._peek() != ":":
            self._fail(f"broken JSON: ':' is expected after key {key!r}")
        self._at += 1
        return key

    def _peek(self) -> str:
        """The next character that is no blank, '' at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in BLANKS:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def _read_on(self) -> bool:
        """Forget what lies behind and read as much again as is still held; False at the end of the file."""
        if self._complete:
            return False
        held = self._text[self._at :]
        more = self._file.read(max(CHUNK_CHARACTERS, len(held)))
        self._complete = not more
        self._text, self._at = held + more, 0
        return bool(more)

    def _fail(self, reason: str) -> NoReturn:
        raise ValueError(f"{self.where}: {reason}")


def field(record: Any, key: str, read: Callable[[Any, str], T], default: Any = MISSING) -> T:
    """A record's value at a key, read by `read(value, key)`.

    Args:
        record: a JSON object; anything else is refused.
        key: its key.
        read: refuses a wrong value by the name it is given.
        default: what a missing or null value stands for; without it both are refused.
    """
    if not isinstance(record, Mapping):
        refuse("the record", record, "a JSON object")
    if default is not MISSING and record.get(key) is None:
        return default
    if key not in record:
        raise ValueError(f"key {key!r} is missing")
    return read(record[key], key)


def text(value: Any, name: str) -> str:
    return read_text(value, name)


def name_text(value: Any, name: str) -> str:
    """A name: a text, or a whole number that some files write without quotes."""
    return str(value) if is_integer(value, 0, 1 << 62) else read_text(value, name)


def sentence(value: Any, name: str) -> str:
    """A sentence without blanks around it; an empty one is dropped."""
    if not read_text(value, name, may_be_empty=True).strip():
        raise Dropped("the sentence is empty")
    return value.strip()


def number(value: Any, name: str) -> float:
    if not is_number(value):
        refuse(name, value, "a finite number")
    return float(value)


def rate(value: Any, name: str) -> float:
    if not is_number(value) or not value > 0:
        refuse(name, value, "a finite number above 0")
    return float(value)


def frame_number(value: Any, name: str) -> int:
    """A whole number of at least 0; some files write it as 12.0."""
    return read_integer(_whole(value), name, least=0)


def count(value: Any, name: str) -> int:
    """A whole number of at least 1; some files write it as 12.0."""
    return read_integer(_whole(value), name, least=1)


def listing(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        refuse(name, value, "a list")
    return value


def table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        refuse(name, value, "a JSON object")
    return value


def seconds_pair(value: Any, name: str) -> tuple[float, float]:
    """`[start, end]` in seconds, in any order."""
    if not isinstance(value, list) or len(value) != 2:
        refuse(name, value, "[start, end] in seconds")
    return number(value[0], name), number(value[1], name)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
