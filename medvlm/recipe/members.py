"""Several runs in one recipe: `stages`, each starting from the one before, or `variants`, to be compared.

Either is a list of overlays, `{name: ..., any keys of a recipe}`, each laid over the rest of the file: maps merge key
by key, all else (lists too) is replaced.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from medvlm.errors import RecipeError, UsageError
from medvlm.io import stable_hash
from medvlm.recipe.load import GROUPS, check, explained, merge, override, read
from medvlm.recipe.models import COMPONENTS, Recipe
from medvlm.registry import nearest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclasses.dataclass(frozen=True, slots=True)
class Members:
    """The runs that a recipe asks for, in their order."""

    name: str
    kind: Literal["single", "stages", "variants"]
    members: list[tuple[str, Recipe]]
    """Name and resolved recipe; `single` has one, named as the recipe."""

    @property
    def names(self) -> list[str]:
        """Return the members' names."""
        return [name for name, _ in self.members]

    @property
    def hash(self) -> str:
        """Return the SHA-256 of all resolved recipes with their names: equal for two trainings of one file."""
        return stable_hash([self.kind, [[name, recipe.model_dump(mode="json")] for name, recipe in self.members]])

    def selected(self, only: str | None) -> list[str]:
        """Return the names in `only`, separated by commas, in the recipe's order; all when None.

        Raises:
            UsageError: there is no such member, or no members at all.
        """
        if only is None:
            return self.names
        if self.kind == "single":
            raise UsageError(f"--only {only}: {self.name} holds neither stages nor variants; leave out --only")
        asked = [name.strip() for name in only.split(",")]
        for name in asked:
            if name not in self.names:
                raise UsageError(f'--only: no "{name}"{nearest(name, self.names)}; known: {", ".join(self.names)}')
        return [name for name in self.names if name in asked]


def load_members(name: str, overrides: Sequence[str] = ()) -> Members:
    """Read, merge and check a recipe with all its stages or variants.

    Args:
        name: a path, or the name of a shipped recipe.
        overrides: dotted assignments. `train.epochs=2` holds for every member, whatever its overlay says;
            `stages.NAME.train.epochs=2` and `variants.NAME....` for one, and goes before the former.

    Raises:
        InputError: no such file.
        RecipeError: lists all problems of all members, each once, those of a member under `stages.NAME.`.
        UsageError: an override is not of the form key=value, or names no member.
    """
    raw = read(name)
    kinds = [kind for kind in GROUPS if kind in raw]
    if not kinds:
        recipe = _single(raw, overrides, name)
        return Members(recipe.name, "single", [(recipe.name, recipe)])
    if len(kinds) > 1:
        raise RecipeError(str(name), ["variants: expected either stages or variants, not both"])
    kind: Literal["stages", "variants"] = "stages" if kinds[0] == "stages" else "variants"
    overlays = _overlays(raw.pop(kind), kind, name)
    title = raw.get("name")
    merged = {member: merge(raw, overlay) for member, overlay in overlays.items()}
    title = _override_all(merged, overrides, kind, title)
    recipes, problems = _check_all(merged, overlays, kind, title)
    if kind == "stages" and not problems:
        problems = _lost_between(recipes)
    if problems:
        raise RecipeError(str(name), problems)
    return Members(str(title), kind, recipes)


def _single(raw: dict[str, Any], overrides: Sequence[str], where: str) -> Recipe:
    for text in overrides:
        if text.startswith(tuple(f"{kind}." for kind in GROUPS)):
            raise UsageError(f'"{text}": {where} holds neither stages nor variants')
        override(raw, text)
    return check(raw, str(where))


def _overlays(listed: Any, kind: str, where: str) -> dict[str, dict[str, Any]]:
    """Return name -> overlay; every malformed one is told."""
    if not isinstance(listed, list) or not listed:
        raise RecipeError(str(where), [f"{kind}: expected a list of maps, each with a name"])
    found: dict[str, dict[str, Any]] = {}
    problems = []
    for position, overlay in enumerate(listed):
        name = overlay.get("name") if isinstance(overlay, dict) else None
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            said = "missing" if name is None else f"{name!r}: expected letters, digits, dots, dashes and underscores"
            problems.append(f"{kind}.{position}.name: {said}")
        elif name in found:
            problems.append(f"{kind}.{position}.name: {name!r}: the name of another one too")
        else:
            found[name] = {key: value for key, value in overlay.items() if key != "name"}
    if problems:
        raise RecipeError(str(where), problems)
    return found


