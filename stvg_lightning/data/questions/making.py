"""Questions of all kinds about a source, the same ones for the same seed (STV-205k's kinds; Video-STR)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from stvg_lightning.data.questions.asking import Maker, Question, graph_of
from stvg_lightning.data.questions.over_time import appearance_order, displacement, localisation, motion
from stvg_lightning.data.questions.source import Source
from stvg_lightning.data.questions.where import counting, object_size, relative_direction, relative_distance
from stvg_lightning.tubes.choices import check_choice

KINDS: Mapping[str, Maker] = {
    "counting": counting,
    "relative_direction": relative_direction,
    "relative_distance": relative_distance,
    "appearance_order": appearance_order,
    "object_size": object_size,
    "motion": motion,
    "localisation": localisation,
    "displacement": displacement,
}
"""STV-205k's tasks (arXiv 2510.10976)."""

TRIES = 20
"""Drawings of times and things for each question, before a source is known to have no more of a kind."""

MOST_THINGS, MOST_FRAMES = 200, 4
"""What `most_things` and `most_frames` may be at the most."""

BALANCED = ("motion",)
COMMON_SHARE = 0.2
"""How often a question whose answer is the common one is asked of these kinds: most things stay where they are, and
whoever says so of all of them must not be right more often than with any other of the five candidates."""


@dataclass(frozen=True)
class QuestionSettings:
    """Which questions are asked.

    Attributes:
        kinds: of `KINDS`.
        per_kind: questions of each kind about one source, at most.
        most_things: in a frame of the graph; see `graph_of`. A question about more is not asked.
        most_frames: that a graph shows, one to four; a question about more moments is not asked.
        decimals: of the positions on the grid, 0 to 2.
        seed: other questions about the same sources.

    Raises:
        ValueError: an unknown kind, or a number out of range.
    """

    kinds: tuple[str, ...] = tuple(KINDS)
    per_kind: int = 1
    most_things: int = 10
    most_frames: int = 4
    decimals: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.kinds:
            raise ValueError(f"kinds is empty: choose from {', '.join(KINDS)}")
        for kind in self.kinds:
            check_choice("kind", kind, KINDS)
        ranges = {
            "per_kind": (1, 1000),
            "most_things": (1, MOST_THINGS),
            "most_frames": (1, MOST_FRAMES),
            "decimals": (0, 2),
            "seed": (0, 2**32),
        }
        for name, (least, most) in ranges.items():
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} {getattr(self, name)} must lie in {least} to {most}")


def questions_of(
    source: Source, settings: QuestionSettings = QuestionSettings(), limited: set[str] | None = None
) -> Iterator[Question]:
    """Distinct questions about a source, kind by kind, each with its graph.

    None is asked where the answer would not be clear: names that two things bear, directions between two words,
    distances and sizes that are nearly the same.

    Args:
        source: what is asked about.
        settings: which questions.
        limited: takes the kinds of which some question that was drawn has a graph that `most_things` or `most_frames`
            does not allow, whether or not another took its place.
    """
    if not source.seen:
        return
    for kind in settings.kinds:
        rng = np.random.default_rng([settings.seed, zlib.crc32(f"{source.id} {kind}".encode())])
        asked: set[str] = set()
        takes_common = rng.random() < COMMON_SHARE
        for _ in range(TRIES * settings.per_kind):
            question = KINDS[kind](source, rng, settings.decimals)
            if question is None:
                continue
            first_line = question.query.partition("\n")[0]
            if first_line in asked or (kind in BALANCED and question.is_common != takes_common):
                continue
            fits = len(question.frames) <= settings.most_frames
            graph = graph_of(source, question, settings.most_things, settings.decimals) if fits else None
            if graph is None:
                if limited is not None:
                    limited.add(kind)
                continue
            asked.add(first_line)
            takes_common = rng.random() < COMMON_SHARE
            yield replace(question, graph=graph)
            if len(asked) == settings.per_kind:
                break
