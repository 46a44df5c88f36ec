"""One GRPO step against a naive loop over prompts, answers and tokens on transformers' own passes."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stvg_lightning.answers import Answer
from stvg_lightning.models.adapters import Lora
from stvg_lightning.models.families import tower_of
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.modules.batches import make_batch
from stvg_lightning.modules.callbacks.rollout_log import RolloutLog
from stvg_lightning.modules.collecting import Collected, Portion, portions_of
from stvg_lightning.modules.grpo import GRPO
from stvg_lightning.modules.grpo_settings import GRPOSettings
from stvg_lightning.objectives import Critic, grpo, ppo
from stvg_lightning.rewards import WeightedSum, reward, well_formed
from stvg_lightning.rollouts.rollouts import Sampling
from stvg_lightning.tubes import Sample, Truth
from tests.helpers import assert_close
from tests.small_models import plain_log_probs, preparation_of, with_biased_head
from tests.small_trainings import (
    Attached,
    Watch,
    adapted_copy,
    curves_of,
    data_of,
    grpo_module,
    parameters_of,
    relative_difference,
    roundness,
    stirred,
    train,
)

Samples = tuple[Sample, ...]
ADAPTED_TOWER = Lora(rank=4, alpha=8, vision_tower="adapted")
GROUP, BETA, CLIP, TEMPERATURE = 3, 0.3, 0.1, 0.8


def scored_batch(model: VideoLanguageModel, samples: Samples, lora: Lora) -> tuple[GRPO, Collected]:
    """A policy that has moved since its rollout, and what it rolled out."""
    # Answers of unequal length: the end token is likely.
    adapted = adapted_copy(with_biased_head(model, {model.end_token_id: 5.5}), lora)
    stirred(adapted, seed=4)
    module = grpo_module(
        adapted,
        GRPOSettings(max_rollouts=1, group_size=GROUP, micro_batch_prompts=1),
        objective=grpo(clip_low=CLIP, clip_high=CLIP, beta=BETA),
        sampling=Sampling(6, TEMPERATURE),
    )
    Attached(module)
    preparation = preparation_of(adapted.model)
    batch = make_batch([preparation(sample) for sample in samples], model.encoder.processor.tokenizer)
    collected = module.collector.collect(batch, 0, 0.0)
    stirred(adapted, scale=0.03, seed=2)
    return module, collected


def naive_loss(module: GRPO, samples: Samples, scored: Collected) -> tuple[Tensor, float, float]:
    """Equations 4 to 8 in plain Python; the loss with its gradient, the KL and the share of clipped tokens."""
    adapted, rollouts = module.adapted, scored.rollouts
    total, kl_total, num_clipped, num_tokens = torch.zeros((), dtype=torch.float64), 0.0, 0, 0
    for question, sample in enumerate(samples):
        prompt = preparation_of(adapted.model)(sample).prompt
        rewards = []
        for row in range(question * GROUP, (question + 1) * GROUP):
            rewards.append(
                roundness.__wrapped__(
                    module.collector.preparation.read(rollouts.texts[row], sample.truth), sample.truth
                )
            )
        for member in range(GROUP):
            row = question * GROUP + member
            advantage = (rewards[member] - statistics.mean(rewards)) / (statistics.stdev(rewards) + 1e-4)
            tokens = rollouts.token_ids[row][rollouts.mask[row]]
            policy = plain_log_probs(adapted.model, prompt, tokens, TEMPERATURE)
            with torch.no_grad(), adapted.without_adapter():
                reference = plain_log_probs(adapted.model, prompt, tokens, TEMPERATURE).tolist()
            answer_loss = torch.zeros((), dtype=torch.float64)
            for place in range(len(tokens)):
                ratio = (policy[place] - float(rollouts.log_probs[row, place])).exp()
                limited = min(max(ratio, torch.tensor(1 - CLIP)), torch.tensor(1 + CLIP))
                surrogate = min(ratio * advantage, limited * advantage)
                gap = reference[place] - policy[place]
                kl = gap.exp() - gap - 1
                answer_loss = answer_loss - surrogate + BETA * kl
                kl_total += kl.item() / len(tokens) / len(rollouts.texts)
                clips = (advantage > 0 and ratio > 1 + CLIP) or (advantage < 0 and ratio < 1 - CLIP)
                num_clipped, num_tokens = num_clipped + clips, num_tokens + 1
            total = total + answer_loss / len(tokens) / len(rollouts.texts)
    return total, kl_total, num_clipped / num_tokens


def gradients_of(module: GRPO) -> Tensor:
    found = torch.cat([p.grad.flatten() for p in module.parameters() if p.requires_grad])
    module.zero_grad()
    return found


@pytest.mark.parametrize("lora", [Lora(rank=4, alpha=8), ADAPTED_TOWER])
def test_loss_and_gradient_against_a_naive_loop(model: VideoLanguageModel, world_samples: Samples, lora: Lora) -> None:
    samples = world_samples[:2]
    module, scored = scored_batch(model, samples, lora)
    lengths = scored.rollouts.lengths_tokens.tolist()
    assert len(set(lengths)) > 1, "the test needs answers of unequal length"
    made_of, _ = module.accumulate_gradients(portions := module.portions([scored]), module.credits(portions))
    ours = gradients_of(module)
    loss, kl, clip_fraction = naive_loss(module, samples, scored)
    loss.backward()
    theirs = gradients_of(module)
    assert_close(sum(part.loss for part in made_of), loss, atol=1e-5)
    assert_close(sum(part.kl for part in made_of), kl, atol=1e-5)
    assert_close(sum(part.clip_fraction for part in made_of), clip_fraction, atol=1e-6)
    assert kl > 1e-3 and 0 < clip_fraction < 1, "the test needs both to act"
    assert relative_difference(ours, theirs) < 1e-4
    if lora is ADAPTED_TOWER:
        tower = [
            p.numel() * (".language_model." not in name) for name, p in module.named_parameters() if p.requires_grad
        ]
        assert sum(tower) > 0


@pytest.mark.parametrize("tokens_per_pass", [None, 1])
@pytest.mark.parametrize("lora", [Lora(rank=4, alpha=8), ADAPTED_TOWER])
def test_the_tower_runs_once_for_what_is_learned(
    model: VideoLanguageModel, world_samples: Samples, lora: Lora, tokens_per_pass: int | None
) -> None:
    """A frozen tower's features come from the rollout; a trained one makes one differentiable pass for each prompt."""
    module, scored = scored_batch(model, world_samples[:2], lora)
    module.settings = replace(module.settings, tokens_per_pass=tokens_per_pass)
    passes: list[bool] = []
    tower_of(module.adapted.model.network).register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    portions = module.portions([scored])
    module.accumulate_gradients(portions, module.credits(portions))
    assert passes == ([] if module.adapted.tower_is_frozen else [False, True] * len(portions))


