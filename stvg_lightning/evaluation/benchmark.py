"""Score a predictor on samples. The predictor may be a checkpoint, a server or a constant guess."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from stvg_lightning.answers import Answer
from stvg_lightning.evaluation.scoring import Row, score_answer
from stvg_lightning.tubes import Sample


def benchmark(
    predict: Callable[[Sequence[Sample]], Sequence[str]],
    samples: Iterable[Sample],
    read: Callable[[str], Answer],
    batch_size: int = 1,
) -> Iterator[Row]:
    """Put samples to a predictor and score its answers, batch by batch.

    Args:
        predict: samples -> one text for each, in the same order.
        samples: read as far as the next batch needs.
        read: the answer language's reader.
        batch_size: samples put to the predictor at once, at least 1.

    Yields:
        The row of `score_answer` for each sample, in order, as soon as its batch is answered.

    Raises:
        ValueError: too few or too many texts for a batch, or a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    remaining = iter(samples)
    while batch := list(itertools.islice(remaining, batch_size)):
        texts = predict(batch)
        if len(texts) != len(batch):
            raise ValueError(
                f"the predictor gave {len(texts)} texts for {len(batch)} samples, the first {batch[0].truth.id!r}"
            )
        for sample, text in zip(batch, texts, strict=True):
            yield score_answer(read(text), sample.truth)
