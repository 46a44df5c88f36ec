"""Answers to a folder of questions: written one by one, by one process or several, and gone on with after a kill."""

from __future__ import annotations

import json
import logging
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stvg_lightning.answers import Answer
from stvg_lightning.answers.records import answer_from_json, answer_to_json
from stvg_lightning.cli.predictors import device_of, load_predictor, needs_videos
from stvg_lightning.cli.stages.rows import whole_lines
from stvg_lightning.data.shards import BadSample, ShardFolder
from stvg_lightning.data.shards.workers import Workers
from stvg_lightning.evaluation.predictor import answers_of
from stvg_lightning.tubes import Sample, Truth

LOGGER = logging.getLogger("stvg_lightning.data")


@dataclass(frozen=True)
class Share:
    """What one process answers: some questions of a folder, in a file of its own."""

    options: Namespace
    number: int
    num_shares: int
    folder: Path
    questions: Mapping[int, Truth]
    """Number of a sample -> its truth, of all questions; `indices` are those to answer."""
    indices: Sequence[int]


def collect_answers(
    options: Namespace, questions: Mapping[int, Truth], folder: Path, console: Console
) -> dict[int, Answer]:
    """Every question's answer; those that an interrupted evaluation has written are kept.

    Args:
        options: of `stvg evaluate`.
        questions: number of a sample in the shards -> its truth.
        folder: where `answers-*.jsonl` are written, a line for each answer as it comes.
        console: shows the progress.

    Returns:
        Number of a sample -> answer, in the order of the samples.

    Raises:
        ValueError: a file of answers that was changed.
        Exception: what the predictor raises; answers written before are kept.
    """
    done = written_answers(folder, questions)
    open_ = [index for index in questions if index not in done]
    columns = TextColumn("answers"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("answers", total=len(questions), completed=len(done))
        num_shares = min(options.processes, len(open_))
        cut = [len(open_) * number // max(num_shares, 1) for number in range(num_shares + 1)]
        shares = [
            Share(options, number, num_shares, folder, questions, open_[cut[number] : cut[number + 1]])
            for number in range(num_shares)
        ]
        with Workers(answer_share, max(num_shares, 1)) as workers:
            for _ in workers.run(shares, lambda count: progress.advance(bar, count)):
                pass
    found = written_answers(folder, questions)
    assert len(found) == len(questions), (len(found), len(questions))
    return {index: found[index] for index in questions}


def answer_share(share: Share, progress: Callable[[int], None]) -> int:
    """Answer a share of the questions, each line written as it comes; the number of answers."""
    if share.num_shares > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // share.num_shares))
    truths = {truth.id: truth for truth in share.questions.values()}
    predictor = load_predictor(share.options, truths, device_of(share.number))
    samples = _samples(share)
    with (share.folder / f"answers-{share.number}.jsonl").open("a") as out:
        for index, answer in zip(share.indices, answers_of(predictor, samples, share.options.batch_size), strict=True):
            line = {"index": index, "id": share.questions[index].id, **answer_to_json(answer)}
            out.write(json.dumps(line) + "\n")
            out.flush()
            progress(1)
    return len(share.indices)


def written_answers(folder: Path, questions: Mapping[int, Truth]) -> dict[int, Answer]:
    """The answers that are there already; a line that a kill cut off is taken away.

    Raises:
        ValueError: a line that is none of ours.
    """
    found = {}
    for file in sorted(folder.glob("answers-*.jsonl")):
        for number, line in enumerate(whole_lines(file), start=1):
            try:
                record: dict[str, Any] = json.loads(line)
                if questions[record["index"]].id != record["id"]:
                    raise ValueError(f"sample {record['index']} is not {record['id']!r}")
                found[record["index"]] = answer_from_json(record)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{file}:{number} is no answer to these questions ({error}): remove {file}") from None
    return found


def _samples(share: Share) -> Iterator[Sample]:
    samples = ShardFolder(share.options.shards)
    for index in share.indices:
        try:
            yield samples[index] if needs_videos(share.options) else samples.without_video(index)
        except BadSample as error:
            # Its question is known; its video is damaged, which is told as of any video that cannot be read.
            LOGGER.warning("%s", error)
            yield samples.without_video(index)
