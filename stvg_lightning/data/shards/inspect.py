"""Show what is inside a folder of shards: figures, and a sheet of frames with the true boxes."""

from __future__ import annotations

import statistics
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from stvg_lightning.data.annotations.vote import CLEAR_MAJORITY, elected
from stvg_lightning.data.shards.codec import BadSample
from stvg_lightning.data.shards.manifest import verify
from stvg_lightning.data.shards.reader import ShardFolder
from stvg_lightning.data.video import decode_frames
from stvg_lightning.tubes import Clip, Sample, Truth
from stvg_lightning.tubes.jsonl import TruthExtras

NUM_QUERIES_SHOWN = 5
NUM_DOUBTFUL_SHOWN = 20
FRAMES_PER_ROW = 6
FRAME_HEIGHT = 112
CAPTION_SIZE = 13
CAPTION_LINES = 2
CAPTION_HEIGHT = CAPTION_LINES * 17 + 4
GAP = 4
GREEN = (0, 190, 60)


def describe(directory: Path | str) -> dict[str, Any]:
    """What a folder of shards holds, as values that JSON can say. Videos are not decoded.

    Returns:
        `source`, `licence`, `created_by`, `schema_version`, `content_hash`, `num_samples`, `shards`;
        `tasks` and `sizes` with counts; `duration_seconds`, `span_seconds` and `objects_per_video`
        with `min`, `mean` and `max` (None where there are none); `categories` of objects with counts; `votes`: how many
        `samples` hold votes for their target, the `share` that the chosen object has of them, and the ids of those that
        are `doubtful`, where it has no majority; the first `queries`; `bad_samples` and `differences` from the
        manifest as sentences.
    """
    folder = ShardFolder(directory)
    told, bad_samples = _truths(folder)
    truths = [truth for truth, _ in told]
    manifest = folder.manifest
    return {
        "source": manifest.source,
        "licence": manifest.licence,
        "created_by": manifest.created_by,
        "schema_version": manifest.schema_version,
        "content_hash": manifest.content_hash,
        "num_samples": manifest.num_samples,
        "shards": [asdict(shard) for shard in manifest.shards],
        "tasks": dict(Counter(truth.task for truth in truths).most_common()),
        "sizes": dict(Counter(f"{truth.width} x {truth.height}" for truth in truths).most_common()),
        "duration_seconds": _range(truth.duration_seconds for truth in truths),
        "span_seconds": _range(span[1] - span[0] for truth in truths if (span := truth.span_seconds) is not None),
        "objects_per_video": _range(len(truth.tracks) for truth in truths),
        "categories": dict(Counter(name for _, extras in told for name in extras.categories.values()).most_common()),
        "votes": _votes(told),
        "queries": [truth.query for truth in truths[:NUM_QUERIES_SHOWN]],
        "bad_samples": bad_samples,
        "differences": list(verify(folder.directory)),
    }


def contact_sheet(
    directory: Path | str, num_samples: int = 12, draw: Callable[[Clip, Sample], Clip] | None = None
) -> Image.Image:
    """A picture with a row for each of some samples: its query over six frames of its span, the true box in green.

    Args:
        directory: a folder with a manifest.
        num_samples: how many rows at most; the samples are spread evenly over the folder.
        draw: draws on the frames before the box, for instance the objects' markers; may change their size.

    Raises:
        BadSample: a chosen sample is damaged.
        UnreadableVideo: a chosen video cannot be decoded.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, not {num_samples}")
    folder = ShardFolder(directory)
    num_rows = min(num_samples, len(folder))
    rows = [_row(folder[index * len(folder) // num_rows], draw) for index in range(num_rows)]
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _votes(told: Sequence[tuple[Truth, TruthExtras]]) -> dict[str, Any]:
    """How clear it is which objects are meant, as far as that was voted for."""
    shares = {truth.id: elected(extras.votes)[1] for truth, extras in told if extras.votes}
    doubtful = [identity for identity, share in shares.items() if share <= CLEAR_MAJORITY]
    return {"samples": len(shares), "share": _range(shares.values()), "doubtful": doubtful[:NUM_DOUBTFUL_SHOWN]}


def _truths(folder: ShardFolder) -> tuple[list[tuple[Truth, TruthExtras]], list[str]]:
    truths, bad_samples = [], []
    for index in range(len(folder)):
        try:
            truths.append(folder.truth_and_extras(index))
        except BadSample as error:
            bad_samples.append(str(error))
    return truths, bad_samples


def _range(values: Iterable[int | float]) -> dict[str, int | float] | None:
    known = list(values)
    if not known:
        return None
    return {"min": min(known), "mean": round(statistics.fmean(known), 3), "max": max(known)}


def _row(sample: Sample, draw: Callable[[Clip, Sample], Clip] | None) -> Image.Image:
    start, end = sample.truth.span_frames or (0, sample.truth.num_frames)
    # The middles of equal parts of the span, so that no frame of a short span is outside it.
    indices = [start + int((number + 0.5) * (end - start) / FRAMES_PER_ROW) for number in range(FRAMES_PER_ROW)]
    clip = decode_frames(sample.video, indices, sample.truth.fps)
    if draw is not None:
        clip = draw(clip, sample)
    frames = [_frame(clip, number, sample.truth) for number in range(len(clip.frames))]
    width = sum(frame.width + GAP for frame in frames)
    row = Image.new("RGB", (width, CAPTION_HEIGHT + FRAME_HEIGHT + GAP), "white")
    _write_caption(row, sample)
    for number, frame in enumerate(frames):
        row.paste(frame, (number * (frame.width + GAP), CAPTION_HEIGHT))
    return row


def _frame(clip: Clip, number: int, truth: Truth) -> Image.Image:
    """One frame at the sheet's height, with the true box of that frame."""
    width = max(1, round(clip.width * FRAME_HEIGHT / clip.height))
    picture = Image.fromarray(clip.frames[number]).resize((width, FRAME_HEIGHT))
    box = truth.boxes_xyxy.get(clip.frame_indices[number])
    if box is not None:
        scale_x, scale_y = width / truth.width, FRAME_HEIGHT / truth.height
        x1, y1, x2, y2 = (round(side * scale) for side, scale in zip(box, (scale_x, scale_y) * 2, strict=True))
        corners = [x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)]  # PIL's rectangles include their last pixel
        ImageDraw.Draw(picture).rectangle(corners, outline=GREEN, width=2)
    return picture


def _write_caption(row: Image.Image, sample: Sample) -> None:
    font = ImageFont.load_default(CAPTION_SIZE)
    truth, span = sample.truth, sample.truth.span_seconds
    times = "" if span is None else f" [{span[0]:.2f} to {span[1]:.2f} s]"
    share = f" (object {truth.object_id}, {100 * elected(sample.votes)[1]:.0f} % of votes)" if sample.votes else ""
    text = f"{truth.id}: {truth.query}{times}{share}"
    characters = max(8, int(row.width / (font.getlength("n") or 1)))
    lines = textwrap.wrap(text, characters, max_lines=CAPTION_LINES, placeholder=" ...")
    ImageDraw.Draw(row).multiline_text((2, 2), "\n".join(lines), fill="black", font=font)
