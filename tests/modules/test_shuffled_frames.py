"""T-GRPO: answers to shuffled frames, without another pass through the tower, and the bonus that compares with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch

from stvg_lightning.answers import Answer
from stvg_lightning.models.forward import encode_videos
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.modules.batches import make_batch
from stvg_lightning.modules.collecting import Collected, Collector
from stvg_lightning.modules.floor import StepWork
from stvg_lightning.modules.shuffled import shuffled_order
from stvg_lightning.objectives import grpo
from stvg_lightning.rewards import OrderBonus, RewardContext, RewardedAnswer, WeightedSum
from stvg_lightning.rewards.on_tasks import OnTasks
from stvg_lightning.rollouts.in_process import InProcessSampler
from stvg_lightning.rollouts.rollouts import Sampling
from stvg_lightning.tubes import Clip, Sample, Truth
from tests.helpers import assert_close
from tests.small_models import batch_of, noise_clip, preparation_of
from tests.small_trainings import adapted_copy

RIGHT, WRONG = Answer("(B)", reply="(B)"), Answer("(A)", reply="(A)")
QUESTION = Truth("v", "q", 10.0, 100, 64, 48, task="choice", answer="B")


def bonus(answers: list[Answer], shuffled: list[Answer], **keys: float) -> list[float | None]:
    return OrderBonus(**keys)(answers, QUESTION, RewardContext(shuffled_answers=tuple(shuffled)))


def test_right_answers_earn_it_where_order_helps() -> None:
    two_of_four = [RIGHT, WRONG, RIGHT, WRONG]
    assert bonus(two_of_four, [WRONG, WRONG]) == [1.0, 0.0, 1.0, 0.0]
    assert bonus(two_of_four, [RIGHT, WRONG]) == [1.0, 0.0, 1.0, 0.0]  # 0.5 >= 0.8 * 0.5: a tie pays
    assert bonus(two_of_four, [RIGHT, WRONG], share=1.01) == [0.0] * 4
    assert bonus(two_of_four, [RIGHT, RIGHT]) == [0.0] * 4  # 0.5 < 0.8
    assert bonus([RIGHT] * 4 + [WRONG], [RIGHT]) == [1.0] * 4 + [0.0]  # 0.8 >= 0.8


def test_without_shuffled_answers_it_does_not_apply() -> None:
    assert OrderBonus()([RIGHT], QUESTION, RewardContext()) == [None]
    with pytest.raises(ValueError, match="share must be at least 0, not -1"):
        OrderBonus(share=-1)


def test_questions_of_time_and_place_together_are_left_out() -> None:
    """Of them no answer is simply right; and nothing is asked for questions that a term is not for."""
    together = replace(QUESTION, task="stvg", answer=None)
    context = RewardContext(shuffled_answers=(WRONG,))
    assert OrderBonus()([RIGHT, WRONG], together, context) == [None, None]
    rewards = WeightedSum({"order": (OrderBonus(), 0.3)})
    assert [each.total for each in rewards.score([RIGHT, WRONG], together, context)] == [0.0, 0.0]
    assert rewards.needs_shuffled_of(QUESTION) and not rewards.needs_shuffled_of(together)
    routed = WeightedSum({"order": (OnTasks(OrderBonus(), ("numeric", "stvg")), 0.3)})
    assert routed.needs_shuffled and not routed.needs_shuffled_of(QUESTION) and not routed.needs_shuffled_of(together)
    assert routed.needs_shuffled_of(replace(QUESTION, task="numeric"))
    assert not WeightedSum({"order": (Watching(needs_shuffled=False), 1.0)}).needs_shuffled_of(QUESTION)


def test_a_share_means_the_same_where_nobody_is_shown_shuffled_frames() -> None:
    """Difficulty is estimated without them and refreshed from rollouts that have them."""
    watching = Watching(needs_shuffled=False)
    rewards = WeightedSum({"order": (OrderBonus(), 0.3), "right": (watching, 0.7)})
    estimated, refreshed = (RewardedAnswer({"order": order, "right": 0.5}, 0.0) for order in (None, 1.0))
    assert rewards.share(estimated) == rewards.share(refreshed) == 0.5
    assert rewards.share(refreshed, "order") == 1.0


def test_a_shuffled_order_is_another_order() -> None:
    for num_steps in (2, 3, 5):
        orders = {tuple(shuffled_order(num_steps, seed).tolist()) for seed in range(40)}
        assert tuple(range(num_steps)) not in orders
        assert all(sorted(order) == list(range(num_steps)) for order in orders)
        assert len(orders) == {2: 1, 3: 5}.get(num_steps, len(orders)) and (num_steps < 5 or len(orders) > 20)


def test_reordered_features_are_those_of_reordered_frames(model: VideoLanguageModel) -> None:
    """In every family, deepstack levels included; the prompt's words stay."""
    per_step, order = model.encoder.frames_per_step, torch.tensor([2, 0, 3, 1])
    side = model.encoder.side_multiple if model.encoder.rule.counts_tokens else 32
    clip = noise_clip(4 * per_step, side, side)
    frames = clip.frames.reshape(4, per_step, *clip.frames.shape[1:])[order.numpy()].reshape(clip.frames.shape)
    prompts = [
        model.encoder.encode(Clip(shown, clip.frame_indices, clip.fps), "when?", side, side)
        for shown in (clip.frames, frames)
    ]
    with torch.no_grad():
        features = encode_videos(model.network, batch_of(model, prompts))
    assert (features.tokens[0] - features.tokens[1]).abs().max() > 1e-3
    found = features.select(slice(0, 1)).reordered([order])
    assert len(found.deepstack) == len(features.deepstack)
    for mine, both in zip((found.tokens, *found.deepstack), (features.tokens, *features.deepstack), strict=True):
        assert_close(mine[0], both[1], atol=1e-5)