def test_rewards_and_advantages_by_hand(models: dict[str, VideoLanguageModel], world_samples: Samples) -> None:
    module, scored = scored_batch(models["qwen3_vl"], world_samples[:2], Lora(rank=4))
    for question in range(2):
        group = slice(question * GROUP, (question + 1) * GROUP)
        rewards = [sum(c in "abdegopq" for c in text) / max(len(text), 1) for text in scored.rollouts.texts[group]]
        assert_close(scored.rewards[question], rewards)
        mean, deviation = statistics.mean(rewards), statistics.stdev(rewards)
        expected = [(value - mean) / (deviation + 1e-4) for value in rewards]
        (credit,) = module.credits([Portion(scored, slice(question, question + 1))])
        assert_close(credit.advantages, expected, atol=1e-4)
    assert scored.num_unreadable == len(scored.rewarded) == 2 * GROUP, "noise answers nothing"


@pytest.mark.parametrize("lora", [Lora(rank=4, alpha=8), ADAPTED_TOWER])
def test_portions_add_up_to_the_whole_batch(
    models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path, lora: Lora
) -> None:
    """Portions of some questions, of so many tokens, and parts of a group where even one is too large."""
    gradients, losses = {}, {}
    for size, tokens in ((None, None), (1, None), (3, None), (None, 400), (None, 1)):
        adapted, watch = stirred(adapted_copy(models["qwen3_vl"], lora)), Watch()
        settings = GRPOSettings(max_rollouts=1, group_size=3, micro_batch_prompts=size, tokens_per_pass=tokens)
        size = size or tokens
        data = data_of(world_shards, adapted, batch_size=8)
        module = grpo_module(adapted, settings)
        train(module, data, tmp_path / str(size), 1, callbacks=[watch])
        portions = [len(portion.batch) for portion, _ in module.last_credited]
        assert portions == {None: [8], 1: [1] * 8, 3: [3, 3, 2], 400: portions}[size]
        assert size != 400 or 2 < len(portions) < 8
        gradients[size] = watch.gradients[0]
        losses[size] = curves_of(tmp_path / str(size))["grpo/loss"][0][1]
    for size in (1, 3, 400):
        assert relative_difference(gradients[size], gradients[None]) < 1e-5
        assert_close(losses[size], losses[None], atol=1e-6)


