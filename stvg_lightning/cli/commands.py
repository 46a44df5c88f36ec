"""What each subcommand of `stvg` does, from parsed options to an exit code."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from stvg_lightning.answers import Answer
    from stvg_lightning.rewards import WeightedSum
    from stvg_lightning.tubes import Truth, Tube

EXPECTED = (ValueError, OSError)
LOSSES = "stvg_lightning.modules.optimization"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_DISK_WORDS = tuple(os.strerror(code) for code in FULL_DISK)
IN_WORKER = "in DataLoader worker process"


def is_expected(error: BaseException) -> bool:
    """Whether an error is told to the user in one line: bad input, missing files, full disks, broken losses."""
    is_broken_loss = LOSSES in sys.modules and isinstance(error, sys.modules[LOSSES].NonFiniteLoss)
    return isinstance(error, EXPECTED) or is_broken_loss or "DataLoader worker" in str(error) or is_full_disk(error)


def is_full_disk(error: BaseException) -> bool:
    """Whether an error says that no more can be written; libraries without errno of their own say it in words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL_DISK
    return any(words in str(error) for words in FULL_DISK_WORDS)


def message_of(error: BaseException) -> str:
    """One clear message; a full disk is named as such."""
    if is_full_disk(error):
        place = getattr(error, "filename", None) or "writing"
        return f"the disk is full ({place}): free some space and run the same command again"
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"there is no file {error.filename}"
    message = str(error) or type(error).__name__
    if IN_WORKER in message:  # and its whole traceback, after which the error says what is wrong
        message = re.split(rf"^(?:\w+\.)*{type(error).__name__}: ", message, flags=re.MULTILINE)[-1]
    return message.strip()


def run(options: Namespace) -> int:
    """`stvg run`."""
    from stvg_lightning.cli.recipe import load_values, with_base
    from stvg_lightning.cli.running import run_recipe

    console = Console()
    files, overrides = split_arguments(options.recipe)
    values = load_values(with_base(files), overrides)
    folder = run_recipe(values, options.only, console)
    report = folder / "report.html"
    console.print(f"results: {folder / 'summary.json'}" + (f", {report}" if report.is_file() else ""))
    return 0


def check(options: Namespace) -> int:
    """`stvg check`."""
    from stvg_lightning.cli.recipe import bind_recipe, load_values, with_base

    files, overrides = split_arguments(options.recipe)
    failures = 0
    for group in [files] if options.together else [[file] for file in files]:
        name = " + ".join(str(file) for file in group)
        try:
            recipe = bind_recipe(load_values(with_base(group), overrides))
            print(f"{name}: fine, stages {', '.join(recipe.stages)}")
        except (ValueError, OSError) as error:
            failures += 1
            print(f"{name}: {message_of(error)}", file=sys.stderr)
    return 1 if failures else 0


def plan(options: Namespace) -> int:
    """`stvg plan`."""
    from stvg_lightning.cli import planning

    return planning.plan(options)


def report(options: Namespace) -> int:
    """`stvg report`."""
    from stvg_lightning.cli.recipe import bind_recipe, load_values
    from stvg_lightning.cli.stages.report import Report, write_run_report
    from stvg_lightning.cli.stages.stage import Run

    recipe_file = options.run / "recipe.yaml"
    if not recipe_file.is_file():
        raise FileNotFoundError(f"{options.run} is no run folder: it holds no recipe.yaml")
    recipe = bind_recipe(load_values([recipe_file]))
    wished = [stage.gallery for stage in recipe.stages.values() if isinstance(stage, Report)]
    print(write_run_report(Run(recipe, options.run), *wished[:1]))
    return 0


def score(options: Namespace) -> int:
    """`stvg score`."""
    from stvg_lightning.cli.scoring import score_files

    return score_files(options)


def _check_boxes(answers: Sequence[Answer], boxes: Sequence[Tube | None], truth: Truth) -> None:
    """Refuse a group in which an answer that needs boxes has none; other completions of the file have theirs."""
    for answer, tube in zip(answers, boxes, strict=True):
        start, end = answer.span_seconds or (0.0, 0.0)
        if tube is None and start < end and truth.has_place:
            raise ValueError(
                f"a completion of {truth.id!r} has no boxes_xyxy, and others have them: place is rewarded by boxes; "
                f"write {{}} where none was found ({answer.text[:60]!r})"
            )


