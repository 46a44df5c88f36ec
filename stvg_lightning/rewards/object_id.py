"""The spatial consistency reward: the right object, seen at the answered time (STVG-R1, equation 5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import RewardContext
from stvg_lightning.tubes import Truth
from stvg_lightning.tubes.choices import check_choice

Presence = Literal["paper", "code"]

TASKS_WITH_OBJECTS = ("stvg", "spatial")


@dataclass(frozen=True)
class ObjectId:
    """1 where the answered object is the true one and is seen within the answered span (STVG-R1, equation 5).

    Attributes:
        presence: `paper` asks that the object be seen at some time in `[t_s, t_e]`, both ends included;
            `code` asks for the right object only, as the released code does.

    With `paper`, an object is seen when its label was drawn (`context.marked_seconds`); where the context
    does not tell, in the frames of its track. A spatial question has no span, hence no such test. Where no
    labels are drawn at all, only `code` can be satisfied.
    """

    presence: Presence = "paper"
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        check_presence(self.presence)

    @property
    def needs_markers(self) -> bool:
        return self.presence == "paper"

    def __call__(self, answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float | None]:
        """The reward of each answer; None for tasks that ask for no object."""
        return [object_id_reward(answer, truth, context, self.presence) for answer in answers]


def check_presence(presence: str) -> None:
    """Raise ValueError for a presence test that does not exist."""
    check_choice("presence", presence, get_args(Presence))


def object_id_reward(answer: Answer, truth: Truth, context: RewardContext, presence: Presence) -> float | None:
    """The reward of one answer (STVG-R1, equation 5).

    Args:
        answer: counts when it names exactly one object; a list that holds the right one earns nothing.
        truth: gives the task, the true object, and the objects' tracks.
        context: gives the times at which labels were drawn, where known.
        presence: `paper` or `code`, as in `ObjectId`.

    Returns:
        0 or 1; None for tasks that ask for no object.

    Raises:
        ValueError: a truth of such a task without an object id.
    """
    if truth.task not in TASKS_WITH_OBJECTS:
        return None
    if truth.object_id is None:
        raise ValueError(f"truth {truth.id!r} of task {truth.task!r} has no object_id")
    if answer.object_ids != (truth.object_id,):
        return 0.0
    if presence == "code" or truth.task == "spatial":
        return 1.0
    if answer.span_seconds is None:
        return 0.0
    start, end = answer.span_seconds
    return float(any(start <= seconds <= end for seconds in _seen_seconds(truth.object_id, truth, context)))


def _seen_seconds(object_id: int, truth: Truth, context: RewardContext) -> Iterable[float]:
    """Times in seconds at which the model could see an object."""
    if context.marked_seconds is not None:
        return context.marked_seconds.get(object_id, ())
    return (frame / truth.fps for frame in truth.tracks.get(object_id, {}))
