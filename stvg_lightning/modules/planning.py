"""What a step of GRPO will need, before anything runs: tokens, memory and seconds of one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from stvg_lightning.models.decoding_prompts import prompts_in_tables, tokens_in_tables
from stvg_lightning.models.families import tower_layers
from stvg_lightning.models.flops import ModelShape, shape_of
from stvg_lightning.models.group_forward import parts_of
from stvg_lightning.models.head import HEAD_CHUNK_LOGITS
from stvg_lightning.models.loading import Network
from stvg_lightning.models.memory import bytes_of, saved_bytes_per_patch, saved_bytes_per_token
from stvg_lightning.modules.floor import StepWork

GIB = 2**30
Groups = tuple[tuple[int, tuple[int, ...]], ...]
"""Tokens of each prompt, and of each of its completions."""
COPIES_OF_KEYS = 1.1
"""Keys are held once more for the completions than for the prompt: so much more is kept than in one plain row."""
TRAINED_COPIES = 3
"""A gradient and AdamW's two means, each as large as what is trained."""


@dataclass(frozen=True)
class ModelSize:
    """What of a model decides its memory.

    Attributes:
        shape: what decides its arithmetic.
        weight_bytes: of all parameters.
        read_bytes: of those that each step of writing reads: the language model's layers and its head.
        trained_bytes: of those that are trained.
        saved_bytes_per_token: what the language model keeps of a token for the gradient.
        state_bytes: of a token between two layers.
        widest_bytes: of a token at a layer's widest.
        cache_bytes_per_token: its keys and values.
        tower_bytes_per_patch: the tower's memory at its widest, without a gradient.
        tower_saved_bytes_per_patch: what a tower that is trained keeps of a patch for the gradient; 0 of a frozen one.
        tower_state_bytes: of a patch between two of its layers.
        tower_layers: how many.
        vocabulary_size: of the head.
    """

    shape: ModelShape
    weight_bytes: int
    read_bytes: int
    trained_bytes: int
    saved_bytes_per_token: float
    state_bytes: int
    widest_bytes: int
    cache_bytes_per_token: int
    tower_bytes_per_patch: int
    tower_saved_bytes_per_patch: float
    tower_state_bytes: int
    tower_layers: int
    vocabulary_size: int

    @classmethod
    def of(cls, model: Network) -> ModelSize:
        """Of a network on the device `meta`, with what is trained asking for gradients."""
        text, vision = model.config.get_text_config(), model.config.vision_config
        item = model.dtype.itemsize
        channels = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        shape = shape_of(model)
        each = shape.tower.patches_in_one
        return cls(
            shape=shape,
            weight_bytes=bytes_of(list(model.parameters())),
            read_bytes=bytes_of(list(model.model.language_model.layers.parameters()))
            + item * text.hidden_size * text.vocab_size,
            trained_bytes=bytes_of([p for p in model.parameters() if p.requires_grad]),
            saved_bytes_per_token=saved_bytes_per_token(model),
            state_bytes=text.hidden_size * item,
            widest_bytes=text.intermediate_size * item,
            cache_bytes_per_token=2 * text.num_hidden_layers * text.num_key_value_heads * channels * item,
            tower_bytes_per_patch=each * (3 * vision.intermediate_size + 6 * vision.hidden_size) * item,
            tower_saved_bytes_per_patch=each * saved_bytes_per_patch(model),
            tower_state_bytes=each * vision.hidden_size * item,
            tower_layers=len(tower_layers(model)),
            vocabulary_size=text.vocab_size,
        )


