"""Samples of the synthetic world: a scene drawn, encoded as mp4, with its sentence and every truth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stvg_lightning.data.synthetic.drawing import draw_scene
from stvg_lightning.data.synthetic.scene import Scene, WorldSettings, make_scene
from stvg_lightning.data.synthetic.sentences import choose_description, reasoning_trace
from stvg_lightning.data.video import encode_mp4
from stvg_lightning.tubes import Sample, Truth, Tube, encode_mask, mask_box
from stvg_lightning.tubes.choices import check_choice

SEEDS_PER_SPLIT = 1_000_000_000
SPLITS = ("train", "cold_start", "validation", "test", "pretrain")


def split_seeds(split: str, num_samples: int, seed: int = 0) -> Iterator[int]:
    """Seeds of a split's scenes. Two splits never share one, whatever their sizes and seeds.

    Args:
        split: one of `train`, `cold_start`, `validation`, `test`, `pretrain`.
        num_samples: how many seeds, below a million.
        seed: a number below 1,000 that picks another set of the same split.

    Raises:
        ValueError: an unknown split, or a number out of range.
    """
    check_choice("split", split, SPLITS)
    if not 0 <= seed < 1000 or not 0 <= num_samples < 1_000_000:
        raise ValueError(f"seed {seed} must be below 1,000 and the number of samples {num_samples} below 1,000,000")
    first = SPLITS.index(split) * SEEDS_PER_SPLIT + seed * 1_000_000
    return iter(range(first, first + num_samples))


def make_sample(seed: int, settings: WorldSettings = WorldSettings()) -> Sample:
    """The sample of a seed: an mp4 with sentence, span, tube, masks, all tracks, and a scene graph.

    Args:
        seed: any non-negative integer; `split_seeds` keeps splits apart.
        settings: sizes of the world.
    """
    scene = make_scene(seed, settings)
    frames, masks = draw_scene(scene)
    description, event = choose_description(scene, np.random.default_rng([seed, 11]))
    tracks = {object_id: tube_of(dict(enumerate(stack))) for object_id, stack in sorted(masks.items())}
    start, end = event.action.start_frame, event.action.end_frame
    target = tracks[event.thing.object_id]
    truth = Truth(
        id=f"synthetic-{seed:010d}",
        query=description.sentence(),
        fps=settings.fps,
        num_frames=scene.num_frames,
        width=settings.frame_size,
        height=settings.frame_size,
        span_frames=(start, end),
        boxes_xyxy={frame: target[frame] for frame in range(start, end) if frame in target},
        object_id=event.thing.object_id,
        tracks=tracks,
        graph={"frames": [scene_graph(scene, frame) for frame in range(0, scene.num_frames, round(settings.fps))]},
    )
    rles = {
        object_id: {frame: encode_mask(mask) for frame, mask in enumerate(stack) if mask.any()}
        for object_id, stack in masks.items()
    }
    categories = {thing.object_id: thing.shape for thing in scene.things}
    return Sample(
        truth,
        encode_mp4(frames, settings.fps),
        rles,
        categories,
        thought=reasoning_trace(event, scene),
        source=f"seed {seed}",
    )


def scene_graph(scene: Scene, frame: int) -> dict:
    """The scene graph of one frame: things with their centres, and distance and angle of each pair.

    Positions and distances are in units of the frame's side; angles in degrees from the first thing
    to the second, counter-clockwise with y upwards.
    """
    size = scene.settings.frame_size
    nodes: list[dict[str, Any]] = [
        {
            "id": thing.object_id,
            "name": f"{thing.color} {thing.shape}",
            "pos": [round(float(value) / size, 4) for value in thing.centers_xy[frame]],
            "doing": [a.kind for a in thing.actions if a.start_frame <= frame < a.end_frame],
        }
        for thing in scene.things
    ]
    edges = []
    for first in range(len(nodes)):
        for second in range(first + 1, len(nodes)):
            (x1, y1), (x2, y2) = nodes[first]["pos"], nodes[second]["pos"]
            edges.append(
                {
                    "a": nodes[first]["id"],
                    "b": nodes[second]["id"],
                    "dist": round(math.hypot(x2 - x1, y2 - y1), 4),
                    "angle": round(math.degrees(math.atan2(y1 - y2, x2 - x1)), 2),
                }
            )
    return {"t": frame / scene.settings.fps, "nodes": nodes, "edges": edges}


def tube_of(masks: Mapping[int, NDArray[np.bool_]]) -> Tube:
    """The tightest box around each frame's mask; a frame whose mask is empty has none."""
    boxes = {frame: mask_box(mask) for frame, mask in masks.items()}
    return {frame: box for frame, box in boxes.items() if box is not None}
