"""`stvg evaluate`: a predictor on a benchmark, scored by its protocols, beside published and earlier figures."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from stvg_lightning.answers import Answer
from stvg_lightning.cli.answering import collect_answers
from stvg_lightning.cli.evaluation_tables import UNREAD_VIDEOS, print_evaluation, tell_incomplete, tell_unanswered
from stvg_lightning.cli.predictors import (
    CONSTANT,
    MASK_PROTOCOLS,
    check_answerable,
    check_options,
    identity_of,
    kind_of,
    model_of,
    needs_videos,
    recipe_of,
)
from stvg_lightning.cli.scoring import (
    LABELS,
    MISSING,
    NOTHING_SAID,
    Rows,
    score_cases,
    split_names,
    write_rows,
)
from stvg_lightning.data.shards import ShardFolder
from stvg_lightning.evaluation import Case, case_of
from stvg_lightning.evaluation.benchmarks import Benchmark, load_benchmark
from stvg_lightning.evaluation.by_label import label_means
from stvg_lightning.evaluation.protocols import EvaluationProtocol, load_protocol
from stvg_lightning.evaluation.repair import Repair
from stvg_lightning.tubes import Truth
from stvg_lightning.tubes.files import write_atomically
from stvg_lightning.tubes.jsonl import read_json_lines

IDENTITY_FILE, ROWS_FILE, SCORES_FILE = "evaluation.json", "rows.jsonl", "scores.json"
RUNS = Path("runs/evaluations")
UNREAD = "the video cannot be read"


@dataclass(frozen=True)
class Plan:
    """What is evaluated on what, before anything is loaded."""

    benchmark: Benchmark | None
    shards: ShardFolder
    questions: Mapping[int, Truth]
    protocols: Sequence[EvaluationProtocol]
    folder: Path
    identity: Mapping[str, Any]
    masks_are_annotated: bool
    """Whether masks are scored, and those to choose from are the annotation's own."""


def evaluate(options: Namespace) -> int:
    """Answer, score, print and compare; the answers that an interrupted evaluation has written are kept."""
    console = Console(stderr=True)
    plan = plan_of(options)
    earlier = None if options.against is None else read_rows_by_protocol(options.against)
    if earlier is not None:
        check_comparable(earlier, plan, options.against)
    begin(plan)
    answers = collect_answers(options, plan.questions, plan.folder, console)
    cases = (case_of_question(plan.shards, index, answer, options.repair) for index, answer in answers.items())
    rows = score_cases(cases, plan.protocols)
    write_rows(plan.folder / ROWS_FILE, rows)
    differences = {} if earlier is None else differences_to(earlier, rows, plan)
    scores = scores_of(plan.protocols, rows) | ({"differences": differences} if differences else {})
    labelled = label_means(plan.protocols, rows)
    labels = {LABELS: labelled} if labelled else {}
    write_atomically(plan.folder / SCORES_FILE, json.dumps(scores | labels | made_of(plan, options), indent=2) + "\n")
    if options.json:
        means: dict[str, Any] = {protocol.name: protocol.means(rows[protocol.name]) for protocol in plan.protocols}
        print(json.dumps(means | labels | unanswered(answers, plan.questions) | made_of(plan, options)))
        return 0
    print_evaluation(plan.protocols, rows, differences, plan.benchmark, options.ablations)
    if plan.benchmark is not None:
        tell_incomplete(plan.benchmark, len(plan.questions))
    if plan.masks_are_annotated:
        print("the objects to choose from have the annotation's own masks: J and F measure the choice alone")
    tell_unanswered(unanswered(answers, plan.questions), len(plan.questions))
    print(f"rows, scores and answers: {plan.folder}")
    return 0


