"""A group in one row against the prompt repeated for each completion: values, gradients, and what sees what."""

from __future__ import annotations

import pytest
import torch

from stvg_lightning.models.adapters import Lora, add_adapter
from stvg_lightning.models.forward import Completions, completion_log_probs, encode_videos
from stvg_lightning.models.group_forward import group_attention_mask, group_log_probs
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.tubes import Sample
from tests.helpers import assert_close
from tests.small_models import batch_of, copied, prompts_of, random_completions


def test_values_and_gradients_equal_the_repeated_form(
    model: VideoLanguageModel, world_samples: tuple[Sample, ...]
) -> None:
    adapted = add_adapter(copied(model), Lora(rank=4))
    for name, parameter in adapted.adapter.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    network = adapted.model.network
    batch = batch_of(model, prompts_of(model, world_samples[:2]))
    with torch.no_grad():
        features = encode_videos(network, batch)
    mask = torch.arange(7) < torch.tensor([7, 3, 5, 1, 4, 7])[:, None]
    completions = Completions(random_completions(6, 7), mask)
    weights = torch.randn(6, 7, generator=torch.Generator().manual_seed(0))
    values, gradients = [], []
    for log_probs_of in (completion_log_probs, group_log_probs):
        network.zero_grad()
        log_probs = log_probs_of(network, batch, completions, features, 0.8)
        (log_probs * weights).sum().backward()
        values.append(log_probs.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in adapted.adapter.parameters() if p.grad is not None]))
    assert_close(values[1], values[0], atol=1e-5)
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 1e-5


def test_the_mask_by_hand() -> None:
    prompt_mask = torch.tensor([[False, True, True]])
    found = group_attention_mask(prompt_mask, group_size=2, num_tokens=2)[0].int().tolist()
    assert found == [
        [1, 0, 0, 0, 0, 0, 0],  # padding sees itself alone
        [0, 1, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0],  # first completion
        [0, 1, 1, 1, 1, 0, 0],
        [0, 1, 1, 0, 0, 1, 0],  # second completion: the first is hidden
        [0, 1, 1, 0, 0, 1, 1],
    ]


@pytest.mark.parametrize("changed", [0, 1])
def test_a_completion_does_not_see_its_neighbour(
    model: VideoLanguageModel, world_samples: tuple[Sample, ...], changed: int
) -> None:
    batch = batch_of(model, prompts_of(model, world_samples[:1]))
    token_ids = random_completions(2, 5)
    other_ids = token_ids.clone()
    other_ids[changed] = random_completions(1, 5, seed=9)[0]
    mask = torch.ones(2, 5, dtype=torch.bool)
    with torch.no_grad():
        features = encode_videos(model.network, batch)
        before = group_log_probs(model.network, batch, Completions(token_ids, mask), features)
        after = group_log_probs(model.network, batch, Completions(other_ids, mask), features)
    assert_close(after[1 - changed], before[1 - changed])
    assert float((after[changed] - before[changed]).abs().max()) > 0.1
