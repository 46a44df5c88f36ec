"""How fast `stvg score` is: predictions with tubes of 200 frames, read from files and scored, on one core.

Run:  OMP_NUM_THREADS=1 python benchmarks/score.py [--predictions 10000] [--frames 200]

Prints the seconds for a quarter, half and all of them, since the cost must grow with their number, and the peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import numpy as np

from stvg_lightning.cli.scoring import open_cases, reader_of, score_cases
from stvg_lightning.evaluation.protocols import load_protocol

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=int, default=10_000)
    parser.add_argument("--frames", type=int, default=200)
    options = parser.parse_args()
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
