"""What is predicted of a step against a step that is taken: tokens exactly, memory by counting what torch holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from stvg_lightning.models.adapters import Lora, add_adapter
from stvg_lightning.models.flops import Work, prefill_work, shape_of, shared_work
from stvg_lightning.models.forward import Completions
from stvg_lightning.models.loading import VideoLanguageModel, wrap_model
from stvg_lightning.modules.batches import make_batch
from stvg_lightning.modules.collecting import Collected, portions_of
from stvg_lightning.modules.grpo import GRPO
from stvg_lightning.modules.grpo_settings import GRPOSettings
from stvg_lightning.modules.planning import GIB, Machine, ModelSize, StepPlan, memory_gib, seconds, what_fits
from stvg_lightning.objectives import grpo, ppo
from stvg_lightning.rollouts.rollouts import Rollouts, Sampling
from stvg_lightning.tubes import Sample
from tests.small_models import preparation_of, random_completions
from tests.small_trainings import Attached, adapted_copy, curves_of, data_of, grpo_module, train

Samples = tuple[Sample, ...]
LORA = Lora(rank=4)
ADAPTED_TOWER = Lora(rank=4, vision_tower="adapted")
GROUP, WRITTEN_TOKENS = 4, 60


def peak_bytes(run: Callable[[], object]) -> int:
    """The most memory that torch held while something ran, beyond what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        run()
    assert measured.profiler is not None
    events = [event for event in measured.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def size_of(model: VideoLanguageModel, lora: Lora = LORA) -> ModelSize:
    """As `stvg plan` finds it: of a model that has no weights."""
    config = type(model.network.config)(**model.network.config.to_dict())
    with torch.device("meta"):
        empty = wrap_model(type(model.network)(config), model.encoder)
        return ModelSize.of(add_adapter(empty, lora).model.network)


def collected_of(
    module: GRPO,
    model: VideoLanguageModel,
    samples: Samples,
    group_size: int = GROUP,
    written_tokens: int = WRITTEN_TOKENS,
) -> Collected:
    """Completions of random tokens for some questions, long ones by default."""
    batch = make_batch([preparation_of(model)(sample) for sample in samples], model.encoder.processor.tokenizer)
    token_ids = random_completions(len(samples) * group_size, written_tokens)
    written = Completions(token_ids, torch.ones_like(token_ids, dtype=torch.bool))
    zeros = torch.zeros(token_ids.shape)
    rollouts = Rollouts(token_ids, written.mask, zeros, [""] * len(token_ids), written.mask[:, 0], group_size)
    rewards = torch.arange(len(token_ids), dtype=torch.float32).view(-1, group_size)
    return Collected(batch, module.collector.encode(batch), rollouts, [], rewards, 0, {}, {})


def plan_of(collected: Collected, **settings: int | bool | None) -> StepPlan:
    prompts = collected.batch.prompts.attention_mask.sum(dim=1).tolist()
    groups = tuple((prompt, (WRITTEN_TOKENS,) * GROUP) for prompt in prompts)
    empty = {"recomputes": False, "micro_batch_prompts": None, "tokens_per_pass": None, "tokens_per_rollout": None}
    return StepPlan(groups, len(collected.batch.prompts.patches), **{**empty, **settings})


def plan_of_group(prompt_tokens: int, group_size: int, written_tokens: int, most_tokens: int) -> StepPlan:
    """Of one group that is larger than a pass may be."""
    return StepPlan(((prompt_tokens, (written_tokens,) * group_size),), 0, False, None, most_tokens, None)


@pytest.mark.parametrize(
    "settings",
    [{}, {"micro_batch_prompts": 2}, {"tokens_per_pass": 900}, {"tokens_per_pass": 260}, {"recomputes": True}],
    ids=str,
)
def test_memory_of_an_update_is_what_torch_holds(
    models: dict[str, VideoLanguageModel], world_samples: Samples, settings: dict[str, int | bool]
) -> None:
    model = models["qwen2_5_vl"]
    adapted = adapted_copy(model, LORA)
    keys = {name: value for name, value in settings.items() if name != "recomputes"}
    module = grpo_module(adapted, GRPOSettings(max_rollouts=1, group_size=GROUP, **keys), sampling=Sampling(60))
    Attached(module)
    if settings.get("recomputes"):
        adapted.recompute_activations()
    collected = collected_of(module, model, world_samples)
    portions = module.portions([collected])
    credits = module.credits(portions)
    module.accumulate_gradients(portions, credits)  # gradients are there before
    measured = peak_bytes(lambda: module.accumulate_gradients(portions, credits))
    predicted = GIB * memory_gib(size_of(model), plan_of(collected, **settings))["update"]
    assert 0.8 < predicted / measured < 1.25, (predicted / 2**20, measured / 2**20)


@pytest.mark.parametrize("has_critic", [False, True])
def test_no_pass_of_an_update_is_larger_than_it_may_be(
    models: dict[str, VideoLanguageModel], world_samples: Samples, has_critic: bool
) -> None:
    """A group of far more tokens than a pass may hold: those of the reference policy and the critic are cut as well."""
    group_size, written_tokens, most = 16, 200, 700
    model = models["qwen2_5_vl"]
    adapted = adapted_copy(model, LORA)
    settings = GRPOSettings(max_rollouts=1, group_size=group_size, tokens_per_pass=most)
    objective = ppo() if has_critic else grpo(beta=0.04)
    module = grpo_module(adapted, settings, objective=objective, sampling=Sampling(written_tokens))
    Attached(module)
    adapted.recompute_activations()
    collected = collected_of(module, model, world_samples[:1], group_size, written_tokens)
    read: list[int] = []
    adapted.model.network.model.language_model.register_forward_hook(
        lambda _module, _given, named, _states: read.append(named["inputs_embeds"].shape[1]), with_kwargs=True
    )
    portions = module.portions([collected])
    credits = module.credits(portions)
    module.accumulate_gradients(portions, credits)
    (prompt,) = collected.batch.prompts.attention_mask.sum(dim=1).tolist()
    of_one_pass = [
        prompt,
        *(length - prompt for length, _ in plan_of_group(prompt, group_size, written_tokens, most).passes()),
    ]
    assert read == of_one_pass * (3 if has_critic else 2)
    if has_critic:
        return
    measured = peak_bytes(lambda: module.accumulate_gradients(portions, credits))
    plan = replace(plan_of_group(prompt, group_size, written_tokens, most), recomputes=True)
    predicted = GIB * memory_gib(size_of(model), plan)["update"]
    assert 0.8 < predicted / measured < 1.25, (predicted / 2**20, measured / 2**20)


@pytest.mark.parametrize("settings", [{}, {"micro_batch_prompts": 1}, {"recomputes": True}], ids=str)
def test_memory_of_an_adapted_tower_is_what_torch_holds(
    model: VideoLanguageModel, world_samples: Samples, settings: dict[str, int | bool]
) -> None:
    """Short completions, so that the tower is much of it."""
    adapted = adapted_copy(model, ADAPTED_TOWER)
    keys = {name: value for name, value in settings.items() if name != "recomputes"}
    module = grpo_module(adapted, GRPOSettings(max_rollouts=1, group_size=2, **keys), sampling=Sampling(4))
    Attached(module)
    if settings.get("recomputes"):
        adapted.recompute_activations()
    collected = collected_of(module, model, world_samples, group_size=2, written_tokens=4)
    portions = module.portions([collected])
    credits = module.credits(portions)
    module.accumulate_gradients(portions, credits)
    measured = peak_bytes(lambda: module.accumulate_gradients(portions, credits))
    plan = replace(plan_of(collected, **settings), groups=tuple((g, (4, 4)) for g, _ in plan_of(collected).groups))
    size = size_of(model, ADAPTED_TOWER)
    predicted = GIB * memory_gib(size, plan)["update"]
    assert 0.8 < predicted / measured < 1.25, (predicted / 2**20, measured / 2**20)
    assert size_of(model).tower_saved_bytes_per_patch == 0


def test_settings_change_what_is_predicted(models: dict[str, VideoLanguageModel]) -> None:
    size = size_of(models["qwen3_vl"])
    plan = StepPlan(((300, (50,) * 8), (100, (50,) * 8)), 1000, False, None, None, None)
    # While completions are written, the short prompt's table is as long as the other's.
    assert plan.tokens_at_once == 300 + 100 + 16 * 49 and plan.tokens_held_in_rollout == 600 + 16 * 50
    assert replace(plan, tokens_per_rollout=1399).tokens_held_in_rollout == 300 + 400
    assert replace(plan, tokens_per_rollout=1400).tokens_held_in_rollout == 1400
    assert replace(plan, micro_batch_prompts=1).tokens_at_once == 300 + 8 * 49
    assert replace(plan, tokens_per_pass=500).tokens_at_once == 300 + 4 * 49
    assert replace(plan, tokens_per_pass=700).tokens_at_once == 300 + 8 * 49
    assert replace(plan, tokens_per_rollout=1).tokens_held_in_rollout == 300 + 400
    assert memory_gib(size, replace(plan, recomputes=True))["update"] < 0.5 * memory_gib(size, plan)["update"]


def test_questions_and_tokens_bound_a_pass_together() -> None:
    groups = tuple((prompt, (6, 6)) for prompt in (70, 40, 40))
    plan = StepPlan(groups, 0, False, 2, 100, None)
    assert plan.passes() == [(80, 12), (100, 24)]
    assert replace(plan, tokens_per_pass=None).passes() == [(130, 24), (50, 12)]
    assert replace(plan, tokens_per_pass=79).passes() == [(75, 6), (75, 6), (50, 12), (50, 12)]


@pytest.mark.parametrize("count", [None, 1, 2, 3])
def test_passes_are_those_of_the_update(
    models: dict[str, VideoLanguageModel], world_samples: Samples, count: int | None
) -> None:
    truth, model = world_samples[0].truth, models["qwen2_5_vl"]
    queries = ("the red circle grows " * 40, "it moves", "it moves", "it grows")
    asked = tuple(replace(world_samples[0], truth=replace(truth, query=query)) for query in queries)
    module = grpo_module(adapted_copy(model, LORA), GRPOSettings(max_rollouts=1, group_size=GROUP))
    collected = collected_of(module, model, asked)
    tokens = [collected.tokens_of(question) for question in range(len(asked))]
    for most in (None, max(tokens), max(tokens[0], sum(tokens[1:3])), sum(tokens)):
        portions = portions_of([collected], count, most_tokens=most)
        planned = plan_of(collected, micro_batch_prompts=count, tokens_per_pass=most)
        assert [each for each, _ in planned.passes()] == [sum(tokens[portion.questions]) for portion in portions]


def test_it_tells_which_key_makes_it_fit(models: dict[str, VideoLanguageModel]) -> None:
    size = size_of(models["qwen3_vl"])
    plan = StepPlan(((600, (200,) * 8),), 100, False, None, None, None)
    needed = memory_gib(size, plan)["peak"]
    machine = Machine(needed * 0.75, tflops=1.0, terabytes_per_second=0.1, utilisation=0.5)
    found = what_fits(size, plan, machine)
    assert found is not None
    key, changed = found
    assert key == f"settings.tokens_per_pass: {changed.tokens_per_pass}"
    assert memory_gib(size, changed)["peak"] <= machine.memory_gib < needed
    tighter = what_fits(size, plan, replace(machine, memory_gib=needed * 0.25))
    assert tighter is not None and tighter[0].startswith("model.recompute_activations: true")
    assert what_fits(size, plan, replace(machine, memory_gib=needed * 0.001)) is None


def test_seconds_by_hand(models: dict[str, VideoLanguageModel]) -> None:
    model = models["qwen3_vl"]
    size, shape = size_of(model), size_of(model).shape
    plan = StepPlan(((600, (200,) * 8),), 100, False, None, None, None)
    machine = Machine(1.0, tflops=2.0, terabytes_per_second=0.0005, utilisation=0.25)
    found = seconds(size, plan, machine)
    assert found["update"] == pytest.approx(plan.work.update_flops(shape) / 0.5e12)
    # Writing reads neither the tower nor, where it is not the head, the table of embeddings.
    language = model.network.model.language_model
    read = 4 * sum(weights.numel() for weights in language.layers.parameters()) + 4 * shape.head_weights
    adapters = 4 * shape.adapter_weights
    assert size.read_bytes == read + adapters < size.weight_bytes
    held = size.read_bytes + (600 + 8 * 200) * size.cache_bytes_per_token
    assert found["generate"] == pytest.approx(200 * held / 0.5e9)
    before = (prefill_work(600) + Work(patches=100)).forward_flops(shape)
    assert found["vision and prefill"] == pytest.approx(before / 0.5e12)
    assert found["step"] == pytest.approx(found["update"] + found["generate"] + found["vision and prefill"])
    assert seconds(size, replace(plan, recomputes=True), machine)["update"] == pytest.approx(found["update"] * 4 / 3)
    fast = seconds(size, plan, replace(machine, terabytes_per_second=1e6))
    written = (shared_work(600, (200,) * 8) + Work(patches=100)).forward_flops(shape) - before
    assert fast["generate"] == pytest.approx(written / 0.5e12), "memory that takes no time leaves the arithmetic"


def test_each_part_of_a_rollout_reads_the_weights_again(models: dict[str, VideoLanguageModel]) -> None:
    size = size_of(models["qwen3_vl"])
    plan = StepPlan(((600, (200,) * 8), (600, (200,) * 8), (100, (50,) * 8)), 100, False, None, None, None)
    machine = Machine(1.0, tflops=2.0, terabytes_per_second=0.0005, utilisation=0.25)
    cache = size.cache_bytes_per_token
    together = 200 * (size.read_bytes + (3 * 600 + 8 * 450) * cache)
    assert seconds(size, plan, machine)["generate"] == pytest.approx(together / 0.5e9)
    cut = seconds(size, replace(plan, tokens_per_rollout=4400), machine)["generate"]
    apart = 200 * (size.read_bytes + (2 * 600 + 16 * 200) * cache) + 50 * (size.read_bytes + (100 + 8 * 50) * cache)
    assert cut == pytest.approx(apart / 0.5e9)
    alone = seconds(size, replace(plan, tokens_per_rollout=1), machine)["generate"]
    assert alone > cut


def test_answers_about_shuffled_frames_are_planned(models: dict[str, VideoLanguageModel]) -> None:
    size = size_of(models["qwen3_vl"])
    plan = StepPlan(((600, (200,) * 8), (300, (200,) * 8)), 100, False, None, None, None)
    asked = replace(plan, shuffled_group_size=4)
    assert asked.work.tokens() - plan.work.tokens() == 900 + 2 * 4 * 199
    assert asked.work.learned == plan.work.learned and asked.tokens_held_in_rollout == plan.tokens_held_in_rollout
    machine = Machine(1.0, tflops=2.0, terabytes_per_second=0.0005, utilisation=0.25)
    more = seconds(size, asked, machine)["generate"] - seconds(size, plan, machine)["generate"]
    assert more == pytest.approx(200 * (size.read_bytes + (1200 + 8 * 200) * size.cache_bytes_per_token) / 0.5e9)
    assert seconds(size, asked, machine)["update"] == seconds(size, plan, machine)["update"]


@pytest.mark.parametrize("vision_tower", ["frozen", "adapted"])
def test_tokens_and_arithmetic_of_a_step_are_those_that_are_logged(
    models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path, vision_tower: str
) -> None:
    adapted = adapted_copy(models["qwen3_vl"], replace(LORA, vision_tower=vision_tower))
    module = grpo_module(adapted, GRPOSettings(max_rollouts=1, group_size=GROUP), sampling=Sampling(6))
    train(module, data_of(world_shards, adapted), tmp_path, 1)
    (collected,) = module.last_collected
    lengths = collected.rollouts.lengths_tokens.view(-1, GROUP).tolist()
    prompts = collected.batch.prompts.attention_mask.sum(dim=1).tolist()
    groups = tuple((prompt, tuple(each)) for prompt, each in zip(prompts, lengths, strict=True))
    plan = replace(plan_of(collected), groups=groups)
    curves = curves_of(tmp_path)
    for name, repeated in (("floor/tokens", False), ("floor/tokens_repeated", True)):
        assert curves[name][0][1] == pytest.approx(plan.work.tokens(repeated))
    shape = shape_of(adapted.model.network)
    assert shape.tower.is_trained == (vision_tower == "adapted")
    assert curves["floor/tflops"][0][1] == pytest.approx(plan.work.flops(shape) / 1e12, rel=1e-5)
