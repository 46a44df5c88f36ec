"""Questions from VidOR, MOT, KITTI and ScanNet files: conversions by hand, real files counted, broken ones refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stvg_lightning.data.annotations import Report, VideoFolder
from stvg_lightning.data.annotations.kitti import read_kitti_tracks
from stvg_lightning.data.annotations.mot import mot_rate, read_mot_tracks
from stvg_lightning.data.annotations.scannet import read_room
from stvg_lightning.data.annotations.str_questions import ALL_LIMITED, CUT, LIMITED, NO_QUESTION, OUTSIDE, read
from stvg_lightning.data.annotations.videos import NO_VIDEO
from stvg_lightning.data.annotations.vidor import read_trajectories
from stvg_lightning.data.questions import KINDS, QuestionSettings
from stvg_lightning.data.video import encode_mp4
from stvg_lightning.tubes import Sample
from stvg_lightning.tubes.jsonl import complete_truth, parse_truth, truth_to_json


def film(folder: Path, name: str, num_frames: int = 20, width: int = 64, height: int = 48, fps: float = 10.0) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    frames = np.zeros((num_frames, height, width, 3), dtype=np.uint8)
    (folder / f"{name}.mp4").write_bytes(encode_mp4(frames, fps))


def pictures(folder: Path, num_frames: int = 20, width: int = 64, height: int = 48) -> None:
    folder.mkdir(parents=True)
    for frame in range(num_frames):
        Image.new("RGB", (width, height)).save(folder / f"{frame:06d}.png")


def samples(
    annotations: Path,
    videos: Path,
    per_kind: int = 1,
    kinds: tuple[str, ...] = tuple(KINDS),
    most_things: int = 10,
    **keys: Any,
) -> tuple[list[Sample], Report]:
    report = Report()
    keys["questions"] = QuestionSettings(kinds, per_kind, most_things)
    videos.mkdir(exist_ok=True)
    found = list(read(annotations, VideoFolder(videos), report, **keys))
    for sample in found:  # all of them are what shards can hold
        complete_truth(parse_truth(json.loads(json.dumps(truth_to_json(sample.truth))), "here")[0], "here")
    return found, report


def by_kind(found: list[Sample]) -> dict[str, Sample]:
    return {sample.truth.labels["kind"]: sample for sample in found}


# --- KITTI

CAR = "{frame} 0 Car 0 0 -1.5 {x1} 10.0 {x2} 30.0 1.5 1.6 4.0 {x} 1.7 {z} -1.5"
VAN = "{frame} 1 Van 0 0 -1.5 40.0 10.0 60.0 30.0 2.2 1.9 5.5 6.0 1.7 20.0 -1.5"
NOTHING = "{frame} -1 DontCare -1 -1 -10 1.0 1.0 9.0 9.0 -1 -1 -1 -1000 -1000 -1000 -10"


def kitti_text(num_frames: int = 20) -> str:
    """A car that comes up from 30 m to 11 m ahead, 1 m to the left, and a van that stays."""
    lines = []
    for frame in range(num_frames):
        lines += [
            CAR.format(frame=frame, x1=5.0, x2=15.0, x=-1.0, z=30.0 - frame),
            VAN.format(frame=frame),
            NOTHING.format(frame=frame),
        ]
    return "\n".join(lines) + "\n"


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    (tmp_path / "label_02").mkdir()
    (tmp_path / "label_02" / "0000.txt").write_text(kitti_text())
    pictures(tmp_path / "image_02" / "0000")
    return tmp_path


def test_kitti_lines_become_places_on_the_ground(kitti: Path) -> None:
    found = read_kitti_tracks(kitti / "label_02" / "0000.txt")
    assert found.names == {1: "car", 2: "van"} and found.num_left_out == 20
    box = found.tracks[1][19]
    assert box.center == (-1.0, 11.0) and box.size == (4.0, 1.6, 1.5) and box.box_xyxy == (5.0, 10.0, 15.0, 30.0)


def test_kittis_questions_are_in_metres_as_the_camera_sees(kitti: Path) -> None:
    found, report = samples(kitti / "label_02", kitti / "image_02", tracks="kitti", per_kind=3)
    kinds = Counter(sample.truth.labels["kind"] for sample in found)
    assert set(kinds) == {"counting", "relative_direction", "relative_distance", "object_size", "motion",
                          "localisation", "displacement"}  # fmt: skip
    assert all(sample.truth.fps == 10.0 and sample.truth.num_frames == 20 for sample in found)
    assert report.num_changed("lines that are no things: left out") == 1
    places = {}
    for sample in found:
        assert (sample.truth.graph["corner"], sample.truth.graph["unit_per_cell"]) == ([-40.0, 0.0], 8.0)
        for shown in sample.truth.graph["frames"]:
            places |= {(node["name"], shown["frame"]): node["pos"] for node in shown["nodes"]}
    assert all(place == [5.8, 2.5] for (name, _), place in places.items() if name == "van")  # 6 m right, 20 m ahead
    for sample in found:
        truth, kind = sample.truth, sample.truth.labels["kind"]
        if kind == "motion" and "where does the car" in truth.query:
            assert f"({truth.answer}) nearer to the camera" in truth.query
        if kind == "motion" and "where does the van" in truth.query:
            assert f"({truth.answer}) it stays where it is" in truth.query
        if kind == "displacement":
            first, last = (frame["t"] for frame in truth.graph["frames"])
            assert truth.answer == pytest.approx(10 * (last - first), abs=0.01)  # a metre a frame
        if kind == "object_size":
            assert truth.answer in ({1.5, 4.0} if "is the car" in truth.query else {2.2, 5.5})
        if truth.task == "spatial" and "Where is the van" in truth.query:
            assert set(truth.boxes_xyxy.values()) == {(40.0, 10.0, 60.0, 30.0)}
    assert len({sample.truth.id for sample in found}) == len(found) and found[0].truth.id == "0000/counting/0"


def test_kitti_may_come_as_one_file_with_a_video_of_another_rate(kitti: Path) -> None:
    film(kitti / "videos", "0000", fps=5.0)
    found, _ = samples(kitti / "label_02" / "0000.txt", kitti / "videos", tracks="kitti", fps=10.0)
    assert {sample.truth.fps for sample in found} == {5.0}  # the video's own


def test_boxes_after_the_videos_end_are_left_out(kitti: Path) -> None:
    (kitti / "label_02" / "0000.txt").write_text(kitti_text(25))
    found, report = samples(kitti / "label_02", kitti / "image_02", tracks="kitti")
    assert report.num_changed(OUTSIDE) == 1 and "10 boxes" in report.changes[OUTSIDE].examples[0]
    assert all(frame < 20 for sample in found for frame in sample.truth.boxes_xyxy)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0 Car 0 0 -1.5 5 10 15 30 1.5 1.6 4.0 1 1.7", "0000.txt:2: 15 columns: at least 17 are needed"),
        (CAR.format(frame="x", x1=5, x2=15, x=1, z=9), "0000.txt:2: frame is 'x': it must be a finite number"),
        (CAR.format(frame=1.5, x1=5, x2=15, x=1, z=9), "0000.txt:2: frame is '1.5': it must be a whole number"),
        (CAR.format(frame=0, x1=5, x2=15, x="nan", z=9), "0000.txt:2: x is 'nan': it must be a finite number"),
        (CAR.format(frame=0, x1=15, x2=5, x=1, z=9), "0000.txt:2: the box is .*: it must be left < right"),
        (CAR.format(frame=0, x1=5, x2=15, x=1, z=9), "0000.txt:2: track 0 stands already in frame 0"),
        (CAR.format(frame=0, x1=5, x2=15, x=1, z=9).replace("0 0 Car", "0 -3 Car"), "track is '-3'"),
        (CAR.format(frame=1, x1=5, x2=15, x=1, z=9).replace("Car", "Boat"), "0000.txt:2: type is 'Boat': it must be"),
        (NOTHING.format(frame=1).replace("DontCare", "dontcare"), "0000.txt:2: type is 'dontcare': it must be one of"),
        (CAR.format(frame=1, x1=5, x2=15, x=1, z=9).replace("Car", "Van"), "0000.txt:2: track 0 is Van, and was car"),
    ],
)
def test_broken_kitti_lines_are_refused_with_file_and_line(kitti: Path, line: str, message: str) -> None:
    first = CAR.format(frame=0, x1=5.0, x2=15.0, x=1.0, z=9.0)
    (kitti / "label_02" / "0000.txt").write_text(f"{first}\n{line}\n")
    with pytest.raises(ValueError, match=message):
        samples(kitti / "label_02", kitti / "image_02", tracks="kitti")


def test_text_that_is_no_utf_8_is_refused(kitti: Path) -> None:
    (kitti / "label_02" / "0000.txt").write_bytes(b"\n\xff\n")
    with pytest.raises(ValueError, match=r"0000.txt:2: not UTF-8"):
        samples(kitti / "label_02", kitti / "image_02", tracks="kitti")


# --- MOT


def mot_sequence(root: Path, text: str, info: str | None = "[Sequence]\nname=A\nframeRate=5\n") -> Path:
    (root / "A" / "gt").mkdir(parents=True)
    (root / "A" / "gt" / "gt.txt").write_text(text)
    if info is not None:
        (root / "A" / "seqinfo.ini").write_text(info)
    pictures(root / "A" / "img1")
    return root


MOT = (
    "1,1,11,21,10,20,1,1,1.0\n1,2,30,20,10,20,1,1,0.5\n1,3,40,10,10,10,1,3,1\n"
    "2,1,12,21,10,20,1,1,1.0\n2,4,12,21,10,20,0,1,1.0\n2,5,12,21,10,20,1,8,1.0\n2,6,12,21,10,20,1,1,0.0\n2,-1,1,1,5,5,0.9,1,1\n"
)


def test_mot_counts_frames_from_1_and_boxes_by_width(tmp_path: Path) -> None:
    found = read_mot_tracks(mot_sequence(tmp_path, MOT) / "A" / "gt" / "gt.txt")
    assert found.names == {1: "pedestrian", 2: "pedestrian", 3: "car"}
    assert found.tracks[1] == {0: (10.0, 20.0, 20.0, 40.0), 1: (11.0, 20.0, 21.0, 40.0)}
    assert found.num_left_out == 4  # confidence 0, a distractor, wholly hidden, and a detection without a track


def test_mots_questions_and_rate(tmp_path: Path) -> None:
    root = mot_sequence(tmp_path, MOT)
    found, _ = samples(root, root, tracks="mot", per_kind=9)
    counts = {s.truth.query: s.truth.answer for s in found if s.truth.labels["kind"] == "counting"}
    assert counts['At 0 s, how many things of the kind "pedestrian" are there?'] == 2.0
    assert counts['At 0.2 s, how many things of the kind "pedestrian" are there?'] == 1.0
    assert {sample.truth.fps for sample in found} == {5.0}
    assert {sample.truth.fps for sample in samples(root, root, tracks="mot", fps=20.0)[0]} == {20.0}


def test_pictures_need_a_rate(tmp_path: Path) -> None:
    root = mot_sequence(tmp_path, MOT, info="[Sequence]\nname=A\n")
    with pytest.raises(ValueError, match="img1: nothing tells the rate of the pictures"):
        samples(root, root, tracks="mot")
    for rate in ("none", "0"):
        (root / "A" / "seqinfo.ini").write_text(f"[Sequence]\nframeRate={rate}\n")
        with pytest.raises(ValueError, match=r"seqinfo\.ini: "):
            mot_rate(root / "A" / "gt" / "gt.txt")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,1,11,21,10", "gt.txt:1: 5 columns: at least 6"),
        ("0,1,11,21,10,20,1,1,1", "gt.txt:1: frame is '0': it must be a whole number of at least 1"),
        ("1,1,11,21,-10,20,1,1,1", "gt.txt:1: the box is .* not negative"),
        ("1,1,11,21,inf,20,1,1,1", "gt.txt:1: width is 'inf'"),
        ("1,1,11,21,10,20\n1,1,11,21,10,20", "gt.txt:2: id 1 stands already in frame 1"),
        ("1,1,11,21,10,20,1,1.9,1", "gt.txt:1: class is '1.9': it must be a whole number"),
        ("1,1,11,21,10,20,1,1,1\n2,1,11,21,10,20,1,3,1", "gt.txt:2: id 1 is a car, and was a pedestrian before"),
    ],
)
def test_broken_mot_lines_are_refused_with_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    root = mot_sequence(tmp_path, f"{line}\n")
    with pytest.raises(ValueError, match=message):
        samples(root, root, tracks="mot")


def test_real_mot_files_are_read_whole(real_data: Path, tmp_path: Path) -> None:
    mot15 = real_data / "videos" / "mmtracking" / "MOT15" / "train"
    for name, num_frames in (("TUD-Campus", 71), ("TUD-Stadtmitte", 179)):
        file = mot15 / name / "gt" / "gt.txt"
        rows = [line.split(",") for line in file.read_text().split()]
        found = read_mot_tracks(file)
        assert sum(map(len, found.tracks.values())) + found.num_left_out == len(rows)
        assert set(found.tracks) == {int(row[1]) for row in rows if float(row[6]) != 0}
        film(tmp_path, name, num_frames, 640, 480, fps=25.0)
    mot_files = {"gt": mot15 / "TUD-Campus" / "gt" / "gt.txt", "tracker": mot15 / "results" / "TUD-Campus.txt"}
    for file in mot_files.values():
        asked, _ = samples(file, tmp_path, tracks="mot", per_kind=20)
        assert len(asked) >= 10 and {sample.truth.labels["kind"] for sample in asked} == {"counting"}
        rows = [line.split(",") for line in file.read_text().split()]
        for sample in asked:
            frame = sample.truth.graph["frames"][0]["frame"] + 1
            shares = []
            for left, top, width, height in (map(float, r[2:6]) for r in rows if int(r[0]) == frame and float(r[6])):
                across = min(left - 1 + width, 640) - max(left - 1, 0)
                shares.append(max(0, across) * max(0, min(top - 1 + height, 480) - max(top - 1, 0)) / width / height)
            assert not any(0.05 < share < 0.5 for share in shares)
            assert sample.truth.answer == sum(share >= 0.5 for share in shares)


# --- VidOR


def test_real_vidor_files_give_questions_of_every_kind_that_they_can(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "annotations" / "vidor"
    kinds = Counter[str]()
    for file in sorted(folder.glob("*.json")):
        record = json.loads(file.read_text())
        name = file.stem.removeprefix("vidor_")
        film(tmp_path, name, record["frame_count"], record["width"], record["height"], fps=30.0)
        tracks, categories = read_trajectories(file).tracks, read_trajectories(file).categories
        found, _ = samples(file, tmp_path, per_kind=4)
        for sample in found:
            truth = sample.truth
            kinds[truth.labels["kind"]] += 1
            if truth.task == "spatial":
                word = truth.query.partition("Where is the ")[2].partition(" at ")[0]
                (target,) = [i for i, kind in categories.items()
                             if kind.partition("/")[0].replace("_", " ") == word
                             and set(truth.boxes_xyxy) <= set(tracks[i])]  # fmt: skip
                assert all(tracks[target][frame] == box for frame, box in truth.boxes_xyxy.items())
    assert {"counting", "localisation"} <= set(kinds), kinds
    again, _ = samples(folder, tmp_path, per_kind=4)
    assert sum(kinds.values()) == len(again)


def vidor(tmp_path: Path, **fields: Any) -> Path:
    boxes = [{"tid": t, "bbox": {"xmin": x, "ymin": 10, "xmax": x + 10, "ymax": 30}} for t, x in ((0, 5), (1, 40))]
    record = {"video_id": "77", "frame_count": 20, "width": 64, "height": 48, "fps": 10,
              "subject/objects": [{"tid": 0, "category": "ball/sports_ball"}, {"tid": 1, "category": "baby_seat"}],
              "trajectories": [boxes] * 20} | fields  # fmt: skip
    (tmp_path / "77.json").write_text(json.dumps(record))
    return tmp_path / "77.json"


def test_boxes_are_cut_at_the_pictures_edge_and_what_is_half_outside_is_not_asked_about(tmp_path: Path) -> None:
    film(tmp_path / "videos", "77")

    def asked(left: int, num_frames: int = 20) -> tuple[list[Sample], Report]:
        """About a dog 10 pixels wide that begins at `left` in some frames, and stands at 40 in the others."""
        boxes = [[{"tid": 0, "bbox": {"xmin": x, "ymin": 10, "xmax": x + 10, "ymax": 30}}]
                 for x in [left] * num_frames + [40] * (20 - num_frames)]  # fmt: skip
        record = {"trajectories": boxes, "subject/objects": [{"tid": 0, "category": "dog"}]}
        return samples(vidor(tmp_path, **record), tmp_path / "videos", per_kind=9)

    found, report = asked(-4)  # six tenths in the picture
    assert {box for sample in found for box in sample.truth.boxes_xyxy.values()} == {(0.0, 10.0, 6.0, 30.0)}
    assert report.num_changed(CUT) == 1 and report.num_changed(OUTSIDE) == 0
    found, report = asked(-6, 5)  # four tenths, in the first half second
    assert report.num_changed(OUTSIDE) == 1 and report.num_changed(CUT) == 0
    assert not any(sample.truth.task == "temporal" for sample in found)
    for sample in found:
        assert sample.truth.labels["kind"] != "counting" or float(sample.truth.query.split()[1]) >= 0.5
    found, _ = asked(-12, 6)  # outside
    (time,) = (sample.truth.span_frames for sample in found if sample.truth.task == "temporal")
    assert time == (6, 20)


def test_vidors_kinds_are_told_in_words(tmp_path: Path) -> None:
    film(tmp_path / "videos", "77")
    found, _ = samples(vidor(tmp_path), tmp_path / "videos")
    direction = by_kind(found)["relative_direction"].truth
    assert "baby seat" in direction.query and "ball" in direction.query and "sports" not in direction.query
    right = "left" if "does the ball" in direction.query else "right"
    assert f"({direction.answer}) {right}" in direction.query


def test_what_is_missing_is_dropped_and_what_is_broken_refused(tmp_path: Path) -> None:
    file = vidor(tmp_path)
    found, report = samples(file, tmp_path / "videos")
    assert found == [] and report.num_dropped(NO_VIDEO) == 1
    film(tmp_path / "videos", "77")
    found, report = samples(vidor(tmp_path, trajectories=[[]] * 20), tmp_path / "videos")
    assert found == [] and report.num_dropped() == 1
    found, report = samples(vidor(tmp_path), tmp_path / "videos", kinds=("displacement",))
    assert found == [] and report.num_dropped(NO_QUESTION) == 1
    found, report = samples(vidor(tmp_path), tmp_path / "videos", kinds=("relative_direction",), most_things=1)
    assert found == [] and report.num_dropped(ALL_LIMITED) == 1
    found, report = samples(
        vidor(tmp_path), tmp_path / "videos", kinds=("relative_direction", "localisation"), most_things=1
    )
    assert len(found) == 1 and report.num_dropped() == 0
    assert report.changes[LIMITED].examples[0].endswith(": relative_direction")
    with pytest.raises(ValueError, match=r"77\.json: object 2 has boxes and no name"):
        samples(vidor(tmp_path, **{"subject/objects": [{"tid": 0, "category": "dog"}]}), tmp_path / "videos")
    with pytest.raises(ValueError, match=r"77\.json: frame_count is 0"):
        samples(vidor(tmp_path, frame_count=0), tmp_path / "videos")
    with pytest.raises(ValueError, match=r"fps 0\.0 must be above 0"):
        samples(file, tmp_path / "videos", fps=0.0)
    with pytest.raises(FileNotFoundError, match="there are no annotations of the form kitti"):
        samples(tmp_path, tmp_path / "videos", tracks="kitti")


# --- ScanNet

ROOM = np.array(
    [
        [0.0, 0.0, 0.5, 0.5, 0.6, 1.0, 5],  # a chair
        [4.0, 0.0, 0.4, 2.0, 1.0, 0.8, 7],  # a table, 4 m along x
        [0.0, 3.0, 0.5, 0.8, 2.0, 1.2, 6],  # a sofa, 3 m along y: to the left of who looks along x
        [9.0, 9.0, 0.5, 0.8, 2.0, 1.2, 39],  # other furniture
    ]
)


@pytest.fixture
def room(tmp_path: Path) -> Path:
    np.save(tmp_path / "scene0000_00_aligned_bbox.npy", ROOM)
    np.save(tmp_path / "scene0000_00_unaligned_bbox.npy", ROOM[:2])
    np.save(tmp_path / "scene0000_00_bbox.npy", ROOM[:0])
    film(tmp_path / "videos", "scene0000_00")
    return tmp_path


def test_rooms_are_asked_about_without_a_time(room: Path) -> None:
    found, report = samples(room, room / "videos", tracks="scannet", per_kind=6)
    assert report.num_dropped() == 0 and {sample.truth.id.partition("/")[0] for sample in found} == {"scene0000_00"}
    kinds = {sample.truth.labels["kind"] for sample in found}
    assert kinds == {"counting", "relative_direction", "relative_distance", "object_size"}
    assert report.num_changed("lines that are no things: left out") == 1
    queries = {sample.truth.query.partition("\n")[0]: sample.truth for sample in found}
    turned = queries["In this scene, standing at the chair and facing the table, where does the sofa lie?"]
    assert f"({turned.answer}) left" in turned.query
    other = queries["In this scene, standing at the chair and facing the sofa, where does the table lie?"]
    assert f"({other.answer}) right" in other.query
    for query, truth in queries.items():
        assert query.startswith("In this scene, ")
        if "metres along the ground" in query:
            assert truth.answer == (5.0 if "chair" not in query else 4.0 if "table" in query else 3.0)
        if "metres long is the sofa" in query:
            assert truth.answer == 2.0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROOM[:, :6], r"_bbox\.npy: float64 of shape \(4, 6\): an array of numbers with 7 columns"),
        (np.array([["a"] * 7]), "an array of numbers with 7 columns"),
        (np.vstack([ROOM[:1], ROOM[:1] * np.nan]), r"_bbox\.npy\[1\]: "),
        (ROOM * [1, 1, 1, -1, 1, 1, 1], r"_bbox\.npy\[0\]: .*sizes above 0"),
        (np.array([{"a": 1}], dtype=object), "no array of numbers"),
    ],
)
def test_broken_rooms_are_refused(room: Path, rows: Any, message: str) -> None:
    np.save(room / "scene0000_00_aligned_bbox.npy", rows, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        samples(room, room / "videos", tracks="scannet")


def test_a_file_that_is_no_array_is_refused(room: Path) -> None:
    (room / "scene0000_00_aligned_bbox.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match="no array of numbers"):
        read_room(room / "scene0000_00_aligned_bbox.npy")