@dataclass(frozen=True)
class StepPlan:
    """A step of one process.

    Attributes:
        groups: `(prompt tokens, tokens of each completion)` of each question of a batch, completions at their longest.
        patches: that the tower reads, of all of them.
        recomputes: activations are computed again for the gradient.
        micro_batch_prompts: see `GRPOSettings`; `tokens_per_pass` and `tokens_per_rollout` likewise.
        updates: optimiser steps for each rollout.
        has_reference: the objective asks for a reference policy.
        has_critic: the objective has a critic.
        shuffled_group_size: answers to each question about shuffled steps of time (T-GRPO).
    """

    groups: Groups
    patches: int
    recomputes: bool
    micro_batch_prompts: int | None
    tokens_per_pass: int | None
    tokens_per_rollout: int | None
    updates: int = 1
    has_reference: bool = True
    has_critic: bool = False
    shuffled_group_size: int = 0

    @property
    def work(self) -> StepWork:
        learned = [(prompt, list(lengths)) for prompt, lengths in self.groups]
        rolled_out = learned + [(prompt, list(lengths)) for prompt, lengths in self.shuffled_groups]
        patches = self.patches
        return StepWork(rolled_out, learned, patches, patches, self.updates, self.has_reference, self.has_critic)

    @property
    def shuffled_groups(self) -> Groups:
        """Likewise of what is asked about shuffled steps of time."""
        size = self.shuffled_group_size
        return tuple((prompt, lengths[:size]) for prompt, lengths in self.groups) if size else ()

    @property
    def tokens_at_once(self) -> int:
        """The most tokens whose activations are held for the gradient."""
        return max(tokens for tokens, _ in self.passes())

    @property
    def scored_at_once(self) -> int:
        """The most tokens that are scored in one pass."""
        return max(scored for _, scored in self.passes())

    @property
    def patches_at_once(self) -> int:
        """The most patches of videos whose prompts go through the model together, of videos of equal length."""
        most = max(portion.stop - portion.start for portion in self._portions())
        return -(-self.patches * most // len(self.groups))

    def _sizes(self) -> list[tuple[int, int]]:
        return [(prompt + sum(length - 1 for length in lengths), sum(lengths)) for prompt, lengths in self.groups]

    def _portions(self) -> list[slice]:
        return parts_of([tokens for tokens, _ in self._sizes()], self.tokens_per_pass, self.micro_batch_prompts)

    def passes(self) -> list[tuple[int, int]]:
        """Tokens and scored tokens of each pass of an update, packed as `portions_of` packs them."""
        sizes, most = self._sizes(), self.tokens_per_pass
        found: list[tuple[int, int]] = []
        for portion in self._portions():
            tokens, scored = (sum(each) for each in zip(*sizes[portion], strict=True))
            if most is None or tokens <= most:
                found.append((tokens, scored))
            else:
                found += self._parts(portion.start, most)
        return found

    def _parts(self, group: int, most_tokens: int) -> list[tuple[int, int]]:
        """The passes of a group that is too large for one: beside each part, its prompt is held."""
        prompt, lengths = self.groups[group]
        parts = parts_of([length - 1 for length in lengths], max(most_tokens - prompt, 1))
        return [(prompt + sum(lengths[part]) - len(lengths[part]), sum(lengths[part])) for part in parts]

    @property
    def tokens_held_in_rollout(self) -> int:
        """The most tokens whose keys and values are held while completions are written."""
        return max(tokens for tokens, _ in rollout_parts(self.groups, self.tokens_per_rollout))


def rollout_parts(groups: Groups, most_tokens: int | None) -> list[tuple[int, int]]:
    """For each part in which groups are written: tokens held, and the steps that its longest completion takes."""
    if not groups:
        return []
    prompts, written = [prompt for prompt, _ in groups], [sum(lengths) for _, lengths in groups]
    return [
        (tokens_in_tables(prompts[part], written[part]), max(max(lengths) for _, lengths in groups[part]))
        for part in prompts_in_tables(prompts, written, most_tokens)
    ]


@dataclass(frozen=True)
class Machine:
    """What a device can do: memory in GiB, arithmetic and memory's speed in 10^12 operations or bytes a second.

    `utilisation` is the share of its arithmetic that passes over long rows reach.
    """

    memory_gib: float
    tflops: float
    terabytes_per_second: float
    utilisation: float


def memory_gib(size: ModelSize, plan: StepPlan) -> dict[str, float]:
    """Memory by what needs it, and at the peak: weights, what is trained, and the largest of three phases."""
    tokens = plan.tokens_at_once
    patches = plan.patches_at_once if size.tower_saved_bytes_per_patch else 0
    kept, of_tower = COPIES_OF_KEYS * size.saved_bytes_per_token * tokens, size.tower_saved_bytes_per_patch * patches
    if plan.recomputes:
        layers = size.shape.layers
        at_once = max(kept / layers, of_tower / size.tower_layers)  # one layer's, of either
        kept, of_tower = layers * size.state_bytes * tokens, size.tower_layers * size.tower_state_bytes * patches
        kept += at_once
    slopes = 2 * size.state_bytes * plan.scored_at_once  # of a frozen head; in pieces and, put together, once more
    head = 3 * 4 * min(HEAD_CHUNK_LOGITS, plan.scored_at_once * size.vocabulary_size) + slopes
    held = plan.tokens_held_in_rollout
    found = {
        "weights": float(size.weight_bytes),
        "gradients and optimiser": float(TRAINED_COPIES * size.trained_bytes),
        "update": kept + of_tower + 4 * size.widest_bytes * tokens + head,
        "rollout": float(held * size.cache_bytes_per_token + 4 * size.widest_bytes * held),
        "tower": float(size.tower_bytes_per_patch * plan.patches),
    }
    phases = ("update", "rollout", "tower")
    found["peak"] = found["weights"] + found["gradients and optimiser"] + max(found[phase] for phase in phases)
    return {name: value / GIB for name, value in found.items()}


def seconds(size: ModelSize, plan: StepPlan, machine: Machine) -> dict[str, float]:
    """Seconds of a step, by phase: passes over rows as arithmetic, writing as memory read for each token of each part.

    Where writing is more arithmetic than that memory takes, as with many rows at once, it is that arithmetic.
    """
    speed = machine.tflops * 1e12 * machine.utilisation
    work, shape = plan.work, size.shape
    update, before = work.update_flops(shape), work.prefill_flops(shape)
    parts = [
        part
        for groups in (plan.groups, plan.shuffled_groups)
        for part in rollout_parts(groups, plan.tokens_per_rollout)
    ]
    read = sum(steps * (size.read_bytes + held * size.cache_bytes_per_token) for held, steps in parts)
    written = work.flops(shape) - update - before
    found = {
        "vision and prefill": before / speed,
        "generate": max(read / (machine.terabytes_per_second * 1e12), written / speed),
        "update": update / speed * (4 / 3 if plan.recomputes else 1),
    }
    return {**found, "step": sum(found.values())}


def what_fits(size: ModelSize, plan: StepPlan, machine: Machine) -> tuple[str, StepPlan] | None:
    """The first change of a recipe that makes a step fit, and the step with it; None where no key alone does."""
    return next(
        ((key, changed) for key, changed in _changes(plan) if memory_gib(size, changed)["peak"] <= machine.memory_gib),
        None,
    )


def _changes(plan: StepPlan) -> Iterator[tuple[str, StepPlan]]:
    """From what costs little to what costs much; several keys where one alone may not do."""
    budgets = _halved(max(plan.tokens_at_once, plan.tokens_held_in_rollout), min(prompt for prompt, _ in plan.groups))
    for tokens in budgets:
        yield f"settings.tokens_per_rollout: {tokens}", replace(plan, tokens_per_rollout=tokens)
    for tokens in budgets:
        yield f"settings.tokens_per_pass: {tokens}", replace(plan, tokens_per_pass=tokens)
    again = replace(plan, recomputes=True)
    yield "model.recompute_activations: true", again
    for tokens in budgets:
        changed = replace(again, tokens_per_pass=tokens, tokens_per_rollout=tokens)
        keys = f"settings.tokens_per_pass and settings.tokens_per_rollout: {tokens}"
        yield f"model.recompute_activations: true, {keys}", changed


def _halved(tokens: int, least: int) -> Sequence[int]:
    found = []
    while tokens > least:
        tokens //= 2
        found.append(tokens)
    return found
