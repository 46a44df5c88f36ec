"""`stvg score` and `stvg reward` against figures worked by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import assert_close

ROOT = Path(__file__).parent.parent.parent
QUICKSTART = ROOT / "recipes" / "quickstart.yaml"
SARL_STG = ROOT / "recipes" / "sarl_stg.yaml"
STVG_O1 = ROOT / "recipes" / "stvg_o1.yaml"


def lines(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def truth(id_: str) -> dict[str, Any]:
    """Ten seconds at ten frames a second: object 1 stands left and acts from 2 to 6 s; object 2 leaves after 5 s."""
    left = {str(frame): [0, 0, 20, 20] for frame in range(100)}
    right = {str(frame): [50, 50, 70, 70] for frame in range(50)}
    size = {"fps": 10, "num_frames": 100, "width": 100, "height": 100}
    answer = {"span_frames": [20, 60], "object_id": 1, "tracks": {"1": left, "2": right}}
    return {"id": id_, "query": "who waves", **size, **answer}


@pytest.fixture
def truths(tmp_path: Path) -> Path:
    return lines(tmp_path / "truth.jsonl", truth("a"), truth("b"), truth("c"))


def test_scores_by_hand(truths: Path, tmp_path: Path, stvg: Any) -> None:
    predictions = lines(
        tmp_path / "predictions.jsonl",
        {"id": "a", "span_frames": [40, 80], "object_id": 1},  # 20 frames of 60 in common, the right object
        {"id": "b", "span_seconds": [2.0, 6.0], "object_id": 2},  # the right time, the wrong object
    )
    rows = tmp_path / "rows.jsonl"
    scores = json.loads(stvg("score", "--truth", truths, "--predictions", predictions, "--json", "--rows", rows).out)
    means = scores["canonical"]
    expected = {"m_tIoU": (1 / 3 + 1 + 0) / 3, "m_vIoU": 1 / 9, "vIoU@0.3": 1 / 3, "vIoU@0.5": 0, "tIoU@0.5": 1 / 3}
    for name, value in {**expected, "id_accuracy": 1 / 3, "unreadable": 1 / 3}.items():
        assert_close(means[name], value)
    assert scores["missing"] == ["c"]
    assert set(scores) == {"canonical", "missing"}
    written = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [(row["id"], round(row["vIoU"], 6)) for row in written] == [("a", 0.333333), ("b", 0.0), ("c", 0.0)]


def test_a_missing_prediction_is_told_to_people_too(truths: Path, tmp_path: Path, stvg: Any) -> None:
    predictions = lines(tmp_path / "p.jsonl", {"id": "b", "span_seconds": [2.0, 6.0], "object_id": 1})
    printed = stvg("score", "--truth", truths, "--predictions", predictions)
    assert "2 of 3 truths have no prediction and count 0: a, c" in printed.out
    assert "33.3" in printed.out and "m_vIoU" in printed.out


def test_plain_letters_and_numbers_are_scored_without_a_language(tmp_path: Path, stvg: Any) -> None:
    size = {"fps": 10, "num_frames": 100, "width": 100, "height": 100, "query": "which?"}
    truth_file = lines(
        tmp_path / "t.jsonl",
        {"id": "a", "task": "choice", "answer": "B", **size},
        {"id": "b", "task": "choice", "answer": "B", **size},
        {"id": "c", "task": "numeric", "answer": 2.0, **size},
    )
    texts = {"a": "I think A or (C). <answer>B. left</answer>", "b": "The answer is B", "c": "about 2 m"}
    predictions = lines(tmp_path / "p.jsonl", *({"id": id_, "text": text} for id_, text in texts.items()))
    command = ("score", "--truth", truth_file, "--predictions", predictions, "--json")
    plain, named = (json.loads(stvg(*command, *more).out)["canonical"] for more in ((), ("--language", "graph")))
    assert (plain["accuracy"], plain["relative_accuracy"], plain["unreadable"]) == (1.0, 1.0, 0.0)
    assert (named["accuracy"], named["relative_accuracy"]) == (0.5, 0.0)  # of a language, what its tag holds


def test_boxes_and_texts_are_scored_alike(truths: Path, tmp_path: Path, stvg: Any) -> None:
    half = {str(frame): [0, 0, 20, 10] for frame in range(20, 60)}
    text = "<think>x</think><answer>Target ID: 1, Time range: 2.00 to 6.00</answer>"
    predictions = lines(
        tmp_path / "p.jsonl",
        {"id": "a", "span_frames": [20, 60], "boxes_xyxy": half},
        {"id": "b", "text": text},
        {"id": "c", "text": "no answer"},
    )
    rows = tmp_path / "rows.jsonl"
    stvg("score", "--truth", truths, "--predictions", predictions, "--json", "--rows", rows)
    written = [json.loads(line) for line in rows.read_text().splitlines()]
    assert_close([row["vIoU"] for row in written], [0.5, 1.0, 0.0])
    assert [row["unreadable"] for row in written] == [False, False, True]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"id": "z", "text": "x"}, "p.jsonl:1: id 'z' is not among the 3 truths"),
        ({"id": "a"}, "p.jsonl:1"),
        ({"id": "a", "txt": "x"}, "p.jsonl:1"),
        ({"id": "a", "span_frames": [80, 40], "object_id": 1}, "p.jsonl:1"),
        ({"id": "a", "span_frames": [80, 400], "object_id": 1}, "p.jsonl:1"),
    ],
)
def test_predictions_that_cannot_be_scored_are_refused(
    record: dict[str, Any], message: str, truths: Path, tmp_path: Path, stvg: Any
) -> None:
    printed = stvg("score", "--truth", truths, "--predictions", lines(tmp_path / "p.jsonl", record))
    assert message in printed.message and printed.out == ""


def test_missing_files_and_languages_are_named(truths: Path, tmp_path: Path, stvg: Any) -> None:
    gone = tmp_path / "gone.jsonl"
    assert f"there is no file {gone}" in stvg("score", "--truth", gone, "--predictions", truths).message
    predictions = lines(tmp_path / "p.jsonl", {"id": "a", "text": "x"})
    printed = stvg("score", "--truth", truths, "--predictions", predictions, "--language", "id_spam")
    assert "id_spam" in printed.message and "id_span" in printed.message


COMPLETIONS = [
    ("a", "<think>x</think><answer>Target ID: 1, Time range: 2.00 to 6.00</answer>", (1.0, 1.0, 1.0)),
    ("b", "<answer>Target ID: 1, Time range: 4.00 to 8.00</answer>", (1 / 3, 1.0, 0.0)),
    ("a", "<think>x</think><answer>Target ID: 2, Time range: 2.00 to 6.00</answer>", (1.0, 0.0, 1.0)),
    ("a", "I do not know", (0.0, 0.0, 0.0)),
    ("b", "<think></think><answer>Target ID: 1, Time range: 9.95 to 9.99</answer>", (0.0, 0.0, 1.0)),
]
"""Completions with their temporal IoU, object id and format; the last names a time in which no frame lies."""


@pytest.fixture
def completions(tmp_path: Path) -> Path:
    return lines(tmp_path / "completions.jsonl", *({"id": id_, "text": text} for id_, text, _ in COMPLETIONS))


def test_rewards_by_hand(truths: Path, completions: Path, stvg: Any) -> None:
    printed = stvg("reward", QUICKSTART, "--samples", truths, "--completions", completions)
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [row["id"] for row in rows] == [id_ for id_, _, _ in COMPLETIONS], "in the order of the file"
    for row, (_, _, (time, object_id, form)) in zip(rows, COMPLETIONS, strict=True):
        assert row.keys() == {"id", "terms", "total"}
        assert_close([row["terms"][name] for name in ("temporal_iou", "object_id", "format")], [time, object_id, form])
        assert_close(row["total"], time + object_id + form)


def test_weights_and_terms_follow_the_recipe(truths: Path, completions: Path, tmp_path: Path, stvg: Any) -> None:
    (tmp_path / "own.py").write_text(
        "from stvg_lightning.rewards import reward\n\n@reward\ndef brave(answer, truth, context):\n"
        "    return None if answer.span_seconds is None else float('know' not in answer.text) * context.progress\n"
    )
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(
        f"rewards:\n  format: null\n  temporal_iou: {{use: stvg_lightning.rewards.temporal_iou, weight: 2}}\n"
        f'  brave: {{use: "{tmp_path}/own.py:brave", weight: 0.5}}\n'
    )
    printed = stvg("reward", QUICKSTART, overlay, "--samples", truths, "--completions", completions)
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [list(row["terms"]) for row in rows] == [["temporal_iou", "object_id", "brave"]] * 5
    assert_close([row["total"] for row in rows], [3.5, 2 / 3 + 1.5, 2.5, 0.0, 0.5])
    assert [row["terms"]["brave"] for row in rows] == [1.0, 1.0, 1.0, None, 1.0]


def test_the_table_is_for_people(truths: Path, completions: Path, stvg: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    out = stvg("reward", QUICKSTART, "--samples", truths, "--completions", completions, "--table").out
    for text in ("temporal_iou", "object_id", "format", "total", "I do not know", "0.333", "3.000"):
        assert text in out


def test_a_completion_of_an_unknown_sample_is_refused_by_its_line(truths: Path, tmp_path: Path, stvg: Any) -> None:
    path = tmp_path / "completions.jsonl"
    path.write_text('{"id": "a", "text": "x"}\n\n{"id": "zebra", "text": "x"}\n')  # blank lines count too
    printed = stvg("reward", QUICKSTART, "--samples", truths, "--completions", path)
    assert f"{path}:3: id 'zebra' is not among the 3 truths" in printed.message and printed.out == ""


def test_a_reward_that_raises_is_named_with_the_sample(
    truths: Path, completions: Path, tmp_path: Path, stvg: Any
) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from stvg_lightning.rewards import reward\n\n@reward\ndef broken(answer, truth):\n    return 1 / 0\n"
    )
    arguments = ("reward", QUICKSTART, f"rewards.mine={own}:broken", "--samples", truths, "--completions", completions)
    printed = stvg(*arguments)
    assert "reward term 'mine' on sample 'a' raised ZeroDivisionError" in printed.message
    assert "there is no 'brokn'" in stvg(*arguments[:2], f"rewards.mine={own}:brokn", *arguments[3:]).message


BOX_TRUTH = {
    "id": "a", "query": "q", "fps": 10, "num_frames": 100, "width": 672, "height": 504, "span_frames": [50, 80],
    "boxes_xyxy": {str(frame): [20, 20, 60, 40] for frame in range(50, 80)},
}  # fmt: skip


def test_the_rewards_of_stvg_o1_by_hand(tmp_path: Path, stvg: Any) -> None:
    """The video is shown at half its size, 336 x 252: in its pixels the true box is 10, 10, 30, 20."""
    truths, completions = tmp_path / "truths.jsonl", tmp_path / "completions.jsonl"
    truths.write_text(json.dumps(BOX_TRUTH) + "\n")
    exact = ", ".join(f"{second}. [10, 10, 30, 20]" for second in (5, 6, 7))
    moved = ", ".join(f"{second}. [20, 10, 40, 20]" for second in (5, 6, 7))
    shape = "<time> 5 - 7 </time> <think_bbox> {} </think_bbox> <pred_bbox> {} </pred_bbox>"
    texts = [shape.format(exact, exact), shape.format(moved, exact), "soon"]
    completions.write_text("".join(json.dumps({"id": "a", "text": text}) + "\n" for text in texts))
    printed = stvg("reward", STVG_O1, "--samples", truths, "--completions", completions)
    rows = [json.loads(line) for line in printed.out.splitlines()]
    moved_score = 1 / 3 - 20 / 336
    worked = [
        {"format": 1, "consistency": 1, "temporal": 1, "spatial": 2, "think": 0},
        {"format": 1, "consistency": 1, "temporal": 1, "spatial": 1 + moved_score, "think": 1 - moved_score},
        {"format": 0, "consistency": 0, "temporal": 0, "spatial": 0, "think": 0},
    ]
    for row, expected in zip(rows, worked, strict=True):
        assert list(row["terms"]) == list(expected)
        assert_close(list(row["terms"].values()), list(expected.values()))
    assert_close([row["total"] for row in rows], [5.0, 4 + moved_score + 0.5 * (1 - moved_score), 0.0])
    without = stvg(
        "reward", STVG_O1, "video.side_multiple=null",
        "--samples", truths, "--completions", completions,
    )  # fmt: skip
    assert without.code != 0 and "frames" in without.message


def test_sarl_stgs_reward_by_hand_and_a_discriminators_boxes(tmp_path: Path, stvg: Any) -> None:
    truths = lines(tmp_path / "truths.jsonl", BOX_TRUTH)
    line = {"id": "a", "text": "<think>so</think><answer>5.00 to 7.00</answer>"}
    timed = {"id": "a", "text": "<think>from 5 to 7.00</think><timestep>7.0</timestep><answer>5.00 to 7.00</answer>"}
    boxes = {"50": [20, 20, 60, 40], "60": [20, 20, 60, 30], "75": [0, 0, 1, 1]}
    file = lines(
        tmp_path / "completions.jsonl",
        {**line, "boxes_xyxy": {}},
        {**line, "boxes_xyxy": boxes},
        {**timed, "boxes_xyxy": boxes},
        {"id": "a", "text": "<answer>7.00 to 5.00</answer>"},
    )
    printed = stvg("reward", SARL_STG, "--samples", truths, "--completions", file)
    rows = [json.loads(row) for row in printed.out.splitlines()]
    overlap = 2 / 3
    place = [overlap, *[overlap + overlap**2 * 0.75] * 2, 0.0]
    form, think = [1, 1, 1, 0], [0, 0, 1, 0]
    for name, expected in {"spatio_temporal": place, "format": form, "think": think}.items():
        assert_close([row["terms"][name] for row in rows], expected)
    assert_close([row["total"] for row in rows], [2 * p + 0.6 * f + 0.4 * t for p, f, t in zip(place, form, think)])


def test_boxes_of_a_discriminator_must_be_there_and_in_the_video(tmp_path: Path, stvg: Any) -> None:
    truths = lines(tmp_path / "truths.jsonl", BOX_TRUTH)
    line = {"id": "a", "text": "<think>so</think><answer>5.00 to 7.00</answer>"}
    late = lines(tmp_path / "completions.jsonl", {**line, "boxes_xyxy": {"100": [0, 0, 1, 1]}})
    printed = stvg("reward", SARL_STG, "--samples", truths, "--completions", late)
    assert "completions.jsonl:1: a frame of boxes_xyxy is '100'" in printed.message
    printed = stvg("reward", SARL_STG, "--samples", truths, "--completions", lines(tmp_path / "none.jsonl", line))
    assert "place is rewarded by a spatial discriminator's boxes, and there are none" in printed.message
    some = lines(tmp_path / "some.jsonl", {**line, "boxes_xyxy": {"50": [0, 0, 1, 1]}}, line)
    printed = stvg("reward", SARL_STG, "--samples", truths, "--completions", some)
    assert "has no boxes_xyxy, and others have them" in printed.message


def test_texts_of_boxes_are_scored_as_a_recipe_reads_them(tmp_path: Path, stvg: Any) -> None:
    """Half of the true box, in pixels of the video at half its size, from second 5 to the end of second 7."""
    truths = lines(tmp_path / "truths.jsonl", BOX_TRUTH)
    boxes = ", ".join(f"{second}. [10, 10, 30, 15]" for second in (5, 6, 7))
    text = f"<time> 5 - 7 </time> <think_bbox> {boxes} </think_bbox> <pred_bbox> {boxes} </pred_bbox>"
    predictions = lines(tmp_path / "predictions.jsonl", {"id": "a", "text": text})
    files = ("--truth", truths, "--predictions", predictions, "--json")
    scores = json.loads(stvg("score", *files, "--recipe", STVG_O1).out)["canonical"]
    assert_close([scores["m_tIoU"], scores["m_vIoU"]], [1.0, 0.5])
    ids = json.loads(stvg("score", *files).out)["canonical"]
    assert ids["m_vIoU"] == 0 and ids["unreadable"] == 1
    for told in (("--language", "id_span"), ("--markers", "upper")):
        assert "--recipe tells language and markers" in stvg("score", *files, "--recipe", STVG_O1, *told).message
