"""ST-Align, V-STaR, STI-Bench and RefCOCO, on files written here from their descriptions."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stvg_lightning.data.annotations import refcoco, st_align, sti_bench, v_star
from stvg_lightning.data.annotations.conversions import EMPTY, NO_AREA, OTHER_LENGTH, OTHER_SIZE, OUTSIDE
from stvg_lightning.data.annotations.videos import NO_PICTURES, NO_VIDEO
from stvg_lightning.data.video import VideoInfo, probe_video
from tests.data.annotations.reading import Facts, make_video, read, through_shards, written

FACTS = VideoInfo(5.0, 20, 32, 16)


def align(question: str, answer: str, **meta: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"split": [4, 13], "width": 32, "height": 16}
    base |= {"spatial_token": {"<bboxes>": {"6": [1, 2, 10, 5], "9": [2, 2, 10, 5], "12": [3, 2, 10, 5]}}}
    base |= {"time_token": {"<s>": 6, "<e>": 9}}
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"video_path": "sub/a.mp4", "conversations": turns, "meta": base | meta}


STVG = align("<video>\nWhen and where does a dog run?", "From <s> to <e>, <bboxes>")
SVG = align("<video>\nFrom <s> to <e>, where is the dog?", "<bboxes>")
ELC = align("<video>\nStarts in <s>: what happens?", "Ends in <e>, the dog runs. Object bounding box: <bboxes>")


def test_the_three_tasks_of_st_align(tmp_path: Path) -> None:
    """Frames 4 to 13 are shown, both counted in; the event is frames 6 to 9, both counted in."""
    make_video(tmp_path / "videos" / "a.mp4")
    file = written(tmp_path / "s.json", [STVG, SVG, ELC])
    samples, report = read(st_align, file, tmp_path / "videos")
    stvg, svg, elc = (s.truth for s in samples)
    assert [t.id for t in (stvg, svg, elc)] == ["a/0", "a/1", "a/2"]
    assert [t.task for t in (stvg, svg, elc)] == ["stvg", "spatial", "stvg"]
    assert stvg.query == "When and where does a dog run?" and elc.query == "the dog runs."
    assert svg.query == "From 0.40 s to 1.20 s, where is the dog?"
    for truth in (stvg, svg, elc):
        assert (truth.num_frames, truth.span_frames) == (10, (2, 6))
        assert truth.boxes_xyxy == {2: (1.0, 2.0, 11.0, 7.0), 5: (2.0, 2.0, 12.0, 7.0)}, "boxes of sampled frames only"
    assert report.num_changed(st_align.CROPPED) == 3 and report.num_changed(st_align.ELC_TURNED) == 1
    stored = through_shards(samples, tmp_path / "out")
    assert [s.truth for s in stored] == [stvg, svg, elc] and probe_video(stored[0].video).num_frames == 10
    whole, _ = read(st_align, file, tmp_path / "videos", crop=False)
    assert (whole[0].truth.num_frames, whole[0].truth.span_frames) == (20, (6, 10))


def test_st_align_drops_and_counts(tmp_path: Path) -> None:
    items = [
        STVG | {"video_path": "gone.mp4"},
        align("a", "b", width=30),
        align("a", "b", time_token={"<s>": 20, "<e>": 25}),
        align("a", "b", spatial_token={"<bboxes>": {"12": [1, 1, 1, 1]}}),
        align("<video>\n", "b"),
        align("a", "b", time_token={}),
    ]
    samples, report = read(st_align, written(tmp_path / "s.json", items), Facts({"a": FACTS}))
    assert [(s.truth.task, s.truth.span_frames) for s in samples] == [("spatial", None)]
    reasons = (NO_VIDEO, OTHER_SIZE, OUTSIDE, "there is no box during the span", "the sentence is empty")
    assert {reason: report.num_dropped(reason) for reason in report.drops} == dict.fromkeys(reasons, 1)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"video_path": "a.mp4"}, "key 'meta' is missing"),
        (align("a", "b", split=[4]), r"split is \[4\]: it must be \[first frame, last frame\]"),
        (align("a", "b", spatial_token={}), "key '<bboxes>' is missing"),
        (align("a", "b", spatial_token={"<bboxes>": {"x": [1, 1, 1, 1]}}), "a frame of <bboxes> is 'x'"),
        (align("a", "b", spatial_token={"<bboxes>": {"6": [1, 1, -1, 1]}}), "the box of frame 6 is"),
        (STVG | {"conversations": []}, "conversations is .*: it must be a question and an answer"),
        ("text", "the record is 'text': it must be a JSON object"),
    ],
)
def test_broken_st_align_is_named(tmp_path: Path, item: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"s\.json\[1\]: {message}"):
        read(st_align, written(tmp_path / "s.json", [STVG, item]), Facts(FACTS))


def star(**changes: Any) -> dict[str, Any]:
    record: dict[str, Any] = {"vid": "a", "fps": 5.0, "frame_count": 20, "width": 32, "height": 16}
    record |= {"question": "what?", "answer": "a dog", "timestamps": [1.0, 2.0]}
    record |= {"temporal_question": "when?", "spatial_question": "where?"}
    corners = {"xmin": 1, "ymin": 2, "xmax": 11, "ymax": 7.5}
    return record | {"bboxes": [{"timestamp": 1, "frame_index": 5, **corners}, {"2_10": corners}]} | changes


def test_v_star_by_hand(tmp_path: Path) -> None:
    samples, report = read(v_star, written(tmp_path / "v.json", [star(), star(spatial_question=None)]), Facts(FACTS))
    ids = ["a/0/temporal_question", "a/0/spatial_question", "a/1/temporal_question"]
    assert [s.truth.id for s in samples] == ids and not report.drops
    temporal, spatial = samples[0].truth, samples[1].truth
    assert (temporal.task, temporal.query, temporal.span_frames) == ("temporal", "when?", (5, 10))
    assert spatial.boxes_xyxy == dict.fromkeys((5, 10), (1.0, 2.0, 11.0, 7.5)) and spatial.task == "spatial"
    items = [star(timestamps=[2.0, 2.0]), star(frame_count=30), star(vid="b")]
    _, report = read(v_star, written(tmp_path / "d.json", items), Facts({"a": FACTS}))
    assert [report.num_dropped(reason) for reason in (EMPTY, OTHER_LENGTH, NO_VIDEO)] == [2, 2, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timestamps": [1.0]}, r"\.temporal_question: timestamps is"),
        ({"bboxes": [{"a": 1, "b": 2}]}, r"\.spatial_question: a box is"),
        ({"bboxes": [{"x": {}}]}, "the key of a box is 'x'"),
        ({"bboxes": [{"frame_index": 1, "xmin": 3}]}, "it must be an object with xmin"),
        ({"bboxes": [{"1_5": {"xmin": 3, "ymin": 0, "xmax": 1, "ymax": 2}}]}, "it must be not reversed"),
        ({"width": -1}, "width is -1"),
        ({"vid": None}, "vid is None"),
    ],
)
def test_broken_v_star_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"v\.json\[0\].*{message}"):
        read(v_star, written(tmp_path / "v.json", [star(**changes)]), Facts(FACTS))


ROW = {"Video": "a.mp4", "ID": 3, "time_start": 1.0, "time_end": 2, "Question": "How far?", "Answer": "B"}
ROW |= {"Candidates": '{"A": "1 m", "B": "2 m"}', "Task": "distance", "Scene": "indoor"}


def test_sti_bench_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [ROW, ROW | {"ID": 4, "Candidates": {"A": "1", "B": "2", "C": None}}]
    rows += [ROW | {"ID": 5, "time_end": 1.0}, ROW | {"Video": "b.mp4"}]
    monkeypatch.setattr(sti_bench, "_rows", lambda file: iter(rows))
    samples, report = read(sti_bench, tmp_path / "qa.parquet", Facts({"a": FACTS}))
    truth = samples[0].truth
    assert (truth.id, truth.task, truth.answer, truth.span_frames) == ("a/3", "choice", "B", (5, 10))
    assert truth.labels == {"Task": "distance", "Scene": "indoor"}
    assert truth.query == "From 1 s to 2 s. How far?\n(A) 1 m\n(B) 2 m"
    assert samples[1].truth.query.endswith("\n(A) 1\n(B) 2")
    assert (report.num_dropped(EMPTY), report.num_dropped(NO_VIDEO)) == (1, 1)
    for change, message in (
        ({"Answer": "E"}, "Answer is 'E': it must be one of A, B"),
        ({"Candidates": "{"}, "broken JSON"),
        ({"Candidates": []}, "Candidates is"),
        ({"time_start": float("nan")}, "time_start is nan"),
        ({"Task": 3}, "Task is 3"),
    ):
        monkeypatch.setattr(sti_bench, "_rows", lambda file, change=change: iter([ROW | change]))
        with pytest.raises(ValueError, match=rf"qa\.parquet\[0\]: {message}"):
            read(sti_bench, tmp_path / "qa.parquet", Facts(FACTS))


def test_columns_of_labels_may_be_empty_or_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = {key: value for key, value in ROW.items() if key not in ("Task", "Scene")}
    monkeypatch.setattr(sti_bench, "_rows", lambda file: iter([bare, bare | {"ID": 4, "Task": " ", "Scene": "desk "}]))
    samples, _ = read(sti_bench, tmp_path / "qa.parquet", Facts({"a": FACTS}))
    assert [sample.truth.labels for sample in samples] == [{}, {"Scene": "desk"}]


def test_parquet_without_its_library_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r'qa\.parquet is a parquet file, and pyarrow is not installed: pip install "'):
        read(sti_bench, written(tmp_path / "qa.parquet", "x"), Facts(FACTS))
    with pytest.raises(FileNotFoundError, match="no annotation file"):
        read(sti_bench, tmp_path / "none.parquet", Facts(FACTS))


def test_real_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist([ROW, ROW | {"ID": 4}]), tmp_path / "qa.parquet")
    assert len(read(sti_bench, tmp_path / "qa.parquet", Facts(FACTS))[0]) == 2
    with pytest.raises(ValueError, match=r"b\.parquet cannot be read as parquet"):
        read(sti_bench, written(tmp_path / "b.parquet", "no parquet"), Facts(FACTS))


def refcoco_files(tmp_path: Path, *refs: dict[str, Any]) -> tuple[Path, Path]:
    """One picture of 31 x 17 with two objects, annotations 40 and 20."""
    (tmp_path / "pictures").mkdir(exist_ok=True)
    Image.new("RGB", (31, 17), (90, 20, 20)).save(tmp_path / "pictures" / "COCO_5.jpg")
    boxes = [(40, [1.5, 2, 10, 5.25]), (20, [0, 0, 31, 17]), (60, [3, 3, 0, 4])]
    annotations = [{"id": i, "image_id": 5, "category_id": 9, "bbox": box} for i, box in boxes]
    images = [{"id": 5, "file_name": "COCO_5.jpg", "width": 31, "height": 17}]
    images.append({"id": 6, "file_name": "gone.jpg", "width": 31, "height": 17})
    annotations.append({"id": 90, "image_id": 6, "category_id": 9, "bbox": [0, 0, 1, 1]})
    categories = [{"id": 9, "name": "dog", "supercategory": "animal"}]
    written(
        tmp_path / "refs" / "instances.json", {"images": images, "annotations": annotations, "categories": categories}
    )
    (tmp_path / "refs" / "refs(unc).p").write_bytes(pickle.dumps(list(refs or [ref()]), protocol=2))
    return tmp_path / "refs", tmp_path / "pictures"


def ref(**changes: Any) -> dict[str, Any]:
    sentences = [{"sent": "the left dog", "sent_id": 1}, {"sent": "dog on the left", "sent_id": 2}]
    return {"ref_id": 7, "ann_id": 40, "image_id": 5, "split": "val", "sentences": sentences} | changes


def test_refcoco_by_hand(tmp_path: Path) -> None:
    samples, report = read(refcoco, *refcoco_files(tmp_path))
    assert not report.drops and [s.truth.id for s in samples] == ["7/0", "7/1"]
    truth = samples[0].truth
    assert (truth.query, truth.task, truth.fps, truth.num_frames) == ("the left dog", "spatial", 1.0, 1)
    assert truth.object_id == 2 and truth.boxes_xyxy == {0: (1.5, 2.0, 11.5, 7.25)}, "20 is the first, 40 the second"
    assert truth.tracks.keys() == {1, 2} and samples[0].categories == {1: "dog", 2: "dog", 3: "dog"}
    stored = through_shards(samples, tmp_path / "out")
    assert [s.truth for s in stored] == [s.truth for s in samples]
    info = probe_video(stored[0].video)
    assert (info.num_frames, info.width, info.height) == (1, 31, 17)


def test_refcoco_drops_and_counts(tmp_path: Path) -> None:
    refs = [ref(), ref(ref_id=8, split="testA"), ref(ref_id=9, ann_id=60), ref(ref_id=10, ann_id=90, image_id=6)]
    samples, report = read(refcoco, *refcoco_files(tmp_path, *refs), split="val")
    assert len(samples) == 2
    counts = [report.num_dropped(reason) for reason in (refcoco.OTHER_SPLIT, NO_AREA, NO_PICTURES)]
    assert counts == [2, 2, 2]
    with pytest.raises(
        ValueError, match=r"refs\(unc\)\.p\[0\]\[0\]: ann_id is 41: it must be an annotation of image 5"
    ):
        read(refcoco, *refcoco_files(tmp_path, ref(ann_id=41)))
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p\[0\]: key 'sentences' is missing"):
        read(refcoco, *refcoco_files(tmp_path, {"ref_id": 1}))


class Harmful:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_pickle_can_run_nothing(tmp_path: Path) -> None:
    """Whatever it names is refused before it is called."""
    target = tmp_path / "made"
    folder, pictures = refcoco_files(tmp_path, ref(split=Harmful(target)))
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p: no pickle of plain data: it names .*mkdir"):
        read(refcoco, folder, pictures)
    assert not target.exists()
    good = pickle.dumps([ref()], protocol=2)
    for content in (b"", b"no pickle", good[:-40], good[:3], b"\x80\x02Peverything\n.", b"\x80\x02cos\nsystem\n."):
        (folder / "refs(unc).p").write_bytes(content)
        with pytest.raises(ValueError, match=r"refs\(unc\)\.p"):
            read(refcoco, folder, pictures)


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    """Its texts are bytes without a mark; here written by hand, `['\\xc3\\xa4']` in protocol 0."""
    file = tmp_path / "two.p"
    file.write_bytes(b"(lp0\nS'\\xc3\\xa4'\np1\na.")
    assert refcoco.plain_pickle(file) == ["ä"]