def _override_all(merged: dict[str, dict[str, Any]], overrides: Sequence[str], kind: str, title: Any) -> Any:
    """Carry out the overrides in place, those for one member last; return the group's name."""
    of_one = tuple(f"{group}." for group in GROUPS)
    for text in overrides:
        if not text.startswith(of_one):
            for raw in merged.values():
                override(raw, text)
    for text in overrides:
        if text.startswith(of_one):
            key = text.partition("=")[0]
            # Names may hold dots: the longest that fits is meant.
            fitting = [name for name in merged if key.startswith(f"{kind}.{name}.")]
            if not fitting:
                wrong = key.split(".")[1] if key.startswith(f"{kind}.") else key
                known = ", ".join(merged)
                raise UsageError(f'"{text}": no "{wrong}" among the {kind}{nearest(wrong, merged)}; known: {known}')
            member = max(fitting, key=len)
            override(merged[member], text.removeprefix(f"{kind}.{member}."))
    renamed = [raw.get("name") for raw in merged.values()]
    return renamed[0] if all(name == renamed[0] for name in renamed) else title


def _check_all(
    merged: Mapping[str, dict[str, Any]], overlays: Mapping[str, dict[str, Any]], kind: str, title: Any
) -> tuple[list[tuple[str, Recipe]], list[str]]:
    """Return the members' recipes, and all problems: one that all members share from the common part is told once."""
    recipes: list[tuple[str, Recipe]] = []
    found: dict[str, list[tuple[tuple[str | int, ...], str]]] = {}
    for member, raw in merged.items():
        # A run is called by the recipe's name and its own.
        named = {**raw, "name": f"{title}-{member}"} if isinstance(title, str) and raw.get("name") == title else raw
        try:
            recipes.append((member, Recipe.model_validate(named)))
        except ValidationError as error:
            found[member] = explained(error)
    shared = set.intersection(*(set(found.get(member, ())) for member in merged))
    shared = {item for item in shared if not any(_holds(overlay, item[0]) for overlay in overlays.values())}
    common = [text for location, text in next(iter(found.values()), []) if (location, text) in shared]
    own = [
        f"{kind}.{member}.{text}" if location else f"{kind}.{member}: {text.removeprefix('recipe: ')}"
        for member, items in found.items()
        for location, text in items
        if (location, text) not in shared
    ]
    return recipes, [*common, *own]


def _holds(overlay: Any, location: Sequence[str | int]) -> bool:
    """Return True where the overlay itself sets the place of a problem."""
    for part in location:
        if isinstance(overlay, list):
            return True
        if not isinstance(overlay, dict):
            return True
        if part not in overlay:
            return False
        overlay = overlay[part]
    return bool(location)


def _lost_between(stages: Sequence[tuple[str, Recipe]]) -> list[str]:
    """Return a line wherever what a stage trained would have no place in the next one, before hours are spent."""
    problems = []
    for (before, first), (after, second) in itertools.pairwise(stages):
        if first.model.parts != second.model.parts:
            problems.append(f"stages.{after}.model: {second.model.label}: expected the base of {before}")
        for component in COMPONENTS:
            old, new = first.adapters.part(component), second.adapters.part(component)
            same = (old.kind, old.r, old.alpha, old.modules) == (new.kind, new.r, new.alpha, new.modules)
            if old.kind != "frozen" and (not same if old.low_rank else new.kind != old.kind):
                problems.append(
                    f"stages.{after}.adapters.{component}: {new.kind}: {before} trains it ({old.kind}), which would be "
                    "lost; expected the same kind, r, alpha and modules"
                )
    return problems


def differing(recipes: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return dotted path -> its value in each resolved recipe, for the values that are not the same in all.

    The name and the run that a stage starts from are left out: they differ by their nature.
    """
    flat = [_flat(recipe) for recipe in recipes]
    paths = dict.fromkeys(path for one in flat for path in one)
    rows = {path: [one.get(path) for one in flat] for path in paths if path not in ("name", "model.start")}
    return {path: values for path, values in rows.items() if any(value != values[0] for value in values)}


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return dotted path -> value of everything that is neither a map nor a list of maps."""
    if isinstance(value, Mapping):
        children = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        children = [(str(position), item) for position, item in enumerate(value)]
    else:
        return {path: value}
    return {key: leaf for name, item in children for key, leaf in _flat(item, f"{path}.{name}".strip(".")).items()}
