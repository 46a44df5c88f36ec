"""Whether objects can be asked for by the numbers that are drawn on them."""

from __future__ import annotations

from collections.abc import Iterable

from stvg_lightning.answers import AnswerLanguage, Frames, View
from stvg_lightning.prompting import Markers
from stvg_lightning.tubes import Truth

SOME_FRAMES = Frames((0, 1), 64, 48, 64, 48, fps=2.0, num_frames=2)
"""A view for languages that read nothing without one."""


def names_objects(language: AnswerLanguage, markers: Markers) -> bool:
    """Whether answers in a language name objects by their labels, rather than by boxes or not at all."""
    return language.read("", View(markers.kind, SOME_FRAMES)).names_objects


def check_numbered(language: AnswerLanguage, markers: Markers, truths: Iterable[Truth], place: object) -> None:
    """Refuse to ask for objects by numbers where none are known in any video: every answer would score 0.

    Args:
        language: in which is asked.
        markers: how objects are marked.
        truths: the questions.
        place: the folder of their shards, for the message.

    Raises:
        ValueError: shards whose objects were never numbered.
    """
    if not markers.draw or not names_objects(language, markers):
        return
    of_place = [truth for truth in truths if truth.has_place]
    if of_place and not any(truth.tracks for truth in of_place):
        raise ValueError(
            f"{place} holds no objects to number, and answers name them by number: number them first "
            f"(stvg shards prompt --shards {place} --out {place}_numbered) and take {place}_numbered, "
            "or ask without numbers"
        )
