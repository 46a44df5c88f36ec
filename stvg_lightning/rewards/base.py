"""What a reward term is, and the weighted sum of several."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Protocol, overload, runtime_checkable

from stvg_lightning.answers import Answer
from stvg_lightning.tubes import Truth, Tube

RANGE_SLACK = 1e-6
"""How far a value may leave a term's stated range: the rounding of floats, no more."""


class RewardError(ValueError):
    """A reward term raised, or returned what it may not; the message names the term and the sample."""


@dataclass(frozen=True)
class RewardContext:
    """What a term may know besides the answers and the truth; `stvg reward` knows of no tokens and no frames.

    Attributes:
        step: optimiser steps taken so far.
        progress: share of the training done, in [0, 1].
        completion_tokens: length of each answer in tokens.
        marked_seconds: object id -> times in seconds of the sampled frames in which its label was drawn.
        discriminator_boxes: for each answer the frame -> box of a spatial module, or None.
        shuffled_answers: answers to the same question about the video with its frames shuffled.
    """

    step: int = 0
    progress: float = 0.0
    completion_tokens: tuple[int, ...] | None = None
    marked_seconds: Mapping[int, Sequence[float]] | None = None
    discriminator_boxes: Sequence[Tube | None] | None = None
    shuffled_answers: tuple[Answer, ...] | None = None

    def of_answer(self, index: int) -> RewardContext:
        """The context of one answer of the group: fields that hold an entry per answer keep its own only."""
        tokens, boxes = self.completion_tokens, self.discriminator_boxes
        return replace(
            self,
            completion_tokens=None if tokens is None else (tokens[index],),
            discriminator_boxes=None if boxes is None else (boxes[index],),
        )


@runtime_checkable
class RewardTerm(Protocol):
    """One term of a reward: called with a group of answers to one question, it gives one value for each.

    A value lies in `[low, high]`, or is None where the term does not apply to the question.

    A term may have more:

    - `setup()`: called before a training and before an evaluation.
    - `on_epoch_start(epoch)`: called before each epoch of a training.
    - `state_dict()` and `load_state_dict(state)`: what a resumed run needs of it.
    - `check_weights(terms)`: warns of weights that defeat it; `terms` are name -> (term, weight).
    - `needs`: dotted fields of `Answer` that a language fills whatever was said; others are refused with the recipe.
    - `needs_markers`: whether it can be earned only where labels are drawn.
    - `needs_discriminator`: whether it looks at `context.discriminator_boxes`, so that a discriminator runs.
    - `needs_shuffled`: whether it looks at `context.shuffled_answers`, so that a training asks for them.
    - `applies_to(truth)`: whether it may apply to a question, so that nothing is made for those to which it does not.
    - `notes(answer, truth)`: name -> number, always of the same names, of which trainings log the means.
    """

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...

    def __call__(
        self, answers: Sequence[Answer], truth: Truth, context: RewardContext
    ) -> Sequence[float | int | None]: ...


@overload
def reward(function: Callable[..., Any]) -> RewardTerm: ...


@overload
def reward(
    *, low: float = 0.0, high: float = 1.0, needs: Sequence[str] = (), needs_discriminator: bool = False
) -> Callable[[Callable[..., Any]], RewardTerm]: ...


def reward(
    function: Callable[..., Any] | None = None,
    *,
    low: float | int = 0.0,
    high: float | int = 1.0,
    needs: Sequence[str] = (),
    needs_discriminator: bool = False,
) -> Any:
    """Make a reward term of a plain function that scores one answer.

    Args:
        function: takes `(answer, truth)` or `(answer, truth, context)` and returns a number, or None
            where the term does not apply. The context is narrowed to the answer: `completion_tokens`
            and `discriminator_boxes` then hold one entry.
        low: smallest value it returns.
        high: largest value it returns.
        needs: see `RewardTerm`, as for `needs_discriminator`.
        needs_discriminator: whether it looks at `context.discriminator_boxes`.

    Returns:
        The term; the plain function stays reachable as its `__wrapped__`.

    Raises:
        ValueError: a function of other than two or three arguments, or `low` not below `high`.

    Example:
        >>> @reward(low=0.0, high=2.0)
        ... def num_ids(answer, truth):
        ...     return min(len(answer.object_ids), 2)
        >>> truth = Truth("a", "a man sits down", 10.0, 100, 64, 48)
        >>> num_ids([Answer("", object_ids=(3, 4)), Answer("")], truth, RewardContext())
        [2.0, 0.0]
    """
    if not low < high:
        raise ValueError(f"a reward's low must be below its high, not {low} and {high}")
    if function is None:
        return functools.partial(reward, low=low, high=high, needs=needs, needs_discriminator=needs_discriminator)
    num_arguments = len(inspect.signature(function).parameters)
    if num_arguments not in (2, 3):
        raise ValueError(
            f"reward {function.__name__!r} takes {num_arguments} arguments: it must take (answer, truth) "
            "or (answer, truth, context)"
        )
    score = function

    @functools.wraps(function)
    def term(answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float | None]:
        values = []
        for index, answer in enumerate(answers):
            value = score(answer, truth, *([context.of_answer(index)] if num_arguments == 3 else []))
            values.append(None if value is None else float(value))
        return values

    term.low, term.high, term.needs = float(low), float(high), tuple(needs)  # type: ignore[attr-defined]
    term.needs_discriminator = needs_discriminator  # type: ignore[attr-defined]
    return term


