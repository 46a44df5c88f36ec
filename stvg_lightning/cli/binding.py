"""Bind a recipe's keys to what uses them: every key must name an argument, every value must fit its type.

Components are named by dotted path, or by file and name where they are the user's own: a mapping with
the key `use` is whatever the path names, called with the other keys as arguments. Nothing is loaded or
run by binding but the modules that hold them.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union

from stvg_lightning.answers import AnswerLanguage
from stvg_lightning.rewards import OnTasks, WeightedSum, load_term
from stvg_lightning.rewards.loading import load_file, load_object

USE = "use"


class RecipeError(ValueError):
    """A recipe that does not bind; the message names the key, and the nearest valid one."""


def import_path(path: str, where: str) -> Any:
    """Import `package.module` or `package.module.name`, or a user's own `path/to/file.py` or `path/to/file.py:name`.

    Raises:
        RecipeError: nothing of that name.
    """
    if path.endswith(".py") or ".py:" in path:
        try:
            return load_object(path) if ":" in path else load_file(Path(path).expanduser())
        except ValueError as error:
            raise RecipeError(f"{where}: {error}") from error
    if not all(part.isidentifier() for part in path.split(".")):
        raise RecipeError(f"{where}: {path!r} is no dotted path such as package.module.name, nor path/to/file.py:name")
    module_name, _, name = path.rpartition(".")
    for candidate, attribute in ((path, ""), (module_name, name)):
        if not candidate:
            continue
        try:
            module = importlib.import_module(candidate)
        except ModuleNotFoundError as error:
            if error.name is None or not candidate.startswith(error.name):
                raise RecipeError(f"{where}: {path} cannot be imported: {error}") from error
            continue
        if not attribute:
            return module
        if hasattr(module, attribute):
            return getattr(module, attribute)
        raise RecipeError(f"{where}: {candidate} has no {attribute!r}{_nearest(attribute, dir(module))}")
    raise RecipeError(f"{where}: there is no module {path!r}")


def bind(annotation: Any, value: Any, where: str) -> Any:
    """Turn a value of a recipe into what an annotation asks for.

    Args:
        annotation: a type, a dataclass, `Literal`, `X | None`, a tuple, list or mapping of such, a
            callable (bound from a dotted path), or `WeightedSum` (a table of reward terms).
        value: what the recipe holds there: mappings, lists, text, numbers, booleans, None.
        where: the dotted place in the recipe, for messages.

    Raises:
        RecipeError: an unknown or missing key, or a value that does not fit.
    """
    if isinstance(value, Mapping) and USE in value:
        return _component(annotation, value, where)
    if annotation is WeightedSum:
        return _rewards(value, where)
    if inspect.isclass(annotation) and dataclasses.is_dataclass(annotation):
        return call_with(annotation, _mapping(value, where), where)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return _union(arguments, value, where)
    if origin is Literal:
        if value not in arguments:
            nearest = _nearest(str(value), [str(a) for a in arguments])
            raise RecipeError(f"{where}: {value!r} is not one of {', '.join(map(str, arguments))}{nearest}")
        return value
    if origin in (tuple, list, Sequence) or annotation in (tuple, list):
        return _sequence(annotation, origin, arguments, value, where)
    if origin in (dict, Mapping):
        table = _mapping(value, where)
        return {key: bind(arguments[1], item, f"{where}.{key}") for key, item in table.items()}
    if annotation is AnswerLanguage:
        return _language(value, where)
    if origin is Callable or annotation is Callable:
        return import_path(_text(value, where), where)
    return _plain(annotation, value, where)


def call_with(function: Callable[..., Any], values: Mapping[str, Any], where: str) -> Any:
    """Call a function or class with a mapping's keys as arguments, each bound by its annotation.

    Raises:
        RecipeError: a key that is no argument (the nearest is named), a missing one, or a refused value.
    """
    parameters = inspect.signature(function).parameters
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    name = getattr(function, "__name__", str(function))
    for key in values:
        if key not in parameters:
            keys = [parameter for parameter in parameters if parameter != "self"]
            raise RecipeError(
                f"{where}.{key}: {name} has no key {key!r}{_nearest(str(key), keys)} (its keys: {', '.join(keys)})"
            )
    missing = [key for key, p in parameters.items() if p.default is inspect.Parameter.empty and key not in values]
    if missing:
        raise RecipeError(f"{where}: {name} needs the key{'s' * (len(missing) > 1)} {', '.join(missing)}")
    bound = {key: bind(hints.get(key, Any), item, f"{where}.{key}") for key, item in values.items()}
    try:
        return function(**bound)
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from error


def _component(annotation: Any, value: Mapping[str, Any], where: str) -> Any:
    """Build what `use` names with the other keys; it must be of the asked type, where that can be told."""
    component = import_path(_text(value[USE], f"{where}.{USE}"), f"{where}.{USE}")
    if not callable(component):
        raise RecipeError(f"{where}.{USE}: {value[USE]} is a {type(component).__name__}, which takes no keys")
    made = call_with(component, {key: item for key, item in value.items() if key != USE}, where)
    if inspect.isclass(annotation) and annotation is not Any and not isinstance(made, annotation):
        raise RecipeError(f"{where}: {value[USE]} is a {type(made).__name__}, not a {annotation.__name__}")
    return made


def _rewards(value: Any, where: str) -> WeightedSum:
    """A table of reward terms: name -> path, or name -> {use: path, weight, tasks, the term's own options}."""
    terms = {}
    for name, entry in _mapping(value, where).items():
        place = f"{where}.{name}"
        if entry is None:
            continue  # an overlay takes a term away by setting it to null
        options = {USE: entry} if isinstance(entry, str) else dict(_mapping(entry, place))
        if USE not in options:
            raise RecipeError(
                f"{place}: a reward term needs the key {USE!r}: a dotted path, or file.py:name. An overlay that "
                "changes a term named by its path alone names the path again"
            )
        weight = _plain(float, options.pop("weight", 1.0), f"{place}.weight")
        tasks = bind(tuple[str, ...] | None, options.pop("tasks", None), f"{place}.tasks")
        path = _text(options.pop(USE), f"{place}.{USE}")
        try:
            term = load_term(path, options, partial(_term, where=place))
            terms[name] = (term if tasks is None else OnTasks(term, tasks), weight)
        except ValueError as error:
            raise RecipeError(f"{place}: {error}") from error
    try:
        return WeightedSum(terms)
    except ValueError as error:
        raise RecipeError(f"{where}: {error}") from error


def _term(term: Callable[..., Any], options: Mapping[str, Any], where: str) -> Any:
    """Build a reward term; an option that is itself a table of keys is bound, all others are the term's own affair."""
    try:
        hints = typing.get_type_hints(term.__init__)
    except NameError:  # names that a user's file imports for type checkers alone
        hints = {}
    tables = {name for name in options if dataclasses.is_dataclass(hints.get(name))}
    return term(
        **{name: bind(hints[name], it, f"{where}.{name}") if name in tables else it for name, it in options.items()}
    )


def _language(path: Any, where: str) -> AnswerLanguage:
    """An answer language named by its path alone: a module, or a class whose keys all keep their defaults."""
    found = import_path(_text(path, where), where)
    language = call_with(found, {}, where) if inspect.isclass(found) else found
    if not isinstance(language, AnswerLanguage):
        raise RecipeError(f"{where}: {path} is no answer language: it lacks instruction, holds_answer, write or read")
    return language


def _union(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in choices:
        return None
    errors = []
    for choice in (choice for choice in choices if choice is not type(None)):
        try:
            return bind(choice, value, where)
        except RecipeError as error:
            errors.append(error)
    raise errors[0]


def _sequence(annotation: Any, origin: Any, arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise RecipeError(f"{where}: a list is expected, not {value!r}")
    item_type = arguments[0] if arguments else Any
    items = [bind(item_type, item, f"{where}[{index}]") for index, item in enumerate(value)]
    return tuple(items) if tuple in (origin, annotation) else items


def _plain(annotation: Any, value: Any, where: str) -> Any:
    """A number, text or boolean; an integer is welcome where a fraction is asked for, nothing else is converted."""
    if annotation is Any or annotation is inspect.Parameter.empty:
        return value
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if annotation is Path and isinstance(value, str):
        return Path(value).expanduser()
    if not inspect.isclass(annotation):
        return value
    fits = isinstance(value, annotation) and not (annotation in (int, float) and isinstance(value, bool))
    if not fits:
        raise RecipeError(f"{where}: {annotation.__name__} is expected, not {value!r}")
    return value


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where}: keys with values are expected, not {value!r}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise RecipeError(f"{where}: text is expected, not {value!r}")
    return value


def _nearest(word: str, words: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, [w for w in words if not w.startswith("_")], n=1, cutoff=0.5)
    return f": did you mean {near[0]!r}?" if near else ""
