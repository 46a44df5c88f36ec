"""Checkpoints: a training that is killed and goes on equals one that is not, to the parameter and the sample."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stvg_lightning.data.shards import WriteOptions, write_shards
from stvg_lightning.models.adapters import Lora, add_adapter, load_trained, save_adapted
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.modules.callbacks.rollout_log import RolloutLog
from stvg_lightning.modules.grpo import GRPO
from stvg_lightning.modules.grpo_settings import GRPOSettings
from stvg_lightning.modules.optimization import NonFiniteLoss
from stvg_lightning.modules.sft import SFT
from stvg_lightning.modules.spatial import JointGrounding, JointSettings
from stvg_lightning.modules.trainer import Machine
from stvg_lightning.objectives import Objective, ppo
from stvg_lightning.objectives.aggregation import sequence_mean_token_mean
from stvg_lightning.rewards import RewardError, reward
from stvg_lightning.tubes import Sample
from tests.helpers import assert_close
from tests.small_trainings import (
    KillBefore,
    Killed,
    Watch,
    adapted_copy,
    curves_of,
    data_of,
    grpo_module,
    joint_module,
    parameters_of,
    rewards_of,
    sft_module,
    stirred,
    timed_data_of,
    train,
)

STEPS = 6


def module_of(kind: str, model: VideoLanguageModel, seed: int) -> SFT | GRPO | JointGrounding:
    adapted = adapted_copy(model, seed=seed)
    if kind == "joint":
        module = joint_module(adapted, JointSettings(STEPS, largest_shift_frames=8))
        for layer in module.spatial.modules():  # as in a detector of full size, whose dropout draws at every step
            if isinstance(layer, torch.nn.MultiheadAttention):
                layer.dropout = 0.2
        module.spatial.enhancement.train()
        return module
    if kind == "sft":
        return sft_module(adapted, STEPS)
    updates = 2 if kind == "grpo, two updates" else 1
    objective = ppo(beta=0.0) if kind == "ppo" else None
    return grpo_module(adapted, GRPOSettings(STEPS // updates, 3, updates), objective=objective)


def run(
    module: SFT | GRPO | JointGrounding,
    shards: Path,
    folder: Path,
    every: int,
    num_workers: int,
    batch_size: int,
    kill_before: int = -1,
) -> Watch:
    """Train for six steps, or until the batch before which the process is killed."""
    watch = Watch()
    callbacks = [watch, KillBefore(kill_before)]
    if isinstance(module, GRPO):
        callbacks.append(RolloutLog(folder, show_every_steps=5))
    make_data = timed_data_of if isinstance(module, JointGrounding) else data_of
    data = make_data(shards, module.adapted, batch_size, num_workers)
    train(module, data, folder, STEPS, every, callbacks)
    return watch


@pytest.mark.parametrize(
    ("kind", "every", "kill_before", "num_workers"),
    [
        ("sft", 3, 4, 0),  # a step after the checkpoint is done again; the epoch ends at step 4
        ("sft", 5, 5, 1),  # in the second epoch, batches prepared by a worker
        ("grpo", 3, 5, 0),
        ("grpo", 4, 4, 1),  # exactly between two epochs
        ("grpo, two updates", 2, 2, 0),
        ("ppo", 3, 4, 0),
        ("joint", 3, 4, 0),
    ],
)
def test_a_killed_training_goes_on_as_if_nothing_had_been(
    models: dict[str, VideoLanguageModel],
    world_shards: Path,
    tmp_path: Path,
    kind: str,
    every: int,
    kill_before: int,
    num_workers: int,
) -> None:
    straight = module_of(kind, models["qwen3_vl"], seed=0)
    expected = run(straight, world_shards, tmp_path / "straight", 1000, 0, 2)
    interrupted = module_of(kind, models["qwen3_vl"], seed=0)
    with pytest.raises(Killed):
        run(interrupted, world_shards, tmp_path / "killed", every, num_workers, 2, kill_before)
    resumed = module_of(kind, models["qwen3_vl"], seed=99)  # another process: its first weights do not matter
    seen = run(resumed, world_shards, tmp_path / "killed", every, num_workers, 2)
    updates = 2 if kind == "grpo, two updates" else 1
    done = kill_before * updates // every * every // updates
    assert seen.seen == expected.seen[done:], "the same samples in the same batches"
    assert seen.seen[0][0] == done
    assert_close(parameters_of(resumed), parameters_of(straight), atol=1e-6)
    assert (parameters_of(straight) - parameters_of(interrupted)).abs().max() > 1e-5
    if kind not in ("sft", "joint"):
        files = (tmp_path / name / "rollouts.jsonl" for name in ("straight", "killed"))
        rows, again = ([json.loads(line) for line in file.read_text().splitlines()] for file in files)
        assert [(row["step"], row["id"], row["text"]) for row in again] == [
            (row["step"], row["id"], row["text"]) for row in rows
        ]


def test_in_bfloat16_upon_an_earlier_adapter_too(random_model_folder: Path, world_shards: Path, tmp_path: Path) -> None:
    """As at full size: bfloat16 weights and arithmetic, the cold start's adapter beside them, recomputation."""
    base, cold_start, lora = str(random_model_folder), tmp_path / "sft", Lora(rank=4, alpha=8)
    save_adapted(stirred(add_adapter(load_trained(base, "bfloat16"), lora)), cold_start, base)
    machine = Machine(accelerator="cpu", devices=1, precision="bf16-mixed")

    def trained(folder: Path, seed: int, kill_before: int) -> GRPO:
        torch.manual_seed(seed)
        adapted = add_adapter(load_trained(str(cold_start), "bfloat16"), lora)
        adapted.recompute_activations()
        module, data = grpo_module(adapted, GRPOSettings(4, 3)), data_of(world_shards, adapted)
        with pytest.raises(Killed) if kill_before >= 0 else nullcontext():
            train(module, data, folder, 4, 2, [KillBefore(kill_before)], machine)
        return module

    straight = trained(tmp_path / "straight", 0, -1)
    trained(tmp_path / "killed", 0, 3)
    resumed = trained(tmp_path / "killed", 99, -1)
    assert_close(parameters_of(resumed), parameters_of(straight), atol=1e-6)
    assert {p.dtype for p in straight.parameters() if p.requires_grad} == {torch.float32}
    gaps = [gap for _, gap in curves_of(tmp_path / "straight")["rollout/log_prob_gap"]]
    # Eight bits of mantissa: log-probabilities of about -7 agree to a few hundredths.
    assert len(gaps) == 4 and 1e-6 < max(gaps) < 0.2


