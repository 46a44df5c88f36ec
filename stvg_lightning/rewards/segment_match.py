"""MUSEG's reward of segments: how much time they share, and how well they fit one by one (arXiv 2505.20715)."""

from __future__ import annotations

from collections.abc import Sequence

from stvg_lightning.answers import Answer
from stvg_lightning.rewards.base import reward
from stvg_lightning.rewards.temporal_iou import asked_span
from stvg_lightning.tubes import Span, Truth, span_iou
from stvg_lightning.tubes.spans import span_intersection, span_length


@reward(low=0.0, high=2.0)
def segment_match(answer: Answer, truth: Truth) -> float | None:
    """`global_match + local_match` of the answered and the true span (github.com/THUNLP-MT/MUSEG, src/train.py).

    Returns:
        In [0, 2]; 0 where no span could be read; None for tasks that ask for no time.

    Raises:
        ValueError: a truth of such a task without a span.
    """
    true = asked_span(truth)
    if true is None:
        return None
    answered = [] if answer.span_seconds is None else [answer.span_seconds]
    return global_match(answered, [true]) + local_match(answered, [true])


def global_match(predicted: Sequence[Span], true: Sequence[Span]) -> float:
    """F1 of the time that both cover, each merged first.

    Example:
        >>> global_match([(0.0, 4.0)], [(2.0, 4.0), (3.0, 6.0)])
        0.5
    """
    first, second = merged(predicted), merged(true)
    shared = sum(span_length(span_intersection(a, b)) for a in first for b in second)
    covered = sum(map(span_length, first)) + sum(map(span_length, second))
    return 2 * shared / covered if covered > 0 else 0.0


def local_match(predicted: Sequence[Span], true: Sequence[Span]) -> float:
    """Mean over pairs, in order of time, of `(1 + IoU - (enclosure - union) / enclosure) / 2`.

    A span without its counterpart scores 0: the released code pairs it with one that is infinitely far away.

    Example:
        >>> local_match([(0.0, 2.0)], [(2.0, 4.0), (6.0, 8.0)])
        0.25
    """
    longest = max(len(predicted), len(true))
    pairs = zip(sorted(predicted), sorted(true))
    return sum(_generalized_iou(a, b) for a, b in pairs) / longest if longest else 0.0


def merged(spans: Sequence[Span]) -> list[Span]:
    """The same time in spans that do not touch, ascending; empty and reversed ones left out."""
    found: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def _generalized_iou(first: Span, second: Span) -> float:
    """Generalised IoU of two spans, brought to [0, 1]; 0 where one is empty."""
    if not (span_length(first) and span_length(second)):
        return 0.0
    overlap = span_iou(first, second)
    enclosure = max(first[1], second[1]) - min(first[0], second[0])
    union = span_length(first) + span_length(second) - span_length(span_intersection(first, second))
    return (1 + overlap - (enclosure - union) / enclosure) / 2
