"""The command `stvg`. Nothing heavy is imported before a command is known."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

EXAMPLES = """examples:
  stvg run recipes/quickstart.yaml                       all stages, going on where they stopped
  stvg run recipes/quickstart.yaml --only grpo           one stage
  stvg run recipes/stvg_r1.yaml recipes/tiny.yaml seed=1 overlays and overrides
  stvg check recipes/*.yaml                              bind every key, load nothing
  stvg evaluate recipes/stvg_r1.yaml --benchmark hcstvg_v2    answers, scores, published figures
  stvg predict runs/quickstart/grpo/model video.mp4 "the red circle moves left"
"""

MARKER_KINDS = ("number", "upper", "lower", "mix")
REPAIRS = ("none", "paper", "code")
DTYPES = ("float32", "bfloat16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code. Expected failures are one line, without a traceback."""
    options = _parser().parse_args(arguments)
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")  # peft asks, transformers answers
    from stvg_lightning.cli import commands

    try:
        return getattr(commands, options.command)(options)
    except KeyboardInterrupt:
        print("\nstvg: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:
        if options.traceback or not commands.is_expected(error):
            raise
        print(f"stvg: error: {commands.message_of(error)}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="stvg",
        description="Train vision-language models to say where and when in a video the thing a sentence describes is.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_recipe_commands(commands)
    _add_file_commands(commands)
    _add_evaluate_command(commands)
    kinds = _add_shard_commands(commands)
    for each in (parser, *commands.choices.values(), *kinds.choices.values()):  # before the command and after it
        default = False if each is parser else argparse.SUPPRESS
        each.add_argument("--traceback", action="store_true", default=default, help="show where an error came from")
    return parser


def _add_recipe_commands(commands: argparse._SubParsersAction) -> None:
    run = commands.add_parser("run", help="run the stages of a recipe, going on where they stopped")
    run.add_argument("recipe", nargs="+", help="a recipe, then overlays (YAML) and key=value overrides")
    run.add_argument("--only", action="append", default=[], metavar="STAGE", help="run only this stage (repeatable)")
    check = commands.add_parser("check", help="bind every key of a recipe without loading a weight")
    check.add_argument("recipe", nargs="+", help="recipes, each checked alone; key=value overrides apply to all")
    check.add_argument("--together", action="store_true", help="the files are one recipe and its overlays")
    plan = commands.add_parser("plan", help="predict tokens, memory and seconds of GRPO's steps; nothing is run")
    plan.add_argument("recipe", nargs="+", help="a recipe, then overlays (YAML) and key=value overrides")
    plan.add_argument("--gpus", type=int, default=1, metavar="N", help="processes, each with a batch (default: 1)")
    plan.add_argument("--memory", type=float, default=80.0, metavar="GIB", help="memory of each (default: 80)")
    plan.add_argument("--tflops", type=float, default=312.0, help="arithmetic of each (default: 312, an A100)")
    plan.add_argument("--bandwidth", type=float, default=2.0, help="its memory's TB a second (default: 2, an A100)")
    plan.add_argument("--utilisation", type=float, default=0.4, help="share of it that is reached (default: 0.4)")
    plan.add_argument("--json", action="store_true", help="print JSON instead of a table")
    report = commands.add_parser("report", help="write the HTML report of a run again")
    report.add_argument("run", type=Path, help="a run folder, e.g. runs/quickstart")


def _add_file_commands(commands: argparse._SubParsersAction) -> None:
    score = commands.add_parser("score", help="score predictions against truth")
    score.add_argument("--truth", type=Path, required=True, help="truth lines (JSON)")
    score.add_argument("--predictions", type=Path, required=True, help="prediction lines (JSON)")
    score.add_argument(
        "--protocol",
        default="canonical",
        metavar="NAME[,NAME...]",
        help="whose way of scoring: canonical (default), hcstvg, tubedetr_vidstg, ...; a wrong name lists them all",
    )
    score.add_argument(
        "--repair",
        choices=REPAIRS,
        help="boxes where the answered object has none: STVG-R1's paper, its code, or none (default: the protocol's)",
    )
    score.add_argument("--language", help="the answer language of predictions that hold text (default: id_span)")
    score.add_argument(
        "--recipe", type=Path, help="a recipe that tells language, markers and frames instead; box texts need it"
    )
    score.add_argument("--markers", choices=MARKER_KINDS, help="the kind of marker that texts name (default: number)")
    score.add_argument("--rows", type=Path, help="write one row of scores a sample to this file")
    score.add_argument("--json", action="store_true", help="print JSON instead of a table")
    reward = commands.add_parser("reward", help="print every reward term of every completion")
    reward.add_argument("recipe", nargs="+", help="a recipe, then overlays and key=value overrides")
    reward.add_argument("--samples", type=Path, required=True, help="truth lines (JSON)")
    reward.add_argument("--completions", type=Path, required=True, help='lines {"id", "text"}; ids may repeat')
    reward.add_argument("--table", action="store_true", help="print a table instead of JSON lines")
    predict = commands.add_parser("predict", help="ask a model about a video")
    predict.add_argument("model", help="`tiny`, a folder, or a hub name")
    predict.add_argument("video", type=Path, help="a video file")
    predict.add_argument("sentence", help="what to look for")
    predict.add_argument("--tracks", type=Path, help="a truth line with the objects' tracks or masks, to be marked")
    predict.add_argument("--recipe", type=Path, help="take sampling and markers from this recipe")
    predict.add_argument("--dtype", choices=DTYPES, help="precision of the weights (default: the recipe's, or float32)")
    predict.add_argument("--out", type=Path, help="where to write the drawn video (default: beside the video's name)")


def _add_evaluate_command(commands: argparse._SubParsersAction) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="answer a benchmark and score the answers, beside published figures",
        description="Answer a benchmark and score the answers. It goes on where it was interrupted.",
    )
    evaluate.add_argument(
        "predictor",
        nargs="+",
        help="a recipe (with overlays and key=value: its last trained model), a model's name or folder, a server's "
        "http://.../v1, predictions.jsonl, constant:whole_video or constant:middle_half",
    )
    evaluate.add_argument("--benchmark", metavar="NAME", help="hcstvg_v1, mevis, ...; a wrong name lists them all")
    evaluate.add_argument("--shards", type=Path, help="the questions (default: data_shards/BENCHMARK)")
    evaluate.add_argument("--protocol", metavar="NAME[,NAME...]", help="whose scores (default: the benchmark's)")
    evaluate.add_argument("--repair", choices=REPAIRS, help="as in `stvg score`")
    evaluate.add_argument("--out", type=Path, help="folder for answers, rows and scores (default: in runs/evaluations)")
    evaluate.add_argument("--against", type=Path, help="an earlier evaluation's folder: paired differences to it")
    evaluate.add_argument("--processes", type=_count, default=1, help="processes that answer, one a GPU (default: 1)")
    evaluate.add_argument("--batch-size", type=_count, default=8, help="questions answered together (default: 8)")
    evaluate.add_argument(
        "--max-new-tokens", type=_count, help="cut longer answers off (default: the recipe's, or 1024)"
    )
    evaluate.add_argument("--stage", help="of a recipe: the stage whose model to take, or base (default: the last)")
    evaluate.add_argument("--recipe", type=Path, help="of a model, server or file: how it is asked, and read")
    evaluate.add_argument("--model", help="of a server: the name by which it knows the model")
    evaluate.add_argument("--dtype", choices=DTYPES, help="precision of the weights")
    evaluate.add_argument("--two-stage", action="store_true", help="first the time, then a box in each frame, unmarked")
    evaluate.add_argument(
        "--coordinates",
        choices=("input", "norm1000", "original"),
        help="what --two-stage's boxes are counted in (default: as the model's family was trained, or norm1000)",
    )
    evaluate.add_argument("--language", help="of a file: the answer language of its texts")
    evaluate.add_argument("--markers", choices=MARKER_KINDS, help="of a file: the kind of marker that texts name")
    evaluate.add_argument("--ablations", action="store_true", help="show the papers' ablations too")
    evaluate.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _add_shard_commands(commands: argparse._SubParsersAction) -> argparse._SubParsersAction:
    shards = commands.add_parser("shards", help="build shards or look into them")
    kinds = shards.add_subparsers(dest="shards_command", required=True, metavar="COMMAND")
    inspect = kinds.add_parser("inspect", help="show what is in a folder of shards")
    inspect.add_argument("directory", type=Path)
    inspect.add_argument("--recipe", type=Path, help="draw the markers of this recipe (default: the paper's)")
    inspect.add_argument("--sheet", type=Path, help="where to write the contact sheet (default: contact_sheet.png)")
    prompt = kinds.add_parser("prompt", help="find, follow and number the objects in the videos of shards")
    prompt.add_argument("--shards", type=Path, required=True)
    prompt.add_argument("keys", nargs="*", metavar="key=value", help="settings, such as tracking.backward=false")
    prompt.add_argument("--out", type=Path, required=True)
    prompt.add_argument("--recipe", type=Path, help="settings and markers of this recipe (default: the paper's)")
    prompt.add_argument("--workers", type=int, help="processes, each on a GPU of its own (default: the settings' or 1)")
    prompt.add_argument("--overwrite", action="store_true", help="replace shards that are there")
    build = kinds.add_parser("build", help="make shards of annotations and videos")
    build.add_argument("keys", nargs="*", metavar="key=value", help="the format's own keys")
    build.add_argument("--format", default="jsonl", help="a format's name, a dotted path, or file.py:name of your own")
    build.add_argument("--annotations", type=Path, required=True)
    build.add_argument("--videos", type=Path, required=True)
    build.add_argument("--out", type=Path, required=True)
    build.add_argument("--workers", type=int, default=1, help="processes that write shards (default: 1)")
    build.add_argument("--samples-per-shard", type=int, default=256, help="samples in one shard (default: 256)")
    build.add_argument("--overwrite", action="store_true", help="replace shards that are there")
    build.add_argument("--source", default="", help="where the data came from (default: the annotation file's name)")
    build.add_argument("--licence", default="unknown", help="under which terms it may be used")
    return kinds


if __name__ == "__main__":
    sys.exit(main())
