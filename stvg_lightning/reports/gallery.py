"""Which samples a report shows, and everything it shows of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal, get_args

from stvg_lightning.answers import Answer
from stvg_lightning.evaluation import predicted_tube
from stvg_lightning.reports.drawing import PREDICTED_COLOR, TRUE_COLOR, TimedTube, drawn_video
from stvg_lightning.reports.results import model_name
from stvg_lightning.reports.time_bar import TimeBarRow, time_bar_svg
from stvg_lightning.tubes import Clip, Span, Truth
from stvg_lightning.tubes.choices import check_choice

Case = Literal["improved", "good", "wrong"]
CASES: tuple[Case, ...] = get_args(Case)
IMPROVED_BY, GOOD_FROM, WRONG_BELOW = 0.1, 0.5, 0.3
OTHER_MODEL_COLOR = "#8b93a1"

Rows = Sequence[Mapping[str, Any]]

_THINK = re.compile("<(/?)think>", re.IGNORECASE | re.ASCII)
_ANSWER = re.compile("<(/?)answer>", re.IGNORECASE | re.ASCII)

SCORES = ("vIoU", "tIoU", "sIoU", "correct", "relative_accuracy")
"""What a sample is scored by: of its row's scores the first that its task has."""

SHOWN_SCORES = ("tIoU", "sIoU", "vIoU", "correct", "relative_accuracy")


@dataclass(frozen=True)
class GalleryChoice:
    """A sample to show, and why."""

    id: str
    case: Case


@dataclass(frozen=True)
class GalleryItem:
    """One sample of a gallery.

    Attributes:
        id: of the sample; each model's row is found by it.
        query: the sentence, shown as heading.
        case: `improved`, `good` or `wrong`.
        video_mp4: the marked video with both tubes drawn in.
        duration_seconds: length of the video.
        shown_model: the model whose tube is drawn.
    """

    id: str
    query: str
    case: str
    video_mp4: bytes
    duration_seconds: float
    shown_model: str

    def __post_init__(self) -> None:
        check_choice(f"case of sample {self.id!r}", self.case, CASES)


@dataclass(frozen=True)
class ModelView:
    """What one model said to one sample, ready to be written into a page."""

    name: str
    shown: bool
    parts: tuple[tuple[str, str], ...]
    scores: tuple[tuple[str, str], ...]
    terms: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]


def choose_gallery(rows_by_model: Mapping[str, Rows], count: int) -> list[GalleryChoice]:
    """Choose samples that show what the last model does: improved, good, and wrong ones by turns.

    A sample is scored by the first of `SCORES` that it has. It is improved where the last model scores at
    least 0.1 more than the one before it, else good from 0.5 on, else wrong below 0.3; what lies between is
    not shown. Of each case, samples evenly spaced from its highest to its lowest are taken, not the best.

    Args:
        rows_by_model: model -> rows of the same samples, models in the order of their training.
        count: samples to choose; fewer come back where there are not as many.

    Returns:
        Distinct samples; the same rows, in any order, give the same choice.

    Raises:
        ValueError: no models, or models with rows of different samples.

    Example:
        >>> rows = [{"id": name, "vIoU": score, "tIoU": 1.0} for name, score in (("a", 0.9), ("b", 0.1), ("c", 0.4))]
        >>> [(choice.id, choice.case) for choice in choose_gallery({"grpo": rows}, 5)]
        [('a', 'good'), ('b', 'wrong')]
    """
    if not rows_by_model:
        raise ValueError("there are no models to choose a gallery from")
    scores = [{row["id"]: _score(row) for row in rows} for rows in rows_by_model.values()]
    last, before = scores[-1], scores[-2] if len(scores) > 1 else scores[-1]
    if alone := sorted(last.keys() ^ before.keys()):
        raise ValueError(f"only one of the last two models has a row for {alone[0]!r} and {len(alone) - 1} others")
    members: dict[str, list[tuple[float, str]]] = {case: [] for case in CASES}
    for sample_id, score in last.items():
        gain = score - before[sample_id]
        if gain >= IMPROVED_BY:
            members["improved"].append((-gain, sample_id))
        elif score >= GOOD_FROM:
            members["good"].append((-score, sample_id))
        elif score < WRONG_BELOW:
            members["wrong"].append((-score, sample_id))
    places = _share_places([len(members[case]) for case in CASES], count)
    chosen = [
        [GalleryChoice(sample_id, case) for _, sample_id in _evenly_spaced(sorted(members[case]), number)]
        for case, number in zip(CASES, places, strict=True)
    ]
    return [choice for turn in zip_longest(*chosen) for choice in turn if choice is not None]


