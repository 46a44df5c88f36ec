"""What is scored: anything that answers samples, be it a checkpoint, a server, a file or a constant guess."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

from stvg_lightning.answers import Answer
from stvg_lightning.data.video import UnreadableVideo
from stvg_lightning.tubes import Sample


@runtime_checkable
class Predictor(Protocol):
    """Answers questions in two steps, so that videos are decoded while others are being answered."""

    def prepare(self, sample: Sample) -> Any:
        """All that can be done before the question is put: decode, draw, resize. It runs in a thread of its own.

        Raises:
            UnreadableVideo: the video cannot be decoded.
        """

    def answer(self, prepared: Sequence[Any]) -> Sequence[Answer]:
        """One answer for each of what `prepare` made, in order."""


def answers_of(predictor: Predictor, samples: Iterable[Sample], batch_size: int) -> Iterator[Answer]:
    """Put samples to a predictor; while it answers a batch, the next one is prepared.

    Args:
        predictor: see `Predictor`.
        samples: read as far as the next two batches need.
        batch_size: questions answered together, at least 1.

    Yields:
        One answer for each sample, in order. Where a video cannot be read, an empty one whose problem says why: it
        scores 0, and stays in every mean.

    Raises:
        ValueError: a batch size below 1, or another number of answers than of questions.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    remaining = iter(samples)

    def next_batch() -> list[Any]:
        return [_prepared(predictor, sample) for sample in itertools.islice(remaining, batch_size)]

    with ThreadPoolExecutor(max_workers=1) as ahead:
        coming: Future[list[Any]] = ahead.submit(next_batch)
        while batch := coming.result():
            coming = ahead.submit(next_batch)
            readable = [item for item in batch if not isinstance(item, UnreadableVideo)]
            found = _answered(predictor, readable) if readable else []
            if len(found) != len(readable):
                raise ValueError(f"the predictor gave {len(found)} answers to {len(readable)} questions")
            answers = iter(found)
            for item in batch:
                unreadable = isinstance(item, UnreadableVideo)
                yield _unread(item) if unreadable else next(answers)


def _answered(predictor: Predictor, prepared: Sequence[Any]) -> list[Answer]:
    """A batch's answers; one by one where a second look at a video, for boxes, finds that one cannot be read."""
    try:
        return list(predictor.answer(prepared))
    except UnreadableVideo as error:
        if len(prepared) == 1:
            return [_unread(error)]
        return [answer for item in prepared for answer in _answered(predictor, [item])]


def _unread(error: UnreadableVideo) -> Answer:
    return Answer("", problems=(f"the video cannot be read: {error}",))


def _prepared(predictor: Predictor, sample: Sample) -> Any:
    try:
        return predictor.prepare(sample)
    except UnreadableVideo as error:
        return error