@dataclass(frozen=True)
class Watching:
    """A term that remembers what it was shown."""

    seen: list[tuple[Answer, ...] | None] = field(default_factory=list)
    needs_shuffled: bool = True
    low: float = 0.0
    high: float = 1.0

    def __call__(self, answers: Sequence[Answer], truth: Truth, context: RewardContext) -> list[float | None]:
        self.seen.append(context.shuffled_answers)
        return [0.0] * len(answers)


def collection(model: VideoLanguageModel, samples: tuple[Sample, ...], term: Watching, seed: int = 0) -> Collected:
    """Roll out."""
    adapted = adapted_copy(model)
    rewards = WeightedSum({"watching": (term, 1.0)})
    preparation = preparation_of(adapted.model)
    collector = Collector(adapted, preparation, rewards, Sampling(6), group_size=4, seed=seed)
    batch = make_batch([preparation(sample) for sample in samples], model.encoder.processor.tokenizer)
    found = collector.collect(batch, 0, 0.0)
    assert ("shuffled" in found.seconds) == term.needs_shuffled
    return found


def collected(model: VideoLanguageModel, samples: tuple[Sample, ...], term: Watching, seed: int = 0) -> list[str]:
    """Roll out; the texts of the usual answers."""
    return collection(model, samples, term, seed).rollouts.texts


def test_a_term_that_asks_for_them_gets_half_a_group_of_its_own_question(
    qwen: VideoLanguageModel, world_samples: tuple[Sample, ...]
) -> None:
    together, alone, unasked = Watching(), Watching(), Watching(needs_shuffled=False)
    texts = collected(qwen, world_samples[:2], together)
    assert [len(seen or ()) for seen in together.seen] == [2, 2]
    collected(qwen, world_samples[1:2], alone)
    assert alone.seen[0] == together.seen[1], "the same in whatever batch"
    assert collected(qwen, world_samples[:2], unasked) == texts and unasked.seen == [None, None]
    other = Watching()
    collected(qwen, world_samples[:2], other, seed=1)
    assert other.seen != together.seen


def test_who_is_not_asked_about_shuffled_frames(
    qwen: VideoLanguageModel, world_samples: tuple[Sample, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A video of one step of time, and a question that the term is not for; the others get the same answers as ever."""
    usual, some, term = Watching(), Watching(), Watching()
    collected(qwen, world_samples[:3], usual)
    monkeypatch.setattr(
        Watching, "applies_to", lambda self, truth: truth.id != world_samples[1].truth.id, raising=False
    )
    collected(qwen, world_samples[:3], some)
    assert some.seen == [usual.seen[0], None, usual.seen[2]]
    sampled = []
    sample = InProcessSampler.sample
    monkeypatch.setattr(InProcessSampler, "sample", lambda self, *rest: sampled.append(1) or sample(self, *rest))
    preparation = preparation_of(qwen)
    step = qwen.encoder.frames_per_step
    short = replace(preparation, video=replace(preparation.video, min_frames=step, max_frames=step))
    monkeypatch.setattr("tests.modules.test_shuffled_frames.preparation_of", lambda _: short)
    collected(qwen, world_samples[:1], term)
    assert term.seen == [None] and len(sampled) == 1


def test_shuffled_answers_are_in_the_floor(qwen: VideoLanguageModel, world_samples: tuple[Sample, ...]) -> None:
    """Their seconds are a step's, so their tokens and arithmetic are as well."""
    found = collection(qwen, world_samples[:2], Watching())
    lengths = [len(each) for each in found.shuffled_tokens]
    assert lengths == [2, 2] and all(1 <= length <= 6 for each in found.shuffled_tokens for length in each)
    with_them, without = (
        StepWork.of([each], [], 1, grpo(beta=0.0)) for each in (found, replace(found, shuffled_tokens=()))
    )
    prompts = found.batch.prompts.attention_mask.sum(dim=1).tolist()
    added = sum(
        prompt + sum(length - 1 for length in each) for prompt, each in zip(prompts, found.shuffled_tokens, strict=True)
    )
    assert with_them.tokens() - without.tokens() == added
    assert with_them.tokens(repeated=True) - without.tokens(repeated=True) == added + sum(prompts)
    only_some = replace(found, shuffled_tokens=((), found.shuffled_tokens[1]))
    assert len(StepWork.of([only_some], [], 1, grpo()).rolled_out) == 3


def test_answers_are_written_about_the_shuffled_frames(
    qwen: VideoLanguageModel, world_samples: tuple[Sample, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The features that the sampler reads for them hold the same tokens, and not in the same order."""
    read = []
    sample = InProcessSampler.sample

    def watched(self, prompts, features, *rest):
        read.append(features)
        return sample(self, prompts, features, *rest)

    monkeypatch.setattr(InProcessSampler, "sample", watched)
    collected(qwen, world_samples[:1], Watching())
    usual, shuffled = (features.tokens[0] for features in read)
    assert not torch.equal(usual, shuffled)
    assert_close(usual.sum(dim=0), shuffled.sum(dim=0), atol=1e-4)
    assert {tuple(row) for row in usual.tolist()} == {tuple(row) for row in shuffled.tolist()}
