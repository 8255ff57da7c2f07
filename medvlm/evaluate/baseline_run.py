"""A model as it was published, with nothing trained: a run folder of its own, so that it is scored like any run."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medvlm.errors import InputError, UsageError
from medvlm.licenses.exported import record_of
from medvlm.recipe.models import DataPart, ModelPart, Recipe
from medvlm.runs import FINISHED, RUNS, Run, open_run

KIND = "baseline"


def is_baseline(facts: Mapping[str, Any]) -> bool:
    """Return True where run.json is that of a published model, to which nothing was trained."""
    return facts.get("kind") == KIND


def make(
    model_id: str,
    like: str | None,
    data: Sequence[str],
    trained_on: Sequence[str],
    command: str,
    parent: Path = RUNS,
) -> Run:
    """Return the run folder of a published model, an earlier one where it has the same recipe, weights and data.

    Args:
        model_id: a Hub id, a folder, or a packaged model.
        like: a run or a recipe whose data, prompts, lengths and decoding hold; None takes the defaults.
        data: folders of prepared data, in place of those of `like`.
        trained_on: folders of prepared data that the model is known to have seen, for leakage; of an export of medvlm
            those it names, where they are here; of others usually none is known.
        command: what was called, for the record.
        parent: where run folders lie.

    Raises:
        UsageError: neither `like` nor `data`.
        InputError: no such data, or a model of another architecture than can be loaded.
        AccessError: the weights are gated, unknown or out of reach.
    """
    from medvlm.data.mixture import Mixture

    recipe = _recipe(model_id, like, data)
    mixture = Mixture(recipe.data, "train", recipe.seed, how=recipe.mixture)
    exported = _exported(model_id)
    known = trained_on or _folders_there(exported, [part.path for part in recipe.data])
    facts = _facts(recipe, mixture.facts(), known, command)
    if exported.get("license"):
        told = {key: exported.get(key) for key in ("name", "run", "data", "weights")}
        if record_of(Path(model_id)) is None:
            told["weights"] = None
        facts |= {"license": exported["license"], "exported": told}
    return _earlier(facts, parent) or _written(recipe, facts, parent)


def _recipe(model_id: str, like: str | None, data: Sequence[str]) -> Recipe:
    from medvlm.recipe.load import check

    if like is None and not data:
        raise UsageError("--model needs data to answer about: --data FOLDER, or --like RUN or RECIPE")
    name = "baseline-" + re.sub(r"[^A-Za-z0-9._-]+", "-", Path(model_id).name).strip("-.")
    parts = [DataPart(path=path) for path in data]
    if like is None:
        model: dict[str, Any] = {"id": model_id, "backbone": _backbone(model_id)}
        return check({"name": name, "model": model, "data": [part.model_dump() for part in parts]}, "--model")
    recipe = _like(like)
    same = recipe.model.id == model_id
    changes = {
        "id": model_id,
        "vision_tower": None,
        "language_model": None,
        "start": None,
        "backbone": _backbone(model_id),
        # Another checkpoint sees pictures in the size that it was made for.
        "image_size": recipe.model.image_size if same else None,
        "revision": recipe.model.revision if same else None,
    }
    values = recipe.model_dump() | {
        "name": name,
        "model": ModelPart.model_validate(recipe.model.model_dump() | changes).model_dump(),
        "data": [part.model_dump() for part in parts or recipe.data],
    }
    return check(values, "--model")


def _like(name: str) -> Recipe:
    """Return the recipe of a run, where there is one of this name, else the recipe itself."""
    from medvlm.recipe.load import load_recipe

    if Path(name).is_dir() or (RUNS / name).is_dir():
        return open_run(name).recipe()
    return load_recipe(name)


def _backbone(model_id: str) -> str:
    """Return what loads the model, by its configuration's own word.

    Raises:
        InputError: nothing here does.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    from medvlm.models.backbones import name_of_type
    from medvlm.models.locate import locate_config

    config = locate_config(model_id, key="--model").config()
    kind = str(config.get("model_type", "paligemma"))
    name = name_of_type(kind)
    if name == "generic" and kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise InputError(
            f"--model {model_id}: a model of type {kind}, which medvlm does not load; let it "
            "answer with its own program and score the file with --predictions FILE"
        )
    return name