@pytest.mark.parametrize(("updates", "beta"), [(1, 0.04), (3, 0.04), (3, 0.0)])
def test_clipping_acts_only_on_later_updates(
    models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path, updates: int, beta: float
) -> None:
    adapted = adapted_copy(models["qwen3_vl"])
    settings = GRPOSettings(max_rollouts=2, group_size=4, updates_per_rollout=updates)
    module = grpo_module(adapted, settings, objective=grpo(beta=beta, clip_low=0.01, clip_high=0.01))
    watch = Watch()
    trainer = train(module, data_of(world_shards, adapted), tmp_path, 2 * updates, callbacks=[watch])
    assert trainer.global_step == 2 * updates and len(watch.seen) == 2, "each batch is used for so many steps"
    assert len(watch.gradients) == 2 * updates
    curves = curves_of(tmp_path)
    clipped, ratios = ([value for _, value in curves[f"grpo/{name}"]] for name in ("clip_fraction", "ratio_mean"))
    if updates == 1:
        assert clipped == [0.0, 0.0] and ratios == pytest.approx([1.0, 1.0], abs=1e-5)
    else:
        assert min(clipped) > 0 and max(abs(ratio - 1) for ratio in ratios) > 1e-4
    assert max(value for _, value in curves["rollout/log_prob_gap"]) < 1e-4
    first_kl = curves["grpo/kl"][0][1]
    assert first_kl == pytest.approx(0.0, abs=1e-6) if updates == 1 or beta == 0 else first_kl > 1e-6


def test_what_is_logged(models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path) -> None:
    adapted = adapted_copy(models["qwen3_vl"])
    module = grpo_module(adapted, GRPOSettings(max_rollouts=2, group_size=4))
    train(module, data_of(world_shards, adapted), tmp_path, 2)
    curves = curves_of(tmp_path)
    expected = {
        *(f"reward/{name}" for name in ("total", "total_spread", "roundness", "roundness_spread")),
        *(
            f"rollout/{name}"
            for name in ("equal_groups", "parse_failures", "length_tokens", "truncated", "log_prob_gap")
        ),
        *(f"rollout/decoding_{way}" for way in ("plain", "lean", "fixed", "graphs")),
        *(f"grpo/{name}" for name in ("loss", "policy_loss", "kl", "clip_fraction", "ratio_mean", "gradient_norm")),
        "grpo/learning_rate",
        "grpo/entropy",
        *(
            f"floor/{name}{suffix}"
            for name in ("tokens", "tflops", "utilisation", "update_utilisation")
            for suffix in ("", "_repeated")
        ),
        *(f"seconds/{phase}" for phase in ("decode", "vision", "prefill", "generate", "reward", "update")),
    }
    assert expected <= set(curves)
    assert all(len(curves[name]) == 2 and all(math.isfinite(v) for _, v in curves[name]) for name in expected)
    (scored,) = module.last_collected
    rewards = scored.rewards.flatten()
    last = {name: curve[-1][1] for name, curve in curves.items()}
    assert_close(last["reward/total"], rewards.mean(), atol=1e-6)
    assert_close(last["reward/total_spread"], scored.rewards.std(dim=1, correction=0).mean(), atol=1e-6)
    assert_close(last["reward/roundness_spread"], rewards.std(unbiased=False), atol=1e-6)
    assert_close(last["rollout/length_tokens"], scored.rollouts.mask.sum() / len(rewards), atol=1e-6)
    prompts = scored.batch.prompts.attention_mask.sum(dim=1).tolist()
    lengths = scored.rollouts.lengths_tokens.view(2, 4).tolist()
    read, written = sum(prompts), sum(map(sum, lengths))
    # Rollout, reference and policy; a completion's last token is not read where the prompt is shared.
    assert_close(last["floor/tokens"], 3 * (read + written - 8), atol=1e-4)
    assert_close(last["floor/tokens_repeated"], 3 * (4 * read + written) - 8, atol=1e-4)
    assert 1 < last["floor/utilisation_repeated"] / last["floor/utilisation"] < 4
    assert 0 < last["floor/update_utilisation"] < 1 and 1 < last["grpo/entropy"] < 7
    assert last["rollout/parse_failures"] == 1.0 and last["rollout/equal_groups"] == 0.0
    assert [last[f"rollout/decoding_{way}"] for way in ("plain", "lean", "fixed", "graphs")] == [0.0, 1.0, 0.0, 0.0]
    assert_close(last["rollout/truncated"], scored.rollouts.truncated.float().mean())


