"""Questions about where the synthetic world's things are and how they move, in place of sentences (Video-STR)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from stvg_lightning.data.questions import (
    KINDS,
    Place,
    QuestionSettings,
    Source,
    Thing,
    questions_of,
    truth_of_question,
)
from stvg_lightning.data.synthetic.drawing import draw_scene
from stvg_lightning.data.synthetic.samples import split_seeds
from stvg_lightning.data.synthetic.scene import Scene, WorldSettings, box_of, make_scene
from stvg_lightning.data.video import encode_mp4
from stvg_lightning.tubes import Sample, Truth

SEEDS_A_SAMPLE = 5
"""How many scenes may be tried for each question: about some, nothing clear can be asked of its kind."""


def source_of(scene: Scene) -> Source:
    """A scene as questions know it: all things in every frame, each counted by its shape and by its colour."""
    size = scene.settings.frame_size
    things = []
    for thing in scene.things:
        places = {}
        for frame in range(scene.num_frames):
            x1, y1, x2, y2 = box_of(thing, frame)
            x, y = (float(value) for value in thing.centers_xy[frame])
            places[frame] = Place((x, y), (x2 - x1, y2 - y1), (x1, y1, x2, y2))
        kinds = (thing.shape, f"{thing.color} thing")
        things.append(Thing(thing.object_id, f"{thing.color} {thing.shape}", places, kinds))
    things.sort(key=lambda thing: thing.id)
    identity = f"synthetic-{scene.seed:010d}"
    return Source(identity, scene.settings.fps, scene.num_frames, tuple(things), "picture", (0.0, 0.0), float(size))


def asked_samples(
    split: str, num_samples: int, seed: int, world: WorldSettings, settings: QuestionSettings
) -> Iterator[Sample]:
    """Samples of a split, each a question about a scene of its own, as many of each kind.

    Args:
        split: see `split_seeds`, as for `num_samples` and `seed`.
        num_samples: how many.
        seed: picks another set of the same split.
        world: sizes of the world.
        settings: which questions; `per_kind` does not matter.

    Raises:
        ValueError: too few scenes have a question of these kinds.
    """
    most = min(SEEDS_A_SAMPLE * num_samples, 999_999)
    done = 0
    for scene_seed in split_seeds(split, most, seed):
        if done == num_samples:
            return
        scene = make_scene(scene_seed, world)
        kind = settings.kinds[done % len(settings.kinds)]
        question = next(questions_of(source_of(scene), replace(settings, kinds=(kind,), per_kind=1)), None)
        if question is None:
            continue
        done += 1
        video = Truth(
            f"synthetic-{scene.seed:010d}", "", world.fps, scene.num_frames, world.frame_size, world.frame_size
        )
        truth = truth_of_question(question, video, video.id)
        frames, _ = draw_scene(scene)
        yield Sample(truth, encode_mp4(frames, world.fps), source=f"seed {scene.seed}")
    if done < num_samples:
        raise ValueError(
            f"{most} scenes have only {done} questions of the kinds {', '.join(settings.kinds)} in turn, and "
            f"{num_samples} are asked for: take others of {', '.join(KINDS)}, or a world of more things"
        )
