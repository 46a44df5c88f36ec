"""The lessons that the tiny model learns from: scenes of the synthetic world with conversations about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, count, islice, repeat
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from stvg_lightning.answers import Frames, View
from stvg_lightning.data.synthetic.reading import (
    Fact,
    Lesson,
    Question,
    list_of_things,
    make_lesson,
    questions,
    questions_of_looks,
    renumbered,
)
from stvg_lightning.data.synthetic.samples import split_seeds
from stvg_lightning.data.synthetic.scene import (
    ACTIONS,
    COLORS,
    SHAPES,
    Scene,
    Thing,
    WorldSettings,
    box_of,
    covered_share,
)
from stvg_lightning.models.forward import Completions
from stvg_lightning.models.prompts import EncodedPrompt, PromptBatch, PromptEncoder, collate_prompts
from stvg_lightning.models.tiny_architecture import FRAME_SIDE
from stvg_lightning.modules.lesson_conversations import conversation_ids, pad_conversations
from stvg_lightning.modules.lesson_tasks import (
    form_of_an_answer,
    half_a_task,
    half_a_task_in_boxes,
    questions_of_events,
    questions_of_places,
    task_in_boxes,
)
from stvg_lightning.modules.optimization import check_at_least_one
from stvg_lightning.prompting import Markers, draw_markers
from stvg_lightning.tubes import Clip

LARGEST_NUMBER = 9
MAX_QUESTIONS = 8
MIXED_PAIRS = 8
LessonKind = Literal["mixed", "caption", "list", "still", "video"]
TASK_SHARE = 0.5
"""Share of lessons that open with a grounding question, so that the model knows its instruction: with numbers drawn,
half of the task (`lesson_tasks.py`)."""

WORDS = {
    "number": tuple(str(number) for number in range(1, LARGEST_NUMBER + 1)),
    "color": tuple(f" {color}" for color in COLORS),
    "shape": tuple(f" {shape}" for shape in SHAPES),
    "deed": tuple(f" {action.split()[-1]}" for action in ACTIONS),
}
"""What a thing can be named by."""

LEAST_COVERED_SHARE = 0.2
"""Share of a token that a thing must cover to be named there."""

UNNAMED = -100
"""Class of the deed of a thing that does nothing, and of the number of one that bears none."""


@dataclass(frozen=True)
class LessonBatch:
    """Prompts that each hold a first question, and the conversation that follows.

    `patch_index` are tokens of the batch's videos that a thing covers; the columns of `classes` are its number, colour
    and shape, and its deeds in the token's first and second frame, as places in `WORDS`. `places` are the edges
    of the thing's box, x1, y1, x2, y2, as shares of the frame's side.
    """

    prompts: PromptBatch
    conversation: Completions
    patch_index: Int[Tensor, " patches"]
    classes: Int[Tensor, "patches 5"]
    places: Float[Tensor, "patches 4"]

    def to(self, device: torch.device | str) -> LessonBatch:
        """The same batch with every tensor on a device."""
        return LessonBatch(*(value.to(device) for value in vars(self).values()))


@dataclass(frozen=True)
class Course:
    """So many batches of one kind of lesson.

    Attributes:
        kind: `mixed`, `caption`, `list`, `still` or `video`; see `LessonStream`.
        num_batches: how many.
        batch_size: lessons in a batch.
        num_scenes: how many scenes there are; each comes back with other numbers and questions.
        min_things: things in a scene, at least. With one alone the model first learns words for deeds and numbers;
            telling things apart comes with more.
        max_things: things in a scene, at most.
        form_share: share of video lessons that ask to write what is told as an answer: a large model needs no lesson
            to write a form, a tiny one does, and knows it soon.
        bare_share: share of lessons without numbers, as for methods that answer in boxes or in times alone: things
            go by their looks there, and are asked for where they are.
        whole_share: share of the grounding questions without numbers that ask for time and boxes together, the task as
            a whole.
        event_share: share of lessons without numbers that ask where the things are that sentences tell of, instead of
            where things are that go by their looks.
    """

    kind: LessonKind
    num_batches: int
    batch_size: int
    num_scenes: int
    min_things: int = 2
    max_things: int = 4
    form_share: float = 0.3
    bare_share: float = 0.0
    whole_share: float = 0.1
    event_share: float = 0.0

    def __post_init__(self) -> None:
        check_at_least_one(self, "num_batches", "batch_size", "num_scenes")
        for name in ("form_share", "bare_share", "whole_share", "event_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {getattr(self, name)}")
        self.world()

    def world(self) -> WorldSettings:
        """The world that the course's scenes are drawn from."""
        return WorldSettings(min_things=self.min_things, max_things=self.max_things)


