"""Videos as people have them: turned, of a varying rate, cut short, empty; a bad one harms no other."""

from __future__ import annotations

import io
import json
import re
import tarfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from stvg_lightning.cli.main import main
from stvg_lightning.data.annotations import charades_sta
from stvg_lightning.data.footage import encoded_footage, excerpt
from stvg_lightning.data.frames import VideoFrames
from stvg_lightning.data.shards import BadSample, ShardFolder, WriteOptions, build_shards, write_shards
from stvg_lightning.data.shards.manifest import Manifest, ShardEntry, file_sha256, write_manifest
from stvg_lightning.data.video import (
    VideoInfo,
    decode_frames,
    encode_mp4,
    encode_mp4_stream,
    every_frame,
    probe_video,
    video_header,
)
from stvg_lightning.tubes import Sample, Truth
from tests.data.annotations.reading import read, video_bytes, written
from tests.data.test_video import sound_only

FPS, NUM_FRAMES = 5.0, 20


def encoded(times: list[int], width: int = 64, height: int = 32, turned: int = 0, title: str = "") -> bytes:
    """A video with a white corner at the top left of its pictures as they are stored, shown at times in ms."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[: height // 2, : width // 2] = 255
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        container.metadata["title"] = title
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        if turned:
            stream.set_display_rotation(turned)
        for time in times:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


EVEN = [200 * index for index in range(NUM_FRAMES)]
HALTING = [time + (1500 if place > 9 else 0) for place, time in enumerate(EVEN)]


def test_a_title_in_an_old_encoding_is_no_reason_to_refuse_a_video() -> None:
    video = encoded(EVEN, title="The cafe")
    assert video.count(b"The cafe") == 1
    assert len(list(every_frame(video.replace(b"The cafe", "The caf\xe9".encode("latin-1"))))) == NUM_FRAMES


@pytest.mark.parametrize(
    ("turned", "corner"), [(90, (-1, 0)), (-90, (0, -1)), (180, (-1, -1)), (0, (0, 0))], ids=lambda value: str(value)
)
def test_a_phone_s_video_is_turned_upright(turned: int, corner: tuple[int, int], tmp_path: Path) -> None:
    """Counterclockwise by a quarter, the corner at the top left comes to lie at the bottom left."""
    video = encoded(EVEN, turned=turned)
    file = tmp_path / "phone.mp4"
    file.write_bytes(video)
    width, height = (32, 64) if turned % 180 else (64, 32)
    expected = VideoInfo(FPS, NUM_FRAMES, width, height)
    assert probe_video(video) == video_header(file) == expected
    clip = decode_frames(video, (0, 7), FPS)
    assert (clip.width, clip.height) == (width, height)
    white = clip.frames[1].mean(-1) > 128
    assert white[corner] and white.mean() == pytest.approx(0.25, abs=0.03)
    frames = VideoFrames(video)
    forward = [picture for _, picture in frames.forward()]
    assert (forward[7] == clip.frames[1]).all()
    assert all((picture == forward[index]).all() for index, picture in frames.backward(7))
    cut = encoded_footage(excerpt(file, 2, 9), FPS)
    assert isinstance(cut, bytes) and probe_video(cut) == VideoInfo(FPS, 7, width, height)
    assert decode_frames(cut, (0,), FPS).frames[0].mean(-1)[corner] > 128


def test_frames_that_stray_from_the_mean_rate_are_told() -> None:
    assert probe_video(encoded(EVEN)).drift_seconds < 1e-9
    halting = probe_video(encoded(HALTING))
    assert halting.fps == pytest.approx(20 / 5.5, rel=0.02)
    assert halting.drift_seconds > 0.5


BAD = {
    "short": lambda: video_bytes(4, FPS, 32, 16),
    "sound": sound_only,
    "empty": lambda: b"",
    "cut": lambda: video_bytes(NUM_FRAMES, FPS, 32, 16)[:700],
    "halting": lambda: encoded(HALTING, 32, 16),
    "frameless": lambda: frameless(),
}


def frameless() -> bytes:
    """A file with a video stream and not a single frame in it."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        container.start_encoding()
    return buffer.getvalue()


REASONS = {
    "short": "the video has 4 frames, the truth says 20",
    "sound": "sound.mp4 holds no video stream",
    "empty": "empty.mp4 cannot be read as a video",
    "cut": "cut.mp4 cannot be read as a video",
    "halting": r"the video's rate varies: a frame is shown \d\.\d\d s from where",
    "frameless": "frameless.mp4 (cannot be read as a video|holds no frames)",
    "gone": "there is no video at .*gone.mp4",
}


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, make in BAD.items():
        (folder / f"{name}.mp4").write_bytes(make())
    (folder / "good.mp4").write_bytes(video_bytes(NUM_FRAMES, FPS, 32, 16))
    (folder / "odd.mp4").write_bytes(odd_video(33, 17))
    (folder / "turned.mp4").write_bytes(encoded(EVEN, 16, 32, turned=90))
    return folder


