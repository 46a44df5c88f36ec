"""`stvg score`: predictions against truths, under one protocol or several."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from stvg_lightning.answers import Answer, AnswerLanguage, View
from stvg_lightning.answers.reading import plain_reply
from stvg_lightning.cli.binding import bind
from stvg_lightning.evaluation import Case, case_of
from stvg_lightning.evaluation.by_label import by_label, label_means
from stvg_lightning.evaluation.protocols import EvaluationProtocol, load_protocol
from stvg_lightning.evaluation.repair import Repair
from stvg_lightning.tubes import Truth, span_frames_to_seconds
from stvg_lightning.tubes.files import replacing
from stvg_lightning.tubes.jsonl import TruthExtras, read_truths_with_masks
from stvg_lightning.tubes.predictions import Prediction, read_predictions

MISSING = "missing"
"""The key of the truths without a prediction, beside the protocols; it is there where any is."""

LABELS = "labels"
"""The key of the scores for each label, beside the protocols; it is there where any truth bears labels."""

NOTHING_SAID = Answer("", problems=("no prediction",))
SHOWN_IDS = 20

Read = Callable[[str, Truth], Answer]
Rows = list[dict[str, Any]]


def score_files(options: Namespace) -> int:
    """Score a file of predictions; prints a table or JSON, and writes the rows where asked to."""
    protocols = [load_protocol(name) for name in split_names(options.protocol)]
    if options.rows and options.rows.resolve() in (options.truth.resolve(), options.predictions.resolve()):
        raise ValueError(f"--rows {options.rows} is one of the files that are scored, and would be lost")
    cases, missing, num_truths = open_cases(options.truth, options.predictions, reader_of(options), options.repair)
    shown = track(cases, "scores", num_truths, console=Console(stderr=True), transient=True, disable=options.json)
    rows = score_cases(shown, protocols)
    if options.rows:
        write_rows(options.rows, rows)
    if options.json:
        means: dict[str, Any] = {protocol.name: protocol.means(rows[protocol.name]) for protocol in protocols}
        labelled = label_means(protocols, rows)
        told = means | ({LABELS: labelled} if labelled else {}) | ({MISSING: missing} if missing else {})
        print(json.dumps(told, allow_nan=False))
        return 0
    for protocol in protocols:
        print_scores(Console(), protocol, rows[protocol.name])
    if missing:
        ids = ", ".join(missing[:SHOWN_IDS]) + (", ..." if len(missing) > SHOWN_IDS else "")
        print(f"{len(missing)} of {num_truths} truths have no prediction and count 0: {ids}")
    return 0


def open_cases(
    truth_file: Path, prediction_file: Path, read: Read, repair: Repair | None
) -> tuple[Iterator[Case], list[str], int]:
    """Both files, each prediction beside its truth.

    Returns:
        The cases in the order of the truths, the ids of truths without a prediction, and the number of truths.

    Raises:
        ValueError: a line that is wrong, an id that stands twice, or a prediction without a truth.
    """
    lines = read_truths_with_masks(truth_file)
    truths = {truth.id: truth for truth, _ in lines}
    predictions = {prediction.id: prediction for prediction in read_predictions(prediction_file, truths)}
    missing = [id_ for id_ in truths if id_ not in predictions]
    return _cases(lines, predictions, read, repair), missing, len(lines)


def score_cases(cases: Iterable[Case], protocols: Sequence[EvaluationProtocol]) -> dict[str, Rows]:
    """Protocol -> a row for each case, in order."""
    rows: dict[str, Rows] = {protocol.name: [] for protocol in protocols}
    for case in cases:
        for protocol in protocols:
            rows[protocol.name].append(protocol.row(case))
    return rows


def write_rows(file: Path, rows: Mapping[str, Rows]) -> None:
    """One line of JSON for each sample and protocol, all of a protocol together; whole or not at all."""
    with replacing(file) as beside, beside.open("w") as out:
        for protocol, of_protocol in rows.items():
            for row in of_protocol:
                out.write(json.dumps({"protocol": protocol, **row}, allow_nan=False) + "\n")


def print_scores(console: Console, protocol: EvaluationProtocol, rows: Rows) -> None:
    """Print what a protocol is, and its metrics in percent with their 95 % intervals."""
    console.print(f"[bold]{protocol.name}[/bold]: {protocol.summary}")
    table = Table()
    for column, side in (("metric", "left"), ("%", "right"), ("95 % interval", "right"), ("questions", "right")):
        table.add_column(column, justify=side)  # type: ignore[arg-type]
    for metric, (interval, num_rows) in protocol.intervals(rows).items():
        low, high = 100 * interval.low, 100 * interval.high
        table.add_row(metric, f"{100 * interval.mean:.2f}", f"{low:.2f} to {high:.2f}", str(num_rows))
    console.print(table)
    for label, values in by_label(rows).items():
        console.print(label_table(protocol, label, values))


def label_table(protocol: EvaluationProtocol, label: str, values: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """A protocol's metrics in percent for each value of a label, with half their 95 % intervals, and for all of it."""
    everything = [row for rows in values.values() for row in rows]
    metrics = list(protocol.means(everything))
    table = Table()
    table.add_column(label)
    for metric in (*metrics, "questions"):
        table.add_column(metric, justify="right")
    for value, rows in (*values.items(), ("all", everything)):
        intervals = protocol.intervals(rows)
        cells = [
            f"{100 * found[0].mean:.2f} ± {50 * (found[0].high - found[0].low):.2f}" if found else "-"
            for found in (intervals.get(metric) for metric in metrics)
        ]
        if value == "all":
            table.add_section()
        table.add_row(value, *cells, str(len(rows)))
    return table


