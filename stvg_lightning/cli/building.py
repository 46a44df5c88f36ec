"""`stvg shards build`: find a reader, give it its keys, and write what it reads, with a bar and a report."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from yaml import YAMLError

from stvg_lightning.cli.binding import RecipeError, call_with, import_path
from stvg_lightning.data import annotations as formats
from stvg_lightning.data.annotations import Report, VideoFolder
from stvg_lightning.data.shards import REPORT_NAME, BuildReport, WriteOptions, build_shards
from stvg_lightning.tubes import Sample

GIVEN = ("annotations", "videos", "report")
Reader = Callable[..., Iterator[Sample]]


def build(options: Namespace) -> BuildReport:
    """Build shards as the command's options say, telling on standard error what was changed, dropped and skipped."""
    reader, keys = find_reader(options.format), read_keys(options.keys)
    report = Report()
    given = {"annotations": options.annotations, "videos": VideoFolder(options.videos), "report": report}
    samples = call_with(_bound(reader, given), keys, f"--format {options.format}")
    write = WriteOptions(options.samples_per_shard, overwrite=options.overwrite, num_workers=options.workers)
    source = options.source or options.annotations.name
    console = Console(stderr=True)
    with _bar(console) as bar:
        task = bar.add_task("samples", total=None)
        built = build_shards(samples, options.out, source, options.licence, write, report, partial(bar.advance, task))
    for line in report.lines():
        print(line, file=sys.stderr)
    for skipped in built.skipped:
        print(f"skipped {skipped.id}: {skipped.reason}", file=sys.stderr)
    print(f"{built.num_written} samples in {len(built.manifest.shards)} shards at {options.out}")
    if report.changes or report.drops or built.skipped:
        print(f"what was changed, dropped and skipped: {options.out / REPORT_NAME}")
    return built


def find_reader(name: str) -> Reader:
    """The reader of a format: a module of `data.annotations`, a dotted path, or `file.py:name`.

    Raises:
        RecipeError: nothing of that name, or no reader; the formats there are are listed.
    """
    if name.isidentifier():
        if name not in format_names():
            raise RecipeError(
                f"--format {name}: there is no such format: choose from {', '.join(format_names())}, "
                "or name a reader of your own as package.module or file.py:name"
            )
        name = f"{formats.__name__}.{name}"
    found = import_path(name, "--format")
    reader = found.read if inspect.ismodule(found) and hasattr(found, "read") else found
    if not callable(reader) or list(inspect.signature(reader).parameters)[: len(GIVEN)] != list(GIVEN):
        raise RecipeError(f"--format {name}: a reader is a function or module with read({', '.join(GIVEN)}, ...)")
    return reader


def format_names() -> list[str]:
    """The modules of `data.annotations` that read a format."""
    names = sorted(module.name for module in pkgutil.iter_modules(formats.__path__))
    return [name for name in names if hasattr(importlib.import_module(f"{formats.__name__}.{name}"), "read")]


def read_keys(arguments: list[str]) -> dict[str, Any]:
    """A format's own keys from `key=value` arguments.

    Raises:
        RecipeError: an argument that is no `key=value`.
    """
    for argument in arguments:
        if not argument.partition("=")[0].isidentifier() or "=" not in argument:
            raise RecipeError(f"{argument!r} is no key=value of the format")
    try:
        keys = OmegaConf.to_container(OmegaConf.from_dotlist(arguments), resolve=True)
    except (YAMLError, OmegaConfBaseException) as error:
        raise RecipeError(f"{' '.join(arguments)} cannot be read: {error}") from error
    assert isinstance(keys, dict)
    return {str(key): value for key, value in keys.items()}


def _bound(reader: Reader, given: dict[str, Any]) -> Callable[..., Iterator[Sample]]:
    """The reader with what the command gives it, so that only the format's own keys are left."""
    bound = partial(reader, **given)
    signature = inspect.signature(reader)
    own = [parameter for name, parameter in signature.parameters.items() if name not in given]

    def read(**keys: Any) -> Iterator[Sample]:
        return bound(**keys)

    read.__name__ = getattr(inspect.getmodule(reader), "__name__", "the reader").rpartition(".")[2]
    read.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
    hints = inspect.get_annotations(reader, eval_str=True)
    read.__annotations__ = {name: hints[name] for name in hints if name not in given}
    return read


def _bar(console: Console) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}"), TimeElapsedColumn()
    return Progress(*columns, console=console)
