"""Find a reward term by its dotted path, or in a file of the user's own."""

from __future__ import annotations

import difflib
import importlib
import inspect
import io
import pickle
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from stvg_lightning.rewards.base import RewardTerm

OWN_PREFIX = "stvg_own_"
"""Begins the names of modules that are files of the user's own."""


def load_term(
    path: str, options: Mapping[str, Any] | None = None, build: Callable[..., Any] | None = None
) -> RewardTerm:
    """Load a reward term.

    Args:
        path: `package.module.name`, or `path/to/file.py:name`, relative to the working directory.
        options: arguments of a term that is a class, by name; a class without any is built with its defaults.
        build: `(class, options) -> term`, where options must become something else first.

    Returns:
        The term.

    Raises:
        ValueError: no such module, file or name (the nearest names are listed), a file that cannot be
            run, an option that the term does not have, or something that states no range.

    Example:
        >>> load_term("stvg_lightning.rewards.ObjectId", {"presence": "code"})
        ObjectId(presence='code')
    """
    found = load_object(path)
    options = options or {}
    if inspect.isclass(found):
        _check_options(path, found, options)
        found = build(found, options) if build else found(**options)
    elif options:
        raise ValueError(
            f"{path} is a function and has no options, but was given {', '.join(options)}; a recipe may give it a "
            "'weight', and a term with options is a class with `low`, `high` and `__call__(answers, truth, context)`"
        )
    if not isinstance(found, RewardTerm):
        raise ValueError(
            f"{path} is no reward term: decorate a function of (answer, truth) with @reward, "
            "or give a class `low`, `high` and `__call__(answers, truth, context)`"
        )
    return found


def load_object(path: str) -> Any:
    """Whatever a path names: a decorated function, or the class of a term with options.

    Raises:
        ValueError: as `load_term`.
    """
    if ":" in path:
        file, _, name = path.rpartition(":")
        module = load_file(Path(file).expanduser())
    else:
        module_name, _, name = path.rpartition(".")
        if not module_name:
            raise ValueError(f"{path!r} must be named as package.module.name or path/to/file.py:name")
        module = _load_module(module_name, path)
    if not hasattr(module, name):
        raise ValueError(f"{path}: there is no {name!r}; {_names_in(module, name)}")
    return getattr(module, name)


def _load_module(module_name: str, path: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that is there, but itself imports one that is not, says so in its own words.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"{path} cannot be loaded: {error}") from error
        raise ValueError(
            f"{path}: there is no module {error.name!r}; a file of your own is named as path/to/file.py:name"
        ) from error


def load_file(file: Path) -> ModuleType:
    """Run a file as a module, anew each time, so that an edited file is seen.

    Raises:
        ValueError: no such file, or one that cannot be run.
    """
    if file.suffix != ".py":
        raise ValueError(f"{file} must be a .py file, as in path/to/file.py:name")
    if not file.is_file():
        near = sorted(str(other) for other in file.parent.glob("*.py"))
        raise ValueError(f"there is no file {file}; {_nearest(str(file), near)}")
    # The name must stay the same in every process, for a term to be pickled by name.
    module_name = f"{OWN_PREFIX}{file.stem}_{sha256(str(file.resolve()).encode()).hexdigest()[:8]}"
    module = ModuleType(module_name)
    module.__file__ = str(file)
    sys.modules[module_name] = module
    try:
        # Not by an import: its byte-code cache misses an edit of equal size within the same second.
        exec(compile(file.read_bytes(), file, "exec"), module.__dict__)
    # Whatever a user's own file raises is passed on, with the name of the file.
    except Exception as error:
        del sys.modules[module_name]
        raise ValueError(f"{file} cannot be run: {type(error).__name__}: {error}") from error
    return module


def own_file_of(thing: object) -> Path | None:
    """The file of the user's own that a module is, or that a thing's class was loaded from; None for others."""
    module = thing if isinstance(thing, ModuleType) else sys.modules[type(thing).__module__]
    return Path(str(module.__file__)) if module.__name__.startswith(OWN_PREFIX) else None


def packed_for_processes(thing: object) -> bytes:
    """A thing pickled so that any process can unpickle it, even one that has not loaded the user's own files."""
    packed = io.BytesIO()
    _Packer(packed).dump(thing)
    return packed.getvalue()


class _Packer(pickle.Pickler):
    """Says of a thing from a user's own file where its class is found, instead of a module that exists here alone."""

    def reducer_override(self, thing: object) -> Any:
        """How a thing is made anew."""
        file = None if inspect.isclass(thing) else own_file_of(thing)
        return NotImplemented if file is None else (_made_anew, (file.resolve(), type(thing).__name__, vars(thing)))


def _made_anew(file: Path, class_name: str, state: Mapping[str, Any]) -> object:
    """The thing of a user's own class, with the attributes that it had."""
    thing_class = getattr(load_file(file), class_name)
    thing = thing_class.__new__(thing_class)
    vars(thing).update(state)
    return thing


def _check_options(path: str, term_class: type, options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(term_class).parameters
    for option in options:
        if option not in parameters:
            raise ValueError(f"{path} has no option {option!r}; {_nearest(option, sorted(parameters))}")
    for name, parameter in parameters.items():
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not variadic and name not in options:
            raise ValueError(f"{path} needs the option {name!r}")


def _names_in(module: ModuleType, wanted: str) -> str:
    names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    return _nearest(wanted, sorted(names))


def _nearest(wanted: str, names: list[str]) -> str:
    """The names that exist, and the nearest of them, as the end of a sentence."""
    if not names:
        return "there are none"
    near = difflib.get_close_matches(wanted, names, n=1)
    return (f"the nearest is {near[0]!r}, of " if near else "choose from ") + ", ".join(names)