@dataclass(frozen=True)
class RewardedAnswer:
    """The rewards of one answer: each term's unweighted value (None: does not apply), and the weighted total.

    `notes` are what terms tell besides, to be watched and never added: `TERM/NOTE` -> a number.
    """

    terms: dict[str, float | None]
    total: float
    notes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightedSum:
    """The reward of an answer: a weighted sum of named terms (STVG-R1, equation 6, has all weights 1).

    Attributes:
        terms: name -> (term, weight).

    Raises:
        ValueError: no terms, or a weight that is not finite.

    Example:
        >>> @reward
        ... def short(answer, truth):
        ...     return len(answer.text) < 5
        >>> total = WeightedSum({"short": (short, 0.5)})
        >>> total.score([Answer("yes")], Truth("a", "a man sits down", 10.0, 100, 64, 48))
        [RewardedAnswer(terms={'short': 1.0}, total=0.5, notes={})]
    """

    terms: Mapping[str, tuple[RewardTerm, float | int]]

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("a reward needs at least one term")
        for name, (_, weight) in self.terms.items():
            if not math.isfinite(weight):
                raise ValueError(f"the weight of reward term {name!r} must be finite, not {weight}")
        self._call_where_present("check_weights", self.terms)

    def score(
        self, answers: Sequence[Answer], truth: Truth, context: RewardContext | None = None
    ) -> list[RewardedAnswer]:
        """Score a group of answers to one question.

        Args:
            answers: the group, in any number.
            truth: the question's truth.
            context: what terms may know besides; an empty one if None.

        Returns:
            For each answer every term's value, None where it does not apply, and the total, to which
            None adds nothing.

        Raises:
            RewardError: a term raised, returned too few or too many values, a value that is no finite
                number, or one outside its stated range. The term and the sample are named.
        """
        context = context or RewardContext()
        values = {name: _values(name, term, answers, truth, context) for name, (term, _) in self.terms.items()}
        rewarded = []
        for index in range(len(answers)):
            terms = {name: values[name][index] for name in self.terms}
            total = sum(self.terms[name][1] * value for name, value in terms.items() if value is not None)
            notes: dict[str, float] = {}
            for name, (term, _) in self.terms.items():
                if hasattr(term, "notes"):
                    notes |= _notes(name, term, answers[index], truth)
            rewarded.append(RewardedAnswer(terms, float(total), notes))
        return rewarded

    def share(self, rewarded: RewardedAnswer, term: str | None = None) -> float:
        """What an answer earned, as a share of what it could: 0 is the least, 1 the most.

        Args:
            rewarded: from `score`.
            term: the term whose value counts; None takes the total of the terms that apply, but for those that compare
                with answers to shuffled frames: nobody asks for these where difficulty is estimated, and shares found
                there and in a training must mean the same.

        Raises:
            ValueError: a term that does not exist or does not apply, or no term that applies.

        Example:
            >>> @reward
            ... def short(answer, truth):
            ...     return len(answer.text) < 5
            >>> WeightedSum({"short": (short, 0.5)}).share(RewardedAnswer({"short": 1.0}, 0.5))
            1.0
        """
        if term is not None and term not in self.terms:
            raise ValueError(f"there is no reward term {term!r}: the terms are {', '.join(self.terms)}")
        counted = [term] if term is not None else self._terms_of_share()
        names = [name for name in counted if rewarded.terms.get(name) is not None]
        if not names:
            raise ValueError(f"{'no term' if term is None else f'term {term!r} does not apply, and no other'} counts")
        least = most = earned = 0.0
        for name in names:
            found, weight = self.terms[name]
            ends = sorted((weight * found.low, weight * found.high))
            least, most, earned = least + ends[0], most + ends[1], earned + weight * float(rewarded.terms[name] or 0.0)
        return min(1.0, max(0.0, (earned - least) / (most - least))) if most > least else 0.0

    def check_earnable(self, nothing_said: Answer, markers_are_drawn: bool) -> None:
        """Refuse terms that no answer can earn.

        Args:
            nothing_said: what the answer language reads from an empty text: fields that it fills are not None there.
            markers_are_drawn: whether objects bear labels in the video.

        Raises:
            ValueError: names the term and what it needs.
        """
        for name, (term, _) in self.terms.items():
            if getattr(term, "needs_markers", False) and not markers_are_drawn:
                raise ValueError(
                    f"{name}: an object must be seen by its marker, as with presence 'paper', and markers.draw is "
                    "false: take presence: code, or leave the term out"
                )
            for field_name in getattr(term, "needs", ()):
                try:
                    is_missing = attrgetter(field_name)(nothing_said) is None
                except AttributeError as error:
                    raise ValueError(f"reward term {name!r} needs {field_name}: {error}") from None
                if is_missing:
                    raise ValueError(f"reward term {name!r} needs answers with {field_name}; this language has none")

    @property
    def needs_discriminator(self) -> bool:
        """Whether some term looks at a spatial discriminator's boxes."""
        return any(getattr(term, "needs_discriminator", False) for term, _ in self.terms.values())

    @property
    def needs_shuffled(self) -> bool:
        """Whether some term compares with answers to shuffled frames."""
        return any(getattr(term, "needs_shuffled", False) for term, _ in self.terms.values())

    def needs_shuffled_of(self, truth: Truth) -> bool:
        """Whether some term that may apply to a question compares with answers to shuffled frames."""
        return any(getattr(term, "needs_shuffled", False) and may_apply(term, truth) for term, _ in self.terms.values())

    def setup(self) -> None:
        """Call the `setup()` of every term that has one."""
        self._call_where_present("setup")

    def on_epoch_start(self, epoch: int) -> None:
        """Call the `on_epoch_start(epoch)` of every term that has one; epochs count from 0."""
        self._call_where_present("on_epoch_start", epoch)

    def state_dict(self) -> dict[str, Any]:
        """Name -> state, of the terms that keep one."""
        return {name: term.state_dict() for name, (term, _) in self.terms.items() if hasattr(term, "state_dict")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give every term that keeps a state its own back.

        Raises:
            ValueError: the names in the state are not those of the terms that keep one.
        """
        keepers = {name: term for name, (term, _) in self.terms.items() if hasattr(term, "load_state_dict")}
        if keepers.keys() != state.keys():
            raise ValueError(f"the saved rewards have states of {sorted(state)}, but these need {sorted(keepers)}")
        for name, term in keepers.items():
            term.load_state_dict(state[name])

    def _terms_of_share(self) -> list[str]:
        return [name for name, (term, _) in self.terms.items() if not getattr(term, "needs_shuffled", False)]

    def _call_where_present(self, method: str, *arguments: Any) -> None:
        for term, _ in self.terms.values():
            if hasattr(term, method):
                getattr(term, method)(*arguments)


def may_apply(term: RewardTerm, truth: Truth) -> bool:
    """Whether a term may apply to a question, as far as it tells; one that tells nothing may."""
    return not hasattr(term, "applies_to") or bool(term.applies_to(truth))


def _notes(name: str, term: Any, answer: Answer, truth: Truth) -> dict[str, float]:
    """What a term notes of an answer, checked."""
    where = f"notes of reward term {name!r} on sample {truth.id!r}"
    try:
        notes = {f"{name}/{note}": float(value) for note, value in term.notes(answer, truth).items()}
    # As in `_values`.
    except Exception as error:
        raise RewardError(f"{where} raised {type(error).__name__}: {error}") from error
    for note, value in notes.items():
        if not math.isfinite(value):
            raise RewardError(f"{where}: {note} is {value}, and must be finite")
    return notes


def _values(
    name: str, term: RewardTerm, answers: Sequence[Answer], truth: Truth, context: RewardContext
) -> list[float | None]:
    """A term's values for a group, checked."""
    where = f"reward term {name!r} on sample {truth.id!r}"
    try:
        returned = list(term(answers, truth, context))
        values = [None if value is None else float(value) for value in returned]
    # Whatever a user's own code raises is passed on, with the names that the user needs to find it.
    except Exception as error:
        raise RewardError(f"{where} raised {type(error).__name__}: {error}") from error
    if len(values) != len(answers):
        raise RewardError(f"{where} returned {len(values)} values for {len(answers)} answers")
    for index, value in enumerate(values):
        if value is None:
            continue
        if not math.isfinite(value):
            raise RewardError(f"{where} returned {value} for answer {index}: a reward must be finite")
        if not term.low - RANGE_SLACK <= value <= term.high + RANGE_SLACK:
            raise RewardError(f"{where} returned {value} for answer {index}: it states [{term.low}, {term.high}]")
    return values
