"""What tests of the upper floors share: random models of all families, a few samples, shards of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from transformers import PreTrainedTokenizerFast

from stvg_lightning.data.shards import WriteOptions, write_shards
from stvg_lightning.data.synthetic import make_sample
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.models.tiny_architecture import build_tokenizer
from stvg_lightning.modules.lesson_tasks import world_texts
from stvg_lightning.tubes import Sample
from tests.small_models import FAMILIES, QWEN_FAMILIES, build_internvl, build_qwen2_5_vl, build_qwen3_vl

# A busy machine is no reason to fail: properties are about results, not about time. Where changes are merged the
# cases are the same each time, so that a change is judged by what it changed; everywhere else they are new ones.
settings.register_profile("patient", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("patient")


REAL_DATA = Path(os.environ.get("STVG_REAL_DATA", Path(__file__).parents[1] / "../shared/data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real videos and annotations; tests that read it skip where it is not."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data at {REAL_DATA}: set STVG_REAL_DATA")
    return REAL_DATA


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(world_texts(20))


@pytest.fixture(scope="session")
def models(tokenizer: PreTrainedTokenizerFast) -> dict[str, VideoLanguageModel]:
    """A random model of each family; tests that change one copy it first."""
    state = torch.get_rng_state()
    built = {
        "qwen3_vl": build_qwen3_vl(tokenizer),
        "qwen2_5_vl": build_qwen2_5_vl(tokenizer),
        "internvl": build_internvl(tokenizer),
    }
    torch.set_rng_state(state)
    return built


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, models: dict[str, VideoLanguageModel]) -> VideoLanguageModel:
    """Each family in turn."""
    return models[request.param]


@pytest.fixture(params=QWEN_FAMILIES)
def qwen(request: pytest.FixtureRequest, models: dict[str, VideoLanguageModel]) -> VideoLanguageModel:
    """Each family of Qwen in turn."""
    return models[request.param]


@pytest.fixture(scope="session")
def random_model_folder(models: dict[str, VideoLanguageModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random Qwen3-VL as a folder that is loaded like any other; tests must not change it."""
    folder = tmp_path_factory.mktemp("models") / "random"
    models["qwen3_vl"].network.save_pretrained(folder)
    models["qwen3_vl"].encoder.processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def world_samples() -> tuple[Sample, ...]:
    """Eight samples of the synthetic world."""
    return tuple(make_sample(seed) for seed in range(100, 108))


@pytest.fixture(scope="session")
def world_shards(world_samples: tuple[Sample, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The eight samples in two shards; tests must not change them."""
    out = tmp_path_factory.mktemp("world_shards")
    write_shards(world_samples, out, "the synthetic world", "Apache-2.0", WriteOptions(samples_per_shard=4))
    return out