def test_no_bad_video_harms_the_rest(videos: Path, tmp_path: Path) -> None:
    """Each is named with its id and what is wrong with it; the good ones are built."""
    truth = Truth("", "it moves", FPS, NUM_FRAMES, 32, 16, (2, 9), task="temporal")
    names = [*REASONS, "good", "odd", "turned"]
    truths = {name: replace(truth, id=name, **({"width": 33, "height": 17} if name == "odd" else {})) for name in names}
    samples = [Sample(truths[name], videos / f"{name}.mp4") for name in names]
    built = build_shards(samples, tmp_path / "out", "a test", "CC0", WriteOptions(max_skipped_share=1.0))
    assert [skipped.id for skipped in built.skipped] == list(REASONS)
    for skipped in built.skipped:
        assert re.search(REASONS[skipped.id], skipped.reason), skipped
    kept = list(ShardFolder(tmp_path / "out"))
    assert [sample.truth.id for sample in kept] == ["good", "odd", "turned"]
    assert [decode_frames(sample.video, (19,), FPS).frames.shape[1:3] for sample in kept] == [
        (16, 32),
        (17, 33),
        (16, 32),
    ]


def test_a_reader_names_the_record_of_each_bad_video(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.mp4").write_bytes(video_bytes(NUM_FRAMES, FPS, 32, 16))
    names = ["sound", "empty", "good", "cut", "frameless", "../outside", "gone", "odd"]
    annotations = written(tmp_path / "a.txt", "\n".join(f"{name} 1.0 3.0##it moves" for name in names))
    samples, report = read(charades_sta, annotations, videos)
    assert [Path(str(sample.video)).stem for sample in samples] == ["good", "odd"]
    broken, gone = report.drops["the video cannot be read"], report.drops["there is no video"]
    assert [example.split(": ")[0] for example in broken.examples] == [f"{annotations}:{n}" for n in (1, 2, 4, 5)]
    assert all(
        f"{name}.mp4" in example for name, example in zip(("sound", "empty", "cut", "frameless"), broken.examples)
    )
    assert gone.examples == [f"{annotations}:6: ../outside", f"{annotations}:7: gone"], (
        "a path out of the folder is none"
    )


def odd_video(width: int, height: int) -> bytes:
    return encode_mp4_stream(iter(np.zeros((NUM_FRAMES, height, width, 3), dtype=np.uint8)), FPS)


def a_sample(identity: str = "a") -> Sample:
    truth = Truth(identity, "it moves", FPS, NUM_FRAMES, 32, 16, (2, 9), task="temporal")
    return Sample(truth, video_bytes(NUM_FRAMES, FPS, 32, 16))


def with_members(source: Path, out: Path, change: Any) -> Path:
    """A folder of one shard whose members went through `change(member, content) -> (member, content)`."""
    out.mkdir()
    with tarfile.open(source / "shard-00000.tar") as old, tarfile.open(out / "shard-00000.tar", "w") as new:
        for member in old:
            file = old.extractfile(member)
            assert file is not None
            changed, content = change(member, file.read())
            new.addfile(changed, io.BytesIO(content) if content is not None else None)
    shard = out / "shard-00000.tar"
    entry = ShardEntry(shard.name, file_sha256(shard), 1, shard.stat().st_size)
    write_manifest(out, Manifest("a test", "CC0", (entry,)))
    return out


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_a_tar_is_not_followed(kind: bytes, tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(video_bytes(NUM_FRAMES, FPS, 32, 16))
    write_shards([a_sample()], tmp_path / "plain", "a test", "CC0")

    def link(member: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes | None]:
        if not member.name.endswith(".mp4"):
            return member, content
        linked = tarfile.TarInfo(member.name)
        linked.type, linked.linkname = kind, str(secret)
        return linked, None

    folder = ShardFolder(with_members(tmp_path / "plain", tmp_path / "linked", link))
    with pytest.raises(BadSample, match=r"shard-00000\.tar, number 0, sample 'a': one video .* is needed, found json"):
        folder[0]


def test_a_path_out_of_a_tar_leads_nowhere(tmp_path: Path) -> None:
    write_shards([a_sample()], tmp_path / "plain", "a test", "CC0")

    def moved(member: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
        member.name = f"../../{member.name}"
        return member, content

    folder = ShardFolder(with_members(tmp_path / "plain", tmp_path / "moved", moved))
    before = sorted(tmp_path.rglob("*"))
    assert folder[0].truth.id == "a", "members are read where they are, and never written to disk"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_mask_of_another_size_names_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").write_bytes(encode_mp4(np.zeros((NUM_FRAMES, 16, 32, 3), dtype=np.uint8), FPS))
    line = {"id": "a", "query": "it moves", "fps": FPS, "num_frames": NUM_FRAMES, "width": 32, "height": 16}
    masks = {"1": {"3": {"size": [32, 16], "counts": "0P10"}}}
    file = written(
        tmp_path / "truth.jsonl", json.dumps({**line, "span_frames": [2, 9], "object_id": 1, "masks": masks})
    )
    options = ["--annotations", str(file), "--videos", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["shards", "build", *options]) == 1
    assert "truth.jsonl:1: a mask's size is [32, 16]" in capsys.readouterr().err
