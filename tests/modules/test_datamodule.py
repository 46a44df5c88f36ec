"""The stream of batches: whose turn each sample is, over epochs, ranks, workers and restarts."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from stvg_lightning.data.shards import WriteOptions, write_shards
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.modules.batches import GroundingBatch, make_batch, pad_completions
from stvg_lightning.modules.datamodule import EndlessBatches, GroundingData, Loading
from stvg_lightning.tubes import Sample
from tests.helpers import assert_close
from tests.small_models import preparation_of

Samples = tuple[Sample, ...]


class Place:
    """What a data module asks of its trainer."""

    def __init__(self, global_rank: int, world_size: int) -> None:
        self.global_rank, self.world_size = global_rank, world_size


def stream(
    model: VideoLanguageModel, shards: Path, loading: Loading, num_done: int = 0, place: Place | None = None
) -> EndlessBatches:
    data = GroundingData(shards, preparation_of(model), loading)
    data.load_state_dict({"num_done": num_done, "epoch": 0, "epoch_start": 0})
    data.trainer = place
    return data.train_dataloader()


def seen(batches: EndlessBatches, count: int) -> list[tuple[int, int, tuple[str, ...]]]:
    return [(batch.number, batch.epoch, tuple(t.id for t in batch.truths)) for batch in islice(batches, count)]


@pytest.fixture(scope="module")
def seven(world_samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven samples: no batch size but one and seven divides them."""
    out = tmp_path_factory.mktemp("seven")
    write_shards(world_samples[:7], out, "world", "CC0", WriteOptions(samples_per_shard=3, check_videos=False))
    return out


def test_epochs_follow_each_other_in_new_orders(models: dict[str, VideoLanguageModel], seven: Path) -> None:
    batches = seen(stream(models["qwen3_vl"], seven, Loading(3, num_workers=0)), 6)
    assert [(number, epoch, len(ids)) for number, epoch, ids in batches] == [
        (0, 0, 3), (1, 0, 3), (2, 0, 1), (3, 1, 3), (4, 1, 3), (5, 1, 1),
    ]  # fmt: skip
    first, second = ([id_ for _, e, ids in batches for id_ in ids if e == epoch] for epoch in (0, 1))
    assert sorted(first) == sorted(second) and len(set(first)) == 7
    assert first != second


def test_without_shuffling_the_order_is_that_of_writing(
    models: dict[str, VideoLanguageModel], seven: Path, world_samples: Samples
) -> None:
    batches = seen(stream(models["qwen3_vl"], seven, Loading(7, num_workers=0, shuffle=False)), 2)
    written = tuple(sample.truth.id for sample in world_samples[:7])
    assert [ids for _, _, ids in batches] == [written, written]


