"""DAVIS: sequences of pictures with the mask of every object in every frame, of 2016 and of 2017."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from stvg_lightning.data.annotations.conversions import Numbering, samples_of
from stvg_lightning.data.annotations.masks import (
    NO_SENTENCE,
    MaskedVideo,
    label_ids,
    label_masks,
    masked_sample,
    masked_video,
)
from stvg_lightning.data.annotations.records import sentence
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.report import Report
from stvg_lightning.tubes import Sample

LINE = re.compile(r'(\S+)\s+([0-9]{1,3})\s+"?(.*?)"?\s*')


@dataclass(frozen=True)
class Question:
    """An object of a sequence, and the words for it, if any."""

    id: str
    sequence: str
    object_id: int
    words: str


def read(
    annotations: Path, videos: VideoFolder, report: Report, fps: float, sentences: Path | None = None
) -> Iterator[Sample]:
    """Samples of the task `spatial`, ids `<sequence>/<object>/<n>`, with the masks of all objects of their sequence.

    Converted: palette pictures (2017) hold object ids, and 255 where nothing is known; grey ones (2016) the mask of
    all objects together, object 1. Pictures become a video of the given rate, its odd sides kept. Dropped:
    sequences without pictures, objects without masks.

    Args:
        annotations: `Annotations/480p`, with a folder of pictures of labels for each sequence.
        videos: `JPEGImages/480p`, with a folder of the same name.
        report: counts what was changed and dropped.
        fps: the rate of the sequences, which no file tells (DAVIS says 24).
        sentences: lines `SEQUENCE OBJECT "SENTENCE"`, as Ref-DAVIS gives them; without it an object's number stands
            for its sentence.

    Raises:
        FileNotFoundError: no folder of annotations.
        ValueError: a picture of labels, or a line, that is broken.
    """
    if not annotations.is_dir():
        raise FileNotFoundError(f"there is no folder of annotations at {annotations}")

    @lru_cache(maxsize=1)
    def film_of(name: str) -> MaskedVideo:
        folder, names, info = videos.pictures(name, fps)
        return masked_video(folder, info, label_masks(annotations / name, names))

    def convert(where: str, question: Question) -> Sample:
        film = film_of(question.sequence)
        query = sentence(question.words, "the sentence") if question.words else f"object {question.object_id}"
        if not question.words:
            report.changed(NO_SENTENCE, where)
        return masked_sample(where, question.id, query, film, [question.object_id])

    questions = _all_objects(annotations) if sentences is None else _sentences(sentences)
    return samples_of(questions, convert, report)


def _all_objects(annotations: Path) -> Iterator[tuple[str, Question]]:
    for folder in sorted(path for path in annotations.iterdir() if path.is_dir()):
        for object_id in label_ids(folder):
            yield f"{folder}[{object_id}]", Question(f"{folder.name}/{object_id}/0", folder.name, object_id, "")


def _sentences(file: Path) -> Iterator[tuple[str, Question]]:
    if not file.is_file():
        raise FileNotFoundError(f"there is no file of sentences at {file}")
    numbering = Numbering()
    for index, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        found = LINE.fullmatch(line)
        if found is None or int(found[2]) == 0:
            raise ValueError(f'{file}:{index}: the line is {line[:60]!r}: it must be SEQUENCE OBJECT "SENTENCE"')
        sequence, object_id = found[1], int(found[2])
        identity = numbering.next_of(f"{sequence}/{object_id}")
        yield f"{file}:{index}", Question(identity, sequence, object_id, found[3])
