"""Difficulty control while training: what each epoch trains on, refreshed, and the same after a kill."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from stvg_lightning.answers import Answer
from stvg_lightning.data.difficulty import Difficulty, DifficultyControl
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.modules.batches import GroundingBatch
from stvg_lightning.modules.datamodule import GroundingData, Loading
from stvg_lightning.modules.difficulty import BATCHES_AHEAD, DifficultySampler, group_difficulties
from stvg_lightning.rewards import RewardedAnswer, WeightedSum, reward
from stvg_lightning.tubes import Truth
from tests.helpers import assert_close
from tests.small_models import preparation_of

IDS = {index: f"q{index}" for index in range(10)}
EASY, FIT, HARD = Difficulty(0.9, 0.1, 8), Difficulty(0.4, 0.2, 8), Difficulty(0.0, 0.0, 8)


def sampler_of(estimates: dict[str, Difficulty], ids: dict[int, str] = IDS, **keys: object) -> DifficultySampler:
    return DifficultySampler(DifficultyControl(**keys), estimates, ids, seed=0)  # type: ignore[arg-type]


def all_as(difficulty: Difficulty, **others: Difficulty) -> dict[str, Difficulty]:
    return {id_: others.get(id_, difficulty) for id_ in IDS.values()}


def test_an_epoch_has_the_questions_of_the_band() -> None:
    sampler = sampler_of(all_as(EASY, q2=FIT, q5=FIT, q7=HARD))
    assert sampler.choose(0, 0).tolist() == [2, 5]


def test_rollouts_refresh_the_next_epoch_and_not_the_running_one() -> None:
    sampler = sampler_of(all_as(EASY, q2=FIT, q5=FIT))
    sampler.choose(0, 0)
    sampler.note(0, {"q2": EASY, "q5": FIT})
    sampler.note(1, {"q3": FIT})
    assert sampler.choose(0, 0).tolist() == [2, 5]
    assert sampler.choose(1, 2 + BATCHES_AHEAD).tolist() == [3, 5]
    assert sampler.known()["q2"] == EASY and sampler.known()["q3"] == FIT


def test_the_last_batches_count_from_the_epoch_after_on() -> None:
    """Whether they have been trained on when an epoch begins depends on how far ahead batches are asked for."""
    early, late = (sampler_of(all_as(FIT)) for _ in range(2))
    for sampler in (early, late):
        sampler.choose(0, 0)
        sampler.note(0, {"q0": EASY})
    late.note(3, {"q1": EASY})  # the last batch of the epoch, already trained on here
    chosen = [sampler.choose(1, 4).tolist() for sampler in (early, late)]
    early.note(3, {"q1": EASY})
    assert chosen[0] == chosen[1] == list(range(1, 10))
    assert early.choose(2, 9).tolist() == late.choose(2, 9).tolist() == list(range(2, 10))


def test_a_restored_sampler_goes_on_as_if_nothing_had_been() -> None:
    whole = sampler_of(all_as(FIT), num_questions=4, center=0.3)
    first = whole.choose(0, 0).tolist()
    whole.note(0, {"q1": HARD})
    restored = sampler_of(all_as(FIT), num_questions=4, center=0.3)
    restored.load_state_dict(whole.state_dict())
    for each in (whole, restored):
        each.note(1, {"q2": HARD})
        each.note(9, {"q3": HARD})
    assert restored.choose(0, 0).tolist() == first
    assert restored.choose(1, 10).tolist() == whole.choose(1, 10).tolist()
    assert restored.known() == whole.known()
    assert restored.before_epochs == whole.before_epochs and len(whole.before_epochs) == 2


def test_each_epoch_tells_what_it_began_with_once() -> None:
    sampler = sampler_of(all_as(EASY, q2=FIT, q5=FIT, q7=HARD))
    sampler.choose(0, 0)
    sampler.note(0, {"q2": EASY, "q7": FIT})
    sampler.choose(0, 0)  # asked again, as after a restart
    sampler.choose(1, 1 + BATCHES_AHEAD)
    first, second = sampler.before_epochs
    assert (first.chosen[4], first.left_out[9], first.alike[0], first.num_questions) == (2, 7, 1, 10)
    assert (second.chosen[4], second.left_out[9], second.alike[0], second.num_questions) == (2, 8, 0, 10)


def test_estimates_of_other_shards_are_refused_and_a_few_may_be_missing() -> None:
    with pytest.raises(ValueError, match="1 of 10 samples have no difficulty estimate, such as 'q4'"):
        sampler_of({id_: FIT for id_ in IDS.values() if id_ != "q4"})
    many = {index: f"q{index}" for index in range(40)}
    known = {id_: FIT for id_ in many.values() if id_ != "q4"}
    assert 4 not in sampler_of(known, many).choose(0, 0)
    with pytest.raises(ValueError, match="of 10 questions none has a mean reward above 0"):
        sampler_of(all_as(HARD)).choose(0, 0)


def test_an_epoch_that_would_be_empty_has_the_nearest_and_goes_on_the_same_after_a_kill() -> None:
    """Nearest first: those whose rollouts differ; then by how far outside of the band they lie."""
    easy = {f"q{i}": Difficulty(0.75 + i / 50, 0.1, 8) for i in range(8)} | {"q8": Difficulty(0.4, 0.0, 8)}
    for count, expected in ((None, [0]), (3, [0, 1, 2]), (9, [0, 1, 2, 3, 4, 5, 6, 7, 8])):
        whole = sampler_of(all_as(FIT), num_questions=count)
        whole.choose(0, 0)
        whole.note(0, easy | {"q9": HARD})
        restored = sampler_of(all_as(FIT), num_questions=count)
        restored.load_state_dict(whole.state_dict())
        for each in (whole, restored):
            with pytest.warns(RuntimeWarning, match=f"epoch 2: no question is left .* the {len(expected)} nearest"):
                assert each.choose(1, 1 + BATCHES_AHEAD).tolist() == expected
            assert each.choose(1, 1 + BATCHES_AHEAD).tolist() == expected
        assert whole.state_dict() == restored.state_dict()
        whole.note(9, {"q0": FIT})
        assert whole.choose(2, 20).tolist() == [0]


@reward(low=-1.0, high=1.0)
def signed(answer: Answer, truth: Truth) -> float:
    return float(answer.text)


@reward
def plain(answer: Answer, truth: Truth) -> float | None:
    return None if truth.task == "temporal" else 1.0


def test_shares_of_what_can_be_earned_by_hand() -> None:
    rewards = WeightedSum({"signed": (signed, 0.5), "plain": (plain, 2.0)})
    both = RewardedAnswer({"signed": 0.0, "plain": 0.25}, 0.5)
    assert_close(rewards.share(both), (0.5 - -0.5) / (2.5 - -0.5), atol=1e-12)
    assert_close([rewards.share(both, "signed"), rewards.share(both, "plain")], [0.5, 0.25], atol=1e-12)
    alone = RewardedAnswer({"signed": 1.0, "plain": None}, 0.5)
    assert rewards.share(alone) == 1.0
    punished = WeightedSum({"signed": (signed, -1.0)})
    assert punished.share(RewardedAnswer({"signed": -1.0}, 1.0)) == 1.0
    with pytest.raises(ValueError, match="no reward term 'signd': the terms are signed, plain"):
        rewards.share(both, "signd")
    with pytest.raises(ValueError, match="term 'plain' does not apply"):
        rewards.share(alone, "plain")


def test_each_group_is_an_estimate() -> None:
    rewards = WeightedSum({"plain": (plain, 1.0)})
    rewarded = [RewardedAnswer({"plain": value}, value) for value in (1.0, 0.0, 0.5, 0.5)]
    found = group_difficulties(["a", "b"], rewarded, rewards)
    assert found == {"a": Difficulty(0.5, 0.5, 2), "b": Difficulty(0.5, 0.0, 2)}


def data_of(model: VideoLanguageModel, shards: Path, num_workers: int = 0) -> GroundingData:
    """Shards of which every second question fits at first."""
    data = GroundingData(shards, preparation_of(model), Loading(2, num_workers))
    ids = data.folder.ids()
    known = {id_: FIT if index % 2 == 0 else EASY for index, id_ in ids.items()}
    data.sampler = DifficultySampler(DifficultyControl(), known, ids, seed=0)
    return data


def trained(data: GroundingData, count: int) -> list[tuple[int, int, tuple[str, ...]]]:
    """What some batches train on; the first question of the first and of the fourth one is found to be too easy."""
    seen = []
    for batch in islice(data.train_dataloader(), count):
        assert data.sampler is not None and isinstance(batch, GroundingBatch)
        ids = tuple(truth.id for truth in batch.truths)
        data.sampler.note(batch.number, {ids[0]: EASY} if batch.number in (0, 3) else {})
        data.note_done(batch)
        seen.append((batch.number, batch.epoch, ids))
    return seen


@pytest.mark.parametrize("num_workers", [0, 1])
def test_epochs_shrink_as_questions_become_easy(
    models: dict[str, VideoLanguageModel], world_shards: Path, num_workers: int
) -> None:
    data = data_of(models["qwen3_vl"], world_shards, num_workers)
    fitting = {id_ for index, id_ in data.folder.ids().items() if index % 2 == 0}
    seen = trained(data, 8)
    of_epoch = [{id_ for _, epoch, ids in seen for id_ in ids if epoch == each} for each in range(4)]
    # Two batches each at first; what batch 0 told counts from batch 4 on, what batch 3 told from batch 6 on.
    assert of_epoch[0] == of_epoch[1] == fitting and len(fitting) == 4
    assert of_epoch[2] == fitting - {seen[0][2][0]} and of_epoch[3] == of_epoch[2] - {seen[3][2][0]}
    assert [number for number, _, _ in seen] == list(range(8))


@pytest.mark.parametrize("num_done", range(1, 7))
def test_it_goes_on_after_any_batch_with_the_same_questions(
    models: dict[str, VideoLanguageModel], world_shards: Path, num_done: int
) -> None:
    whole = trained(data_of(models["qwen3_vl"], world_shards), 8)
    killed = data_of(models["qwen3_vl"], world_shards)
    assert trained(killed, num_done) == whole[:num_done]
    resumed = data_of(models["qwen3_vl"], world_shards)
    resumed.load_state_dict(killed.state_dict())
    assert trained(resumed, 8 - num_done) == whole[num_done:]
