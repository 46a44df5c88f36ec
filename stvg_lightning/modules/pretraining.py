"""How the tiny model learns to see: first its vision tower alone, then the whole model on questions.

Drawn numbers are not learned from answers within any patience: the gradient through a language model
that cannot speak yet is too faint. A tower that must first name, patch by patch, what lies there
learns them in minutes, and the language model then only has to find words for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, islice, repeat
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from stvg_lightning.answers import id_span
from stvg_lightning.data.synthetic.reading import (
    Lesson,
    make_lesson,
    questions,
    questions_of_looks,
    renumbered,
    tokenizer_texts,
)
from stvg_lightning.data.synthetic.samples import split_seeds
from stvg_lightning.data.synthetic.scene import COLORS, SHAPES, WorldSettings
from stvg_lightning.data.synthetic.sentences import choose_description, reasoning_trace
from stvg_lightning.models.forward import Completions, completion_log_probs, encode_videos
from stvg_lightning.models.loading import Network
from stvg_lightning.models.prompts import EncodedPrompt, PromptBatch, PromptEncoder, collate_prompts
from stvg_lightning.models.tiny_architecture import FRAME_SIDE
from stvg_lightning.modules.optimization import check_finite
from stvg_lightning.prompting import Markers, draw_markers
from stvg_lightning.tubes import Clip

LARGEST_NUMBER = 9
MAX_QUESTIONS = 16
MIXED_PAIRS = 8
LessonKind = Literal["mixed", "still", "video"]
MAX_CONVERSATION_TOKENS = 256
TOWER_RATE_SHARE = 0.3
TASK_SHARE = 0.2
"""Share of lessons that open with half of the grounding task, so that the model knows its instruction."""

NUM_MOTIONS = 4
"""Per patch: movement right and down between the two frames, radius, and how dark the thing is."""


@dataclass(frozen=True)
class LessonBatch:
    """Prompts that each hold a first question, and the conversation that follows.

    `patch_index` are tokens of the batch's videos in which a thing's centre lies; the four columns
    of `looks` are its number, colour and shape as classes, and `motions` what it does there.
    """

    prompts: PromptBatch
    conversation: Completions
    patch_index: Int[Tensor, " things"]
    looks: Int[Tensor, "things 3"]
    motions: Float[Tensor, "things 4"]

    def to(self, device: torch.device | str) -> LessonBatch:
        """The same batch with every tensor on a device."""
        return LessonBatch(*(value.to(device) for value in vars(self).values()))


@dataclass(frozen=True)
class Course:
    """So many batches of one kind of lesson.

    Attributes:
        kind: `mixed`, `still` or `video`; see `LessonStream`.
        num_batches: how many.
        batch_size: lessons in a batch.
        num_scenes: how many scenes there are; each comes back with other numbers and questions.
    """

    kind: LessonKind
    num_batches: int
    batch_size: int
    num_scenes: int


class LessonStream(IterableDataset):
    """Batches of lessons, course after course; the last course never ends.

    A tower sees every pair of frames by itself. Three kinds follow one another: `mixed` clips of pairs of
    frames from as many scenes, for the tower's warm-up (neighbouring pairs of one scene differ too
    little to learn from); `still` ones of a single pair, in which the language model learns to tell
    things by their looks and numbers; and `video` ones of a whole scene, for what happens when.

    Args:
        encoder: makes the prompts.
        markers: how numbers are drawn.
        fps: frames a second.
        courses: what follows what.
        first_batch: how many batches a training has had before.
    """

    def __init__(
        self, encoder: PromptEncoder, markers: Markers, fps: float, courses: Sequence[Course], first_batch: int = 0
    ) -> None:
        self.encoder, self.markers, self.fps = encoder, markers, fps
        self.courses, self.first_batch = courses, first_batch
        self.tokens_per_side = FRAME_SIDE // encoder.side_multiple
        self.course = courses[0]
        self.lessons: dict[int, Lesson] = {}

    def __iter__(self) -> Iterator[LessonBatch]:
        make_row = {"mixed": self._mixed_row, "still": self._still_row, "video": self._video_row}
        schedule = chain(*(repeat(course, course.num_batches) for course in self.courses), repeat(self.courses[-1]))
        for number, course in zip(count(self.first_batch), islice(schedule, self.first_batch, None)):
            rng = np.random.default_rng([19, number])
            if course is not self.course:
                self.course, self.lessons = course, {}
            rows = [make_row[course.kind](rng) for _ in range(course.batch_size)]
            yield _collate(rows, self.encoder.processor.tokenizer.pad_token_id)

    def _video_row(self, rng: np.random.Generator) -> _Row:
        """One scene and a conversation about it."""
        lesson = self._lesson(rng)
        numbers = _draw_numbers(lesson, rng)
        marked = draw_markers(lesson.clip, renumbered(lesson.sample, numbers), self.markers).clip
        asked = questions(lesson.scene, numbers, rng, MAX_QUESTIONS)
        if rng.random() < TASK_SHARE:
            asked.insert(0, _half_a_task(lesson, numbers, rng))
        labels = [self._labels(lesson, numbers, pair, pair) for pair in range(len(marked.frames) // 2)]
        return self._encoded(marked, asked, labels)

    def _still_row(self, rng: np.random.Generator) -> _Row:
        """One pair of frames and a conversation about the looks of its things."""
        lesson = self._lesson(rng)
        numbers = _draw_numbers(lesson, rng)
        pair = int(rng.integers(len(lesson.clip.frames) // 2))
        marked = draw_markers(_pair_of(lesson, pair), renumbered(lesson.sample, numbers), self.markers).clip
        asked = questions_of_looks(lesson.scene, numbers, rng, MAX_QUESTIONS)
        return self._encoded(marked, asked, [self._labels(lesson, numbers, pair, 0)])

    def _mixed_row(self, rng: np.random.Generator) -> _Row:
        """Pairs of frames from several scenes as one clip, without a conversation."""
        frames, labels = [], []
        for place in range(MIXED_PAIRS):
            lesson = self._lesson(rng)
            numbers = _draw_numbers(lesson, rng)
            pair = int(rng.integers(len(lesson.clip.frames) // 2))
            clip = _pair_of(lesson, pair)
            frames.append(draw_markers(clip, renumbered(lesson.sample, numbers), self.markers).clip.frames)
            labels.append(self._labels(lesson, numbers, pair, place))
        clip = Clip(np.concatenate(frames), tuple(range(2 * MIXED_PAIRS)), self.fps)
        return self._encoded(clip, [("What is it?", "It.")], labels)

    def _lesson(self, rng: np.random.Generator) -> Lesson:
        # With one thing there is nothing to confuse: its number and looks find words first, binding comes after.
        world = WorldSettings(min_things=1, max_things=3) if self.course.kind == "still" else WorldSettings()
        seed = next(split_seeds("pretrain", 1)) + int(rng.integers(self.course.num_scenes))
        if seed not in self.lessons:
            self.lessons[seed] = make_lesson(seed, self.fps, world)
        return self.lessons[seed]

    def _encoded(self, clip: Clip, asked: list[tuple[str, str]], labels: list[_Labels]) -> _Row:
        prompt = self.encoder.encode(clip, asked[0][0], FRAME_SIDE, FRAME_SIDE)
        num_tokens = len(clip.frames) // 2 * self.tokens_per_side**2
        flat = [label for pair in labels for label in pair]
        return _Row(prompt, _conversation(self.encoder, asked), flat, num_tokens)

    def _labels(self, lesson: Lesson, numbers: dict[int, int], pair: int, place: int) -> _Labels:
        """Of a pair of frames that stands at a place of its clip: where each thing lies, its looks, what it does."""
        size = lesson.scene.settings.frame_size
        first, second = lesson.clip.frame_indices[2 * pair : 2 * pair + 2]
        labels = []
        for thing in lesson.scene.things:
            center = (thing.centers_xy[first] + thing.centers_xy[second]) / 2
            column, row = (center / size * self.tokens_per_side).astype(int)
            token = (place * self.tokens_per_side + int(row)) * self.tokens_per_side + int(column)
            looks = [numbers[thing.object_id] - 1, list(COLORS).index(thing.color), SHAPES.index(thing.shape)]
            moved = (thing.centers_xy[second] - thing.centers_xy[first]) / size * 8
            dark = float(not thing.lit[first]) + float(not thing.lit[second])
            radius = (thing.radii[first] + thing.radii[second]) / size * 4
            labels.append((token, looks, [*moved.tolist(), float(radius), dark]))
        return labels


class Lessons(LightningDataModule):
    """The lessons of one training; after a restart they go on with the batch that comes next."""

    def __init__(self, encoder: PromptEncoder, markers: Markers, fps: float, courses: Sequence[Course]) -> None:
        super().__init__()
        self.stream = LessonStream(encoder, markers, fps, courses)

    def train_dataloader(self) -> DataLoader:
        """Batches from the training's next step on."""
        assert self.trainer is not None
        self.stream.first_batch = self.trainer.global_step
        return DataLoader(self.stream, batch_size=None, num_workers=1, prefetch_factor=3)


