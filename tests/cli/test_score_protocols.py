"""`stvg score --protocol`: one file of predictions under several evaluators, masks, and files of any content."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stvg_lightning.tubes import encode_mask
from tests.evaluation import golden
from tests.helpers import assert_close

Record = dict[str, Any]


def lines(path: Path, *records: Record) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def truth_line(id_: str, **fields: Any) -> Record:
    boxes = {str(frame): list(golden.moving_box(frame)) for frame in range(100, 300)}
    size = {"fps": 25, "num_frames": 500, "width": 640, "height": 360}
    return {"id": id_, "query": "a man", **size, "span_frames": [100, 300], "boxes_xyxy": boxes, **fields}


@pytest.fixture
def golden_files(tmp_path: Path) -> tuple[Path, Path]:
    predictions = [
        {"id": name, "span_frames": list(span), "boxes_xyxy": {str(f): list(box_at(f)) for f in range(*span)}}
        for name, (span, box_at) in golden.PREDICTIONS.items()
    ]
    truths = [truth_line(name) for name in golden.PREDICTIONS]
    return lines(tmp_path / "t.jsonl", *truths), lines(tmp_path / "p.jsonl", *predictions)


def test_several_protocols_at_once(golden_files: tuple[Path, Path], tmp_path: Path, stvg: Any) -> None:
    rows_file, names = tmp_path / "rows.jsonl", list(golden.GOLDEN_VIOU)
    files = ("--truth", golden_files[0], "--predictions", golden_files[1])
    printed = stvg("score", *files, "--protocol", ",".join(names), "--json", "--rows", rows_file)
    scores = json.loads(printed.out)
    assert list(scores) == names
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    for name in names:
        assert_close(scores[name]["m_vIoU"], sum(golden.GOLDEN_VIOU[name]) / len(golden.PREDICTIONS), atol=1e-6)
        found = {row["id"]: row["vIoU"] for row in rows if row["protocol"] == name}
        assert_close(list(found.values()), golden.GOLDEN_VIOU[name], atol=1e-6)
    table = stvg("score", *files, "--protocol", "llava_st,hcstvg").out
    assert "LLaVA-ST's evaluator" in table and "71.22" in table


def test_a_file_that_is_scored_is_not_written_over(golden_files: tuple[Path, Path], stvg: Any) -> None:
    truth, predictions = golden_files
    before = truth.read_text()
    command = ("score", "--truth", truth, "--predictions", predictions, "--rows", truth)
    assert "would be lost" in stvg(*command).message and truth.read_text() == before


def test_protocols_that_are_wrong_are_named(golden_files: tuple[Path, Path], stvg: Any) -> None:
    files = ("--truth", golden_files[0], "--predictions", golden_files[1])
    assert "did you mean 'hcstvg'" in stvg("score", *files, "--protocol", "hcstv").message
    assert "asked for twice" in stvg("score", *files, "--protocol", "hcstvg,hcstvg").message
    assert (
        "'perfect' is of task 'stvg': protocol refcoco scores spatial"
        in stvg("score", *files, "--protocol", "refcoco").message
    )


def test_masks_of_objects_and_of_ones_own(tmp_path: Path, stvg: Any) -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:15, 5:15] = True
    left, right = mask.copy(), mask.copy()
    left[:, 10:], right[:, :10] = False, False
    whole, *halves = (encode_mask(each) for each in (mask, left, right))
    video = {"query": "q", "fps": 5, "num_frames": 3, "width": 30, "height": 20, "task": "spatial",
             "boxes_xyxy": {"0": [5, 5, 15, 15]}}  # fmt: skip
    objects = {str(i): {str(f): half for f in range(3)} for i, half in enumerate(halves, start=1)}
    target = {str(frame): whole for frame in range(3)}
    truths = [{"id": id_, **video, "masks": objects, "target_masks": target} for id_ in ("both", "one", "own", "none")]
    predictions = [
        {"id": "both", "text": "<answer>Target ID: 1, 2</answer>"},
        {"id": "one", "object_ids": [1]},
        {"id": "own", "masks": {"0": whole, "1": whole}},
    ]
    files = ("--truth", lines(tmp_path / "t", *truths), "--predictions", lines(tmp_path / "p", *predictions))
    rows_file = tmp_path / "rows"
    scores = json.loads(stvg("score", *files, "--protocol", "mevis,davis", "--json", "--rows", rows_file).out)
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    assert_close([row["J"] for row in rows], [1.0, 0.5, 2 / 3, 0.0, 1.0, 0.5, 1.0, 0.0], atol=1e-12)
    assert_close(scores["davis"]["J"], 2.5 / 4, atol=1e-12)
    assert scores["missing"] == ["none"]
    cut = {"id": "one", "masks": {"0": {"size": [20, 30], "counts": "04"}}}
    files = ("--truth", tmp_path / "t", "--predictions", lines(tmp_path / "p", cut))
    assert "truth 'one': a mask's counts" in stvg("score", *files, "--protocol", "mevis").message


def test_a_truth_in_seconds(tmp_path: Path, stvg: Any) -> None:
    video = {"query": "q", "fps": 6.1, "num_frames": 100, "width": 30, "height": 20, "task": "temporal"}
    truths = lines(tmp_path / "t", {"id": "a", **video, "span_seconds": [2.3, 20.0]})
    predictions = lines(tmp_path / "p", {"id": "a", "span_seconds": [2.3, 11.15]})
    scores = json.loads(stvg("score", "--truth", truths, "--predictions", predictions, "--protocol", "time_r1,timezero",
                             "--json").out)  # fmt: skip
    assert_close(scores["time_r1"]["m_tIoU"], 0.5, atol=1e-12)
    assert_close(scores["timezero"]["m_tIoU"], 0.5, atol=1e-12)
    late = lines(tmp_path / "t", {"id": "a", **video, "span_seconds": [17.0, 20.0]})
    assert "begins before the video ends" in stvg("score", "--truth", late, "--predictions", predictions).message
    both = lines(tmp_path / "t", {"id": "a", **video, "span_seconds": [2.3, 9.0], "span_frames": [50, 60]})
    assert (
        "that of span_seconds, [14, 55], to a frame"
        in stvg("score", "--truth", both, "--predictions", predictions).message
    )


JUNK = (None, True, -1, 0, 10**9, 10**400, 1e308, "", "x", [], {}, [1, 2], {"7": [0, 0, 1, 1]}, [[1]], "\ud800")


def mutated(record: Record, rng: random.Random) -> Record:
    """A record with one value, anywhere in it, made into something else, taken away, or given another key."""
    copy = json.loads(json.dumps(record))
    place: Any = copy
    while True:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        deeper = place[key]
        if not isinstance(deeper, dict | list) or not deeper or rng.random() < 0.3:
            break
        place = deeper
    deed = rng.random()
    if deed < 0.7:
        place[key] = rng.choice(JUNK)
    elif isinstance(place, dict) and deed < 0.85:
        place[rng.choice(["id", "fps", "span_frames", "٣", "007", "x"])] = place.pop(key)
    else:
        del place[key]
    return copy


def test_files_of_any_content_are_scored_or_refused_in_one_line(tmp_path: Path, stvg: Any) -> None:
    rng = random.Random(0)
    mask = encode_mask(np.ones((4, 6), dtype=bool))
    truth = {
        "id": "a", "query": "q", "fps": 25, "num_frames": 120, "width": 6, "height": 4, "span_frames": [2, 5],
        "object_id": 1, "tracks": {"1": {"3": [0, 0, 2, 2], "4": [1, 0, 3, 2]}}, "masks": {"1": {"3": mask}},
    }  # fmt: skip
    answers = (
        {"id": "a", "span_frames": [2, 4], "object_ids": [1]},
        {"id": "a", "span_seconds": [0.1, 0.2], "boxes_xyxy": {"3": [0, 0, 2, 2]}},
        {"id": "a", "text": "<answer>Target ID: 1, Time range: 0.10 to 0.20</answer>"},
        {"id": "a", "masks": {"3": mask}},
    )
    protocols = "canonical,hcstvg,tubedetr_hcstvg,cgstvg_vidstg,llava_st,volume,stvg_r1,time_r1,v_star,mevis"
    scored = 0
    for trial in range(300):
        answer = rng.choice(answers)
        pair = (mutated(truth, rng), answer) if trial % 2 else (truth, mutated(answer, rng))
        files = [lines(tmp_path / name, record) for name, record in zip(("t", "p"), pair)]
        if trial % 10 == 0:
            content = bytearray(files[trial % 2].read_bytes())
            content[rng.randrange(len(content))] = rng.randrange(256)
            files[trial % 2].write_bytes(content)
        printed = stvg("score", "--truth", files[0], "--predictions", files[1], "--protocol", protocols, "--json")
        if printed.out:
            means = json.loads(printed.out)
            scored += 1
            values = [value for name, of in means.items() if name != "missing" for value in of.values()]
            assert all(0 <= value <= 1 + 1e-9 for value in values)
        else:
            assert len(printed.message.splitlines()) == 1
    assert 10 < scored < 290
