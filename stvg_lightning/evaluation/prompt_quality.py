"""How good the numbered objects of a data set are, before any model is trained on them (STVG-R1, section 3.2, Table 6).

A row for each sample, and from the rows a report: how often the target was never followed or lost its identity, and the
scores of an answer that is as right as the objects allow: the true time, and the object that the boxes vote for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from stvg_lightning.data.annotations.vote import count_votes, elected
from stvg_lightning.evaluation.identities import count_identities
from stvg_lightning.evaluation.metrics import recall_at, video_iou
from stvg_lightning.evaluation.overlap import FrameSpan, compare_tubes
from stvg_lightning.prompting import Markers, MaskTrack, marked_tubes
from stvg_lightning.tubes import Tube

THETAS = {"0": 0.0, "1/4": 1 / 4, "1/3": 1 / 3, "1/2": 1 / 2}
"""The thresholds of the mask filter in Table 6."""

Row = Mapping[str, Any]


def prompt_quality_row(
    identity: str,
    target: Tube,
    span_frames: FrameSpan,
    tracks: Sequence[MaskTrack],
    votes: Mapping[int, int],
    markers: Markers,
) -> dict[str, Any]:
    """What the objects of a video are worth for one question.

    Args:
        identity: the question's id.
        target: the target's true boxes, in the frames of the span in which it is seen; at least one.
        span_frames: the true span, `[start, end)`.
        tracks: the things that were found.
        votes: those by which the target was chosen: object id -> frames.
        markers: where the mask filter seeks the largest mask.

    Returns:
        A row that JSON can hold: `id`, `num_objects`; `followed`, whether some track reaches an IoU of 0.5 with the
        target in some frame; `switches` and `fragments` of the target's identity; `matched_share` of the frames in
        which it is seen, and one thing or another follows it; `vote_share` of the chosen object, None without votes;
        `oracle`, theta -> the vIoU of the object that the marked boxes vote for, 0 without votes, with all its boxes,
        as masks that are not marked stay in the database; `oracle_marked`, the same with its marked boxes alone.
    """
    assert target, identity
    tubes = {track.object_id: track.tube for track in tracks}
    counts = count_identities({1: target}, tubes)
    oracle: dict[str, float] = {}
    oracle_marked: dict[str, float] = {}
    for name, theta in THETAS.items():
        marked = marked_tubes(tracks, replace(markers, theta=theta), target)
        chosen, _ = elected(count_votes(target, marked))
        for scores, found in ((oracle, tubes), (oracle_marked, marked)):
            scores[name] = 0.0 if chosen is None else _video_iou(found[chosen], target, span_frames)
    return {
        "id": identity,
        "num_objects": len(tracks),
        "followed": counts.matches > 0,
        "switches": counts.switches,
        "fragments": counts.fragments,
        "matched_share": counts.matches / len(target),
        "vote_share": elected(votes)[1] if votes else None,
        "oracle": oracle,
        "oracle_marked": oracle_marked,
    }


def prompt_quality_report(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of many rows.

    Args:
        rows: of `prompt_quality_row`; at least one.

    Returns:
        `samples`; shares in [0, 1] of them, `never_followed` (no track reaches an IoU of 0.5 in any frame),
        `without_votes`, `switched` and `fragmented`; the sums `switches` and `fragments`; the means
        `objects_per_video`, `matched_share` and `vote_share`; and `oracle` and `oracle_marked`: theta -> `m_vIoU`,
        `vIoU@0.3`, `vIoU@0.5`, the upper bounds of Table 6.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("there is no sample with a target's boxes to report on")
    shares = [row["vote_share"] for row in rows if row["vote_share"] is not None]
    return {
        "samples": len(rows),
        "never_followed": fmean(not row["followed"] for row in rows),
        "without_votes": fmean(row["vote_share"] is None for row in rows),
        "switched": fmean(row["switches"] > 0 for row in rows),
        "fragmented": fmean(row["fragments"] > 0 for row in rows),
        "switches": sum(row["switches"] for row in rows),
        "fragments": sum(row["fragments"] for row in rows),
        "objects_per_video": fmean(row["num_objects"] for row in rows),
        "matched_share": fmean(row["matched_share"] for row in rows),
        "vote_share": fmean(shares) if shares else None,
        **{kind: {name: _scores(rows, kind, name) for name in THETAS} for kind in ("oracle", "oracle_marked")},
    }


def _scores(rows: Sequence[Row], kind: str, theta: str) -> dict[str, float]:
    values = [row[kind][theta] for row in rows]
    return {"m_vIoU": fmean(values), "vIoU@0.3": recall_at(values, 0.3), "vIoU@0.5": recall_at(values, 0.5)}


def _video_iou(found: Tube, target: Tube, span_frames: FrameSpan) -> float:
    """vIoU of an object answered with the true time."""
    return video_iou(compare_tubes(found, target), span_frames, span_frames)
