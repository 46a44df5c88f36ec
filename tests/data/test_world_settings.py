"""World settings that no scene can fit are refused at once, instead of being sought for ever."""

from __future__ import annotations

import pytest

from stvg_lightning.data.synthetic import WorldSettings, make_scene
from stvg_lightning.modules.lessons import Course


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_seconds": 2.0, "max_seconds": 2.5}, "min_seconds 2.0 is too short: two actions need 2.5"),
        ({"min_things": 4, "max_ids": 3}, "to max_ids 3"),
        ({"max_things": 10}, "must lie in 1 to 9"),
        ({"min_things": 0}, "min_things 0"),
        ({"min_things": 3, "max_things": 2}, "min_things 3 and max_things 2"),
        ({"min_seconds": 6.0}, "a least length is above the largest"),
    ],
)
def test_worlds_that_cannot_be_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorldSettings(**settings)


def test_worlds_at_the_limit_are_made() -> None:
    tight = WorldSettings(min_seconds=2.5, max_seconds=2.5)
    assert {make_scene(seed, tight).num_frames for seed in range(20)} == {20}


def test_courses_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="num_scenes must be at least 1, not 0"):
        Course("video", 1, 1, 0)
    with pytest.raises(ValueError, match="min_things 3"):
        Course("video", 1, 1, 1, min_things=3, max_things=2)
