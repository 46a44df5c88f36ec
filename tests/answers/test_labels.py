"""Labels: each object id has one, and each label one id."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.answers import MARKER_KINDS, label_of, object_id_of


@given(st.integers(1, 18_000), st.sampled_from(MARKER_KINDS))
def test_a_label_leads_back_to_its_id(object_id: int, kind: str) -> None:
    assert object_id_of(label_of(object_id, kind), kind) == object_id


@pytest.mark.parametrize(
    ("object_id", "number", "upper", "mix"),
    [(1, "1", "A", "1"), (9, "9", "I", "9"), (10, "10", "J", "A"), (26, "26", "Z", "Q"), (27, "27", "AA", "R")],
)
def test_labels_by_hand(object_id: int, number: str, upper: str, mix: str) -> None:
    assert label_of(object_id, "number") == number
    assert label_of(object_id, "upper") == upper
    assert label_of(object_id, "lower") == upper.lower()
    assert label_of(object_id, "mix") == mix


def test_ids_start_at_one_and_foreign_labels_have_no_id() -> None:
    with pytest.raises(ValueError, match="start at 1"):
        label_of(0)
    assert object_id_of("A", "number") is None
    assert object_id_of("1", "upper") is None
    assert object_id_of("\u0663", "number") is None
    assert object_id_of("1" * 10, "number") is None
    assert object_id_of("", "mix") is None