_Labels = list[tuple[int, list[int], list[float]]]
"""For each thing in a pair of frames: its token in the clip, its looks as classes, its motions."""


@dataclass(frozen=True)
class _Row:
    """One prompt of a batch, with its conversation (token ids, which are scored) and its labels."""

    prompt: EncodedPrompt
    conversation: tuple[list[int], list[bool]]
    labels: _Labels
    num_tokens: int


def _pair_of(lesson: Lesson, pair: int) -> Clip:
    """Two neighbouring frames of a lesson: what the tower sees at once."""
    both = slice(2 * pair, 2 * pair + 2)
    return Clip(lesson.clip.frames[both], lesson.clip.frame_indices[both], lesson.clip.fps)


def _draw_numbers(lesson: Lesson, rng: np.random.Generator) -> dict[int, int]:
    """Object id -> a random number to draw on it."""
    drawn = rng.permutation(np.arange(1, LARGEST_NUMBER + 1))
    return {thing.object_id: int(number) for thing, number in zip(lesson.scene.things, drawn)}


def _collate(rows: list[_Row], pad_token_id: int) -> LessonBatch:
    first_tokens = np.cumsum([0, *(row.num_tokens for row in rows)])
    labels = [
        (int(first) + token, looks, motions)
        for first, row in zip(first_tokens, rows)
        for token, looks, motions in row.labels
    ]
    tokens, looks, motions = zip(*labels, strict=True)
    return LessonBatch(
        collate_prompts([row.prompt for row in rows], pad_token_id),
        _pad_conversations([row.conversation for row in rows]),
        torch.tensor(tokens),
        torch.tensor(looks),
        torch.tensor(motions, dtype=torch.float32),
    )