def _facts(recipe: Recipe, data: list[dict[str, Any]], trained_on: Sequence[str], command: str) -> dict[str, Any]:
    """Return run.json."""
    from medvlm.licenses import policy, registry
    from medvlm.models.locate import locate_parts, weights_fingerprint
    from medvlm.recipe.resolve import recipe_hash
    from medvlm.train.loop import versions

    located = locate_parts(recipe.model)
    entries = {name: registry.of_model(name) for name in recipe.model.parts.values()}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "schema": 1,
        "name": recipe.name,
        "kind": KIND,
        "status": FINISHED,
        "command": command,
        "started": now,
        "finished": now,
        "recipe_hash": recipe_hash(recipe),
        "seed": recipe.seed,
        "versions": versions(),
        "data": data,
        "trained_on": list(trained_on),
        # Nothing was trained, so what holds is what follows for the model itself.
        "license": policy.verdict_of_parts(entries, None).as_dict(),
        "model": {
            "id": recipe.model.label,
            "parts": recipe.model.parts,
            "revision": recipe.model.revision,
            "dtype": recipe.model.dtype,
            "weights": {role: weights_fingerprint(part.path) for role, part in located.items()},
        },
    }


def _exported(model_id: str) -> dict[str, Any]:
    """Return what `medvlm export` wrote beside a model that it merged; nothing of any other.

    Raises:
        InputError: it is damaged.
    """
    path = Path(model_id) / "export.json"
    if not path.is_file():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        told = None
    data = told.get("data", []) if isinstance(told, dict) else None
    sound = isinstance(data, list) and all(isinstance(part, dict) for part in data)
    if not isinstance(told, dict) or not sound or not isinstance(told.get("license", {}), dict):
        raise InputError(f"{path}: damaged; export the run again")
    return told


def _folders_there(exported: Mapping[str, Any], near: Sequence[str]) -> list[str]:
    """Return the data sets that an export was trained on, where all of them are here and still the same.

    Args:
        exported: of `_exported`; it names no paths of the machine that it was made on, only their last names.
        near: data sets that lie here; the others may lie beside them.
    """
    found = []
    for part in exported.get("data", []):
        name = Path(str(part.get("path"))).name
        places = dict.fromkeys([*near, *(str(Path(path).parent / name) for path in near), f"data/{name}"])
        found.append(next((path for path in places if _fingerprint(path) == part.get("fingerprint", "")), None))
    return [path for path in found if path is not None] if None not in found else []


def _fingerprint(path: str) -> str | None:
    from medvlm.data.mixture import DataFolder

    try:
        return DataFolder.open(path).fingerprint()
    except InputError:
        return None


def _earlier(facts: Mapping[str, Any], parent: Path) -> Run | None:
    """Return the newest baseline of the same recipe, weights and data, so that its predictions serve again."""
    for path in sorted(parent.iterdir(), reverse=True) if parent.is_dir() else ():
        if path.is_symlink() or not path.is_dir():
            continue
        with contextlib.suppress(InputError):
            if _essence(Run(path).facts()) == _essence(facts):
                return Run(path)
    return None


def _essence(facts: Mapping[str, Any]) -> list[Any]:
    data = [part.get("fingerprint") for part in facts.get("data", [])]
    weights = facts.get("model", {}).get("weights")
    return [facts.get("kind"), facts.get("recipe_hash"), weights, data, facts.get("trained_on")]


def _written(recipe: Recipe, facts: dict[str, Any], parent: Path) -> Run:
    from medvlm.recipe.resolve import write_resolved

    run = Run.create(recipe.name, parent)
    try:
        write_resolved(recipe, run.path / "recipe.yaml")
        run.record(facts)
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise
    return run
