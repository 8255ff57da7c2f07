"""What an export may tell of where things lay: names, but no paths of the machine that it was made on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medvlm.models.locate import is_packaged
from medvlm.recipe.models import Recipe

_ROLES = ("id", "vision_tower", "language_model")


def is_copy(name: str) -> bool:
    """Return True where the name of a base is a folder or file of this machine, rather than one of the Hub."""
    if is_packaged(name):
        return False
    return name.startswith(("/", ".", "~")) or name.count("/") != 1 or Path(name).exists()


def last(path: str) -> str:
    """Return the last name of a path."""
    return Path(path).expanduser().resolve().name if path.startswith(".") else Path(path).name


def public(recipe: Recipe) -> Recipe:
    """Return the recipe with the last name alone of every path: of bases, data sets, and the run that it began from."""
    model = {role: last(name) for role in _ROLES if (name := getattr(recipe.model, role)) and is_copy(name)}
    if recipe.model.start is not None:
        model["start"] = last(recipe.model.start)
    data = [part.model_copy(update={"path": last(part.path)}) for part in recipe.data]
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=model), "data": data})


def copies(recipe: Recipe) -> dict[str, str]:
    """Return role -> last name of the parts of the base that lay on this machine."""
    return {role: last(name) for role, name in recipe.model.parts.items() if is_copy(name)}


def hider(recipes: list[Recipe], data: list[dict[str, Any]]) -> Hider:
    """Return what hides the paths of these recipes and of these data sets, as run.json tells of them."""
    paths = {name for recipe in recipes for name in recipe.model.parts.values() if is_copy(name)}
    paths |= {recipe.model.start for recipe in recipes if recipe.model.start}
    paths |= {part.path for recipe in recipes for part in recipe.data} | {str(part["path"]) for part in data}
    return Hider({path: last(path) for path in paths})


class Hider:
    """Puts last names in the place of paths.

    Args:
        names: path -> last name.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        full = {str(Path(path).expanduser().resolve()): name for path, name in names.items()}
        self.names = {path: name for path, name in {**full, **names}.items() if path != name}

    def text(self, value: str) -> str:
        """Return a text without the paths; the longest goes first, since one may begin another."""
        for path in sorted(self.names, key=len, reverse=True):
            name = self.names[path].replace("\\", "\\\\")
            value = re.sub(rf"(?<![\w./~-]){re.escape(path)}(?![\w-])", name, value)
        return value

    def json(self, value: Any) -> Any:
        """Return a JSON value without the paths."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.json(item) for item in value]
        if isinstance(value, dict):
            return {key: self.json(item) for key, item in value.items()}
        return value