def reward(options: Namespace) -> int:
    """`stvg reward`."""
    from stvg_lightning.cli.recipe import bind_recipe, load_values, view_of, with_base
    from stvg_lightning.rewards import RewardContext
    from stvg_lightning.tubes.jsonl import read_truths
    from stvg_lightning.tubes.predictions import read_completions

    files, overrides = split_arguments(options.recipe)
    recipe = bind_recipe(load_values(with_base(files), overrides))
    truths = {truth.id: truth for truth in read_truths(options.samples)}
    completions = read_completions(options.completions, truths)
    groups: dict[str, list[int]] = defaultdict(list)
    for index, completion in enumerate(completions):
        groups[completion.id].append(index)
    rows: list[dict[str, Any]] = [{} for _ in completions]
    any_boxes = any(completion.boxes_xyxy is not None for completion in completions)
    recipe.rewards.setup()
    for id_, indices in groups.items():
        view = view_of(truths[id_], recipe.video, recipe.markers.kind)
        answers = [recipe.answer.read(completions[index].text, view) for index in indices]
        boxes = [completions[index].boxes_xyxy for index in indices] if any_boxes else None
        if boxes is not None and recipe.rewards.needs_discriminator:
            _check_boxes(answers, boxes, truths[id_])
        context = RewardContext(progress=1.0, discriminator_boxes=boxes)  # as at the end of a training
        scored = recipe.rewards.score(answers, truths[id_], context)
        for index, rewarded in zip(indices, scored, strict=True):
            rows[index] = {"id": id_, "terms": rewarded.terms, "total": rewarded.total}
    if options.table:
        Console().print(rewards_table(rows, [completion.text for completion in completions], recipe.rewards))
    else:
        for row in rows:
            print(json.dumps(row))
    return 0


def evaluate(options: Namespace) -> int:
    """`stvg evaluate`."""
    from stvg_lightning.cli.evaluating import evaluate as answer_and_score

    return answer_and_score(options)


def predict(options: Namespace) -> int:
    """`stvg predict`."""
    from stvg_lightning.cli.predicting import predict_video

    print(json.dumps(predict_video(options)))
    return 0


def shards(options: Namespace) -> int:
    """`stvg shards inspect`, `stvg shards build` and `stvg shards prompt`."""
    run_kind = {"inspect": _inspect_shards, "build": _build_shards, "prompt": _prompt_shards}
    return run_kind[options.shards_command](options)


def _inspect_shards(options: Namespace) -> int:
    from stvg_lightning.cli.recipe import bind_recipe, load_values, with_base
    from stvg_lightning.data.shards import contact_sheet, describe
    from stvg_lightning.prompting import Markers, draw_markers

    description = describe(options.directory)
    print(json.dumps(description, indent=2))
    sheet = options.sheet or Path("contact_sheet.png")
    markers = bind_recipe(load_values(with_base([options.recipe]))).markers if options.recipe else Markers()
    contact_sheet(options.directory, draw=lambda clip, sample: draw_markers(clip, sample, markers).clip).save(sheet)
    print(f"contact sheet: {sheet}", file=sys.stderr)
    return 0


def _build_shards(options: Namespace) -> int:
    from stvg_lightning.cli.building import build

    build(options)
    return 0


def _prompt_shards(options: Namespace) -> int:
    from stvg_lightning.cli.prompt_settings import read_settings
    from stvg_lightning.cli.prompt_tables import print_prompted
    from stvg_lightning.cli.prompting import prompt_shards

    settings, markers = read_settings(options.keys, options.recipe, options.workers)
    print_prompted(prompt_shards(options.shards, options.out, settings, markers, options.overwrite), options.out)
    return 0


def split_arguments(arguments: list[str]) -> tuple[list[Path], list[str]]:
    """Recipe files, and `key=value` overrides."""
    overrides = [argument for argument in arguments if "=" in argument and not os.path.exists(argument)]
    return [Path(argument) for argument in arguments if argument not in overrides], overrides


def rewards_table(rows: list[dict[str, Any]], texts: list[str], rewards: WeightedSum) -> Table:
    """Completions by reward terms, for people."""
    table = Table(title="rewards")
    table.add_column("id")
    table.add_column("completion", overflow="fold", max_width=60)
    for name, (_, weight) in rewards.terms.items():
        table.add_column(name if weight == 1 else f"{name} x {weight:g}", justify="right")
    table.add_column("total", justify="right")
    for row, text in zip(rows, texts, strict=True):
        cells = ["-" if value is None else f"{value:.3f}" for value in row["terms"].values()]
        table.add_row(row["id"], text.replace("[", "\\["), *cells, f"{row['total']:.3f}")
    return table


__all__ = ["check", "evaluate", "plan", "predict", "report", "reward", "run", "score", "shards"]