def _half_a_task(lesson: Lesson, numbers: dict[int, int], rng: np.random.Generator) -> tuple[str, str]:
    """A grounding question that asks for the object or for the time, never for both, with its gold answer."""
    description, event = choose_description(lesson.scene, rng)
    thing, action = event.thing, event.action
    spatial = rng.random() < 0.5
    truth = replace(
        lesson.sample.truth,
        query=description.sentence(),
        task="spatial" if spatial else "temporal",
        span_frames=(action.start_frame, action.end_frame),
        object_id=numbers[thing.object_id],
    )
    sentences = reasoning_trace(event, lesson.scene).split(". It ")
    thought = f"{sentences[0]}." if spatial else f"It {sentences[1]}"
    return id_span.instruction(truth), id_span.write(truth, thought)


def world_texts(num_scenes: int) -> Iterator[str]:
    """Texts of the world and of the grounding task, from which a tokenizer learns its merges."""
    yield from tokenizer_texts(num_scenes)
    rng = np.random.default_rng(19)
    for seed in range(num_scenes):
        lesson = make_lesson(seed, fps=1.0)
        numbers = {thing.object_id: thing.object_id for thing in lesson.scene.things}
        yield from _half_a_task(lesson, numbers, rng)
        yield id_span.instruction(replace(lesson.sample.truth, query="the thing", task="stvg"))
        yield f"<think>.</think><answer>Target ID: {seed % 9 + 1}, Time range: 0.50 to 1.25</answer>"


