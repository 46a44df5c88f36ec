"""Adapters: nothing at first, removable afterwards, saved and loaded in a chain, moved with their run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from stvg_lightning.models.adapters import (
    LINEAGE_FILE,
    AdaptedModel,
    Lora,
    add_adapter,
    load_trained,
    load_trained_encoder,
    save_adapted,
)
from stvg_lightning.models.forward import Completions, completion_log_probs, encode_videos
from stvg_lightning.models.group_forward import group_log_probs
from stvg_lightning.models.loading import VideoLanguageModel, load_encoder, load_model
from stvg_lightning.models.vision_attention import NAME
from stvg_lightning.rollouts.in_process import InProcessSampler
from stvg_lightning.rollouts.rollouts import Sampling
from stvg_lightning.tubes import Sample
from tests.helpers import assert_close
from tests.small_models import batch_of, copied, prompts_of, random_completions

Samples = tuple[Sample, ...]
LORA = Lora(rank=4, alpha=8)
ADAPTED_TOWER = Lora(rank=4, alpha=8, vision_tower="adapted")


def scores(model: VideoLanguageModel, samples: Samples) -> torch.Tensor:
    """Log-probabilities of fixed answers to two samples, with their gradient."""
    batch = batch_of(model, prompts_of(model, samples[:2]))
    completions = Completions(random_completions(2, 4), torch.ones(2, 4, dtype=torch.bool))
    return completion_log_probs(model.network, batch, completions, encode_videos(model.network, batch))


def stirred(adapted: AdaptedModel, seed: int, scale: float = 0.05) -> AdaptedModel:
    """The adapter as after a training: its update no longer 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.adapter.named_parameters():
            if "lora_B.default" in name:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return adapted


@pytest.mark.parametrize("lora", [LORA, ADAPTED_TOWER])
def test_a_new_adapter_changes_nothing(model: VideoLanguageModel, world_samples: Samples, lora: Lora) -> None:
    with torch.no_grad():
        before = scores(model, world_samples)
        after = scores(add_adapter(copied(model), lora).model, world_samples)
    assert_close(after, before, atol=1e-6)


@pytest.mark.parametrize("lora", [LORA, ADAPTED_TOWER])
def test_without_the_adapter_it_is_the_model_at_the_start(
    model: VideoLanguageModel, world_samples: Samples, lora: Lora
) -> None:
    adapted = stirred(add_adapter(copied(model), lora), seed=1)
    with torch.no_grad():
        start, trained = scores(model, world_samples), scores(adapted.model, world_samples)
        with adapted.without_adapter():
            without = scores(adapted.model, world_samples)
        again = scores(adapted.model, world_samples)
    assert_close(without, start, atol=1e-6)
    assert (trained - start).abs().mean() > 1e-2
    assert torch.equal(again, trained), "the adapter is back afterwards"


def test_in_bfloat16_a_small_update_of_an_earlier_stage_is_not_rounded_away(
    random_model_folder: Path, world_samples: Samples, tmp_path: Path
) -> None:
    places = [str(random_model_folder), str(tmp_path / "sft"), str(tmp_path / "grpo")]
    first = stirred(add_adapter(load_trained(places[0], "bfloat16"), LORA), seed=1, scale=1e-4)
    save_adapted(first, Path(places[1]), places[0])
    second = stirred(add_adapter(load_trained(places[1], "bfloat16"), ADAPTED_TOWER), seed=2)
    save_adapted(second, Path(places[2]), places[1])

    def state(adapted: AdaptedModel) -> dict[str, torch.Tensor]:
        return {name: p for name, p in adapted.adapter.named_parameters() if "lora_" in name}

    written, read = state(first), state(second)
    for name, update in written.items():
        assert torch.equal(read[name.replace(".default.", ".stage_1.")], update)
    assert {name for name, p in read.items() if p.requires_grad} == {name for name in read if ".default." in name}
    with torch.no_grad():
        alone, both = scores(first.model, world_samples), scores(second.model, world_samples)
        with second.without_adapter():
            assert torch.equal(scores(second.model, world_samples), alone), "the reference is the stage before"
        assert torch.equal(scores(second.model, world_samples), both)
        assert not torch.equal(both, alone)
        assert torch.equal(scores(load_trained(places[2], "bfloat16"), world_samples), both)
    scores(second.model, world_samples).sum().backward()
    assert all((p.grad is not None) == (".default." in name) for name, p in state(second).items())


