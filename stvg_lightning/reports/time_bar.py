"""Spans on a time bar, as an SVG that stands by itself or inside a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from stvg_lightning.tubes import Span

ROW_PIXELS, TRACK_PIXELS, AXIS_PIXELS, MARGIN_PIXELS = 30, 8, 22, 8
MOST_TICKS = 8
TICK_STEPS_SECONDS = tuple(base * 10.0**power for power in range(-2, 5) for base in (1, 2, 5))


@dataclass(frozen=True)
class TimeBarRow:
    """One span on the bar: its label, `(start, end)` in seconds or None where there is none, and a CSS colour."""

    label: str
    span_seconds: Span | None
    color: str


def time_bar_svg(rows: Sequence[TimeBarRow], duration_seconds: float, width_pixels: int = 340) -> str:
    """Spans over the length of a video, one row each, above an axis in seconds.

    Args:
        rows: from top to bottom; spans may be reversed or outside the video, as models write them.
        duration_seconds: length of the video, above 0.
        width_pixels: width of the drawing; it scales with the page.

    Returns:
        An `<svg>` element without ids. What lies outside the video is cut from the bar and kept in the
        words beside it. The last element, of class `playhead`, stands at 0 seconds.

    Raises:
        ValueError: a duration that is not above 0.
    """
    if not duration_seconds > 0:
        raise ValueError(f"duration_seconds must be above 0, not {duration_seconds}")
    height = len(rows) * ROW_PIXELS + AXIS_PIXELS
    parts = [
        f'<svg class="time-bar" viewBox="0 0 {width_pixels} {height}" role="img" font-size="12" '
        f'font-family="system-ui, sans-serif" fill="currentColor"><title>{_title(rows, duration_seconds)}</title>'
    ]
    for index, row in enumerate(rows):
        parts.append(_row_svg(row, index * ROW_PIXELS, duration_seconds, width_pixels))
    bottom = len(rows) * ROW_PIXELS
    for seconds in tick_seconds(duration_seconds):
        x = time_bar_x(seconds, duration_seconds, width_pixels)
        # The first label is set from the edge on, since half of it would hang over.
        place = f'x="{_number(x)}" text-anchor="middle"' if seconds else f'x="{_number(x - 2)}"'
        parts.append(f'<path d="M{_number(x)} {bottom}v4" stroke="currentColor" stroke-opacity=".5"/>')
        parts.append(f'<text y="{bottom + 16}" opacity=".7" {place}>{_number(seconds)} s</text>')
    parts.append(
        f'<path class="playhead" d="M{MARGIN_PIXELS} 0v{bottom}" stroke="currentColor" stroke-width="1.5" '
        f'data-travel="{width_pixels - 2 * MARGIN_PIXELS}"/></svg>'
    )
    return "".join(parts)


def time_bar_x(seconds: float, duration_seconds: float, width_pixels: int = 340) -> float:
    """Where a time stands on the bar, in pixels from the left; times outside the video stand at its ends.

    Example:
        >>> time_bar_x(0.0, 4.0, 416), time_bar_x(1.0, 4.0, 416), time_bar_x(9.0, 4.0, 416)
        (8.0, 108.0, 408.0)
    """
    share = min(max(seconds / duration_seconds, 0.0), 1.0)
    return MARGIN_PIXELS + share * (width_pixels - 2 * MARGIN_PIXELS)


def tick_seconds(duration_seconds: float) -> list[float]:
    """Round times from 0 up to, but not at, the end of a video, with which an axis can be labelled.

    Example:
        >>> tick_seconds(4.5), tick_seconds(60.0)
        ([0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 10.0, 20.0, 30.0, 40.0, 50.0])
    """
    fitting = (step for step in TICK_STEPS_SECONDS if duration_seconds / step <= MOST_TICKS)
    step = next(fitting, duration_seconds)
    # The last label would run over the edge of the bar if it stood within a third of a step of its end.
    count = int((duration_seconds - step / 3) / step) + 1
    return [round(index * step, 6) for index in range(count)]


def span_words(span_seconds: Span | None) -> str:
    """A span as a person reads it.

    Example:
        >>> span_words((1.0, 2.5)), span_words((3.0, 2.0)), span_words(None)
        ('1.00 to 2.50 s', '3.00 to 2.00 s, which is no time', 'no time')
    """
    if span_seconds is None:
        return "no time"
    start, end = span_seconds
    return f"{start:.2f} to {end:.2f} s" + ("" if start < end else ", which is no time")


def _row_svg(row: TimeBarRow, top: int, duration_seconds: float, width_pixels: int) -> str:
    track_top, full = top + 17, width_pixels - 2 * MARGIN_PIXELS
    track = f'y="{track_top}" height="{TRACK_PIXELS}" rx="2"'
    svg = (
        f'<text x="{MARGIN_PIXELS}" y="{top + 12}">{escape(row.label)}</text>'
        f'<text x="{width_pixels - MARGIN_PIXELS}" y="{top + 12}" text-anchor="end" opacity=".7">'
        f"{span_words(row.span_seconds)}</text>"
        f'<rect x="{MARGIN_PIXELS}" width="{full}" {track} opacity=".12"/>'
    )
    if row.span_seconds is None:
        return svg
    start, end = row.span_seconds
    if start >= end or end <= 0 or start >= duration_seconds:
        return svg
    left = time_bar_x(start, duration_seconds, width_pixels)
    # A span far shorter than a pixel must still be seen.
    width = max(time_bar_x(end, duration_seconds, width_pixels) - left, 1.0)
    return svg + (
        f'<rect class="span" x="{_number(left)}" width="{_number(width)}" {track} fill="{escape(row.color)}"/>'
    )


def _title(rows: Sequence[TimeBarRow], duration_seconds: float) -> str:
    spans = "; ".join(f"{row.label}: {span_words(row.span_seconds)}" for row in rows)
    return escape(f"{spans}; of {duration_seconds:.2f} s")


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")