class LessonStream(IterableDataset):
    """Batches of lessons, course after course; the last course never ends.

    A tower sees every pair of frames by itself. There are five kinds:

    - `mixed`: a clip of pairs of frames from as many scenes, for the tower alone; neighbouring pairs of one scene
      differ too little to learn from.
    - `caption`: one pair and what is there by looks and number, without a question or a time. Here a language model
      finds the way from words to things soonest; a question between picture and words delays it (LOG.md).
    - `list`: one pair, and a question for all things in it.
    - `still`: one pair, and a conversation about looks and numbers.
    - `video`: a whole scene, and a conversation about what happens when.

    Args:
        encoder: makes the prompts.
        markers: how numbers are drawn.
        fps: frames a second.
        courses: what follows what.
        first_batch: how many batches a training has had before.
        draw: whether scenes are drawn; where words tell them, nobody sees the frames.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        markers: Markers,
        fps: float,
        courses: Sequence[Course],
        first_batch: int = 0,
        draw: bool = True,
    ) -> None:
        self.encoder, self.markers, self.fps, self.draw = encoder, markers, fps, draw
        self.courses, self.first_batch = courses, first_batch
        self.tokens_per_side = FRAME_SIDE // encoder.side_multiple
        self.course = courses[0]
        self.lessons: dict[int, Lesson] = {}
        self.opens_with_task = False

    def __iter__(self) -> Iterator[LessonBatch]:
        make_row: dict[LessonKind, Callable[[np.random.Generator], _Row]] = {
            "mixed": self._mixed_row,
            "caption": self._caption_row,
            "list": self._list_row,
            "still": self._still_row,
            "video": self._video_row,
        }
        schedule = chain(*(repeat(course, course.num_batches) for course in self.courses), repeat(self.courses[-1]))
        for number, course in zip(count(self.first_batch), islice(schedule, self.first_batch, None)):
            rng = np.random.default_rng([19, number])
            if course is not self.course:
                self.course, self.lessons = course, {}
            self.opens_with_task = rng.random() < TASK_SHARE
            rows = [make_row[course.kind](rng) for _ in range(course.batch_size)]
            yield _collate(rows, self.encoder.processor.tokenizer.pad_token_id)

    def _video_row(self, rng: np.random.Generator) -> _Row:
        """One scene and a conversation about it."""
        lesson = self._lesson(rng)
        numbers = self._numbers(lesson, rng)
        asked = self._asked_with_numbers(lesson, numbers, rng) if numbers else self._asked_of_places(lesson, rng)
        labels = [self._labels(lesson, numbers, pair, pair) for pair in range(len(lesson.clip.frames) // 2)]
        return self._encoded(self._marked(lesson, lesson.clip, numbers), asked, labels)

    def _asked_with_numbers(self, lesson: Lesson, numbers: dict[int, int], rng: np.random.Generator) -> list[Question]:
        asked: list[Question] = []
        if rng.random() < TASK_SHARE:
            asked.append(half_a_task(lesson.scene, numbers, rng))
        if rng.random() < self.course.form_share:
            asked.append(form_of_an_answer(lesson.scene, numbers, rng))
        told = frozenset[Fact]().union(*(question.facts for question in asked))
        return asked + questions(lesson.scene, numbers, rng, MAX_QUESTIONS, told)

    def _asked_of_places(self, lesson: Lesson, rng: np.random.Generator) -> list[Question]:
        scene = lesson.scene
        whole = Frames.untouched(lesson.sample.truth)
        view = View(frames=replace(whole, indices=lesson.clip.frame_indices, width=FRAME_SIDE, height=FRAME_SIDE))
        asked = []
        if self.opens_with_task:  # of a batch all or none: prompts of one length need no padding
            ask = task_in_boxes if rng.random() < self.course.whole_share else half_a_task_in_boxes
            asked.append(ask(scene, view, rng))
        told = frozenset[Fact]().union(*(question.facts for question in asked))
        asks_of_events = self.course.event_share > 0 and rng.random() < self.course.event_share
        ask_places = questions_of_events if asks_of_events else questions_of_places
        places = ask_places(scene, view, rng, MAX_QUESTIONS // 2)
        others = [question for question in places if not question.facts & told]
        told = told.union(*(question.facts for question in others))
        others += questions(scene, {}, rng, MAX_QUESTIONS // 2, told)
        return asked + [others[index] for index in rng.permutation(len(others))]

    def _still_row(self, rng: np.random.Generator) -> _Row:
        """One pair of frames and a conversation about its things' looks."""
        return self._row_of_a_pair(rng, partial(questions_of_looks, count=MAX_QUESTIONS))

    def _list_row(self, rng: np.random.Generator) -> _Row:
        """One pair of frames and a list of its things, by number or by looks."""
        return self._row_of_a_pair(rng, partial(_one_list, share_by_number=0.5))

    def _caption_row(self, rng: np.random.Generator) -> _Row:
        """One pair of frames and its things by their looks; of the prompt nothing but the video stays."""
        row = self._row_of_a_pair(rng, partial(_one_list, share_by_number=0.0))
        ends = self.encoder.processor.tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|vision_end|>"])
        start, end = (row.prompt.input_ids.tolist().index(token_id) for token_id in ends)
        video = slice(start, end + 1)
        positions = row.prompt.position_ids[:, video]
        bare = replace(row.prompt, input_ids=row.prompt.input_ids[video], position_ids=positions - positions.min())
        return replace(row, prompt=bare)

    def _row_of_a_pair(self, rng: np.random.Generator, ask: _Ask) -> _Row:
        lesson = self._lesson(rng)
        numbers = _draw_numbers(lesson, rng)
        pair = int(rng.integers(len(lesson.clip.frames) // 2))
        marked = self._marked(lesson, _pair_of(lesson, pair), numbers)
        return self._encoded(marked, ask(lesson.scene, numbers, rng), [self._labels(lesson, numbers, pair, 0)])

    def _mixed_row(self, rng: np.random.Generator) -> _Row:
        """Pairs of frames from several scenes as one clip, without a conversation."""
        frames, labels = [], []
        for place in range(MIXED_PAIRS):
            lesson = self._lesson(rng)
            numbers = self._numbers(lesson, rng)
            pair = int(rng.integers(len(lesson.clip.frames) // 2))
            frames.append(self._marked(lesson, _pair_of(lesson, pair), numbers).frames)
            labels.append(self._labels(lesson, numbers, pair, place))
        clip = Clip(np.concatenate(frames), tuple(range(2 * MIXED_PAIRS)), self.fps)
        return self._encoded(clip, [Question("What is it?", "It.", frozenset())], labels)

    def _lesson(self, rng: np.random.Generator) -> Lesson:
        seed = next(split_seeds("pretrain", 1)) + int(rng.integers(self.course.num_scenes))
        if seed not in self.lessons:
            self.lessons[seed] = make_lesson(seed, self.fps, self.course.world(), self.draw)
        return self.lessons[seed]

    def _numbers(self, lesson: Lesson, rng: np.random.Generator) -> dict[int, int]:
        """Object id -> the number to draw on it; empty where nothing is drawn."""
        bare = self.course.bare_share > 0 and rng.random() < self.course.bare_share
        return {} if bare else _draw_numbers(lesson, rng)

    def _marked(self, lesson: Lesson, clip: Clip, numbers: dict[int, int]) -> Clip:
        if not numbers:
            return clip
        return draw_markers(clip, renumbered(lesson.sample, numbers), self.markers).clip

    def _encoded(self, clip: Clip, asked: list[Question], labels: list[_Labels]) -> _Row:
        prompt = self.encoder.encode(clip, asked[0].asked, FRAME_SIDE, FRAME_SIDE)
        num_tokens = len(clip.frames) // 2 * self.tokens_per_side**2
        flat = [label for pair in labels for label in pair]
        return _Row(prompt, conversation_ids(self.encoder, asked), flat, num_tokens)

    def _labels(self, lesson: Lesson, numbers: dict[int, int], pair: int, place: int) -> _Labels:
        """Of a pair of frames that stands at a place of its clip: the tokens that each thing covers, and its classes.

        Every token of a thing is taught its number, not the one with the number on it alone: a look-up by
        colour and shape ends on any of them.
        """
        scene, side = lesson.scene, self.tokens_per_side
        first, second = lesson.clip.frame_indices[2 * pair : 2 * pair + 2]
        token_size = scene.settings.frame_size / side
        covered = np.stack([covered_share(thing, (first, second), token_size, side) for thing in scene.things])
        labels = []
        for order, thing in enumerate(scene.things):
            number_class = numbers[thing.object_id] - 1 if numbers else UNNAMED
            looks = [number_class, list(COLORS).index(thing.color), SHAPES.index(thing.shape)]
            classes = [*looks, _deed(thing, first), _deed(thing, second)]
            own = (covered.argmax(axis=0) == order) & (covered[order] >= LEAST_COVERED_SHARE)
            where = _place(thing, (first, second), scene.settings.frame_size)
            labels += [(place * side**2 + int(token), classes, where) for token in np.flatnonzero(own)]
        return labels


class Lessons(LightningDataModule):
    """The lessons of one training; after a restart they go on with the batch that comes next."""

    def __init__(
        self, encoder: PromptEncoder, markers: Markers, fps: float, courses: Sequence[Course], draw: bool = True
    ) -> None:
        super().__init__()
        self.stream = LessonStream(encoder, markers, fps, courses, draw=draw)

    def train_dataloader(self) -> DataLoader:
        """Batches from the training's next step on."""
        assert self.trainer is not None
        self.stream.first_batch = self.trainer.global_step
        return DataLoader(self.stream, batch_size=None, num_workers=1, prefetch_factor=3)


_Ask = Callable[[Scene, dict[int, int], np.random.Generator], list[Question]]
"""From a scene and its things' numbers to questions."""

_Labels = list[tuple[int, list[int], list[float]]]
"""Tokens of a clip that things cover, each with the classes and the place of its thing."""


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


def _place(thing: Thing, frames: tuple[int, int], frame_size: int) -> list[float]:
    """The edges of a thing's box in the mean of two frames, in shares of their side."""
    first, second = (box_of(thing, frame) for frame in frames)
    return [(a + b) / (2 * frame_size) for a, b in zip(first, second, strict=True)]


def _deed(thing: Thing, frame: int) -> int:
    """What a thing does in a frame, as a class."""
    kinds = [action.kind for action in thing.actions if action.start_frame <= frame < action.end_frame]
    return ACTIONS.index(kinds[0]) if kinds else UNNAMED


def _draw_numbers(lesson: Lesson, rng: np.random.Generator) -> dict[int, int]:
    """Object id -> a random number to draw on it."""
    drawn = rng.permutation(np.arange(1, LARGEST_NUMBER + 1))
    return {thing.object_id: int(number) for thing, number in zip(lesson.scene.things, drawn)}


def _collate(rows: list[_Row], pad_token_id: int) -> LessonBatch:
    first_tokens = np.cumsum([0, *(row.num_tokens for row in rows)])
    labels = [(int(first) + token, *rest) for first, row in zip(first_tokens, rows) for token, *rest in row.labels]
    tokens, classes, places = zip(*labels, strict=True)
    return LessonBatch(
        collate_prompts([row.prompt for row in rows], pad_token_id),
        pad_conversations([row.conversation for row in rows]),
        torch.tensor(tokens),
        torch.tensor(classes),
        torch.tensor(places),
    )


def _one_list(
    scene: Scene, numbers: dict[int, int], rng: np.random.Generator, share_by_number: float
) -> list[Question]:
    return [list_of_things(scene, numbers, rng, share_by_number)]


def word_ids(encoder: PromptEncoder) -> dict[str, list[int]]:
    """The tokens of `WORDS`.

    Raises:
        ValueError: a word that is not one token.
    """
    ids = {name: encoder.processor.tokenizer(list(words))["input_ids"] for name, words in WORDS.items()}
    for name, rows in ids.items():
        if any(len(row) != 1 for row in rows):
            raise ValueError(f"each {name} must be one token of the tokenizer: {WORDS[name]}")
    return {name: [row[0] for row in rows] for name, rows in ids.items()}
