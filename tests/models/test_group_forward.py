"""Groups in one row against each prompt repeated for each completion: values, loss, every gradient, what sees what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

from stvg_lightning.models import row_attention
from stvg_lightning.models.adapters import Lora, add_adapter
from stvg_lightning.models.forward import Completions, completion_log_probs, encode_videos
from stvg_lightning.models.group_forward import (
    PromptPart,
    group_log_probs,
    group_states,
    group_states_in_parts,
    statistics_of_states,
)
from stvg_lightning.models.group_rows import GroupSpan, RowLayout, group_row
from stvg_lightning.models.loading import VideoLanguageModel
from stvg_lightning.models.prompts import PromptBatch
from stvg_lightning.models.row_attention import attend_by_parts, blocks_of
from stvg_lightning.objectives import BatchTotals, grpo
from stvg_lightning.tubes import Sample
from tests.helpers import assert_close, needs_gpu
from tests.small_models import allowed_log_probs, batch_of, copied, plain_logits, prompts_of, random_completions

Samples = tuple[Sample, ...]
TEMPERATURE = 0.8
LENGTHS_TOKENS = [7, 3, 5, 1, 4, 7]
MASK = torch.arange(7) < torch.tensor(LENGTHS_TOKENS)[:, None]
COMPLETIONS = Completions(random_completions(6, 7), MASK)
LogProbs = Callable[..., Tensor]


def with_deepstack(model: VideoLanguageModel) -> VideoLanguageModel:
    """A copy whose tower's inner levels reach the language model: in a new model their weight is zero."""
    made = copied(model)
    torch.manual_seed(5)
    for merger in getattr(getattr(made.network.model, "visual", None), "deepstack_merger_list", ()):
        nn.init.normal_(merger.linear_fc2.weight, std=0.1)
    return made


def unequal_prompts(model: VideoLanguageModel, samples: Samples) -> PromptBatch:
    """Two prompts, the second shorter by five tokens, so that the batch is padded."""
    prompts = prompts_of(model, samples[:2])
    length = len(prompts[0].input_ids) - 5
    kept = torch.arange(len(prompts[1].input_ids)) < length  # of the text after the video
    shorter = replace(prompts[1], input_ids=prompts[1].input_ids[kept], position_ids=prompts[1].position_ids[:, kept])
    batch = batch_of(model, [prompts[0], shorter])
    assert not batch.attention_mask.all(), "the test needs padding"
    return batch


def trained_copy(model: VideoLanguageModel, form: str) -> tuple[nn.Module, bool]:
    """The network with what is trained of it, and whether its tower is."""
    made = with_deepstack(model)
    if form == "full":
        return made.network.requires_grad_(True).train(), True
    adapted = add_adapter(made, Lora(rank=4, vision_tower="adapted" if form == "lora_tower" else "frozen"))
    for name, parameter in adapted.adapter.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    return adapted.model.network, form == "lora_tower"


