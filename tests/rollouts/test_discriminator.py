"""The spatial discriminator: shared work gives what separate work gives, and nothing of it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stvg_lightning.answers import Answer
from stvg_lightning.data.clips import ClipSampling
from stvg_lightning.data.video import UnreadableVideo, decode_frames
from stvg_lightning.rollouts import discriminator as discriminator_module
from stvg_lightning.rollouts.discriminator import Cost, SpatialDiscriminator, located
from stvg_lightning.tubes import Sample
from tests.helpers import assert_close
from tests.small_detectors import random_grounder

WIDTH = 24
CLIPS = ClipSampling(fps=4.0, max_frames=64)
SPANS = [(0.5, 1.5), (1.0, 3.0), (0.5, 1.5), (2.0, 2.1)]


@pytest.fixture
def finder() -> SpatialDiscriminator:
    return SpatialDiscriminator(random_grounder(WIDTH, stirred=0.2), CLIPS)


@pytest.fixture(scope="module")
def video_tokens() -> torch.Tensor:
    return torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(2))


def test_a_group_gets_what_each_answer_gets_alone(
    finder: SpatialDiscriminator, world_samples: tuple[Sample, ...], video_tokens: torch.Tensor
) -> None:
    sample = world_samples[0]
    answers = [Answer("", span) for span in SPANS]
    tubes = finder.tubes(answers, sample.truth, sample.video, video_tokens)
    module, grounder = finder.grounder.module, finder.grounder
    for (start, end), tube in zip(SPANS, tubes, strict=True):
        frames = CLIPS.frames_of((round(start * 8), max(round(end * 8), round(start * 8) + 1)), 8.0, 40)
        assert tube is not None and tuple(tube) == frames
        pictures = torch.from_numpy(decode_frames(sample.video, frames, 8.0).frames)
        (states,) = module.frame_states(grounder.pixels(pictures), grounder.phrase(sample.truth.query), video_tokens)
        alone = module.candidates(states, [range(len(frames))], [frame / 8 for frame in frames])[0]
        assert_close(list(tube.values()), alone.best_track().clamp(0, 1) * 128, atol=1e-4)
    assert tubes[0] is tubes[2]
    assert finder.take_cost().num_clips == 3, "two answers of one time are one clip"


def test_answers_without_a_time_cost_nothing(
    finder: SpatialDiscriminator, world_samples: tuple[Sample, ...], video_tokens: torch.Tensor
) -> None:
    answers = [Answer("no"), Answer("", (3.0, 1.0)), Answer("", (90.0, 99.0))]
    assert finder.tubes(answers, world_samples[0].truth, b"not looked at", video_tokens) == [None] * 3
    with pytest.raises(UnreadableVideo):
        finder.tubes([Answer("", (0.0, 1.0))], world_samples[0].truth, b"not a video", video_tokens)


def test_what_was_found_is_kept(
    finder: SpatialDiscriminator,
    world_samples: tuple[Sample, ...],
    video_tokens: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    truth, video = world_samples[0].truth, world_samples[0].video
    answers = [Answer("", span) for span in SPANS]
    found = finder.tubes(answers, truth, video, video_tokens)
    assert finder.take_cost().num_new_clips == 3
    assert finder.tubes(answers, truth, b"not looked at", video_tokens) == found
    cost = finder.take_cost()
    assert (cost.num_clips, cost.num_new_clips) == (3, 0) and cost.seconds > 0 and finder.take_cost() == Cost()
    other = finder.tubes(answers[:1], replace(truth, query="the thing grows"), video, video_tokens)
    assert other != found[:1], "another sentence is another question"
    monkeypatch.setattr(discriminator_module, "KEPT_CLIPS", 2)
    finder.tubes(answers[1:2], truth, video, video_tokens)
    assert len(finder._kept) == 2


def test_the_answer_is_not_looked_at(
    finder: SpatialDiscriminator, world_samples: tuple[Sample, ...], video_tokens: torch.Tensor
) -> None:
    truth, answers = world_samples[0].truth, [Answer("", SPANS[0])]
    first = finder.tubes(answers, truth, world_samples[0].video, video_tokens)
    unknown = replace(truth, id="other", span_frames=None, boxes_xyxy={}, tracks={}, object_id=None)
    assert finder.tubes(answers, unknown, world_samples[0].video, video_tokens) == first


def test_nothing_of_it_learns(
    finder: SpatialDiscriminator, world_samples: tuple[Sample, ...], video_tokens: torch.Tensor
) -> None:
    tokens = video_tokens.clone().requires_grad_()
    assert not any(parameter.requires_grad for parameter in finder.grounder.module.parameters())
    seen: list[bool] = []
    finder.grounder.module.enhancement.register_forward_hook(lambda *given: seen.append(given[2].requires_grad))
    with torch.enable_grad():
        finder.tubes([Answer("", SPANS[0])], world_samples[0].truth, world_samples[0].video, tokens)
    assert seen == [False] and not finder.grounder.module.training


def test_a_located_answer_has_a_box_in_every_frame(world_samples: tuple[Sample, ...]) -> None:
    truth = world_samples[0].truth
    tube = {4: (0.0, 0.0, 10.0, 10.0), 6: (4.0, 0.0, 14.0, 10.0)}
    answer = located(Answer("", (0.5, 1.0)), truth, tube)
    assert answer.boxes_xyxy == {4: tube[4], 5: (2.0, 0.0, 12.0, 10.0), 6: tube[6], 7: tube[6]}
    assert located(Answer("x"), truth, None) == Answer("x") and located(Answer("x"), truth, tube) == Answer("x")
