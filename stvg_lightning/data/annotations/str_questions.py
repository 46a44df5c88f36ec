"""Questions about where things are and how they move, made from tracks and 3-D boxes (as Video-STR's STV-205k is)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from stvg_lightning.data.annotations.conversions import check_annotated
from stvg_lightning.data.annotations.kitti import read_kitti_tracks
from stvg_lightning.data.annotations.mot import mot_rate, read_mot_tracks
from stvg_lightning.data.annotations.records import count, field, whole_json
from stvg_lightning.data.annotations.scannet import read_room, scene_of
from stvg_lightning.data.annotations.videos import VideoFolder
from stvg_lightning.data.annotations.vidor import read_trajectories
from stvg_lightning.data.questions import (
    Place,
    QuestionSettings,
    Source,
    Thing,
    questions_of,
    truth_of_question,
)
from stvg_lightning.data.report import Dropped, Report
from stvg_lightning.data.video import VideoInfo
from stvg_lightning.tubes import Box, Sample, Tube
from stvg_lightning.tubes.choices import check_choice
from stvg_lightning.tubes.sample import Truth

Tracks = Literal["vidor", "mot", "kitti", "scannet"]
NO_QUESTION = "nothing clear can be asked"
LIMITED = "videos of which questions were left out: their graphs would be too large (most_things, most_frames)"
ALL_LIMITED = "all that can be asked has too large a graph (most_things, most_frames)"
NO_THINGS = "nothing is annotated in the video's frames"
LEFT_OUT = "lines that are no things: left out"
OUTSIDE = "boxes after the video's end, or less than half in the picture: left out"
CUT = "boxes that reach out of the picture: cut off at its edge"
KITTI_RATE = 10.0
LEAST_IN = 0.5
"""The share of a box that must lie in the picture for its thing to be seen."""

MOST_OUT = 0.05
"""The share up to which it is not; between the two, nothing is asked that depends on which."""

CAMERA_SQUARE = (-40.0, 0.0), 80.0
"""Corner and side in metres of the ground before a camera: 40 m to each side of it, 80 m ahead."""


@dataclass(frozen=True)
class Film:
    """A video with its facts: a file or a folder of pictures."""

    path: Path
    info: VideoInfo


def read(
    annotations: Path,
    videos: VideoFolder,
    report: Report,
    tracks: Tracks = "vidor",
    fps: float | None = None,
    questions: QuestionSettings = QuestionSettings(),
) -> Iterator[Sample]:
    """Samples of the tasks choice, numeric, spatial and temporal, ids `<video>/<kind>/<n>`, with their scene graph.

    Converted: tracks to questions, the same ones for the same seed, labelled `kind`. Names that several things bear at
    the time are counted but not asked about. Boxes are cut off at the picture's edge. Left out, and counted: what is no
    thing, boxes less than half in the picture; a thing that is in it by so little is not asked for presence, order or
    count. Videos of which the limits of graphs leave
    questions out are counted too, and which kinds stands with the examples.
    Dropped: missing videos, and those about which nothing clear can be asked.

    Args:
        annotations: a file, or a folder of them at any depth: VidOR's `<video>.json`; MOT's `<sequence>/gt/gt.txt`,
            or a tracker's `<sequence>.txt`; KITTI's tracking labels `<sequence>.txt`; ScanNet's boxes as VoteNet leaves
            them, `<scene>_aligned_bbox.npy`, or `<scene>_bbox.npy` where there is no other.
        videos: files `<video>.mp4`, or folders of pictures: `<sequence>`, `<sequence>/img1` (MOT), `<scene>/color`.
        report: counts what was changed and dropped.
        tracks: of which form the annotations are.
        fps: the rate of pictures: MOT's `seqinfo.ini` tells it, KITTI's is 10, and for ScanNet it must be given. A
            video's own counts before it.
        questions: which, and how many: `questions={per_kind: 3, seed: 1}`.

    Raises:
        FileNotFoundError: no annotations.
        ValueError: a key that is out of range, or a file that is broken; it begins with file and line.
    """
    check_choice("tracks", tracks, get_args(Tracks))
    if fps is not None and not fps > 0:
        raise ValueError(f"fps {fps} must be above 0")
    files = annotation_files(annotations, tracks)

    def convert(name: str, file: Path) -> tuple[Source, Film]:
        return READERS[tracks](name, file, videos, fps, report)

    return _samples(files, convert, questions, report)


def annotation_files(place: Path, tracks: Tracks) -> dict[str, Path]:
    """Video -> its file, ascending.

    Raises:
        FileNotFoundError: nothing of this form there.
        ValueError: two files of one video.
    """
    pattern = {"vidor": "*.json", "scannet": "*_bbox.npy"}.get(tracks, "*.txt")
    found = [place] if place.is_file() else sorted(place.rglob(pattern))
    files: dict[str, Path] = {}
    for file in found:
        name = _video_of(file, tracks)
        if name is None or (tracks == "scannet" and name in files):
            continue  # of both of a scene's files the aligned one comes first
        if name in files:
            raise ValueError(f"{file}: {files[name]} is of video {name!r} too: give one of them")
        files[name] = file
    if not files:
        raise FileNotFoundError(f"there are no annotations of the form {tracks} ({pattern}) at {place}")
    return dict(sorted(files.items()))


def _video_of(file: Path, tracks: Tracks) -> str | None:
    if tracks == "scannet":
        return scene_of(file)
    if tracks == "mot" and file.stem in ("gt", "det"):
        return file.parent.parent.name if file.stem == "gt" else None  # detections have no tracks
    return file.stem.removeprefix("vidor_") if tracks == "vidor" else file.stem


def _samples(
    files: Mapping[str, Path],
    convert: Callable[[str, Path], tuple[Source, Film]],
    settings: QuestionSettings,
    report: Report,
) -> Iterator[Sample]:
    for name, file in files.items():
        try:
            source, film = convert(name, file)
            limited = set[str]()
            questions = list(questions_of(source, settings, limited))
            told = ", ".join(sorted(limited))
            if not source.seen:
                raise Dropped(NO_THINGS, name)
            if not questions:
                raise Dropped(ALL_LIMITED if told else NO_QUESTION, told or name)
            if told:
                report.changed(LIMITED, str(file), told)
        except Dropped as drop:
            report.dropped(drop.reason, str(file), drop.detail)
            continue
        info = film.info
        video = Truth(name, "", info.fps, info.num_frames, info.width, info.height)
        report.kept()
        numbers: dict[str, int] = {}
        for question in questions:
            number = numbers[question.kind] = numbers.get(question.kind, -1) + 1
            truth = truth_of_question(question, video, f"{name}/{question.kind}/{number}")
            yield Sample(truth, film.path, source=str(file))


def _of_vidor(name: str, file: Path, videos: VideoFolder, fps: float | None, report: Report) -> tuple[Source, Film]:
    found, record = read_trajectories(file), whole_json(file)
    film = _film(name, videos, fps, ())
    try:
        facts = [field(record, key, count) for key in ("frame_count", "width", "height")]
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    check_annotated(film.info, *facts)
    return _in_pictures(name, film, found.tracks, found.categories, file, report), film


def _of_mot(name: str, file: Path, videos: VideoFolder, fps: float | None, report: Report) -> tuple[Source, Film]:
    found = read_mot_tracks(file)
    rate = mot_rate(file) if fps is None else fps
    film = _film(name, videos, rate, (f"{name}/img1",))
    if found.num_left_out:
        report.changed(LEFT_OUT, str(file), f"{found.num_left_out} lines")
    return _in_pictures(name, film, found.tracks, found.names, file, report), film


def _of_kitti(name: str, file: Path, videos: VideoFolder, fps: float | None, report: Report) -> tuple[Source, Film]:
    found = read_kitti_tracks(file)
    film = _film(name, videos, KITTI_RATE if fps is None else fps, ())
    if found.num_left_out:
        report.changed(LEFT_OUT, str(file), f"{found.num_left_out} lines")
    things = []
    for object_id, boxes in found.tracks.items():
        places = {
            frame: Place(box.center, box.size, box.box_xyxy)
            for frame, box in boxes.items()
            if frame < film.info.num_frames
        }
        things.append(Thing(object_id, found.names[object_id], places))
    if late := sum(frame >= film.info.num_frames for boxes in found.tracks.values() for frame in boxes):
        report.changed(OUTSIDE, str(file), f"{late} boxes")
    return _on_ground(name, film, things, "camera"), film


def _of_scannet(name: str, file: Path, videos: VideoFolder, fps: float | None, report: Report) -> tuple[Source, Film]:
    boxes, left_out = read_room(file)
    film = _film(name, videos, fps, (f"{name}/color",))
    if left_out:
        report.changed(LEFT_OUT, str(file), f"{left_out} boxes")
    things = [Thing(i, box.name, {0: Place(box.center, box.size)}) for i, box in enumerate(boxes, start=1)]
    return _on_ground(name, film, things, "floor"), film


READERS: Mapping[str, Callable[[str, Path, VideoFolder, float | None, Report], tuple[Source, Film]]] = {
    "vidor": _of_vidor,
    "mot": _of_mot,
    "kitti": _of_kitti,
    "scannet": _of_scannet,
}


def _film(name: str, videos: VideoFolder, fps: float | None, folders: tuple[str, ...]) -> Film:
    """A video file of a name, or the pictures in a folder of it.

    Raises:
        Dropped: neither is there.
        ValueError: there are pictures, and nothing tells their rate.
    """
    for folder in (*folders, name):
        if (videos.root / folder).is_dir():
            if fps is None:
                raise ValueError(f"{videos.root / folder}: nothing tells the rate of the pictures: give fps=RATE")
            path, _, info = videos.pictures(folder, fps)
            return Film(path, info)
    path = videos.find(f"{name}.mp4")
    return Film(path, videos.facts(path))


def _in_pictures(
    name: str, film: Film, tracks: Mapping[int, Tube], names: Mapping[int, str], file: Path, report: Report
) -> Source:
    """Tracks of boxes as a source in the picture's plane."""
    info, num_outside, num_cut = film.info, 0, 0
    things = []
    for object_id, tube in tracks.items():
        if object_id not in names:
            raise ValueError(f"{file}: object {object_id} has boxes and no name")
        places, partly = dict[int, Place](), set[int]()
        for frame, box in tube.items():
            inside, share = _cut(box, info) if frame < info.num_frames else (box, 0.0)
            if share >= LEAST_IN:
                places[frame] = _place(inside)
                num_cut += inside != box
            elif share > MOST_OUT:
                partly.add(frame)
        num_outside += len(tube) - len(places)
        things.append(Thing(object_id, _words(names[object_id]), places, partly=frozenset(partly)))
    for what, number in ((OUTSIDE, num_outside), (CUT, num_cut)):
        if number:
            report.changed(what, str(file), f"{number} boxes")
    side = float(max(info.width, info.height))
    return Source(name, info.fps, info.num_frames, tuple(things), "picture", (0.0, 0.0), side)


