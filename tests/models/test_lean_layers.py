"""A language model's layers taken apart, against transformers' own: in every family, with adapters and without.

Both read and write the same tables, which `test_decoding_attention` and `test_shared_rollout` look at.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel, Qwen3Config, Qwen3Model

from stvg_lightning.models import lean_layers
from stvg_lightning.models.adapters import Lora, add_adapter
from stvg_lightning.models.decoding import decoding_of
from stvg_lightning.models.forward import encode_videos
from stvg_lightning.models.group_forward import decode_step, prefill
from stvg_lightning.models.lean_layers import LeanLayers, why_not_lean
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.models.lora_layers import LeanLoraLinear, make_lora_lean
from stvg_lightning.models.row_attention import use_row_attention
from stvg_lightning.tubes import Sample
from tests.helpers import assert_close
from tests.small_models import batch_of, copied, prompts_of

Samples = tuple[Sample, ...]
GROUP, STEPS = 3, 4
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@torch.no_grad()
def states_of(model: VideoLanguageModel, samples: Samples, is_lean: bool) -> Tensor:
    """After a few tokens of each completion, of which some leave on the way: (steps of rows, width)."""
    prompts = prompts_of(model, samples)
    batch = batch_of(model, prompts)
    read = prefill(model.network, batch, encode_videos(model.network, batch), GROUP).prompts
    positions = batch.position_ids[:, :, -1].repeat_interleave(GROUP, dim=1)
    lean = LeanLayers.of(model.network) if is_lean else None
    found = []
    for step in range(STEPS):
        token_ids = torch.arange(positions.shape[1]) + 100 + step
        given = token_ids, positions + 1 + step, read
        found.append(lean.step(*given) if lean else decode_step(model.network, *given))
        read.step += 1
        kept = torch.arange(len(token_ids)) != step
        read.keep(kept)
        positions = positions[:, kept]
    return torch.cat(found)


def stirred(model: VideoLanguageModel) -> VideoLanguageModel:
    """A copy in which nothing is as usual: biases are not 0, norms' weights not 1, and layers differ."""
    model = copied(model)
    first, second, *_ = model.network.model.language_model.layers
    first.self_attn.scaling *= 0.7
    second.mlp.act_fn = nn.GELU()
    torch.manual_seed(5)
    for parameter in model.network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def test_states_are_those_of_transformers_layers(model: VideoLanguageModel, world_samples: Samples) -> None:
    model = stirred(model)
    expected = states_of(model, world_samples[:3], is_lean=False)
    assert_close(states_of(model, world_samples[:3], is_lean=True), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.5


@pytest.mark.parametrize("kind", ["llama", "llama with biases", "qwen3"])
def test_other_language_models_of_internvl(
    models: dict[str, VideoLanguageModel], world_samples: Samples, kind: str
) -> None:
    model = copied(models["internvl"])
    same = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    text = model.network.config.text_config
    sizes = {name: getattr(text, name) for name in same} | {"num_key_value_heads": 1, "head_dim": 24}
    made = Qwen3Model(Qwen3Config(**sizes)) if kind == "qwen3" else None
    language_model = made or LlamaModel(LlamaConfig(**sizes, attention_bias="biases" in kind))
    model.network.model.language_model = language_model.eval()
    use_row_attention(model.network)
    model = stirred(model)
    assert why_not_lean(model.network) is None
    expected = states_of(model, world_samples[:3], is_lean=False)
    assert_close(states_of(model, world_samples[:3], is_lean=True), expected, rtol=1e-5, atol=1e-5)


def with_adapters(model: VideoLanguageModel, targets: tuple[str, ...], count: int = 1, **more: object) -> nn.Module:
    config = LoraConfig(r=4, lora_alpha=12, target_modules=list(targets), **more)
    network = get_peft_model(model.network, config)
    for number in range(1, count):
        network.add_adapter(f"stage_{number}", config)
    network.base_model.set_adapter(list(network.peft_config))
    torch.manual_seed(6)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    make_lora_lean(network)
    return network.eval()


@pytest.mark.parametrize(("targets", "count"), [(ALL, 1), (("q_proj", "v_proj", "up_proj"), 2)])
def test_adapters_are_in_the_matrices(
    model: VideoLanguageModel, world_samples: Samples, targets: tuple[str, ...], count: int
) -> None:
    model = stirred(model)
    without = states_of(model, world_samples[:2], is_lean=True)
    network = with_adapters(model, targets, count)
    expected = states_of(model, world_samples[:2], is_lean=False)
    assert why_not_lean(model.network) is None
    assert_close(states_of(model, world_samples[:2], is_lean=True), expected, rtol=1e-5, atol=1e-5)
    assert (expected - without).abs().max() > 0.1
    with network.disable_adapter():
        assert_close(states_of(model, world_samples[:2], is_lean=True), without, rtol=1e-5, atol=1e-5)


def in_half_precision(model: VideoLanguageModel) -> None:
    model.network.bfloat16()


def of_another_kind(model: VideoLanguageModel) -> None:
    layers = model.network.model.language_model.layers
    layers[1].__class__ = type("Qwen9DecoderLayer", (type(layers[1]),), {})


def with_another_gated_layer(model: VideoLanguageModel) -> None:
    layer = model.network.model.language_model.layers[1]
    layer.mlp.__class__ = type("LoudMLP", (type(layer.mlp),), {"forward": lambda self, x: 2 * super(self).forward(x)})


def with_another_norm_at_the_end(model: VideoLanguageModel) -> None:
    model.network.model.language_model.norm = nn.Identity()


def with_a_hook(model: VideoLanguageModel) -> None:
    model.network.model.language_model.layers[1].self_attn.register_forward_hook(lambda *_: None)


def with_a_patch(model: VideoLanguageModel) -> None:
    layer = model.network.model.language_model.layers[1]
    layer.mlp.forward = layer.mlp.forward


def in_another_order(model: VideoLanguageModel) -> None:
    layers = model.network.model.language_model.layers
    layers[0], layers[1] = layers[1], layers[0]


def with_layers_too_many(model: VideoLanguageModel) -> None:
    model.network.model.language_model.config.num_hidden_layers -= 1


def with_a_bias_less(model: VideoLanguageModel) -> None:
    model.network.model.language_model.layers[1].self_attn.k_proj.bias = None


def quantized(model: VideoLanguageModel) -> None:
    layer = model.network.model.language_model.layers[0].mlp
    layer.up_proj.__class__ = type("Linear4bit", (nn.Linear,), {})


def quantized_below_its_adapter(model: VideoLanguageModel) -> None:
    with_adapters(model, ("up_proj",))
    layer = model.network.model.language_model.layers[0].mlp
    layer.up_proj.base_layer.__class__ = type("Linear4bit", (nn.Linear,), {})


def in_half_precision_at_the_end(model: VideoLanguageModel) -> None:
    model.network.model.language_model.norm.bfloat16()


def elsewhere_at_the_end(model: VideoLanguageModel) -> None:
    model.network.model.language_model.norm.to("meta")


def merged(model: VideoLanguageModel) -> None:
    with_adapters(model, ("down_proj",)).merge_adapter()


@pytest.mark.parametrize(
    ("change", "obstacle"),
    [
        (in_half_precision, "not everything is computed in float32"),
        (in_half_precision_at_the_end, "not everything is computed in float32"),
        (of_another_kind, "parts of the kind Qwen9DecoderLayer are not known"),
        (with_another_gated_layer, "parts of the kind LoudMLP are not known"),
        (with_another_norm_at_the_end, "parts of the kind Identity are not known"),
        (with_a_hook, "something is hooked into layers.1.self_attn"),
        (with_a_patch, "something is hooked into layers.1.mlp"),
        (in_another_order, "its layers are not those of its configuration, in order"),
        (with_layers_too_many, "its layers are not those of its configuration, in order"),
        (with_a_bias_less, "of q_proj, k_proj, v_proj some have a bias and some have none"),
        (quantized, "0.mlp.up_proj is more than a matrix with plain adapters"),
        (quantized_below_its_adapter, "0.mlp.up_proj is more than"),
        (merged, "0.mlp.down_proj is more than"),
        (lambda model: with_adapters(model, ("k_proj",), use_dora=True), "0.self_attn.k_proj is more than"),
        (lambda model: with_adapters(model, ("k_proj",), lora_bias=True), "0.self_attn.k_proj is more than"),
        (lambda model: model.network.to("meta"), "the model is not on the CPU"),
        (elsewhere_at_the_end, "the model is not on the CPU"),
    ],
)
def test_what_cannot_be_taken_apart_is_written_plainly(
    models: dict[str, VideoLanguageModel], change: Callable[[VideoLanguageModel], object], obstacle: str
) -> None:
    model = stirred(models["qwen2_5_vl"])
    assert why_not_lean(model.network) is None and decoding_of("auto", model.network) == "lean"
    change(model)
    assert obstacle in why_not_lean(model.network)
    assert decoding_of("auto", model.network) == "plain"
    with pytest.raises(ValueError, match=f"decoding: lean cannot be, .*{obstacle.split()[-1]}.*: choose auto"):
        decoding_of("lean", model.network)


def test_adapters_that_are_not_in_use_are_left_out(
    models: dict[str, VideoLanguageModel], world_samples: Samples
) -> None:
    """Against peft's own layers, which `updates` has no part in."""
    model = stirred(models["qwen2_5_vl"])
    network = with_adapters(model, ALL, count=3)
    both = states_of(model, world_samples[:2], is_lean=True)
    network.base_model.set_adapter(["stage_2", "default"])
    found = states_of(model, world_samples[:2], is_lean=True)
    for layer in network.modules():
        if isinstance(layer, LeanLoraLinear):
            layer.__class__ = Linear
    assert_close(found, states_of(model, world_samples[:2], is_lean=False), rtol=1e-5, atol=1e-5)
    assert (found - both).abs().max() > 0.1


def test_large_matrices_are_not_held_twice(
    models: dict[str, VideoLanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = models["qwen3_vl"].network
    layers = network.model.language_model.layers
    num_bytes = sum(layer.weight.nbytes for layer in layers.modules() if isinstance(layer, nn.Linear))
    monkeypatch.setattr(lean_layers, "MOST_BYTES", num_bytes)
    assert why_not_lean(network) is None
    monkeypatch.setattr(lean_layers, "MOST_BYTES", num_bytes - 1)
    assert "matrices have more than" in why_not_lean(network)


def test_autocast_is_not_left_out(models: dict[str, VideoLanguageModel]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert why_not_lean(models["qwen3_vl"].network) == "not everything is computed in float32"


def test_weights_are_those_of_the_moment(models: dict[str, VideoLanguageModel], world_samples: Samples) -> None:
    """A learned adapter is in the next rollout: nothing is kept from one to the next."""
    adapted = add_adapter(copied(models["qwen3_vl"]), Lora(rank=4, alpha=8))
    before = states_of(adapted.model, world_samples[:2], is_lean=True)
    for layer in adapted.model.network.modules():
        if isinstance(layer, LeanLoraLinear):
            for up in layer.lora_B.values():
                nn.init.normal_(up.weight)
    after = states_of(adapted.model, world_samples[:2], is_lean=True)
    assert (before - after).abs().max() > 0.1
    expected = states_of(adapted.model, world_samples[:2], is_lean=False)
    assert_close(after, expected, rtol=1e-5, atol=1e-5)
