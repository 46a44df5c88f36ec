"""One message for every option that must be one of a few names."""

from __future__ import annotations

from collections.abc import Iterable


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        ValueError: names the option, the value and all choices.

    Example:
        >>> check_choice("theta_within", "video", ("category", "frame"))
        Traceback (most recent call last):
        ValueError: theta_within 'video' is unknown: choose from category, frame
    """
    names = tuple(choices)
    if value not in names:
        raise ValueError(f"{name} {value!r} is unknown: choose from {', '.join(names)}")