def test_another_seed_gives_another_order(models: dict[str, VideoLanguageModel], seven: Path) -> None:
    orders = [seen(stream(models["qwen3_vl"], seven, Loading(7, 0, seed=seed)), 1)[0][2] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_a_worker_gives_the_same_batches(models: dict[str, VideoLanguageModel], seven: Path) -> None:
    alone, helped = (list(islice(stream(models["qwen3_vl"], seven, Loading(2, num_workers=n)), 6)) for n in (0, 2))
    for first, second in zip(alone, helped, strict=True):
        assert (first.number, first.epoch, first.truths) == (second.number, second.epoch, second.truths)
        for name, tensor in vars(first.prompts).items():
            assert torch.equal(tensor, getattr(second.prompts, name))
        assert torch.equal(first.gold.token_ids, second.gold.token_ids)
        assert first.decode_seconds > 0 and second.decode_seconds > 0


@pytest.mark.parametrize("num_done", range(1, 9))
@pytest.mark.parametrize("batch_size", [2, 3])
def test_it_goes_on_after_any_batch(
    models: dict[str, VideoLanguageModel], seven: Path, num_done: int, batch_size: int
) -> None:
    whole = seen(stream(models["qwen3_vl"], seven, Loading(batch_size, 0)), 10)
    assert seen(stream(models["qwen3_vl"], seven, Loading(batch_size, 0), num_done), 10 - num_done) == whole[num_done:]


def test_no_process_may_be_left_without_a_sample(models: dict[str, VideoLanguageModel], seven: Path) -> None:
    with pytest.raises(ValueError, match="holds 7 samples, and there are 8 processes"):
        stream(models["qwen3_vl"], seven, Loading(1, num_workers=0), place=Place(0, 8))


def test_two_processes_share_each_batch_of_one(models: dict[str, VideoLanguageModel], seven: Path) -> None:
    one = seen(stream(models["qwen3_vl"], seven, Loading(4, 0)), 2)
    two = [seen(stream(models["qwen3_vl"], seven, Loading(2, 0), place=Place(rank, 2)), 2) for rank in (0, 1)]
    for step in (0, 1):
        assert sorted(one[step][2]) == sorted(two[0][step][2] + two[1][step][2])
    assert [len(ids) for _, _, ids in two[0] + two[1]] == [2, 2, 2, 1]


def test_bad_samples_shorten_an_epoch_and_shift_no_other(
    models: dict[str, VideoLanguageModel], world_samples: Samples, tmp_path: Path
) -> None:
    broken = [replace(s, video=s.video[:300]) if i in (1, 4, 5) else s for i, s in enumerate(world_samples[:7])]
    write_shards(broken, tmp_path, "world", "CC0", WriteOptions(check_videos=False))
    loading = Loading(2, 0, max_bad_share=1.0)
    whole = seen(stream(models["qwen3_vl"], tmp_path, loading), 4)
    assert [(number, epoch) for number, epoch, _ in whole] == [(0, 0), (1, 0), (4, 1), (5, 1)]
    good = {world_samples[i].truth.id for i in (0, 2, 3, 6)}
    for epoch in (0, 1):
        assert {id_ for _, e, ids in whole for id_ in ids if e == epoch} == good
    assert seen(stream(models["qwen3_vl"], tmp_path, loading, num_done=4), 2) == whole[2:]


def test_a_sample_is_found_by_its_id(
    models: dict[str, VideoLanguageModel], seven: Path, world_samples: Samples
) -> None:
    data = GroundingData(seven, preparation_of(models["qwen3_vl"]), Loading(2))
    wanted = world_samples[4].truth
    assert data.sample(wanted.id).truth == wanted


def batch_of_three(model: VideoLanguageModel, samples: Samples) -> GroundingBatch:
    preparation = preparation_of(model)
    return make_batch([preparation(sample) for sample in samples[:3]], model.encoder.processor.tokenizer)


def test_parts_of_a_batch(model: VideoLanguageModel, world_samples: Samples) -> None:
    batch = batch_of_three(model, world_samples)
    assert len(batch) == 3
    part = batch.select(slice(1, 3))
    assert part.truths == batch.truths[1:] and part.marked_seconds == batch.marked_seconds[1:]
    assert part.prompts.num_prompts == 2
    for row in range(2):
        kept = part.gold.token_ids[row][part.gold.mask[row]]
        assert torch.equal(kept, batch.gold.token_ids[row + 1][batch.gold.mask[row + 1]])
        assert kept[-1] == model.end_token_id
    assert batch.micro_batches(2) == [slice(0, 2), slice(2, 3)]
    assert batch.micro_batches(None) == [slice(0, 3)]


def test_sampling_seeds_depend_on_sample_epoch_and_seed_alone(
    models: dict[str, VideoLanguageModel], world_samples: Samples
) -> None:
    batch = batch_of_three(models["qwen3_vl"], world_samples)
    seeds = batch.sampling_seeds(0)
    assert len(set(seeds)) == 3
    assert replace(batch, number=7).sampling_seeds(0) == seeds
    assert batch.select(slice(1, 3)).sampling_seeds(0) == seeds[1:]
    for other in (replace(batch, epoch=1).sampling_seeds(0), batch.sampling_seeds(1)):
        assert not set(other) & set(seeds)


def test_completions_are_padded_on_the_right() -> None:
    padded = pad_completions([[5, 6, 7], [8], []], pad_token_id=0)
    assert padded.token_ids.tolist() == [[5, 6, 7], [8, 0, 0], [0, 0, 0]]
    assert padded.mask.int().tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"batch_size": 1, "num_workers": -1}])
def test_impossible_loadings_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match="at least"):
        Loading(**bad)
    assert_close(Loading(1).max_bad_share, 0.05)
