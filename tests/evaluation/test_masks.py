"""J and F: masks worked by hand, a plain loop over frames, and DAVIS's real masks with a real segmenter's."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import binary_dilation

from stvg_lightning.answers import Answer
from stvg_lightning.evaluation import Case, boundary_accuracy, region_similarity
from stvg_lightning.evaluation.masks import boundaries
from stvg_lightning.evaluation.protocols import load_protocol
from stvg_lightning.tubes import Truth, encode_mask
from tests.helpers import assert_close


def square(size: int, top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def plain_boundary(mask: np.ndarray) -> np.ndarray:
    """The benchmark's own way: compare with the neighbours right, below and both, the last row and column apart."""
    height, width = mask.shape
    edges = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            right = mask[y, x + 1] if x + 1 < width else False
            below = mask[y + 1, x] if y + 1 < height else False
            both = mask[y + 1, x + 1] if x + 1 < width and y + 1 < height else False
            if y == height - 1 and x == width - 1:
                edges[y, x] = False
            elif y == height - 1:
                edges[y, x] = mask[y, x] ^ right
            elif x == width - 1:
                edges[y, x] = mask[y, x] ^ below
            else:
                edges[y, x] = (mask[y, x] ^ right) | (mask[y, x] ^ below) | (mask[y, x] ^ both)
    return edges


def plain_f(predicted: np.ndarray, true: np.ndarray, edges_of: object = boundaries) -> float:
    """Dilate both boundaries by a disk, one frame by itself."""
    radius = int(np.ceil(0.008 * np.linalg.norm(true.shape)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = x * x + y * y <= radius * radius
    shown, meant = (edges_of(mask) if edges_of is plain_boundary else boundaries(mask[None])[0]
                    for mask in (predicted, true))  # fmt: skip
    num_shown, num_meant = shown.sum(), meant.sum()
    if num_shown == 0 or num_meant == 0:
        precision, recall = float(num_shown == 0), float(num_meant == 0)
    else:
        precision = (shown & binary_dilation(meant, disk)).sum() / num_shown
        recall = (meant & binary_dilation(shown, disk)).sum() / num_meant
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def test_masks_by_hand() -> None:
    true = np.stack([square(20, 5, 5, 10)] * 4 + [np.zeros((20, 20), dtype=bool)] * 2)
    predicted = np.stack(
        [
            square(20, 5, 5, 10),
            square(20, 5, 10, 10),  # half of it
            square(20, 0, 0, 4),  # elsewhere
            np.zeros((20, 20), dtype=bool),
            np.zeros((20, 20), dtype=bool),
            square(20, 5, 5, 10),
        ]
    )
    assert_close(region_similarity(predicted, true), [1.0, 50 / 150, 0.0, 0.0, 1.0, 0.0], atol=1e-12)
    f = boundary_accuracy(predicted, true)
    assert_close(f[[0, 2, 3, 4, 5]], [1.0, 0.0, 0.0, 1.0, 0.0], atol=1e-12)
    # Both boundaries are rings in rows 4 to 14, in columns 4 to 14 and 9 to 19 (where the frame's edge is none, so the
    # second ring lacks its right side but for what lies above and below). Within a pixel of the other ring lie, of each
    # ring, the parts of its top and bottom rows in common columns, and a little of its sides.
    assert_close(f[1], plain_f(predicted[1], true[1], plain_boundary), atol=1e-12)
    # At a radius of one pixel, one pixel off is no error, and two are one.
    near, far = (boundary_accuracy(square(20, 5, 5 + off, 10)[None], true[:1])[0] for off in (1, 2))
    assert near == 1.0 and far < 1.0


@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(2, 30))
@settings(deadline=None, max_examples=60)
def test_random_masks_against_plain_loops(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, true = rng.random((2, 3, height, width)) < rng.random((2, 3, 1, 1))
    assert (boundaries(true) == np.stack([plain_boundary(mask) for mask in true])).all()
    assert_close(boundary_accuracy(predicted, true), [plain_f(*pair, plain_boundary) for pair in zip(predicted, true)])
    unions = [(p | t).sum() for p, t in zip(predicted, true)]
    expected = [(p & t).sum() / u if u else 1.0 for p, t, u in zip(predicted, true, unions)]
    assert_close(region_similarity(predicted, true), expected, atol=1e-12)
    assert_close(boundary_accuracy(true, predicted), boundary_accuracy(predicted, true), atol=1e-12)
    with pytest.raises(ValueError, match="must both be"):
        region_similarity(predicted, true[:2])


def test_davis_leaves_out_first_and_last_frame_and_mevis_none() -> None:
    right, wrong = encode_mask(square(20, 5, 5, 10)), encode_mask(square(20, 0, 0, 4))
    truth = Truth("v", "q", 5.0, 6, 20, 20, task="spatial", boxes_xyxy={0: (5.0, 5.0, 15.0, 15.0)})
    target = {frame: right for frame in range(5)}  # nothing is there in frame 5
    answered = {0: wrong, 1: right, 2: right, 3: wrong, 4: right}
    case = Case(Answer(""), truth, target, answered)
    assert_close(load_protocol("davis").row(case)["J"], 3 / 4, atol=1e-12)
    mevis = load_protocol("mevis").row(case)
    assert_close([mevis["J"], mevis["F"], mevis["J&F"]], [4 / 6, 4 / 6, 4 / 6], atol=1e-12)
    nothing = Case(Answer(""), truth, target)
    partly = Case(Answer(""), truth, {3: right})  # though it is right of five frames that show nothing
    for protocol in ("mevis", "davis"):
        assert [load_protocol(protocol).row(each)["J&F"] for each in (nothing, partly)] == [0.0, 0.0]
    with pytest.raises(ValueError, match="no target_masks"):
        load_protocol("davis").row(Case(Answer(""), truth))


def davis_masks(folder: Path, sequence: str) -> tuple[np.ndarray, np.ndarray]:
    """A segmenter's masks of a sequence and the true ones, all objects merged."""
    pairs = []
    for file in sorted((folder / "Annotations" / sequence).glob("*.png")):
        predicted = np.array(Image.open(folder / "osvos_predictions" / sequence / file.name))
        pairs.append((predicted > 0, np.array(Image.open(file)) > 0))
    predicted_masks, true_masks = zip(*pairs)
    return np.stack(predicted_masks), np.stack(true_masks)


def test_davis_real_masks(real_data: Path) -> None:
    folder = real_data / "videos" / "davis"
    predicted, true = davis_masks(folder, "car-shadow")
    j = region_similarity(predicted, true)
    # What the public evaluator prints: without the first and the last frame, and with them.
    assert {round(float(j[1:-1].mean()), 4), round(float(j.mean()), 4)} == {0.9284, 0.9237}
    frames = range(0, len(true), 5)
    assert_close(boundary_accuracy(predicted, true)[::5], [plain_f(predicted[i], true[i]) for i in frames])


def test_many_frames_at_once_are_faster_than_one_by_one(real_data: Path) -> None:
    predicted, true = davis_masks(real_data / "videos" / "davis", "motocross-jump")
    predicted, true = predicted[:10], true[:10]
    seconds = []
    for score in (lambda: boundary_accuracy(predicted, true), lambda: [plain_f(p, t) for p, t in zip(predicted, true)]):
        begun = time.process_time()
        score()
        seconds.append(time.process_time() - begun)
    assert seconds[1] / seconds[0] > 5