def gallery_item(choice: GalleryChoice, truth: Truth, clip: Clip, answer: Answer, shown_model: str) -> GalleryItem:
    """Draw a chosen sample.

    Args:
        choice: the sample and its case.
        truth: of the sample.
        clip: its frames with their markers, at the original size: all of them, or evenly spaced ones.
        answer: of the model whose tube is drawn, as read.
        shown_model: that model's name.
    """
    true = TimedTube(truth.span_frames or (0, truth.num_frames), truth.boxes_xyxy)
    predicted = TimedTube(*predicted_tube(answer, truth))
    video = drawn_video(clip, true, predicted, truth.duration_seconds)
    return GalleryItem(truth.id, truth.query, choice.case, video, truth.duration_seconds, shown_model)


def completion_parts(text: str) -> tuple[tuple[str, str], ...]:
    """Cut a completion into `think`, `answer` and `other` parts, tags included; joined, they are the text.

    The first think pair counts, to the end of the text where it is not closed, and the last answer pair after it.

    Example:
        >>> completion_parts("<think>a</think> <answer>b</answer>")
        (('think', '<think>a</think>'), ('other', ' '), ('answer', '<answer>b</answer>'))
    """
    think_start, think_end = _think_range(text)
    answer_start, answer_end = _answer_range(text, think_end)
    parts = (
        ("other", text[:think_start]),
        ("think", text[think_start:think_end]),
        ("other", text[think_end:answer_start]),
        ("answer", text[answer_start:answer_end]),
        ("other", text[answer_end:]),
    )
    return tuple(part for part in parts if part[1])


def model_view(name: str, row: Mapping[str, Any], shown: bool) -> ModelView:
    """What a page says of one model's row."""
    scores = [(metric, f"{row[metric]:.2f}") for metric in SHOWN_SCORES if row.get(metric) is not None]
    if row.get("true_object_id") is not None:
        answered = ", ".join(str(number) for number in row["predicted_object_ids"]) or "none"
        scores.append(("object", f"{answered} (true: {row['true_object_id']})"))
    terms = [(term, term_words(value)) for term, value in row.get("terms", {}).items()]
    if row.get("total") is not None:
        terms.append(("total reward", term_words(row["total"])))
    return ModelView(name, shown, completion_parts(row["text"]), tuple(scores), tuple(terms), tuple(row["problems"]))


def term_words(value: float | int | None) -> str:
    """A reward as a person reads it; None is a term that does not apply."""
    return "does not apply" if value is None else f"{value:.2f}"


def item_time_bar(item: GalleryItem, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The true span and each model's span over the length of an item's video; `rows` is model -> row."""
    bars = [TimeBarRow("true", _span(next(iter(rows.values()))["true_span_seconds"]), TRUE_COLOR)]
    for model, row in rows.items():
        color = PREDICTED_COLOR if model == item.shown_model else OTHER_MODEL_COLOR
        bars.append(TimeBarRow(model_name(model), _span(row["predicted_span_seconds"]), color))
    return time_bar_svg(bars, item.duration_seconds)


def _span(seconds: Sequence[float | int] | None) -> Span | None:
    return None if seconds is None else (float(seconds[0]), float(seconds[1]))


def _score(row: Mapping[str, Any]) -> float:
    scores = (row.get(name) for name in SCORES)
    return next((float(score) for score in scores if score is not None), 0.0)


def _share_places(available: Sequence[int], count: int) -> list[int]:
    """Hand out places one by one in turn, passing over those that have no more to give."""
    places = [0] * len(available)
    while sum(places) < min(count, sum(available)):
        for index, most in enumerate(available):
            if places[index] < most and sum(places) < count:
                places[index] += 1
    return places


def _evenly_spaced(members: Sequence[tuple[float, str]], count: int) -> list[tuple[float, str]]:
    """`count` members from the first to the last, all distinct while there are that many."""
    if count <= 1:
        return list(members[:count])
    return [members[index * (len(members) - 1) // (count - 1)] for index in range(count)]


def _think_range(text: str) -> tuple[int, int]:
    opening = next((tag for tag in _THINK.finditer(text) if not tag[1]), None)
    if opening is None:
        return 0, 0
    closing = next((tag for tag in _THINK.finditer(text, opening.end()) if tag[1]), None)
    return opening.start(), len(text) if closing is None else closing.end()


def _answer_range(text: str, start: int) -> tuple[int, int]:
    found, opened_at = (len(text), len(text)), None
    for tag in _ANSWER.finditer(text, start):
        if not tag[1]:
            opened_at = tag.start()
        elif opened_at is not None:
            found, opened_at = (opened_at, tag.end()), None
    return found
