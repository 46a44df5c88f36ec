"""Samples of the synthetic world, and shards of them, made once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from stvg_lightning.data.shards import WriteOptions, write_shards
from stvg_lightning.data.synthetic import make_sample
from stvg_lightning.tubes import Sample


@pytest.fixture(scope="session")
def synthetic_samples() -> tuple[Sample, ...]:
    """Eight samples."""
    return tuple(make_sample(seed) for seed in range(8))


@pytest.fixture(scope="session")
def shard_folder(synthetic_samples: tuple[Sample, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The eight samples in three shards; tests must not change it."""
    out = tmp_path_factory.mktemp("shards")
    write_shards(synthetic_samples, out, "the synthetic world", "Apache-2.0", WriteOptions(samples_per_shard=3))
    return out