def plan_of(options: Namespace) -> Plan:
    """Check all that can be checked before a model is loaded.

    Raises:
        FileNotFoundError: the shards are not there: the message tells the command that makes them.
        ValueError: an unknown benchmark or protocol, or shards without a question that they score.
    """
    check_options(options)
    benchmark = None if options.benchmark is None else load_benchmark(options.benchmark)
    if benchmark is None and options.shards is None:
        raise ValueError("say what to evaluate on: --benchmark NAME, or --shards FOLDER")
    if options.shards is None:
        assert benchmark is not None
        options.shards = Path(benchmark.folder)
    try:
        shards = ShardFolder(options.shards)
    except FileNotFoundError as error:
        if benchmark is None:
            raise
        raise FileNotFoundError(
            f"{error}; shards of {benchmark.title} are made by: {benchmark.build_command}"
        ) from None
    names = split_names(options.protocol) if options.protocol else benchmark.protocols if benchmark else ("canonical",)
    protocols = [load_protocol(name) for name in names]
    questions = {index: shards.truth(index) for index in range(len(shards))}
    if benchmark is not None:
        questions = {index: truth for index, truth in questions.items() if truth.task in benchmark.tasks}
        if not questions:
            raise ValueError(f"{options.shards} holds no question of the tasks {', '.join(benchmark.tasks)}")
    if needs_videos(options):
        check_answerable(options, questions.values(), protocols)
    masks_found = _check_scored(shards, questions, protocols)
    annotated = any(protocol.name in MASK_PROTOCOLS for protocol in protocols) and not masks_found
    identity = {"shards": shards.manifest.content_hash, "tasks": list(benchmark.tasks) if benchmark else None}
    folder = options.out or RUNS / (options.benchmark or options.shards.name) / label_of(options)
    return Plan(
        benchmark, shards, questions, protocols, folder, {**identity, "predictor": identity_of(options)}, annotated
    )


def begin(plan: Plan) -> None:
    """Make the folder, or take up the work in it.

    Raises:
        ValueError: it holds the work of another predictor, or on other shards.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    file, text = plan.folder / IDENTITY_FILE, json.dumps(plan.identity, indent=2) + "\n"
    if file.is_file() and file.read_text() != text:
        raise ValueError(
            f"{plan.folder} holds an evaluation of another predictor, with other settings or on other shards: "
            "choose another --out, or remove it"
        )
    write_atomically(file, text)


def label_of(options: Namespace) -> str:
    """A folder's name for a predictor, so that people find it."""
    kind, words = kind_of(options), [*options.predictor]
    if kind == "recipe":
        place = Path(model_of(options))
        words = [recipe_of(options).name, place.parent.name if place.name == "model" else "base"]
    elif kind == "model" and Path(words[0]).name == "model":
        words = [*Path(words[0]).parts[-3:-1]]
    elif kind == "constant":
        words = [words[0].removeprefix(CONSTANT)]
    elif kind == "endpoint":
        words = [options.model]
    words += ["two_stage"] * options.two_stage
    return "-".join(re.sub(r"[^A-Za-z0-9._=]+", "_", word).strip("_") for word in words)


def case_of_question(shards: ShardFolder, index: int, answer: Answer, repair: Repair | None) -> Case:
    """An answer beside its truth, with the masks that the shards hold."""
    sample = shards.without_video(index)
    return case_of(answer, sample.truth, sample.masks, sample.target_masks, repair)


def scores_of(protocols: Sequence[EvaluationProtocol], rows: Mapping[str, Rows]) -> dict[str, Any]:
    """Protocol -> metric -> mean, its 95 % interval and the number of questions, as fractions."""
    return {
        protocol.name: {
            metric: {"mean": interval.mean, "ci95": [interval.low, interval.high], "num_questions": num_rows}
            for metric, (interval, num_rows) in protocol.intervals(rows[protocol.name]).items()
        }
        for protocol in protocols
    }


def read_rows_by_protocol(place: Path) -> dict[str, Rows]:
    """The rows of an earlier evaluation, or a file that `stvg score --rows` wrote.

    Raises:
        FileNotFoundError: none there.
        ValueError: a line that is no row of a protocol.
    """
    file = place / ROWS_FILE if place.is_dir() else place
    if not file.is_file():
        raise FileNotFoundError(f"--against {place}: there are no rows at {file}")
    found: dict[str, Rows] = {}
    for where, record in read_json_lines(file):
        if not isinstance(record.get("protocol"), str) or not isinstance(record.get("id"), str):
            raise ValueError(f"{where}: a row has a protocol and an id, as `stvg score --rows` writes it")
        found.setdefault(record["protocol"], []).append(record)
    return found