def gradients_of(network: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    return found


def loss_of(log_probs: Tensor, mask: Tensor = MASK, rows: slice = slice(0, 6)) -> Tensor:
    """GRPO's loss of some rows, in a batch of six: ratios, clipping and divergence act."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.3 * torch.randn(2, 6, 7, generator=generator)
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5, 2.0, -1.5])
    old, reference = ((log_probs.detach() + each[rows]) * mask[rows] for each in noise)
    totals = BatchTotals(6.0, float(mask.sum()), 7)
    return grpo(beta=0.04).loss(log_probs, old, reference, advantages[rows], mask[rows], totals)[0]


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor], share: float = 1e-5) -> None:
    """Each to a share of its own norm; where that is next to nothing, as of a key's bias, of a hundredth of all."""
    assert found.keys() == expected.keys() and len(found) > 10
    whole = torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    for name, gradient in expected.items():
        scale = max(gradient.norm(), 0.01 * whole)
        assert float((found[name] - gradient).norm() / scale) < share, name


@pytest.mark.parametrize("form", ["lora", "lora_tower", "full"])
@pytest.mark.parametrize("recomputed", [False, True])
def test_loss_and_every_gradient_equal_the_repeated_form(
    model: VideoLanguageModel, world_samples: Samples, form: str, recomputed: bool
) -> None:
    network, tower_is_trained = trained_copy(model, form)
    if recomputed:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    batch = unequal_prompts(model, world_samples)
    values, losses, gradients = [], [], []
    for log_probs_of in (completion_log_probs, group_log_probs):
        with torch.set_grad_enabled(tower_is_trained):
            features = encode_videos(network, batch)
        log_probs = log_probs_of(network, batch, COMPLETIONS, features, TEMPERATURE)
        loss = loss_of(log_probs)
        loss.backward()
        values.append(log_probs.detach())
        losses.append(loss.detach())
        gradients.append(gradients_of(network))
    assert_close(values[1], values[0], atol=1e-5)
    assert_close(losses[1], losses[0], rtol=1e-5, atol=0.0)
    assert_same_gradients(gradients[1], gradients[0])
    assert any(".visual." in name or ".vision_tower." in name for name in gradients[0]) is tower_is_trained


@pytest.mark.parametrize("form", ["lora", "full"])
@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("most_tokens", [1, 8])
def test_a_group_in_parts_equals_the_group_at_once(
    model: VideoLanguageModel, world_samples: Samples, form: str, recomputed: bool, most_tokens: int
) -> None:
    """The prompt is read once; what its parts leave at its keys and values goes through it at the end."""
    network, tower_is_trained = trained_copy(model, form)
    if recomputed:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    batch = batch_of(model, prompts_of(model, world_samples[:1]))
    read: list[int] = []
    network.model.language_model.register_forward_hook(
        lambda module, given, options, output: read.append(options["inputs_embeds"].shape[1]), with_kwargs=True
    )
    results = []
    for most in (None, most_tokens):
        read.clear()
        with torch.set_grad_enabled(tower_is_trained):
            features = encode_videos(network, batch)
        found, total = torch.zeros(6, 7), 0.0
        for part in group_states_in_parts(network, batch, COMPLETIONS, features, most):
            if isinstance(part, PromptPart):
                part.owed.backward()
                continue
            rows, states = part.rows, part.states
            completions = Completions(COMPLETIONS.token_ids[rows], MASK[rows])
            found[rows], _ = statistics_of_states(network, states, completions, TEMPERATURE)
            loss = loss_of(found[rows], rows=rows)
            loss.backward()
            total += float(loss.detach())
            found = found.detach()
        results.append((found, total, gradients_of(network), list(read)))
    (whole, loss, gradients, once), (parts, sum_of_losses, of_parts, several) = results
    assert len(once) == 1 and len(several) > 2
    assert sum(several) == sum(once), "no token is read twice"
    assert_close(parts, whole, atol=1e-5)
    assert_close(sum_of_losses, loss, rtol=1e-5, atol=1e-7)
    assert_same_gradients(of_parts, gradients)


def test_a_row_holds_each_token_once(model: VideoLanguageModel, world_samples: Samples) -> None:
    batch = unequal_prompts(model, world_samples)
    row = group_row(batch, COMPLETIONS)
    read = sum(length - 1 for length in LENGTHS_TOKENS)
    assert row.layout.num_tokens == row.token_ids.shape[1] == int(batch.attention_mask.sum()) + read
    second = row.layout.spans[1]
    assert row.token_ids[0, second.prompt].tolist() == batch.input_ids[1, batch.attention_mask[1]].tolist()
    assert row.token_ids[0, second.completions].tolist() == [
        token for place in (4, 5) for token in COMPLETIONS.token_ids[place, : LENGTHS_TOKENS[place] - 1].tolist()
    ]
    after = batch.position_ids[:, 1, -1] + 1
    assert row.position_ids[:, 0, second.completions].tolist() == [
        [int(start) + step for length in (4, 7) for step in range(length - 1)] for start in after
    ]


def dense_mask(layout: RowLayout) -> Tensor:
    """Which token sees which, token by token."""
    rows: list[tuple[int, int]] = []
    for group, span in enumerate(layout.spans):
        for part, length in enumerate((span.prompt_tokens, *span.completion_tokens)):
            rows += [(group, part)] * length
    return torch.tensor(
        [
            [key <= query and rows[key][0] == rows[query][0] and rows[key][1] in (0, rows[query][1]) for key in order]
            for order in [range(len(rows))]
            for query in order
        ]
    )


LAYOUT = RowLayout((GroupSpan(0, 3, (2, 1)), GroupSpan(6, 2, (0, 3, 1)), GroupSpan(12, 4)))


def test_what_sees_what_by_hand() -> None:
    assert dense_mask(LAYOUT)[:6].int().tolist() == [
        [1, 0, 0, 0, 0, 0, *[0] * 10],
        [1, 1, 0, 0, 0, 0, *[0] * 10],
        [1, 1, 1, 0, 0, 0, *[0] * 10],
        [1, 1, 1, 1, 0, 0, *[0] * 10],  # first completion
        [1, 1, 1, 1, 1, 0, *[0] * 10],
        [1, 1, 1, 0, 0, 1, *[0] * 10],  # second completion: the first is hidden
    ]


@pytest.mark.parametrize("heads_of_keys", [4, 2])
def test_attention_by_parts_and_in_blocks_equals_a_masked_softmax(heads_of_keys: int) -> None:
    torch.manual_seed(0)
    size = LAYOUT.num_tokens
    query = torch.randn(1, 4, size, 16, dtype=torch.float64, requires_grad=True)
    keys, values = (torch.randn(1, heads_of_keys, size, 16, dtype=torch.float64, requires_grad=True) for _ in range(2))
    repeated = [each.repeat_interleave(4 // heads_of_keys, dim=1) for each in (keys, values)]
    scores = 0.3 * query @ repeated[0].transpose(2, 3)
    expected = scores.masked_fill(~dense_mask(LAYOUT), float("-inf")).softmax(dim=-1) @ repeated[1]
    weights = torch.randn(expected.shape, dtype=torch.float64)
    gradients = torch.autograd.grad((expected * weights).sum(), (query, keys, values))
    found = attend_by_parts(query, keys, values, 0.3, LAYOUT)
    assert_close(found, expected, atol=1e-12)
    of_parts = torch.autograd.grad((found * weights).sum(), (query, keys, values))
    for mine, other in zip(of_parts, gradients, strict=True):
        assert_close(mine, other, atol=1e-12)
    blocks = blocks_of(LAYOUT, "cpu", compiled=False)
    alone = (each.detach() for each in (query, keys, values))  # on the CPU the blocks have no way back
    assert_close(flex_attention(*alone, block_mask=blocks, scale=0.3, enable_gqa=heads_of_keys != 4), expected, 1e-12)


def test_attention_is_compiled_more_often_than_torch_would_and_never_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        compiled.append(1)
        return graph.forward

    def of_many_kinds(states: Tensor, kind: str) -> Tensor:
        return states * len(kind)

    monkeypatch.setattr(row_attention, "MOST_COMPILED", 12)
    often = row_attention.compiled_for_many_shapes(of_many_kinds, backend=backend)
    for length in range(1, 13):
        assert float(often(torch.ones(3), "k" * length)[0]) == length
    assert len(compiled) == 12
    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        often(torch.ones(3), "k" * 13)


@needs_gpu
@pytest.mark.parametrize("form", ["lora", "full"])
@pytest.mark.parametrize("most_tokens", [None, 1, 8])
def test_loss_and_every_gradient_on_a_gpu_equal_the_repeated_form_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
    model: VideoLanguageModel,
    world_samples: Samples,
    form: str,
    most_tokens: int | None,
) -> None:
    """A row of one group by FlexAttention, and parts of it under a mask."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # the tower's first layer would round to ten bits
    network, tower_is_trained = trained_copy(model, form)
    batch = batch_of(model, prompts_of(model, world_samples[:1]))
    with torch.set_grad_enabled(tower_is_trained):
        features = encode_videos(network, batch)
    log_probs = completion_log_probs(network, batch, COMPLETIONS, features, TEMPERATURE)
    expected_loss = loss_of(log_probs)
    expected_loss.backward()
    expected, values = gradients_of(network), log_probs.detach()
    network.to("cuda")
    batch, completions = batch.to("cuda"), COMPLETIONS.to("cuda")
    with torch.set_grad_enabled(tower_is_trained):
        features = encode_videos(network, batch)
    total = 0.0
    for part in group_states_in_parts(network, batch, completions, features, most_tokens):
        if isinstance(part, PromptPart):
            part.owed.backward()
            continue
        rows = part.rows
        of_part = Completions(completions.token_ids[rows], completions.mask[rows])
        found = statistics_of_states(network, part.states, of_part, TEMPERATURE)[0].cpu()
        assert_close(found.detach(), values[rows], atol=1e-4)
        loss = loss_of(found, rows=rows)
        loss.backward()
        total += float(loss.detach())
    assert_close(total, expected_loss.detach(), rtol=1e-4, atol=1e-6)
    gradients = {name: gradient.cpu() for name, gradient in gradients_of(network).items()}
    assert_same_gradients(gradients, expected, share=1e-3)


@pytest.mark.parametrize("changed", [0, 1])
def test_a_completion_does_not_see_its_neighbour(
    model: VideoLanguageModel, world_samples: Samples, changed: int
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


def test_entropies_are_those_of_the_full_softmax(model: VideoLanguageModel, world_samples: Samples) -> None:
    prompts = prompts_of(model, world_samples[:1])
    batch, token_ids = batch_of(model, prompts), random_completions(2, 4)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    with torch.no_grad():
        completions = Completions(token_ids, mask)
        states = group_states(model.network, batch, completions, encode_videos(model.network, batch))
        _, found = statistics_of_states(model.network, states, completions, TEMPERATURE)
        for row in range(2):
            logits = plain_logits(model, prompts[0], token_ids[row])[:-1]
            log_probs = allowed_log_probs(model, logits, TEMPERATURE)
            expected = -(log_probs.exp() * log_probs.clamp(min=-1e9)).sum(dim=-1)
            assert_close(found[row, mask[row]], expected[mask[row]], atol=1e-5)
            assert (found[row, ~mask[row]] == 0).all()
    assert 1.0 < float(found[mask].mean()) < 7.0


def test_sliding_windows_are_refused(models: dict[str, VideoLanguageModel]) -> None:
    network = copied(models["qwen2_5_vl"]).network
    row_attention.use_row_attention(network)
    network.model.language_model.layers[1].self_attn.sliding_window = 4096
    with pytest.raises(ValueError, match="layers that see 4096 tokens alone"):
        row_attention.use_row_attention(network)
