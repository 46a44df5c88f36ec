"""Choosing and dissecting gallery samples."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvg_lightning.reports import GalleryChoice, GalleryItem, choose_gallery
from stvg_lightning.reports.gallery import completion_parts


def rows(**scores: float | None) -> list[dict]:
    return [{"id": name, "vIoU": score, "tIoU": 0.9} for name, score in scores.items()]


BEFORE = rows(a=0.0, b=0.2, c=0.6, d=0.8, e=0.1, f=0.4, g=0.5, h=0.0)
AFTER = rows(a=0.1, b=0.9, c=0.6, d=0.7, e=0.1, f=0.4, g=0.2, h=0.05)
# Improved: b (+0.7), a (+0.1). Good: d, c. Wrong: g, e, h. f is between.


def test_cases_take_turns_from_their_best_to_their_worst():
    chosen = choose_gallery({"base": rows(z=1.0), "sft": BEFORE, "grpo": AFTER}, 100)
    assert [(choice.case, choice.id) for choice in chosen] == [
        ("improved", "b"), ("good", "d"), ("wrong", "g"),
        ("improved", "a"), ("good", "c"), ("wrong", "e"),
        ("wrong", "h"),
    ]  # fmt: skip


def test_few_places_are_shared_and_spread_over_each_case():
    chosen = choose_gallery({"sft": BEFORE, "grpo": AFTER}, 4)
    assert [(choice.case, choice.id) for choice in chosen] == [
        ("improved", "b"), ("good", "d"), ("wrong", "g"), ("improved", "a"),
    ]  # fmt: skip
    many = [{"id": f"{i:02d}", "vIoU": 0.99 - 0.01 * i, "tIoU": 1.0} for i in range(9)]
    assert [choice.id for choice in choose_gallery({"m": many}, 3)] == ["00", "04", "08"]
    assert choose_gallery({"m": many}, 0) == []


def test_the_choice_does_not_depend_on_the_order_of_rows():
    shuffled = AFTER[:]
    random.Random(3).shuffle(shuffled)
    expected = choose_gallery({"sft": BEFORE, "grpo": AFTER}, 5)
    assert choose_gallery({"sft": BEFORE[::-1], "grpo": shuffled}, 5) == expected


def test_samples_without_boxes_are_judged_by_time():
    assert choose_gallery({"m": rows(t=None)}, 1) == [GalleryChoice("t", "good")]


def test_unequal_samples_and_unknown_cases_are_refused():
    with pytest.raises(ValueError, match="'y' and 0 others"):
        choose_gallery({"sft": rows(x=0.1), "grpo": rows(x=0.1, y=0.2)}, 1)
    with pytest.raises(ValueError, match="no models"):
        choose_gallery({}, 1)
    with pytest.raises(ValueError, match=r"'lucky'.*improved, good, wrong"):
        GalleryItem("x", "a man", "lucky", b"", 1.0, "grpo")


def test_unclosed_thoughts_and_several_answers():
    assert completion_parts("<think>on and on") == (("think", "<think>on and on"),)
    assert completion_parts("<answer>1</answer> or <ANSWER>2</ANSWER>.") == (
        ("other", "<answer>1</answer> or "),
        ("answer", "<ANSWER>2</ANSWER>"),
        ("other", "."),
    )
    assert completion_parts("<think>say <answer>1</answer></think>x") == (
        ("think", "<think>say <answer>1</answer></think>"),
        ("other", "x"),
    )
    assert completion_parts("") == ()


tags = st.sampled_from(["<think>", "</think>", "<answer>", "</ANSWER>", "a", " ", "İ", "<"])


@given(st.lists(tags, max_size=12).map("".join))
def test_parts_joined_are_the_completion(text):
    assert "".join(part for _, part in completion_parts(text)) == text