def test_recomputed_activations_change_no_gradient(model: VideoLanguageModel, world_samples: Samples) -> None:
    gradients, passes = [], []
    for recompute in (False, True):
        torch.manual_seed(3)
        adapted = stirred(add_adapter(copied(model), LORA), seed=1)
        if recompute:
            adapted.recompute_activations()
        norm = adapted.model.network.model.language_model.layers[0].input_layernorm
        counting = norm.register_forward_hook(lambda *_, recompute=recompute: passes.append(recompute))
        scores(adapted.model, world_samples).sum().backward()
        counting.remove()
        gradients.append([p.grad for p in adapted.adapter.parameters() if p.requires_grad])
        batch = batch_of(adapted.model, prompts_of(adapted.model, world_samples[:2]))
        features = encode_videos(adapted.model.network, batch)
        rollouts = InProcessSampler(adapted.model).sample(batch, features, 2, Sampling(8), [0, 1])
        with torch.no_grad():
            again = group_log_probs(adapted.model.network, batch, rollouts.completions, features)
        assert_close(again, rollouts.log_probs, atol=1e-5)
        assert adapted.model.network.training
    assert passes == [False, True, True], "a layer runs once more for the gradient"
    for kept, recomputed in zip(*gradients, strict=True):
        assert_close(recomputed, kept, atol=1e-6)


@pytest.mark.parametrize("lora", [LORA, ADAPTED_TOWER])
def test_only_adapters_are_trained(model: VideoLanguageModel, world_samples: Samples, lora: Lora) -> None:
    adapted = stirred(add_adapter(copied(model), lora), seed=1)
    with adapted.without_adapter():
        pass
    scores(adapted.model, world_samples).sum().backward()
    trained = {name: p for name, p in adapted.adapter.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in trained.values()), "a gradient reaches each"
    assert all(p.grad is None for name, p in adapted.adapter.named_parameters() if name not in trained)
    in_tower = [name for name in trained if ".language_model." not in name]
    assert bool(in_tower) == (lora.vision_tower == "adapted") == (not adapted.tower_is_frozen)


def test_every_linear_layer_of_the_language_model_is_adapted(model: VideoLanguageModel) -> None:
    adapted = add_adapter(copied(model), LORA)
    names = [name for name, _ in adapted.adapter.named_parameters() if "lora_A" in name]
    layers = model.network.config.text_config.num_hidden_layers
    assert len(names) == 7 * layers


def test_every_linear_layer_of_the_tower_is_adapted(model: VideoLanguageModel) -> None:
    adapted = add_adapter(copied(model), ADAPTED_TOWER)
    layers = model.network.model.named_modules()
    linear = {
        name for name, layer in layers if isinstance(layer, torch.nn.Linear) and not name.startswith("language_model.")
    }
    found = {
        name.partition("model.model.model.")[2].partition(".lora_A")[0]
        for name, _ in adapted.adapter.named_parameters()
        if "language_model" not in name and "lora_A" in name
    }
    assert found == linear and len(found) > 5


def test_parameters_are_float32_unless_asked_otherwise(random_model_folder: Path) -> None:
    precise = load_model(str(random_model_folder))
    assert {p.dtype for p in precise.network.parameters()} == {torch.float32}
    short = add_adapter(load_model(str(random_model_folder), "bfloat16"), LORA)
    kinds = {("lora_" in name, p.dtype) for name, p in short.adapter.named_parameters()}
    assert kinds == {(False, torch.bfloat16), (True, torch.float32)}


