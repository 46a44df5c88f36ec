"""The two-stage baseline: which frames are asked about, and what becomes of their boxes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from stvg_lightning.answers import FrameBox, id_span
from stvg_lightning.data.clips import ClipSampling
from stvg_lightning.data.video import VideoSampling, encode_mp4
from stvg_lightning.evaluation import Case, score_answer
from stvg_lightning.evaluation.protocols import load_protocol
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.prompting import Markers
from stvg_lightning.rollouts.endpoint import ChatEncoder, ChatPrompt
from stvg_lightning.rollouts.predictor import ModelPredictor
from stvg_lightning.rollouts.preparation import Preparation
from stvg_lightning.rollouts.rollouts import Sampling
from stvg_lightning.rollouts.two_stage import TwoStagePredictor, between_frames
from stvg_lightning.tubes import Box, Sample, Truth
from tests.small_models import SAMPLING

FPS, NUM_FRAMES, HEIGHT, WIDTH = 10.0, 100, 48, 64


def box_at(frame: int) -> Box:
    """It moves until frame 55, the last one that is asked about in frames 20 to 59, and rests from there on."""
    return (0.1 * min(frame, 55), 5.0, 20.0 + 0.1 * min(frame, 55), 30.0)


def sample(span: tuple[int, int] = (20, 60), task: str = "stvg") -> Sample:
    truth = Truth("a", "the man", FPS, NUM_FRAMES, WIDTH, HEIGHT, span, {f: box_at(f) for f in range(*span)})
    frames = np.zeros((NUM_FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Sample(replace(truth, task=task), encode_mp4(frames, FPS))  # type: ignore[arg-type]


@dataclass
class Scripted:
    """Knows the truth: one time for all questions of time, the true box in each frame but some."""

    time: str
    blind: tuple[int, ...] = ()
    asked: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def texts(self, prompts: Sequence[ChatPrompt]) -> list[str]:
        self.sizes.append(len(prompts))
        return [self._text(prompt) for prompt in prompts]

    def _text(self, prompt: ChatPrompt) -> str:
        *shown, instruction = [part["text"] for part in prompt.content if part["type"] == "text"]
        if "Time range" in instruction:
            assert "marked" not in instruction
            return f"<think>t</think><answer>Time range: {self.time}</answer>"
        assert len(shown) == 1 and "the man" in instruction
        frame = round(float(re.findall(r"[0-9.]+", shown[0])[0]) * FPS)
        self.asked.append(frame)
        return "I see nobody." if frame in self.blind else f"{list(box_at(frame))}"


def two_stages(completes: Scripted, **keys: object) -> TwoStagePredictor:
    preparation = Preparation(ChatEncoder(16), VideoSampling(fps=1.0), Markers(draw=False), id_span)
    return TwoStagePredictor(completes, preparation, FrameBox("original"), **keys)  # type: ignore[arg-type]


def answered(predictor: TwoStagePredictor, asked: Sample) -> dict[str, object]:
    (answer,) = predictor.answer([predictor.prepare(asked)])
    return score_answer(answer, asked.truth)


def test_true_answers_in_both_stages_score_one() -> None:
    row = answered(two_stages(Scripted("2.00 to 6.00")), sample())
    assert row["tIoU"] == 1.0 and row["vIoU"] == pytest.approx(1.0, abs=1e-6) and not row["problems"]


def test_only_frames_of_the_answered_time_that_lie_in_the_true_one_are_asked_about() -> None:
    scripted = Scripted("4.00 to 9.00")
    row = answered(two_stages(scripted, batch_size=3), sample())
    assert scripted.asked == [40, 45, 50, 55] and scripted.sizes == [1, 3, 1]
    assert row["vIoU"] == pytest.approx(20 / 70, abs=1e-6)  # frames 40 to 59 of 20 to 89
    denser = Scripted("4.00 to 9.00")
    answered(two_stages(denser, frames=ClipSampling(fps=10.0, max_frames=5)), sample())
    assert denser.asked == [42, 46, 50, 54, 58]


def test_a_frame_without_a_box_leaves_its_surroundings_without_one() -> None:
    row = answered(two_stages(Scripted("2.00 to 6.00", blind=(30,))), sample())
    # Frames 28 to 32 are nearest to frame 30, 32.5 lies between: 5 of 40 are lost.
    assert row["vIoU"] == pytest.approx(35 / 40, abs=1e-6)
    nothing = answered(two_stages(Scripted("2.00 to 6.00", blind=tuple(range(100)))), sample())
    assert nothing["vIoU"] == 0 and nothing["tIoU"] == 1.0 and nothing["unreadable"]
    assert "no box was read in any frame" in nothing["problems"]  # type: ignore[operator]


@pytest.mark.parametrize("time", ["2.00 to 6.00", "0.00 to 10.00", "4.00 to 9.00", "1.00 to 3.00"])
def test_what_is_not_asked_about_changes_no_score(time: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every evaluator of benchmarks with time and place, against an answer with a box in each answered frame."""
    monkeypatch.setitem(globals(), "box_at", lambda frame: (3.0, 5.0, 23.0, 30.0))  # it rests
    asked = sample()
    (answer,) = two_stages(Scripted(time)).answer([two_stages(Scripted(time)).prepare(asked)])
    assert answer.span_seconds is not None
    first, last = (round(FPS * seconds) for seconds in answer.span_seconds)
    everywhere = replace(answer, boxes_xyxy={frame: box_at(frame) for frame in range(first, last)})
    for name in ("canonical", "hcstvg", "stvg_r1", "tubedetr_vidstg", "cgstvg_hcstvg", "llava_st", "volume"):
        staged, full = (load_protocol(name).row(Case(each, asked.truth)) for each in (answer, everywhere))
        assert staged["vIoU"] == pytest.approx(full["vIoU"], abs=1e-6), name


