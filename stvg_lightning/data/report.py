"""What a reader of annotations changed or left out: counted by reason, with the first examples of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

NUM_EXAMPLES = 5


class Dropped(Exception):
    """A record that becomes no sample: raised by a reader's conversion, counted where records are gone through."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass
class Tally:
    """How often a reason was given, and where first."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        self.count += 1
        if len(self.examples) < NUM_EXAMPLES:
            self.examples.append(example)


@dataclass
class Report:
    """Counts of what was changed and what was dropped, by reason.

    A reason is a fixed phrase, the same for every record that it applies to; the detail holds the numbers. A change
    counts once its record is known to become a sample (`kept`); what is dropped counts as dropped alone.
    """

    changes: dict[str, Tally] = field(default_factory=dict)
    drops: dict[str, Tally] = field(default_factory=dict)
    _pending: list[tuple[str, str]] = field(default_factory=list)

    def changed(self, reason: str, where: str, detail: str = "") -> None:
        """Note that a sample of the record at `where` differs from what its annotation says, if it becomes one."""
        self._pending.append((reason, _example(where, detail)))

    def kept(self) -> None:
        """The record at hand became a sample: its changes count."""
        for reason, example in self._pending:
            self.changes.setdefault(reason, Tally()).add(example)
        self._pending.clear()

    def dropped(self, reason: str, where: str, detail: str = "") -> None:
        """Note that the record at `where` gave no sample."""
        self._pending.clear()
        self.drops.setdefault(reason, Tally()).add(_example(where, detail))

    def num_changed(self, reason: str) -> int:
        return self.changes[reason].count if reason in self.changes else 0

    def num_dropped(self, reason: str | None = None) -> int:
        """How many were dropped for a reason, or for any."""
        return sum(tally.count for name, tally in self.drops.items() if reason in (None, name))

    def to_json(self) -> dict[str, Any]:
        """Two tables, `changed` and `dropped`: reason -> count and examples."""
        return {name: _table(tallies) for name, tallies in (("changed", self.changes), ("dropped", self.drops))}

    def lines(self) -> list[str]:
        """The report for people: a line for each reason, its first examples below."""
        lines = []
        for verb, tallies in (("changed", self.changes), ("dropped", self.drops)):
            for reason, tally in sorted(tallies.items()):
                lines.append(f"{verb} {tally.count}: {reason}")
                lines.extend(f"    {example}" for example in tally.examples)
                if tally.count > len(tally.examples):
                    lines.append("    ...")
        return lines


def _example(where: str, detail: str) -> str:
    return f"{where}: {detail}" if detail else where


def _table(tallies: dict[str, Tally]) -> dict[str, Any]:
    return {reason: {"count": t.count, "examples": list(t.examples)} for reason, t in sorted(tallies.items())}