def test_every_sample_comes_once_an_epoch_after_a_restart_too(
    models: dict[str, VideoLanguageModel], world_samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    # Seven samples in batches of two: the last batch of an epoch is short.
    write_shards(world_samples[:7], tmp_path / "seven", "world", "CC0", WriteOptions(check_videos=False))
    module = module_of("sft", models["qwen3_vl"], seed=0)
    with pytest.raises(Killed):
        first = Watch()
        data = data_of(tmp_path / "seven", module.adapted)
        train(module, data, tmp_path / "run", STEPS, 2, [first, KillBefore(2)])
    module = module_of("sft", models["qwen3_vl"], seed=0)
    second = run(module, tmp_path / "seven", tmp_path / "run", 2, 1, 2)
    batches = first.seen + second.seen
    assert [len(ids) for _, _, ids in batches] == [2, 2, 2, 1, 2, 2]
    assert [(number, epoch) for number, epoch, _ in batches] == [(n, n // 4) for n in range(6)]
    assert {id_ for _, epoch, ids in batches if epoch == 0 for id_ in ids} == {
        sample.truth.id for sample in world_samples[:7]
    }


def test_a_checkpoint_holds_only_what_is_trained(
    models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path
) -> None:
    module = module_of("grpo", models["qwen3_vl"], seed=0)
    run(module, world_shards, tmp_path, 6, 0, 2)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert checkpoint["state_dict"] and all("lora_" in name for name in checkpoint["state_dict"])
    assert checkpoint["GroundingData"] == {"num_done": 6, "epoch": 1, "epoch_start": 4}
    assert checkpoint["global_step"] == 6
    num_trained = len(parameters_of(module))
    assert (tmp_path / "last.ckpt").stat().st_size < 5 * 4 * num_trained


def test_a_finished_training_does_nothing_more(
    models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path
) -> None:
    run(module_of("sft", models["qwen3_vl"], seed=0), world_shards, tmp_path, 6, 0, 2)
    before = (tmp_path / "last.ckpt").read_bytes()
    module = module_of("sft", models["qwen3_vl"], seed=99)
    assert run(module, world_shards, tmp_path, 6, 0, 2).seen == []
    assert (tmp_path / "last.ckpt").read_bytes() == before


def broken_from(call: int) -> Objective:
    """An objective whose loss is not a number from one call on."""
    calls = []

    def aggregation(values: Tensor, mask: Tensor, totals: object) -> Tensor:
        calls.append(None)
        return sequence_mean_token_mean(values, mask, totals) * (float("nan") if len(calls) >= call else 1.0)

    return Objective(aggregation=aggregation, beta=0.0)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(
    models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path
) -> None:
    adapted = adapted_copy(models["qwen3_vl"])
    # Without a KL the objective aggregates once a step.
    module = grpo_module(adapted, GRPOSettings(STEPS, 3), objective=broken_from(call=3))
    with pytest.raises(NonFiniteLoss, match=r"the loss at step 2 is nan.*last checkpoint is kept"):
        train(module, data_of(world_shards, adapted), tmp_path, STEPS, 1)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=False)
    assert checkpoint["global_step"] == 2
    assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values())
    assert torch.isfinite(parameters_of(module)).all()
    resumed = grpo_module(adapted_copy(models["qwen3_vl"]), GRPOSettings(STEPS, 3), objective=broken_from(call=999))
    watch = Watch()
    train(resumed, data_of(world_shards, resumed.adapted), tmp_path, 4, 1, [watch])
    assert [number for number, _, _ in watch.seen] == [2, 3]


def test_a_gradient_that_is_no_number_stops_too(
    models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path
) -> None:
    def aggregation(values: Tensor, mask: Tensor, totals: object) -> Tensor:
        return (values * mask).sum().mul(0.0).sqrt()  # 0, with an infinite slope

    adapted = adapted_copy(models["qwen3_vl"])
    module = grpo_module(adapted, GRPOSettings(2, 3), objective=Objective(aggregation=aggregation, beta=0.0))
    before = parameters_of(module).clone()
    with pytest.raises(NonFiniteLoss, match="step 0 is nan"):
        train(module, data_of(world_shards, adapted), tmp_path, 2, 1)
    assert torch.equal(parameters_of(module), before)


def test_a_reward_that_raises_is_named_with_its_sample(
    models: dict[str, VideoLanguageModel], world_shards: Path, world_samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    wanted = world_samples[5].truth.id

    @reward
    def picky(answer: object, truth: object) -> float:
        if truth.id == wanted:
            raise KeyError("colour")
        return 0.5

    adapted = adapted_copy(models["qwen3_vl"])
    module = grpo_module(adapted, GRPOSettings(STEPS, 3), rewards_of(picky=picky))
    with pytest.raises(RewardError, match=f"'picky' on sample '{wanted}' raised KeyError: 'colour'"):
        train(module, data_of(world_shards, adapted), tmp_path, STEPS, 1)


class Counting:
    """A term that remembers how often it was asked."""

    low, high = 0.0, 1.0

    def __init__(self) -> None:
        self.num_answers, self.num_setups = 0, 0

    def setup(self) -> None:
        self.num_setups += 1
        self.num_answers = 0  # a state that comes back from a checkpoint must come after this

    def __call__(self, answers: object, truth: object, context: object) -> list[float]:
        self.num_answers += len(answers)
        self.context = context
        return [0.0] * len(answers)

    def state_dict(self) -> dict[str, int]:
        return {"num_answers": self.num_answers}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.num_answers = state["num_answers"]


def test_a_reward_keeps_its_state_over_a_restart(
    models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path
) -> None:
    terms = []
    for steps in (2, 4):
        terms.append(term := Counting())
        module = grpo_module(adapted_copy(models["qwen3_vl"]), GRPOSettings(4, 3), rewards_of(counting=term))
        train(module, data_of(world_shards, module.adapted), tmp_path, steps, 2)
    assert [term.num_answers for term in terms] == [2 * 2 * 3, 4 * 2 * 3]
    assert [term.num_setups for term in terms] == [1, 1]
    context = terms[1].context
    assert context.step == 3 and context.progress == pytest.approx(3 / 4)
    assert len(context.completion_tokens) == 3 and context.marked_seconds


def test_curves_of_all_starts_are_kept(
    models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path
) -> None:
    for steps in (2, 4):
        module = module_of("sft", models["qwen3_vl"], 0)
        train(module, data_of(world_shards, module.adapted), tmp_path, steps, 2)
    assert [len(curves_of(tmp_path, start)["sft/loss"]) for start in (1, 2)] == [2, 2]