@pytest.mark.parametrize("time", ["7.00 to 9.00", "no time at all", "6.00 to 2.00"])
def test_without_a_common_frame_nothing_more_is_asked(time: str) -> None:
    scripted = Scripted(time)
    row = answered(two_stages(scripted), sample())
    assert row["vIoU"] == 0 and scripted.asked == []


def test_questions_of_place_or_time_alone_have_one_stage() -> None:
    place = Scripted("0 to 1")
    assert answered(two_stages(place), sample(task="spatial"))["vIoU"] == pytest.approx(1.0, abs=1e-6)
    assert place.asked == list(range(20, 60, 5))
    time = Scripted("2.00 to 4.00")
    assert answered(two_stages(time), sample(task="temporal"))["tIoU"] == 0.5 and time.asked == []
    choice = Truth("a", "q", FPS, NUM_FRAMES, WIDTH, HEIGHT, task="choice", answer="A")
    with pytest.raises(ValueError, match="task 'choice': two stages find a time and a place"):
        two_stages(time).prepare(Sample(choice, b""))
    drawn = replace(two_stages(time).preparation, markers=Markers(draw=True))
    with pytest.raises(ValueError, match="markers"):
        TwoStagePredictor(time, drawn)


def test_a_video_that_ends_before_the_answered_time_is_told() -> None:
    whole = sample((20, 60))
    short = encode_mp4(np.zeros((30, HEIGHT, WIDTH, 3), dtype=np.uint8), FPS)
    predictor = two_stages(Scripted("2.00 to 6.00"))
    (answer,) = predictor.answer([(replace(whole, video=short), predictor.prepare(whole)[1])])
    assert answer.span_seconds == (2.0, 6.0) and answer.boxes_xyxy is None
    assert answer.problems[-1].startswith("the video cannot be read: ")


def test_boxes_between_frames_by_hand() -> None:
    found = {10: (0.0, 0.0, 2.0, 2.0), 14: (4.0, 0.0, 6.0, 2.0)}
    filled = between_frames((10, 14, 18), found, (9, 20))
    assert filled[12] == (2.0, 0.0, 4.0, 2.0) and filled[9] == found[10] and filled[16] == found[14]
    assert set(filled) == set(range(9, 17))


def test_a_real_model_is_asked_about_single_frames(
    model: VideoLanguageModel, world_samples: tuple[Sample, ...]
) -> None:
    preparation = Preparation(model.encoder, SAMPLING, Markers(draw=False), id_span)
    predictor = ModelPredictor(model, preparation, Sampling(4, temperature=0.0))
    asked = replace(world_samples[0], truth=replace(world_samples[0].truth, task="spatial"))
    seen: list[int] = []

    class Noting:
        def texts(self, prompts: Sequence[object]) -> list[str]:
            for prompt in prompts:
                frames, height, width = prompt.grid_thw[0].tolist()  # type: ignore[attr-defined]
                assert frames == 1 and height * width > 0
            seen.append(len(prompts))
            texts = predictor.texts(prompts)  # type: ignore[arg-type]
            assert len(texts) == len(prompts)
            return [f"{text} [100, 100, 900, 900]" for text in texts]

    staged = TwoStagePredictor(Noting(), preparation, batch_size=4)
    (answer,) = staged.answer([staged.prepare(asked)])
    truth = asked.truth
    expected = (0.1 * truth.width, 0.1 * truth.height, 0.9 * truth.width, 0.9 * truth.height)
    assert sum(seen) > 1 and answer.boxes_xyxy is not None
    assert all(box == pytest.approx(expected, abs=1e-6) for box in answer.boxes_xyxy.values())
