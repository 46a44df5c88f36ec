"""Supervised fine-tuning: its loss by hand, portions that add up, and that it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stvg_lightning.answers import id_span
from stvg_lightning.models.adapters import Lora
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.tubes import Sample
from tests.helpers import assert_close
from tests.small_models import plain_log_probs, preparation_of
from tests.small_trainings import (
    Watch,
    adapted_copy,
    curves_of,
    data_of,
    parameters_of,
    relative_difference,
    sft_module,
    stirred,
    train,
)

ADAPTED_TOWER = Lora(rank=4, alpha=8, vision_tower="adapted")


def test_the_loss_is_that_of_the_answers_tokens(
    model: VideoLanguageModel, world_shards: Path, world_samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    adapted, watch = adapted_copy(model), Watch()
    train(sft_module(adapted, 1), data_of(world_shards, adapted, batch_size=3), tmp_path, 1, callbacks=[watch])
    samples = {sample.truth.id: sample for sample in world_samples}
    tokenizer = model.encoder.processor.tokenizer
    log_likelihood, num_tokens = 0.0, 0
    for sample_id in watch.seen[0][2]:
        sample = samples[sample_id]
        gold = id_span.write(sample.truth, sample.thought)
        answer = torch.tensor([*tokenizer(gold)["input_ids"], model.end_token_id])
        assert tokenizer.decode(answer) == f"{gold}<|im_end|>"
        with torch.no_grad():
            log_likelihood += float(plain_log_probs(model, preparation_of(model)(sample).prompt, answer).sum())
        num_tokens += len(answer)
    curves = curves_of(tmp_path)
    assert_close(curves["sft/loss"][0][1], -log_likelihood / num_tokens, atol=1e-5)
    assert_close(curves["sft/gradient_norm"][0][1], watch.gradients[0].norm(), atol=1e-5)


@pytest.mark.parametrize("lora", [Lora(rank=4, alpha=8), ADAPTED_TOWER])
def test_portions_add_up_to_the_whole_batch(
    models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path, lora: Lora
) -> None:
    gradients = {}
    for size in (None, 1, 3):
        adapted, watch = stirred(adapted_copy(models["qwen3_vl"], lora)), Watch()
        data = data_of(world_shards, adapted, batch_size=8)
        train(sft_module(adapted, 1, size), data, tmp_path / str(size), 1, callbacks=[watch])
        gradients[size] = watch.gradients[0]
    for size in (1, 3):
        assert relative_difference(gradients[size], gradients[None]) < 1e-5
        assert_close(
            curves_of(tmp_path / str(size))["sft/loss"][0][1], curves_of(tmp_path / "None")["sft/loss"][0][1], atol=1e-5
        )


def test_gold_answers_become_likelier(
    models: dict[str, VideoLanguageModel], world_shards: Path, tmp_path: Path
) -> None:
    adapted = adapted_copy(models["qwen3_vl"])
    before = parameters_of(module := sft_module(adapted, 12))
    trainer = train(module, data_of(world_shards, adapted, batch_size=4), tmp_path, 12)
    losses = [value for _, value in curves_of(tmp_path)["sft/loss"]]
    rates = [value for _, value in curves_of(tmp_path)["sft/learning_rate"]]
    assert trainer.global_step == 12 and len(losses) == 12
    assert losses[-1] < losses[0] - 0.3
    assert rates == pytest.approx([1e-3 * (1 - step / 12) for step in range(1, 13)])
    assert (parameters_of(module) - before).abs().max() > 1e-3
