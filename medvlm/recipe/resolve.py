"""The resolved recipe: every value spelled out, written beside the run with its hash."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from medvlm.errors import InputError
from medvlm.io import stable_hash, write_text
from medvlm.recipe.load import check
from medvlm.recipe.models import MixturePart, Recipe


def recipe_hash(recipe: Recipe) -> str:
    """Return the SHA-256 of the resolved recipe; equal recipes, however written, have equal hashes.

    A run that it starts from counts by that run's own hash, not by its folder, whose name holds the time.
    """
    values = recipe.model_dump(mode="json")
    if recipe.mixture == MixturePart():
        # Runs from before there was a choice keep their hash.
        del values["mixture"]
    if recipe.model.start is not None:
        values["model"]["start"] = _hash_of_run(Path(recipe.model.start)) or recipe.model.start
    return stable_hash(values)


def _hash_of_run(folder: Path) -> str | None:
    try:
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = facts.get("recipe_hash") if isinstance(facts, dict) else None
    return found if isinstance(found, str) else None


def write_resolved(recipe: Recipe, path: Path) -> None:
    """Write every value of `recipe` to `path` as YAML."""
    write_text(path, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def read_resolved(path: Path) -> Recipe:
    """Read what `write_resolved` wrote.

    Raises:
        InputError: the file is missing or not a mapping.
        RecipeError: its values are wrong.
    """
    if not path.is_file():
        raise InputError(f"{path}: missing; this is not the folder of a run, or it is half-written")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError):
        raise InputError(f"{path}: damaged; name another run") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: not a recipe")
    return check(raw, str(path))