def check_comparable(earlier: Mapping[str, Rows], plan: Plan, place: Path) -> None:
    """Refuse before anything is answered what could not be compared afterwards.

    Raises:
        ValueError: no protocol in common, rows of other questions or of one twice, or without scores in [0, 1].
    """
    shared = [protocol for protocol in plan.protocols if protocol.name in earlier]
    if not shared:
        raise ValueError(f"--against {place} has rows of {', '.join(earlier)}, and none of the protocols asked for")
    ids = {truth.id for truth in plan.questions.values()}
    for protocol in shared:
        rows = earlier[protocol.name]
        if alone := sorted(ids ^ {row["id"] for row in rows}):
            few = f"{len(alone)} questions are in one of the two evaluations only, such as {alone[0]!r}"
            raise ValueError(f"--against {place}: {few}")
        try:
            shares = [share for of_rows in protocol.shares(rows).values() for share in of_rows.values()]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"--against {place}: rows of {protocol.name} are none of ours: {error}") from None
        if not all(0 <= share <= 1 + 1e-9 for share in shares):
            raise ValueError(f"--against {place}: rows of {protocol.name} have scores that are not in [0, 1]")


def differences_to(earlier: Mapping[str, Rows], rows: Mapping[str, Rows], plan: Plan) -> dict[str, Any]:
    """Protocol -> metric -> ours less the earlier one's, over the same questions."""
    found: dict[str, Any] = {}
    for protocol in plan.protocols:
        if protocol.name in earlier:
            intervals = protocol.differences(rows[protocol.name], earlier[protocol.name])
            found[protocol.name] = {
                metric: {"mean": interval.mean, "ci95": [interval.low, interval.high]}
                for metric, interval in intervals.items()
            }
    return found


def made_of(plan: Plan, options: Namespace) -> dict[str, Any]:
    """`made_of`: what figures rest on besides answers: the questions, how many papers score, and the repair."""
    of_papers = None if plan.benchmark is None else plan.benchmark.num_questions
    return {
        "made_of": {
            "questions": len(plan.questions),
            "questions_of_papers": of_papers,
            "repair": options.repair or "as each protocol has it",
        }
    }


def unanswered(answers: Mapping[int, Answer], questions: Mapping[int, Truth]) -> dict[str, list[str]]:
    """Reason -> the questions that count 0 for it: nothing was said to them, or nothing could be shown."""
    missing = [index for index, answer in answers.items() if answer.problems == NOTHING_SAID.problems]
    unread = [i for i, answer in answers.items() if any(problem.startswith(UNREAD) for problem in answer.problems)]
    found = {MISSING: missing, UNREAD_VIDEOS: unread}
    return {kind: [questions[index].id for index in indices] for kind, indices in found.items() if indices}


def _check_scored(shards: ShardFolder, questions: Mapping[int, Truth], protocols: Sequence[EvaluationProtocol]) -> bool:
    """Refuse at once what scoring would refuse after hours of answers, by scoring an empty answer to each question.

    Returns:
        Whether the masks of some sample are a tracker's, and its annotated ones lie beside them.

    Raises:
        ValueError: an id that stands twice, a task that a protocol does not score, or a truth that lacks what it needs.
    """
    counts = Counter(truth.id for truth in questions.values())
    if doubled := [id_ for id_, count in counts.items() if count > 1]:
        raise ValueError(f"two questions have the id {doubled[0]!r}")
    masks_found = False
    for index in questions:
        sample = shards.without_video(index)
        nothing = case_of(NOTHING_SAID, sample.truth, sample.masks, sample.target_masks)
        masks_found = masks_found or bool(sample.target_masks)
        for protocol in protocols:
            protocol.row(nothing)
    return masks_found
