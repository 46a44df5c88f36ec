"""What the sets of moments share: a sentence and its span in seconds, clamped to the video's own length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stvg_lightning.data.annotations.conversions import (
    ROUNDING_SECONDS,
    Numbering,
    samples_of,
    seconds_in_video,
    truth_of,
)
from stvg_lightning.data.annotations.records import field, json_records, listing, number, seconds_pair, sentence
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.footage import excerpt
from stvg_lightning.data.report import Report
from stvg_lightning.data.video import VideoInfo
from stvg_lightning.tubes import Sample, Span

BLANKS = "blanks around the sentence: taken away"
OTHER_DURATION = "the video's own length differs from the annotated one: its own counts"
CROPPED = "the question is about a part of its video: that part is cut out"
CUT_ALREADY = "the video file is as long as the part asked about: taken for it"
LARGEST_DIFFERENCE_SECONDS = 1.0
DURATION_KEYS = ("duration", "video_duration")


@dataclass(frozen=True)
class Moment:
    """A sentence and when it is true, in seconds; `video` is a name, `duration_seconds` the annotated length."""

    id: str
    video: str
    sentence: Any
    span_seconds: Span
    duration_seconds: float | None = None


def moments_of_dictionary(file: Path) -> Iterator[tuple[str, Moment]]:
    """Moments of a JSON object: video -> `duration` (or `video_duration`), `timestamps`, `sentences`.

    Raises:
        ValueError: a broken record, or not as many sentences as timestamps.
    """
    numbering = Numbering()
    for where, video, record in json_records(file):
        try:
            if not isinstance(video, str):
                raise ValueError("an object of videos is expected, not a list")
            key = next((key for key in DURATION_KEYS if isinstance(record, dict) and key in record), DURATION_KEYS[0])
            duration = field(record, key, number)
            spans, sentences = field(record, "timestamps", listing), field(record, "sentences", listing)
            if len(spans) != len(sentences):
                raise ValueError(f"there are {len(spans)} timestamps and {len(sentences)} sentences")
            moments = [
                Moment(numbering.next_of(video), video, words, seconds_pair(span, f"timestamps[{index}]"), duration)
                for index, (span, words) in enumerate(zip(spans, sentences, strict=True))
            ]
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        yield from ((f"{where}[{index}]", moment) for index, moment in enumerate(moments))


def durations_of(file: Path) -> dict[str, float]:
    """Video -> annotated length in seconds, from a JSON object of objects with `duration`."""
    durations = {}
    for where, video, record in json_records(file):
        try:
            durations[str(video)] = field(record, "duration", number)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return durations


def moment_samples(moments: Iterable[tuple[str, Moment]], videos: VideoFolder, report: Report) -> Iterator[Sample]:
    """Samples of moments in whole videos: what is empty or reversed is dropped, what ends late is clamped."""

    def convert(where: str, moment: Moment) -> Sample:
        video = videos.find(moment.video)
        info = videos.facts(video)
        own_seconds, annotated = info.num_frames / info.fps, moment.duration_seconds
        if annotated is not None and abs(annotated - own_seconds) > LARGEST_DIFFERENCE_SECONDS:
            report.changed(OTHER_DURATION, where, f"{own_seconds:g} instead of {annotated:g} seconds")
        return moment_sample(where, moment, video, info, report)

    return samples_of(moments, convert, report)


def crop_samples(
    moments: Iterable[tuple[str, tuple[Moment, Span | None]]], videos: VideoFolder, report: Report
) -> Iterator[Sample]:
    """Samples of moments in crops: each with the crop `[start, end]` in seconds of its video file, or None.

    The span counts from the crop's start, and the crop becomes a video of its own. A file that is as long as the
    crop, and ends before the crop would, is taken for the crop itself.
    """

    def convert(where: str, item: tuple[Moment, Span | None]) -> Sample:
        moment, crop = item
        video = videos.find(moment.video)
        info = videos.facts(video)
        if crop is None:
            return moment_sample(where, moment, video, info, report)
        if _is_cut_already(crop, info):
            report.changed(CUT_ALREADY, where)
            return moment_sample(where, moment, video, info, report)
        start, end = seconds_in_video(crop, info, where, report)
        report.changed(CROPPED, where, f"{crop[0]:g} to {crop[1]:g} seconds of {video.name}")
        cut = excerpt(video, start, end)
        # Both ends of the part were moved to whole frames, by half a frame at most.
        return moment_sample(where, moment, cut, replace(info, num_frames=end - start), report, 1 / info.fps)

    return samples_of(moments, convert, report)


def _is_cut_already(crop: Span, info: VideoInfo) -> bool:
    own_seconds, crop_seconds = info.num_frames / info.fps, crop[1] - crop[0]
    as_long = abs(own_seconds - crop_seconds) <= LARGEST_DIFFERENCE_SECONDS
    return as_long and own_seconds < crop[1] - LARGEST_DIFFERENCE_SECONDS


def moment_sample(
    where: str,
    moment: Moment,
    video: Path,
    info: VideoInfo,
    report: Report,
    rounding_seconds: float = ROUNDING_SECONDS,
) -> Sample:
    """The sample of a moment, its span clamped to the video, whose length is true to `rounding_seconds`.

    Raises:
        Dropped: no sentence, or a span that is reversed, empty or after the video's end.
    """
    query = sentence(moment.sentence, "the sentence")
    if query != moment.sentence:
        report.changed(BLANKS, where)
    span = seconds_in_video(moment.span_seconds, info, where, report, rounding_seconds)
    # As annotated, late ends included: evaluators of temporal grounding compare with these seconds.
    seconds = max(moment.span_seconds[0], 0.0), moment.span_seconds[1]
    truth = truth_of(moment.id, query, info, span_frames=span, task="temporal", annotated_seconds=seconds)
    return Sample(truth, video, source=where)
