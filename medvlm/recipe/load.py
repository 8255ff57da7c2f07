"""Read a recipe: find the file, apply `extends` and overrides, and report every mistake at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import yaml
from pydantic import BaseModel, ValidationError

from medvlm.errors import InputError, RecipeError, UsageError
from medvlm.recipe.models import Recipe
from medvlm.registry import nearest
from medvlm.resources import shipped

GROUPS = ("stages", "variants")
"""Keys under which a recipe holds several runs; medvlm/recipe/members.py reads them."""


def find_recipe(name: str) -> Path:
    """Return the file that `name` means: a path as it stands, else one among the shipped recipes.

    Raises:
        InputError: there is none; the message names the nearest shipped recipe.
    """
    path = Path(name)
    if path.is_file():
        return path
    folder = shipped("recipes")
    stem = path.name if path.suffix in (".yaml", ".yml") else f"{path.name}.yaml"
    if len(path.parts) <= 1 or path.parts[:-1] == ("recipes",):
        candidate = folder / stem
        if candidate.is_file():
            return candidate
    known = sorted(file.name for file in folder.glob("*.yaml"))
    raise InputError(f'no recipe "{name}"{nearest(stem, known)}; shipped recipes: {", ".join(known)}')


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read, merge and check a recipe.

    Args:
        name: a path, or the name of a shipped recipe.
        overrides: dotted assignments such as `train.learning_rate=3e-5`; values are YAML.

    Raises:
        InputError: no such file.
        RecipeError: malformed YAML or wrong values; lists all problems with their dotted paths.
        UsageError: an override is not of the form key=value.
    """
    raw = read(name)
    for kind in GROUPS:
        if kind in raw:
            raise RecipeError(str(name), [f"{kind}: this recipe holds several runs; only medvlm finetune takes those"])
    for text in overrides:
        override(raw, text)
    return check(raw, str(name))


def read(name: str) -> dict[str, Any]:
    """Return what a recipe file holds, laid over the recipe that it extends, unchecked.

    Raises:
        InputError, RecipeError: as `load_recipe`.
    """
    return _read(find_recipe(name), ())


def check(raw: Mapping[str, Any], where: str) -> Recipe:
    """Return the typed recipe, or raise one `RecipeError` that lists every problem."""
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(where, [text for _, text in explained(error)]) from None


def explained(error: ValidationError) -> list[tuple[tuple[str | int, ...], str]]:
    """Return each problem as its location and a line `dotted.path: value: what was expected`."""
    return [_explain(problem) for problem in error.errors()]


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise RecipeError(str(path), ["extends: the recipes extend each other in a circle"])
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise RecipeError(str(path), ["not a text file in UTF-8"]) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise RecipeError(str(path), [f"{line}not YAML: {getattr(error, 'problem', error)}"]) from error
    if not isinstance(raw, dict):
        raise RecipeError(str(path), [f"expected keys and values, found {_kind(raw)}"])
    base = raw.pop("extends", None)
    if base is None:
        return raw
    beside = path.parent / str(base)
    parent = _read(beside if beside.is_file() else find_recipe(str(base)), (*seen, path.resolve()))
    return merge(parent, raw)


def merge(base: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `top` laid over it: maps merge key by key, all else is replaced."""
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def override(raw: dict[str, Any], text: str) -> None:
    """Carry out one assignment such as `train.learning_rate=3e-5` on an unchecked recipe, in place.

    Below a list, a position stands for one element (`data.0.cap=10`), a name for that key of every element
    (`data.cache_features=true`).

    Raises:
        UsageError: it is not of the form key=value, or there is no such place.
    """
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.[\w-]+)*", key):
        raise UsageError(f'"{text}" is no override; write key=value with a dotted key, as in train.learning_rate=3e-5')
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(f'"{text}": the value is not YAML') from error
    _set(raw, key.split("."), parsed, text)


def _set(place: Any, keys: Sequence[str], value: Any, text: str) -> None:
    first, *rest = keys
    if isinstance(place, list):
        if not first.isdigit():
            for position in range(len(place)):
                _set(place, [str(position), *keys], value, text)
            return
        if int(first) >= len(place):
            raise UsageError(f'"{text}": "{first}" must be a position from 0 to {len(place) - 1}')
    if not rest:
        place[int(first) if isinstance(place, list) else first] = value
        return
    _set(_step(place, first, text), rest, value, text)


def _step(place: Any, name: str, text: str) -> Any:
    key: Any = int(name) if isinstance(place, list) else name
    child = place[key] if isinstance(place, list) else place.get(key)
    # `projector: full` is short for a map, so an override may go below it.
    if isinstance(child, str) and not isinstance(place, list):
        child = {"kind": child}
    if child is None:
        child = {}
    if not isinstance(child, (dict, list)):
        raise UsageError(f'"{text}": {name} holds {_kind(child)}, so no key can be set below it')
    # A copy: members of a group may share what lies below.
    place[key] = child = child.copy()
    return child


def _explain(problem: Any) -> tuple[tuple[str | int, ...], str]:
    """Return the location and `dotted.path: value: what was expected`, with the nearest key for an unknown one."""
    location = [part for part in problem["loc"] if not str(part).startswith("function-")]
    dotted = ".".join(str(part) for part in location) or "recipe"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return tuple(location), f"{dotted}: unknown key{nearest(str(location[-1]), _keys(location[:-1]))}"
    if problem["type"] == "missing":
        return tuple(location), f"{dotted}: missing"
    value = problem.get("input")
    shown = "" if isinstance(value, (dict, list, BaseModel)) or not location else f"{value!r}: "
    expected = message.removeprefix("Input should be ")
    said = f"expected {expected}" if expected != message else message
    return tuple(location), f"{dotted}: {shown}{said}"


def _keys(location: Sequence[Any]) -> list[str]:
    """Return the known keys of the part of a recipe at `location`."""
    model: Any = Recipe
    for part in location:
        if isinstance(part, int):
            continue
        if part not in model.model_fields:
            return []
        model = _part(model.model_fields[part].annotation)
        if model is None:
            return []
    return list(cast(type[BaseModel], model).model_fields)


def _part(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for found in map(_part, get_args(annotation)) if found), None)


def _kind(value: Any) -> str:
    names = {dict: "keys and values", list: "a list", str: "a text", type(None): "nothing"}
    return names.get(type(value), repr(value))
