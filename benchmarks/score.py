"""How fast `stvg score` is: predictions with tubes of 200 frames, read from files and scored, on one core.

Run:  OMP_NUM_THREADS=1 python benchmarks/score.py [--predictions 10000] [--frames 200] [--davis FOLDER]

Prints the seconds for a quarter, half and all of them, since the cost must grow with their number, and the peak memory;
before that J and F in frames a second, beside a plain loop over the same masks: those of `--davis`, else disks.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation

from stvg_lightning.cli.scoring import open_cases, reader_of, score_cases
from stvg_lightning.evaluation import boundary_accuracy, region_similarity
from stvg_lightning.evaluation.masks import boundaries
from stvg_lightning.evaluation.protocols import load_protocol

Masks = list[tuple[np.ndarray, np.ndarray]]
"""Answered and true mask of each frame."""

VIDEO = {"fps": 25, "num_frames": 500, "width": 640, "height": 360}


def write_files(folder: Path, num_predictions: int, num_frames: int) -> tuple[Path, Path]:
    """Truth and prediction lines about things that drift across the frame, each with a tube of its own."""
    rng = np.random.default_rng(0)
    truth, predictions = folder / "truth.jsonl", folder / "predictions.jsonl"
    with truth.open("w") as true, predictions.open("w") as predicted:
        for index in range(num_predictions):
            start, late = int(rng.integers(0, 200)), int(rng.integers(0, 60))
            for out, first, key in ((true, start, "truth"), (predicted, start + late, "prediction")):
                boxes = {str(frame): box_at(frame, rng) for frame in range(first, first + num_frames)}
                line = {"id": f"video {index}", "span_frames": [first, first + num_frames], "boxes_xyxy": boxes}
                out.write(json.dumps(line | ({"query": "a man", **VIDEO} if key == "truth" else {})) + "\n")
    return truth, predictions


def box_at(frame: int, rng: np.random.Generator) -> list[float]:
    x, y = 50 + 0.8 * frame + rng.normal(), 60 + 0.2 * frame + rng.normal()
    return [round(x, 2), round(y, 2), round(x + 80, 2), round(y + 120, 2)]


def seconds_to_score(truth: Path, predictions: Path, protocols: list[str]) -> float:
    """From both files to the figures."""
    begun = time.perf_counter()
    chosen = [load_protocol(name) for name in protocols]
    options = Namespace(recipe=None, language=None, markers=None)
    cases, _, _ = open_cases(truth, predictions, reader_of(options), None)
    rows = score_cases(cases, chosen)
    for protocol in chosen:
        protocol.means(rows[protocol.name])
    return time.perf_counter() - begun


def davis_masks(folder: Path) -> Masks:
    """A segmenter's masks and the true ones, all objects merged, of all sequences; those that show nothing left out."""
    pairs = []
    for file in sorted((folder / "Annotations").glob("*/*.png")):
        predicted = folder / "osvos_predictions" / file.parent.name / file.name
        pair = tuple(np.asarray(Image.open(each)) > 0 for each in (predicted, file))
        if all(mask.any() for mask in pair):
            pairs.append(pair)
    return pairs


def drifting_disks(num_frames: int = 60) -> Masks:
    """A disk that drifts, and one a few pixels off, in frames of 480 x 854."""
    y, x = np.mgrid[:480, :854]
    disks = [(x - 200 - 4 * i) ** 2 + (y - 240) ** 2 <= 80**2 for i in range(num_frames)]
    return [(np.roll(disk, 5, axis=1), disk) for disk in disks]


def plain_f(predicted: np.ndarray, true: np.ndarray) -> float:
    """F of one frame as it is defined: both contours, each dilated by a disk."""
    radius = math.ceil(0.008 * math.hypot(*true.shape))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = x * x + y * y <= radius * radius
    shown, meant = (boundaries(mask[None])[0] for mask in (predicted, true))
    near_meant, near_shown = (binary_dilation(contour, disk) for contour in (meant, shown))
    precision, recall = (shown & near_meant).sum() / shown.sum(), (meant & near_shown).sum() / meant.sum()
    return 2 * precision * recall / max(precision + recall, 1e-12)


def plain_scores(pairs: Masks) -> list[float]:
    """J and F, frame by frame."""
    return [((p & t).sum() / (p | t).sum() + plain_f(p, t)) / 2 for p, t in pairs]


def print_mask_speed(davis: Path | None) -> None:
    """Frames a second of J and F together, median of three, and how many times a plain loop's."""
    pairs = drifting_disks() if davis is None else davis_masks(davis)
    size = pairs[0][0].shape
    pairs = [pair for pair in pairs if pair[0].shape == size][:100]
    predicted, true = (np.stack(masks) for masks in zip(*pairs))
    ours = lambda: (region_similarity(predicted, true) + boundary_accuracy(predicted, true)) / 2  # noqa: E731
    np.testing.assert_allclose(ours(), plain_scores(pairs), atol=1e-9)
    seconds = {"vectorised": [], "plain loop": []}
    for _ in range(3):
        for name, score in (("vectorised", ours), ("plain loop", lambda: plain_scores(pairs))):
            begun = time.perf_counter()
            score()
            seconds[name].append(time.perf_counter() - begun)
    rates = {name: len(pairs) / statistics.median(each) for name, each in seconds.items()}
    print(f"J and F of {len(pairs)} frames of {size[1]} x {size[0]}: {rates['vectorised']:.0f} frames a second, "
          f"a plain loop {rates['plain loop']:.1f}: {rates['vectorised'] / rates['plain loop']:.1f} times")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=int, default=10_000)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--davis", type=Path, help="DAVIS's folder, with the masks to compare in `osvos_predictions`")
    options = parser.parse_args()
    print_mask_speed(options.davis)
    for protocols in (["canonical"], ["hcstvg"], ["canonical", "hcstvg", "tubedetr_vidstg", "cgstvg_hcstvg", "volume"]):
        for share in (0.25, 0.5, 1.0):
            with tempfile.TemporaryDirectory() as folder:
                number = int(share * options.predictions)
                files = write_files(Path(folder), number, options.frames)
                seconds = seconds_to_score(*files, protocols)
            each = 1000 * seconds / number
            print(f"{', '.join(protocols)}: {number} predictions in {seconds:.2f} s, {each:.2f} ms each")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