def test_groups_of_equal_rewards_are_counted_and_teach_nothing(
    models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path
) -> None:
    adapted, watch = stirred(adapted_copy(models["qwen3_vl"])), Watch()
    rewards = WeightedSum({"format": (well_formed, 1.0)})  # noise is never well formed
    module = grpo_module(adapted, GRPOSettings(max_rollouts=1, group_size=4), rewards, grpo(beta=0.0))
    train(module, data_of(world_shards, adapted), tmp_path, 1, callbacks=[watch])
    assert [share for _, share in curves_of(tmp_path)["rollout/equal_groups"]] == [1.0]
    assert watch.gradients[0].abs().max() == 0


def test_ppo_trains_a_value_head_on_the_policy(
    models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path
) -> None:
    adapted = adapted_copy(models["qwen3_vl"])
    settings = GRPOSettings(max_rollouts=12, group_size=4, updates_per_rollout=2, micro_batch_prompts=1)
    module = grpo_module(adapted, settings, objective=ppo(beta=0.0))
    assert module.value_head.weight.abs().max() == 0
    before = parameters_of(module)
    train(module, data_of(world_shards, adapted, batch_size=4), tmp_path, 24)
    (collected,) = module.last_collected
    portion = Portion(collected, slice(0, 1))
    with torch.no_grad():
        expected = module.values(module.policy_states(portion), portion.rollouts.mask)
    mean = collected.rewards.mean()
    held = expected[portion.rollouts.mask]
    assert 0.3 * mean < held.mean() < 1.7 * mean, "it has learned what a completion earns"
    assert (parameters_of(module) - before).abs().max() > 1e-3


def test_ppo_credits_are_those_of_a_naive_loop(models: dict[str, VideoLanguageModel], world_samples: Samples) -> None:
    module, collected = scored_batch(models["qwen3_vl"], world_samples[:2], Lora(rank=4))
    critic = Critic(gae_lambda=0.5)
    module.objective = ppo(beta=0.0, critic=critic)
    module.value_head = torch.nn.Linear(module.adapted.model.width, 1)
    portions = module.portions([collected])
    assert len(portions) == 2
    values = [module.values(module.policy_states(portion), portion.rollouts.mask).detach() for portion in portions]
    raw, masks = [], []
    for portion, value in zip(portions, values, strict=True):
        mask = portion.rollouts.mask
        for row, earned in enumerate(portion.rewards.flatten()):
            length, carried, found = int(mask[row].sum()), 0.0, []
            for token in reversed(range(length)):
                following = 0.0 if token + 1 == length else value[row, token + 1].item()
                surprise = (token + 1 == length) * earned.item() + following - value[row, token].item()
                carried = surprise + 0.5 * carried
                found.append(carried)
            raw.append(found[::-1])
        masks.append(mask)
    flat = [advantage for row in raw for advantage in row]
    mean, deviation = statistics.fmean(flat), statistics.pstdev(flat)
    ours = torch.cat([credit.advantages[mask] for credit, mask in zip(module.credits(portions), masks, strict=True)])
    assert_close(ours, [(advantage - mean) / (deviation + 1e-8) for advantage in flat], atol=1e-5)
    assert len(set(map(len, raw))) > 1, "the test needs completions of unequal length"