def _conversation(
    encoder: PromptEncoder, asked: list[tuple[str, str]], max_tokens: int = MAX_CONVERSATION_TOKENS
) -> tuple[list[int], list[bool]]:
    """Token ids of everything after the first question, as many turns as fit, and which are the answers."""
    tokenizer = encoder.processor.tokenizer
    token_ids: list[int] = []
    scored: list[bool] = []
    for index, (question, answer) in enumerate(asked):
        turn = f"\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n" if index > 0 else ""
        asked_ids, written_ids = tokenizer(turn)["input_ids"], tokenizer(f"{answer}<|im_end|>")["input_ids"]
        if index > 0 and len(token_ids) + len(asked_ids) + len(written_ids) > max_tokens:
            break
        token_ids += asked_ids + written_ids
        scored += [False] * len(asked_ids) + [True] * len(written_ids)
    return token_ids, scored


def _pad_conversations(conversations: list[tuple[list[int], list[bool]]]) -> Completions:
    longest = max(len(token_ids) for token_ids, _ in conversations)
    token_ids = torch.zeros(len(conversations), longest, dtype=torch.long)
    mask = torch.zeros(len(conversations), longest, dtype=torch.bool)
    for row, (ids, scored) in enumerate(conversations):
        token_ids[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = torch.tensor(scored)
    return Completions(token_ids, mask)


@dataclass(frozen=True)
class Rates:
    """Largest learning rates: Muon's for matrices, AdamW's for embeddings, norms, biases and heads."""

    matrices: float = 6e-3
    others: float = 2e-3


class PatchNaming(nn.Module):
    """Names what lies under a token of the tower: number, colour, shape, and what it does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.class_sizes = [LARGEST_NUMBER, len(COLORS), len(SHAPES)]
        self.heads = nn.Linear(width, sum(self.class_sizes) + NUM_MOTIONS)

    def forward(self, features: Float[Tensor, "tokens width"], batch: LessonBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of naming a batch's things, and what it is made of."""
        *logits, motions = self.heads(features[batch.patch_index]).split([*self.class_sizes, NUM_MOTIONS], dim=-1)
        losses = [F.cross_entropy(scores, batch.looks[:, i]) for i, scores in enumerate(logits)]
        motion_loss = F.smooth_l1_loss(motions, batch.motions, beta=0.1)
        measures = {"tower/motion_loss": motion_loss.detach()}
        for i, (name, scores) in enumerate(zip(("number", "color", "shape"), logits, strict=True)):
            measures[f"tower/{name}_accuracy"] = (scores.argmax(-1) == batch.looks[:, i]).float().mean()
        return torch.stack(losses).sum() + motion_loss, measures


class Pretraining(LightningModule):
    """One training from random weights: Muon for matrices, AdamW for the rest, one schedule for both.

    Muon names numbers after 120 steps of warm-up as well as AdamW alone after 220.

    Args:
        network: the tiny model.
        naming: the heads that name patches.
        rates: learning rates.
        max_steps: steps in all, over which the rates fall.
    """

    def __init__(self, network: Network, naming: PatchNaming, rates: Rates, max_steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network, self.naming, self.rates, self.max_steps = network, naming, rates, max_steps

    def loss_of(self, batch: LessonBatch) -> Tensor:
        """The loss of a batch, its parts logged."""
        raise NotImplementedError

    def trained_parameters(self) -> Iterator[tuple[nn.Parameter, bool, float]]:
        """Every parameter to be trained, whether it is a matrix for Muon, and its share of the learning rate."""
        raise NotImplementedError

    def training_step(self, batch: LessonBatch, batch_idx: int) -> None:
        loss = self.loss_of(batch)
        check_finite(loss, self.global_step)
        self.manual_backward(loss)
        matrices, others = self.optimizers()
        torch.nn.utils.clip_grad_norm_([parameter for parameter, _, _ in self.trained_parameters()], 1.0)
        matrices.step()
        others.optimizer.step()  # past Lightning, which would count a second step
        for optimizer, schedule in zip((matrices, others), self.lr_schedulers()):
            optimizer.zero_grad()
            schedule.step()

    def configure_optimizers(self) -> tuple[list, list]:
        groups: dict[bool, dict[float, list[nn.Parameter]]] = {True: {}, False: {}}
        for parameter, is_matrix, rate_share in self.trained_parameters():
            groups[is_matrix].setdefault(rate_share, []).append(parameter)
        of_matrices, of_others = (
            [{"params": parameters, "lr": rate * share} for share, parameters in groups[is_matrix].items()]
            for is_matrix, rate in ((True, self.rates.matrices), (False, self.rates.others))
        )
        optimizers = [
            torch.optim.Muon(of_matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(of_others, betas=(0.9, 0.98), weight_decay=0.01),
        ]
        schedule = partial(warm_cosine_factor, max_steps=self.max_steps)
        return optimizers, [torch.optim.lr_scheduler.LambdaLR(optimizer, schedule) for optimizer in optimizers]


class TowerWarmUp(Pretraining):
    """Train the vision tower alone to name what lies under each of its tokens."""

    def loss_of(self, batch: LessonBatch) -> Tensor:
        features = torch.cat(encode_videos(self.network, batch.prompts).tokens)
        loss, measures = self.naming(features, batch)
        self.log_dict(measures, prog_bar=True)
        return loss

    def trained_parameters(self) -> Iterator[tuple[nn.Parameter, bool, float]]:
        yield from tower_parameters(self.network, rate_share=1.0)
        yield from ((parameter, False, 1.0) for parameter in self.naming.parameters())


class WorldReading(Pretraining):
    """Train the whole tiny model on conversations about scenes; the tower goes on naming its patches.

    The tower, which reads already, learns at a fraction of the rate: at the full rate the first steps of
    a language model that knows no word yet undo a third of what it can name.
    """

    def __init__(
        self, network: Network, naming: PatchNaming, naming_weight: float, rates: Rates, max_steps: int
    ) -> None:
        super().__init__(network, naming, rates, max_steps)
        self.naming_weight = naming_weight

    def loss_of(self, batch: LessonBatch) -> Tensor:
        features = encode_videos(self.network, batch.prompts)
        log_probs = completion_log_probs(self.network, batch.prompts, batch.conversation, features)
        reading_loss = -log_probs.sum() / batch.conversation.mask.sum()
        naming_loss, measures = self.naming(torch.cat(features.tokens), batch)
        self.log_dict({"reading/loss": reading_loss.detach(), **measures}, prog_bar=True)
        return reading_loss + self.naming_weight * naming_loss

    def trained_parameters(self) -> Iterator[tuple[nn.Parameter, bool, float]]:
        yield from tower_parameters(self.network, TOWER_RATE_SHARE)
        for name, parameter in self.network.model.language_model.named_parameters():
            yield parameter, parameter.ndim == 2 and "embed" not in name, 1.0
        yield from ((parameter, False, 1.0) for parameter in self.naming.parameters())


def tower_parameters(network: Network, rate_share: float) -> Iterator[tuple[nn.Parameter, bool, float]]:
    """The vision tower's parameters as `Pretraining.trained_parameters` gives them."""
    for name, parameter in network.model.visual.named_parameters():
        yield parameter, parameter.ndim == 2 and "embed" not in name, rate_share


def warm_cosine_factor(step: int, max_steps: int) -> float:
    """Share of the learning rate: a linear warm-up over a twentieth of the steps, then a cosine down to a tenth."""
    warm_up = max(max_steps // 20, 1)
    if step < warm_up:
        return (step + 1) / warm_up
    progress = min((step - warm_up) / max(max_steps - warm_up, 1), 1.0)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))