def reader_of(options: Namespace) -> Read:
    """How texts are read: as a recipe says, or in a language of the package that needs no frames.

    Where no language is named, replies to questions of choice and number are read as they stand.
    """
    if options.recipe is None:
        language = bind(AnswerLanguage, f"stvg_lightning.answers.{options.language or 'id_span'}", "--language")
        view, is_named = View(options.markers or "number"), options.language is not None

        def read(text: str, truth: Truth) -> Answer:
            is_plain = not is_named and truth.task in ("choice", "numeric")
            return Answer(text, reply=plain_reply(text)) if is_plain else language.read(text, view)

        return read
    if options.language or options.markers:
        raise ValueError("--recipe tells language and markers: leave out --language and --markers")
    from stvg_lightning.cli.recipe import bind_recipe, load_values, view_of, with_base  # loads what models need

    recipe = bind_recipe(load_values(with_base([options.recipe])))
    return lambda text, truth: recipe.answer.read(text, view_of(truth, recipe.video, recipe.markers.kind))


def case_of_line(
    prediction: Prediction | None, line: tuple[Truth, TruthExtras], read: Read, repair: Repair | None
) -> Case:
    """A prediction beside its truth.

    Raises:
        ValueError: a mask that does not cover its frame.
    """
    truth, extras = line
    return case_of(answer_of(prediction, truth, read), truth, extras.masks, extras.target_masks, repair)


def answer_of(prediction: Prediction | None, truth: Truth, read: Read) -> Answer:
    """A prediction as an answer; a missing one is an empty answer, which scores 0."""
    if prediction is None:
        return NOTHING_SAID
    if prediction.text is not None:
        return read(prediction.text, truth)
    span = prediction.span_seconds
    if span is None and prediction.span_frames is not None:
        span = span_frames_to_seconds(prediction.span_frames, truth.fps)
    names_objects = prediction.boxes_xyxy is None and prediction.masks is None
    place = prediction.object_ids or (), prediction.boxes_xyxy
    return Answer("", span, *place, names_objects=names_objects, masks=prediction.masks)


def split_names(protocols: str) -> list[str]:
    """The names in `NAME[,NAME...]`, each once."""
    names = [name.strip() for name in protocols.split(",")]
    doubled = [name for name in names if names.count(name) > 1]
    if doubled:
        raise ValueError(f"protocol {doubled[0]!r} is asked for twice")
    return names


def _cases(
    lines: Iterable[tuple[Truth, TruthExtras]],
    predictions: Mapping[str, Prediction],
    read: Read,
    repair: Repair | None,
) -> Iterator[Case]:
    for line in lines:
        try:
            yield case_of_line(predictions.get(line[0].id), line, read, repair)
        except ValueError as error:
            raise ValueError(f"truth {line[0].id!r}: {error}") from None