def test_a_critic_counts_in_full_precision(models: dict[str, VideoLanguageModel], world_samples: Samples) -> None:
    """Under bfloat16 arithmetic values keep their digits: returns of 2.311 and 2.313 stay two numbers."""
    module, collected = scored_batch(models["qwen3_vl"], world_samples[:2], Lora(rank=4))
    module.objective = ppo(beta=0.0)
    module.value_head = torch.nn.Linear(module.adapted.model.width, 1)
    torch.nn.init.constant_(module.value_head.bias, 2.31)
    torch.nn.init.zeros_(module.value_head.weight)
    rewards = 2.31 + 0.001 * torch.arange(2.0 * GROUP).view(2, GROUP)
    portions = module.portions([replace(collected, rewards=rewards)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        credits = module.credits(portions)
    for portion, credit in zip(portions, credits, strict=True):
        last = portion.rollouts.lengths_tokens - 1
        returns = credit.value_target.returns.gather(1, last[:, None])[:, 0]
        assert_close(returns, portion.rewards.flatten(), atol=1e-6)


def test_what_nothing_was_learned_from_is_logged_so(
    models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path
) -> None:
    adapted = adapted_copy(models["qwen3_vl"])
    settings = GRPOSettings(max_rollouts=1, group_size=1)
    module = grpo_module(adapted, settings, objective=ppo(beta=0.0))
    train(module, data_of(world_shards, adapted), tmp_path, 1, callbacks=[RolloutLog(tmp_path)])
    rows = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
    ((portion, credit),) = module.last_credited
    mask = portion.rollouts.mask
    for row, advantages, held in zip(rows, credit.advantages, mask, strict=True):
        assert_close(row["advantage"], advantages[held].mean(), atol=1e-6)
    settings = replace(settings, group_size=3, drops_equal_groups=True, max_refill_batches=0)
    equal = grpo_module(adapted, settings, WeightedSum({"format": (well_formed, 1.0)}))
    (tmp_path / "equal").mkdir()
    train(equal, data_of(world_shards, adapted), tmp_path / "equal", 1, callbacks=[RolloutLog(tmp_path / "equal")])
    rows = [json.loads(line) for line in (tmp_path / "equal" / "rollouts.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and {row["advantage"] for row in rows} == {None}


def test_groups_of_equal_rewards_are_replaced(
    models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path
) -> None:
    adapted, watch = adapted_copy(models["qwen3_vl"]), Watch()
    settings = GRPOSettings(max_rollouts=2, group_size=3, drops_equal_groups=True, micro_batch_prompts=1)

    @reward
    def of_some(answer: Answer, truth: Truth) -> float:
        """Every second question earns the same, whatever is answered."""
        return 0.0 if int(truth.id[-1]) % 2 else roundness.__wrapped__(answer, truth)

    module = grpo_module(adapted, settings, WeightedSum({"of_some": (of_some, 1.0)}))
    trainer = train(module, data_of(world_shards, adapted, batch_size=2), tmp_path, 2, callbacks=[watch])
    curves = curves_of(tmp_path)
    assert trainer.global_step == 2 and len(watch.seen) > 2
    assert len(curves["rollout/equal_groups"]) == len(watch.seen)
    assert {share for _, share in curves["rollout/equal_groups"]} == {0.0, 0.5}
    learned = module.portions(module.last_collected)
    assert sum(len(portion.batch) for portion in learned) == 2
    assert all(int(portion.batch.truths[0].id[-1]) % 2 == 0 for portion in learned)
    assert trainer.datamodule.num_done == len(watch.seen), "a restart does no batch twice and leaves none out"


def test_every_process_fills_its_own_gaps(
    models: dict[str, VideoLanguageModel], world_samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process has two groups to learn from where it wants one, the other none: both go on."""
    module, collected = scored_batch(models["qwen3_vl"], world_samples[:2], Lora(rank=4))
    module.settings = replace(module.settings, drops_equal_groups=True, max_refill_batches=3)
    equal = replace(collected, rewards=torch.ones(2, GROUP))
    collected = replace(collected, rewards=torch.arange(2.0 * GROUP).view(2, GROUP))
    missing: list[int] = []
    monkeypatch.setattr(type(module), "all_gather", lambda self, own: missing.append(int(own)) or own)
    for pending, wanted, more in (([collected], 1, False), ([equal], 1, True), ([equal, collected], 2, False)):
        module.pending = pending
        assert module.needs_more(wanted) is more
    assert missing == [0, 1, 0]
    (portion,) = module.portions([equal])
    assert not portion.teaches


def test_at_most_so_many_batches_replace_groups(
    models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path
) -> None:
    adapted, watch = adapted_copy(models["qwen3_vl"]), Watch()
    settings = GRPOSettings(max_rollouts=1, group_size=3, drops_equal_groups=True, max_refill_batches=2)
    module = grpo_module(adapted, settings, WeightedSum({"format": (well_formed, 1.0)}), grpo(beta=0.0))
    train(module, data_of(world_shards, adapted), tmp_path, 1, callbacks=[watch])
    assert len(watch.seen) == 3 and watch.gradients[0].abs().max() == 0


def test_a_stand_in_is_seen_in_no_figure(models: dict[str, VideoLanguageModel], world_samples: Samples) -> None:
    """Where a process has nothing to learn from, what goes through the model has no entropy, ratio or loss to tell."""
    module, collected = scored_batch(models["qwen3_vl"], world_samples[:2], Lora(rank=4))
    module.settings = replace(module.settings, drops_equal_groups=True)
    portions = module.portions([replace(collected, rewards=torch.ones(2, GROUP))])
    statistics, seen = module.accumulate_gradients(portions, module.credits(portions))
    assert statistics == [] and seen["entropy"] == 0.0
    assert gradients_of(module).abs().max() == 0
    told: dict[str, float] = {}
    module.log_dict = lambda values, **_: told.update(values)
    module.log = lambda *_, **__: None
    module.lr_schedulers = lambda: torch.optim.lr_scheduler.ConstantLR(torch.optim.SGD(module.parameters()))
    module.log_update(statistics, seen["entropy"], 0.0, 1.0)
    names = ("loss", "policy_loss", "kl", "clip_fraction", "ratio_mean", "entropy")
    assert [told[f"grpo/{name}"] for name in names] == [0.0] * 6


def test_portions_by_hand(models: dict[str, VideoLanguageModel], world_samples: Samples) -> None:
    _, collected = scored_batch(models["qwen3_vl"], world_samples[:4], Lora(rank=4))
    equal, other = [1.0] * GROUP, [0.0, 1.0, 2.0]
    mixed = replace(collected, rewards=torch.tensor([other, other, equal, other]))

    def kept(size: int | None, drop_equal: bool, most: int | None = None) -> list[tuple[int, int]]:
        found = portions_of([mixed, mixed], size, drop_equal, most)
        return [(portion.questions.start, portion.questions.stop) for portion in found]

    assert kept(None, False) == [(0, 4), (0, 4)]
    assert kept(3, False) == [(0, 3), (3, 4), (0, 3), (3, 4)]
    assert kept(None, True) == [(0, 2), (3, 4), (0, 2), (3, 4)]
    assert kept(1, True, most=4) == [(0, 1), (1, 2), (3, 4), (0, 1)]
    tokens = [mixed.tokens_of(question) for question in range(4)]
    for question, held in enumerate(tokens):
        prompt = int(mixed.batch.prompts.attention_mask[question].sum())
        lengths = mixed.rollouts.lengths_tokens[question * GROUP : (question + 1) * GROUP].tolist()
        assert held == prompt + sum(length - 1 for length in lengths)

    def packed(most_tokens: int) -> list[tuple[int, int]]:
        return [(p.questions.start, p.questions.stop) for p in portions_of([mixed], None, most_tokens=most_tokens)]

    assert packed(1) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert packed(sum(tokens[:2])) == [(0, 2), *packed(sum(tokens[:2]))[1:]]
    assert packed(sum(tokens[:3])) == [(0, 3), (3, 4)] and packed(sum(tokens)) == [(0, 4)]
