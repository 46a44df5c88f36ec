"""Any predictor, answers as they come; constant guesses; and a package that is light to import."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from stvg_lightning.answers import Answer, id_span
from stvg_lightning.data.video import UnreadableVideo
from stvg_lightning.evaluation import ConstantGuess, answers_of, case_of, score_answer, score_case
from stvg_lightning.tubes import Box, Sample, Truth, encode_mask
from tests.helpers import assert_close

BOX = (0.0, 0.0, 10.0, 10.0)


def sample_of(index: int) -> Sample:
    track = {frame: BOX for frame in range(100)}
    truth = Truth(f"v{index}", "q", 10.0, 100, 64, 48, (10, 10 + 10 * (index + 1)), track, 3, {3: track})
    return Sample(truth, Path("none.mp4"))


SAMPLES = [sample_of(index) for index in range(5)]


@dataclass
class Gold:
    """Answers with the truth; notes what was prepared, in which thread, and what was asked together."""

    unreadable: tuple[str, ...] = ()
    prepared: list[str] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    batches: list[int] = field(default_factory=list)

    def prepare(self, sample: Sample) -> Truth:
        self.prepared.append(sample.truth.id)
        self.threads.add(threading.get_ident())
        if sample.truth.id in self.unreadable:
            raise UnreadableVideo(f"{sample.truth.id} is broken")
        return sample.truth

    def answer(self, prepared: Sequence[Truth]) -> list[Answer]:
        self.batches.append(len(prepared))
        return [id_span.read(id_span.write(truth)) for truth in prepared]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 9])
def test_the_gold_answers_score_one_in_order(batch_size: int) -> None:
    rows = [
        score_answer(answer, sample.truth)
        for answer, sample in zip(answers_of(Gold(), SAMPLES, batch_size), SAMPLES, strict=True)
    ]
    assert all(row["vIoU"] == 1.0 and row["object_id_correct"] for row in rows)


def test_answers_come_as_batches_are_answered_and_the_next_batch_is_prepared_beside() -> None:
    gold = Gold()
    answers = answers_of(gold, iter(SAMPLES), 2)
    assert len(list(islice(answers, 2))) == 2 and gold.batches == [2]
    assert len(list(answers)) == 3 and gold.batches == [2, 2, 1]
    assert gold.prepared == ["v0", "v1", "v2", "v3", "v4"]
    assert threading.get_ident() not in gold.threads and len(gold.threads) == 1


def test_a_video_that_cannot_be_read_has_an_empty_answer_and_keeps_its_place() -> None:
    gold = Gold(unreadable=("v1", "v4"))
    answers = list(answers_of(gold, SAMPLES, 2))
    scores = [score_answer(answer, sample.truth)["vIoU"] for answer, sample in zip(answers, SAMPLES, strict=True)]
    assert scores == [1.0, 0.0, 1.0, 1.0, 0.0]
    assert answers[1].problems == ("the video cannot be read: v1 is broken",)
    assert gold.batches == [1, 2]


def test_what_a_predictor_raises_is_raised() -> None:
    class Loses(Gold):
        def answer(self, prepared: Sequence[Truth]) -> list[Answer]:
            return super().answer(prepared)[1:]

    with pytest.raises(ValueError, match="1 answers to 2 questions"):
        list(answers_of(Loses(), SAMPLES, 2))
    with pytest.raises(ValueError, match="at least 1, not 0"):
        list(answers_of(Gold(), SAMPLES, 0))


def guessed(truth: Truth, span: str = "whole_video") -> Answer:
    guess = ConstantGuess(span)  # type: ignore[arg-type]
    return guess.answer([guess.prepare(Sample(truth, b""))])[0]


def test_constant_guesses_by_hand() -> None:
    small: dict[int, Box] = {frame: (0.0, 0.0, 4.0, 4.0) for frame in range(100)}
    large: dict[int, Box] = {frame: (0.0, 0.0, 8.0, 8.0) for frame in range(10)}  # 640 in all, 0 in the middle half
    truth = Truth("a", "q", 10.0, 100, 64, 48, (25, 75), small, 1, {1: small, 2: large})
    whole, middle = score_answer(guessed(truth), truth), score_answer(guessed(truth, "middle_half"), truth)
    assert (whole["tIoU"], middle["tIoU"]) == (0.5, 1.0)
    assert (whole["predicted_object_ids"], middle["predicted_object_ids"]) == ([1], [1])
    larger = replace(truth, tracks={1: small, 2: {frame: (0.0, 0.0, 13.0, 13.0) for frame in range(10)}})
    assert guessed(larger).object_ids == (2,)  # 1690 against 1600
    assert guessed(larger, "middle_half").object_ids == (1,)


def test_without_tracks_the_whole_frame_is_guessed_and_without_a_time_only_the_place() -> None:
    boxes: dict[int, Box] = {frame: (0.0, 0.0, 32.0, 24.0) for frame in range(100)}
    truth = Truth("a", "q", 10.0, 100, 64, 48, (0, 100), boxes)
    assert_close(score_answer(guessed(truth), truth)["vIoU"], 0.25, atol=1e-6)
    place = replace(truth, task="spatial", span_frames=None)
    assert guessed(place).span_seconds is None
    assert_close(score_answer(guessed(place), place)["sIoU"], 0.25, atol=1e-6)
    time = Truth("a", "q", 10.0, 100, 64, 48, (0, 50), task="temporal")
    assert score_answer(guessed(time), time)["tIoU"] == 0.5 and guessed(time).boxes_xyxy is None
    choice = Truth("a", "q", 10.0, 100, 64, 48, task="choice", answer="A")
    assert score_answer(guessed(choice), choice)["correct"] is True


def test_a_case_takes_an_answers_own_masks_before_those_of_its_objects() -> None:
    left, right = np.zeros((2, 4, 6), dtype=bool)
    left[:, :3], right[:, 3:] = True, True
    masks = {1: {0: encode_mask(left)}, 2: {0: encode_mask(right)}}
    truth = Truth("a", "q", 1.0, 1, 6, 4, (0, 1), {0: BOX}, 1, {1: {0: BOX}})
    by_id = case_of(Answer("", (0.0, 1.0), (2,)), truth, masks)
    assert by_id.answered_masks == masks[2] and by_id.target_masks == masks[1]
    own = case_of(Answer("", (0.0, 1.0), masks=masks[1]), truth, masks)
    assert own.answered_masks == masks[1]
    assert score_case(own)["tIoU"] == 1.0
    with pytest.raises(ValueError, match="mask"):
        case_of(Answer("", masks={0: {"size": [4, 6], "counts": "11"}}), truth, masks)


def test_scoring_needs_no_torchmetrics() -> None:
    code = "import sys, stvg_lightning.evaluation, stvg_lightning.rewards; print('torchmetrics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
