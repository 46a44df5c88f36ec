"""How fast videos are loaded: shards read, frames decoded, sampled, marked and resized, beside a bare decoder.

Run:  OMP_NUM_THREADS=1 python benchmarks/loader.py [--shards DIR] [--workers 1] [--samples 24]

Prints samples a second of three ways to the same tensors, in the same number of processes:

- bare: PyAV decodes the video files and torch resizes the frames at the sampling rate; nothing is read of masks, and
  nothing is drawn.
- loader: this package's, from shards, with the objects' numbers drawn into the sampled frames as they are loaded.
- burnt in: as STVG-R1's released preprocessing does it: numbers drawn into every frame of every video, written as a
  second mp4, which is then decoded and resized: the cost of making it, once, and of loading it, each time.

Without --shards it makes videos of 10 seconds, 640 x 360 at 25 a second, in which five discs with masks move.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from stvg_lightning.data.shards import ShardFolder, ShardStream, write_shards
from stvg_lightning.data.video import (
    VideoSampling,
    decode_frames,
    encode_mp4,
    encode_mp4_stream,
    shown_frames,
    upright_picture,
)
from stvg_lightning.models.prompts import resize_frames
from stvg_lightning.prompting import Markers, draw_markers
from stvg_lightning.tubes import Clip, Sample, Truth, encode_mask, rle_box

SAMPLING = VideoSampling()  # STVG-R1's: 2 frames a second, 1.6 million pixels a video
SIDE_MULTIPLE = 28
MARKERS = Markers()
WIDTH, HEIGHT, FPS, NUM_FRAMES, NUM_DISCS = 640, 360, 25.0, 250, 5


def drawn_samples(num_samples: int) -> Iterator[Sample]:
    """Videos of moving discs over noise, with their masks."""
    for seed in range(num_samples):
        rng = np.random.default_rng(seed)
        ground = rng.integers(60, 190, (HEIGHT // 8, WIDTH // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        frames = np.stack([np.roll(ground, frame, axis=1) for frame in range(NUM_FRAMES)])
        rows, columns = np.mgrid[:HEIGHT, :WIDTH]
        masks: dict[int, dict] = {}
        for object_id in range(1, NUM_DISCS + 1):
            x, y, radius, speed = rng.uniform(80, 560), rng.uniform(80, 280), rng.uniform(30, 70), rng.uniform(-1, 1)
            for frame in range(NUM_FRAMES):
                seen = (columns - x - speed * frame) ** 2 + (rows - y) ** 2 < radius**2
                frames[frame][seen] = rng.integers(0, 255, 3) // 4 + 40 * object_id
                if seen.any():
                    masks.setdefault(object_id, {})[frame] = encode_mask(seen)
        tracks = {i: {f: rle_box(rle) for f, rle in rles.items()} for i, rles in masks.items()}
        span = (50, 150)
        truth = Truth(f"drawn {seed}", "a disc", FPS, NUM_FRAMES, WIDTH, HEIGHT, span, object_id=1, tracks=tracks)
        yield Sample(truth, encode_mp4(frames, FPS, crf=23), masks)


class Files(Dataset):
    """Videos as files beside their truths, loaded by a bare decoder."""

    def __init__(self, samples: ShardFolder, videos: list[Path]) -> None:
        self.truths = [samples.truth(index) for index in range(len(samples))]
        self.videos = videos

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> torch.Tensor:
        shown = shown_frames(self.truths[index], SAMPLING, SIDE_MULTIPLE)
        wanted, pictures = set(shown.indices), []
        with av.open(str(self.videos[index])) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for place, frame in enumerate(container.decode(stream)):
                if place in wanted:
                    pictures.append(upright_picture(frame))
                if place == shown.indices[-1]:
                    break
        clip = Clip(np.stack(pictures), tuple(sorted(wanted))[: len(pictures)], self.truths[index].fps)
        return resize_frames(clip, shown.height, shown.width)


def prepared(sample: Sample) -> torch.Tensor:
    """This package's way from a stored sample to what a model reads, but for the words."""
    shown = shown_frames(sample.truth, SAMPLING, SIDE_MULTIPLE)
    clip = decode_frames(sample.video, shown.indices, sample.truth.fps)
    return resize_frames(draw_markers(clip, sample, MARKERS).clip, shown.height, shown.width)


def burnt_in(sample: Sample) -> bytes:
    """A second video with the numbers in every frame."""

    def marked_frames() -> Iterator[np.ndarray]:
        for first in range(0, sample.truth.num_frames, 50):
            indices = tuple(range(first, min(first + 50, sample.truth.num_frames)))
            clip = decode_frames(sample.video, indices, sample.truth.fps)
            yield from draw_markers(clip, sample, MARKERS).clip.frames

    return encode_mp4_stream(marked_frames(), sample.truth.fps)


def seconds(*ways: Callable[[], object]) -> list[float]:
    """How long each of some things takes, in the quickest of three runs, which take turns."""
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(3):
        for way, times in zip(ways, taken, strict=True):
            begun = time.perf_counter()
            way()
            times.append(time.perf_counter() - begun)
    return [min(times) for times in taken]


def drained(dataset: Dataset, num_workers: int) -> int:
    return sum(1 for _ in DataLoader(dataset, batch_size=None, num_workers=num_workers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, help="shards with masks or tracks (default: drawn videos)")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--samples", type=int, default=24, help="how many are drawn")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.shards is None:
            write_shards(drawn_samples(options.samples), folder / "shards", "drawn", "CC0")
        samples = ShardFolder(options.shards or folder / "shards")
        videos = [folder / f"{index}.mp4" for index in range(len(samples))]
        for video, sample in zip(videos, samples, strict=True):
            video.write_bytes(sample.video)
        stream = ShardStream(samples.directory, shuffle=False, transform=prepared)
        second_videos = [video.with_suffix(".marked.mp4") for video in videos]
        begun = time.perf_counter()
        for video, sample in zip(second_videos, samples, strict=True):
            video.write_bytes(burnt_in(sample))
        made = time.perf_counter() - begun
        bare, loader, again = seconds(
            lambda: drained(Files(samples, videos), options.workers),
            lambda: drained(stream, options.workers),
            lambda: drained(Files(samples, second_videos), options.workers),
        )
    number = len(samples)
    print(f"{number} samples, {options.workers} processes")
    print(f"bare      {number / bare:8.2f} samples/s")
    print(f"loader    {number / loader:8.2f} samples/s, {bare / loader:.2f} of bare")
    print(f"burnt in  {number / again:8.2f} samples/s, {bare / again:.2f} of bare; made in {made / number:.2f} s each")


if __name__ == "__main__":
    main()