def test_a_folder_loads_as_the_model_it_was_saved_from(
    models: dict[str, VideoLanguageModel], random_model_folder: Path, world_samples: Samples
) -> None:
    loaded = load_trained(str(random_model_folder))
    with torch.no_grad():
        assert_close(scores(loaded, world_samples), scores(models["qwen3_vl"], world_samples), atol=1e-6)
    assert loaded.network.model.visual.config._attn_implementation == NAME
    assert loaded.pad_token_id == models["qwen3_vl"].pad_token_id
    assert loaded.end_token_id == models["qwen3_vl"].end_token_id


def chain_of_two(start: Path, run: Path, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    """Two stages of a run, one upon the other; the scores of each."""
    (run / "sft").mkdir(parents=True)
    (run / "grpo").mkdir()
    first = stirred(add_adapter(load_trained(str(start)), LORA), seed=1)
    save_adapted(first, run / "sft" / "model", str(start))
    second = stirred(add_adapter(load_trained(str(run / "sft" / "model")), ADAPTED_TOWER), seed=2)
    save_adapted(second, run / "grpo" / "model", str(run / "sft" / "model"))
    with torch.no_grad():
        return scores(first.model, samples), scores(second.model, samples)


def test_a_chain_of_two_adapters_survives_saving_and_moving(
    random_model_folder: Path, world_samples: Samples, tmp_path: Path
) -> None:
    place = tmp_path / "here"
    start = place / "start"
    shutil.copytree(random_model_folder, start)
    first, second = chain_of_two(start, place / "runs" / "a", world_samples)
    assert (first - second).abs().max() > 1e-3
    moved = tmp_path / "elsewhere" / "deep"
    moved.parent.mkdir()
    (place / "runs" / "a").rename(moved)  # the run alone: the model that it began with stays where it was
    with torch.no_grad():
        assert_close(scores(load_trained(str(moved / "sft" / "model")), world_samples), first, atol=1e-5)
        loaded = load_trained(str(moved / "grpo" / "model"))
        assert_close(scores(loaded, world_samples), second, atol=1e-5)
    assert not any(p.requires_grad for p in loaded.network.parameters())
    encoder = load_trained_encoder(str(moved / "grpo" / "model"))
    assert encoder.rule == load_encoder(str(start)).rule


def test_a_chain_moves_together_with_the_model_it_began_with(
    random_model_folder: Path, world_samples: Samples, tmp_path: Path
) -> None:
    place = tmp_path / "here"
    shutil.copytree(random_model_folder, place / "start")
    _, second = chain_of_two(place / "start", place / "runs" / "a", world_samples)
    place.rename(tmp_path / "there")
    with torch.no_grad():
        loaded = load_trained(str(tmp_path / "there" / "runs" / "a" / "grpo" / "model"))
        assert_close(scores(loaded, world_samples), second, atol=1e-5)


def test_saving_again_replaces_and_leaves_nothing_behind(
    random_model_folder: Path, world_samples: Samples, tmp_path: Path
) -> None:
    adapted = add_adapter(load_trained(str(random_model_folder)), LORA)
    for seed in (1, 2):
        save_adapted(stirred(adapted, seed), tmp_path / "model", str(random_model_folder))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with torch.no_grad():
        loaded = load_trained(str(tmp_path / "model"))
        assert_close(scores(loaded, world_samples), scores(adapted.model, world_samples), atol=1e-5)


def test_a_hub_name_is_kept_as_it_is(
    random_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted = add_adapter(load_trained(str(random_model_folder)), LORA)
    (tmp_path / "tiny").mkdir()  # a folder that happens to be called like the bundled model
    monkeypatch.chdir(tmp_path)
    for name in ("tiny", "Qwen/Qwen2.5-VL-7B-Instruct"):
        save_adapted(adapted, tmp_path / "model", name)
        assert json.loads((tmp_path / "model" / LINEAGE_FILE).read_text())["started_from"] == name


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no model at .*nowhere.*config\.json"):
        load_trained(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("bad", [{"rank": 0}, {"vision_tower": "melted"}])
def test_impossible_adapters_are_refused(bad: dict) -> None:
    with pytest.raises((ValueError, TypeError), match=r"rank|vision_tower"):
        Lora(**bad)
