"""SARL-STG's first stage: its loss, what the module is fed, what learns; and the frozen discriminator of the second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stvg_lightning.answers import timesteps
from stvg_lightning.data.video import decode_frames
from stvg_lightning.models.detection_loss import all_detections
from stvg_lightning.models.forward import encode_videos
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.models.spatial_grounding import (
    Candidates,
    DetectorLora,
    FrameReading,
    SpatialGrounder,
    adapt_detector,
)
from stvg_lightning.models.spatial_loss import spatial_loss
from stvg_lightning.models.spatial_tracks import track_order
from stvg_lightning.modules.batches import GroundingBatch, make_batch
from stvg_lightning.modules.collecting import Collector
from stvg_lightning.modules.datamodule import GroundingData, Loading
from stvg_lightning.modules.grpo import GRPO
from stvg_lightning.modules.grpo_settings import GRPOSettings
from stvg_lightning.modules.spatial import JointSettings, TrueClip
from stvg_lightning.modules.trainer import Machine
from stvg_lightning.objectives import grpo
from stvg_lightning.rewards import DynamicSpatioTemporal, WeightedSum
from stvg_lightning.rollouts.discriminator import SpatialDiscriminator
from stvg_lightning.rollouts.preparation import Preparation
from stvg_lightning.rollouts.rollouts import Sampling
from stvg_lightning.tubes import Sample, Truth
from tests.helpers import assert_close
from tests.small_detectors import random_grounder
from tests.small_trainings import (
    CLIPS,
    UNSHORTENED,
    Watch,
    adapted_copy,
    curves_of,
    joint_module,
    parameters_of,
    relative_difference,
    rewards_of,
    stirred,
    timed_preparation,
    train,
)

TRUE_TIME = JointSettings(1, clip_source="exact")


def joint(
    model: VideoLanguageModel, settings: JointSettings = TRUE_TIME, grounder: SpatialGrounder | None = None
) -> Any:
    return joint_module(stirred(adapted_copy(model)), settings, grounder)


def data(model: VideoLanguageModel, shards: Path, batch_size: int = 4) -> GroundingData:
    return GroundingData(shards, timed_preparation(model), Loading(batch_size, num_workers=0, shuffle=False))


def batch_of(model: VideoLanguageModel, samples: tuple[Sample, ...]) -> GroundingBatch:
    return make_batch([timed_preparation(model)(sample) for sample in samples], model.encoder.processor.tokenizer)


@pytest.fixture(scope="module")
def model(models: dict[str, VideoLanguageModel]) -> VideoLanguageModel:
    return models["qwen3_vl"]


def plain_layers(module: Any, pixels: Tensor, query: str, video_tokens: Tensor) -> list[Candidates]:
    """What each layer of the decoder finds, in tracks, by the code that trains detectors from nothing."""
    phrase = module.grounder.phrase(query)
    ids = phrase.input_ids.expand(len(pixels), -1)
    with module.spatial._fusing(video_tokens):
        _, *layers = all_detections(module.spatial.detector, pixels, ids, torch.ones_like(ids, dtype=torch.bool))
    found = []
    for layer in layers:
        logits = layer.logits.max(dim=-1).values
        order = track_order(logits.sigmoid(), layer.boxes_cxcywh)
        boxes = torch.take_along_dim(layer.boxes_cxcywh, order[..., None], dim=1)
        found.append(Candidates(torch.take_along_dim(logits, order, dim=1), boxes))
    return found


def test_the_loss_is_the_papers_sum(
    model: VideoLanguageModel, world_shards: Path, world_samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    module = joint(model)
    batch = batch_of(model, world_samples[:4])
    with torch.no_grad():
        features = encode_videos(module.adapted.model.network, batch.prompts)
        text = module.negative_log_likelihood(batch, features) / batch.gold_answers.mask.sum()
        l1 = giou = focal = earlier = torch.zeros(())
        for sample, tokens in zip(world_samples[:4], features.tokens, strict=True):
            truth = sample.truth
            frames = CLIPS.frames_of(truth.span_frames, truth.fps, truth.num_frames)
            pixels = module.grounder.pixels(torch.from_numpy(decode_frames(sample.video, frames, truth.fps).frames))
            (states,) = module.spatial.frame_states(pixels, module.grounder.phrase(truth.query), tokens)
            found = module.spatial.candidates(states, [range(len(frames))], [frame / truth.fps for frame in frames])[0]
            true = torch.tensor([truth.boxes_xyxy[frame] for frame in frames]) / 128
            loss = spatial_loss(found, true, torch.ones(len(frames), dtype=torch.bool))
            l1, giou, focal = l1 + loss.l1 / 4, giou + loss.giou / 4, focal + loss.focal / 4
            for layer in plain_layers(module, pixels, truth.query, tokens)[:-1]:
                loss = spatial_loss(layer, true, torch.ones(len(frames), dtype=torch.bool))
                earlier = earlier + (2 * (loss.l1 + loss.giou) + loss.focal) / 4
    train(module, data(model, world_shards), tmp_path, 1)
    curves = {name: curve[0][1] for name, curve in curves_of(tmp_path).items() if name.startswith("joint/")}
    expected = {"text": text, "l1": l1, "giou": giou, "focal": focal, "earlier_layers": earlier}
    expected["loss"] = 5 * text + 2 * (l1 + giou) + focal + earlier
    assert earlier > 0 and curves["joint/questions_with_clip"] == 1
    for name, value in expected.items():
        assert_close(curves[f"joint/{name}"], value, rtol=1e-5)


def test_the_last_layer_alone(model: VideoLanguageModel, world_shards: Path, tmp_path: Path) -> None:
    module = joint(model, replace(TRUE_TIME, every_layer=False))
    train(module, data(model, world_shards), tmp_path, 1)
    curves = {name: curve[0][1] for name, curve in curves_of(tmp_path).items()}
    parts = [curves[f"joint/{name}"] for name in ("text", "l1", "giou", "focal")]
    assert curves["joint/earlier_layers"] == 0
    assert_close(curves["joint/loss"], sum(weight * part for weight, part in zip((5, 2, 2, 1), parts)), rtol=1e-5)


def test_portions_add_up_to_the_whole_batch(model: VideoLanguageModel, world_shards: Path, tmp_path: Path) -> None:
    gradients = {}
    for size in (None, 1, 3):
        module, watch = joint(model, replace(TRUE_TIME, micro_batch_size=size)), Watch()
        train(module, data(model, world_shards, 8), tmp_path / str(size), 1, callbacks=[watch])
        gradients[size] = watch.gradients[0]
    for size in (1, 3):
        assert relative_difference(gradients[size], gradients[None]) < 1e-5


def test_in_bfloat16_arithmetic_too(model: VideoLanguageModel, world_shards: Path, tmp_path: Path) -> None:
    """As at full size: weights of float32, arithmetic of bfloat16, frames in parts that are computed again."""
    reading = FrameReading(frames_at_once=2, recompute_activations=True)
    torch.manual_seed(1)
    plain = replace(random_grounder(model.width, stirred=0.05), reading=reading)
    module = joint(model, TRUE_TIME, adapt_detector(plain, DetectorLora(rank=4, alpha=8)))
    machine = Machine(accelerator="cpu", devices=1, precision="bf16-mixed")
    train(module, data(model, world_shards), tmp_path / "half", 1, machine=machine)
    train(joint(model), data(model, world_shards), tmp_path / "full", 1)
    half, full = ({name: curve[0][1] for name, curve in curves_of(tmp_path / n).items()} for n in ("half", "full"))
    for name in ("text", "l1", "giou", "focal", "earlier_layers"):
        assert half[f"joint/{name}"] == pytest.approx(full[f"joint/{name}"], rel=0.1), name
        assert half[f"joint/{name}"] != full[f"joint/{name}"], "the arithmetic is another"


def test_both_models_learn_and_what_is_frozen_stays(
    model: VideoLanguageModel, world_shards: Path, tmp_path: Path
) -> None:
    module = joint(model, JointSettings(8, largest_shift_frames=8))
    frozen = {name: p.clone() for name, p in module.named_parameters() if not p.requires_grad}
    before = parameters_of(module)
    train(module, data(model, world_shards, 8), tmp_path, 8)
    curves = curves_of(tmp_path)
    for name in ("text", "l1", "giou", "focal"):
        values = [value for _, value in curves[f"joint/{name}"]]
        assert values[-1] < values[0], name
    assert (parameters_of(module) - before).abs().max() > 1e-3
    assert all(torch.equal(p, frozen[name]) for name, p in module.named_parameters() if not p.requires_grad)


TRUTH = Truth(
    "v", "q", 8.0, 40, 100, 50, span_frames=(8, 16), boxes_xyxy={f: (10.0, 10.0, 30.0, 20.0) for f in range(6, 14)}
)  # fmt: skip


def test_boxes_count_inside_the_true_time_alone() -> None:
    clip = TrueClip.of(TRUTH, (6, 8, 12, 14))
    assert clip.has_box.tolist() == [False, True, True, False]
    assert_close(clip.boxes_xyxy[1], [0.1, 0.2, 0.3, 0.4])


def test_the_module_is_fed_moved_true_or_predicted_times(
    model: VideoLanguageModel, world_samples: tuple[Sample, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batch_of(model, world_samples[:4])
    true = [truth.span_frames for truth in batch.truths]
    module = joint(model)
    with torch.no_grad():
        features = encode_videos(module.adapted.model.network, batch.prompts)
    assert list(module._spans(batch, features)) == true
    module.settings = JointSettings(1, clip_source="shifted", largest_shift_frames=8)
    moved = list(module._spans(batch, features))
    assert moved == list(module._spans(batch, features)) != true, "the same at each start of a training"
    assert moved != list(module._spans(replace(batch, epoch=1), features))
    for (start, end), (moved_start, moved_end), truth in zip(true, moved, batch.truths, strict=True):
        assert moved_end - moved_start == end - start and abs(moved_start - start) <= 8
        assert 0 <= moved_start < moved_end <= truth.num_frames
    module.settings = JointSettings(1, clip_source="predicted", max_new_tokens=4)
    assert list(module._spans(batch, features)) == [(0, 0)] * 4, "noise tells no time"
    assert module.true_clips(batch, features) == {}
    time = timesteps.read("<think>.</think><answer>1.00 to 2.00</answer>")
    monkeypatch.setattr(Preparation, "read", lambda self, text, truth: time)
    assert list(module._spans(batch, features)) == [(8, 16)] * 4


def test_a_batch_without_any_clip_still_teaches_times(
    model: VideoLanguageModel, world_shards: Path, tmp_path: Path
) -> None:
    module = joint(model, JointSettings(1, clip_source="predicted", max_new_tokens=2))
    train(module, data(model, world_shards), tmp_path, 1)
    curves = {name: curve[0][1] for name, curve in curves_of(tmp_path).items()}
    assert curves["joint/l1"] == curves["joint/giou"] == curves["joint/focal"] == 0 < curves["joint/text"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"largest_shift_frames": -1}, "at least 0"), ({"max_steps": 0}, "1")],
)
def test_wrong_settings(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JointSettings(**{"max_steps": 1, **wrong})


def always_timely(self: Preparation, text: str, truth: Truth) -> Any:
    """Noise read as times that depend on it, so that a random model earns something of place."""
    start = sum(map(ord, text)) % 3 / 2
    return timesteps.read(f"<think>.</think><answer>{start:.2f} to {start + 2:.2f}</answer>")


def test_the_discriminator_of_stage_2_is_frozen_and_its_boxes_are_rewarded(
    model: VideoLanguageModel, world_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Preparation, "read", always_timely)
    adapted, watch = stirred(adapted_copy(model)), Watch()
    width = model.network.get_input_embeddings().embedding_dim
    discriminator = SpatialDiscriminator(random_grounder(width, stirred=0.1), CLIPS)
    of_discriminator = {name: p.clone() for name, p in discriminator.grounder.module.named_parameters()}
    frozen = {n: p.clone() for n, p in adapted.model.network.named_parameters() if not p.requires_grad}
    rewards = WeightedSum({"spatio_temporal": (DynamicSpatioTemporal(), 2.0), **rewards_of().terms})
    collector = Collector(adapted, timed_preparation(model), rewards, Sampling(6), 4, 0, discriminator)
    module = GRPO(adapted, collector, grpo(), GRPOSettings(2, 4), UNSHORTENED)
    before = parameters_of(module)
    train(module, data(model, world_shards), tmp_path, 2, callbacks=[watch])
    assert (parameters_of(module) - before).abs().max() > 1e-5 and watch.gradients[0].abs().max() > 0
    for name, parameter in discriminator.grounder.module.named_parameters():
        assert parameter.grad is None and torch.equal(parameter, of_discriminator[name])
    for name, parameter in adapted.model.network.named_parameters():
        if name in frozen:  # the reference policy and the tower
            assert parameter.grad is None and torch.equal(parameter, frozen[name])
    curves = curves_of(tmp_path)
    for name in ("seconds/discriminator", "discriminator/seconds_per_rollout", "discriminator/new_share"):
        assert all(value > 0 for _, value in curves[name]), name
    assert len(curves["discriminator/memory_mib"]) == 2


def test_rewards_see_the_discriminators_boxes(
    model: VideoLanguageModel, world_samples: tuple[Sample, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Preparation, "read", always_timely)
    adapted = adapted_copy(model)
    width = model.network.get_input_embeddings().embedding_dim
    discriminator = SpatialDiscriminator(random_grounder(width, stirred=0.1), CLIPS)
    seen = []

    def spy(answers: Any, truth: Any, context: Any) -> list[float]:
        seen.append((truth.id, answers, context.discriminator_boxes))
        return [0.0] * len(answers)

    spy.low, spy.high = 0.0, 1.0  # type: ignore[attr-defined]
    spying = WeightedSum({"spy": (spy, 1.0)})
    batch = batch_of(model, world_samples[:2])
    collected = Collector(adapted, timed_preparation(model), spying, Sampling(3), 2, 0, discriminator).collect(
        batch, 0, 0.0
    )
    assert collected.seconds["discriminator"] > 0 and collected.cost["discriminator/seconds_per_rollout"] > 0
    for index, (id_, answers, boxes) in enumerate(seen):
        truth = batch.truths[index]
        assert id_ == truth.id
        assert boxes == discriminator.tubes(answers, truth, batch.videos[index], collected.features.tokens[index])
        assert all(boxes)