def _on_ground(name: str, film: Film, things: list[Thing], plane: Literal["camera", "floor"]) -> Source:
    """Things in metres as a source.

    Before a camera the grid is always `CAMERA_SQUARE`, which a question can tell without telling where things are. A
    floor has no mark that its grid could begin at: there it is the smallest square that holds all centres.
    """
    centers = [place.center for thing in things for place in thing.places.values()]
    if not centers:
        raise Dropped(NO_THINGS, name)
    if plane == "camera":
        corner, side = CAMERA_SQUARE
    else:
        corner = min(x for x, _ in centers), min(y for _, y in centers)
        side = max(1.0, *(max(center[axis] for center in centers) - corner[axis] for axis in (0, 1)))
    info = film.info
    return Source(name, info.fps, info.num_frames, tuple(things), plane, corner, side, is_still=plane == "floor")


def _place(box: Box) -> Place:
    x1, y1, x2, y2 = box
    return Place(((x1 + x2) / 2, (y1 + y2) / 2), (x2 - x1, y2 - y1), box)


def _cut(box: Box, info: VideoInfo) -> tuple[Box, float]:
    """The part of a box in the picture, and its share of the whole box; without area it has none."""
    x1, y1, x2, y2 = box
    inside = max(x1, 0.0), max(y1, 0.0), min(x2, float(info.width)), min(y2, float(info.height))
    width, height = inside[2] - inside[0], inside[3] - inside[1]
    if width <= 0 or height <= 0:
        return box, 0.0
    return inside, width * height / ((x2 - x1) * (y2 - y1))


def _words(name: str) -> str:
    """A kind in words: data sets write `baby_seat` and `ball/sports_ball`."""
    return name.partition("/")[0].replace("_", " ").strip().lower()
