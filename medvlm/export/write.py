"""Write an export: beside its place, whole, then renamed; and push it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from medvlm import hub
from medvlm.errors import InputError, UsageError
from medvlm.export import card, difference, places
from medvlm.export import rights as rights_of
from medvlm.export.places import Hider
from medvlm.export.rights import Rights
from medvlm.io import resource_errors, write_json, write_text
from medvlm.licenses import exported
from medvlm.models.backbones import BACKBONES
from medvlm.models.locate import check_weights, weights_fingerprint
from medvlm.recipe.models import Recipe
from medvlm.recipe.resolve import write_resolved
from medvlm.runs import Run

MARKER = "export.json"
"""By it an export is known for one, so that nothing else is ever replaced."""

Into = Literal["original", "dequantized"]


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """How a run is exported."""

    out: Path
    merge: bool = False
    into: Into | None = None
    """None is what the run was trained on: the dequantized base after QLoRA, else the original."""
    overwrite: bool = False
    push: str | None = None
    datasets: tuple[str, ...] = ()


def export(run: Run, settings: Settings, warn: Callable[[str], None]) -> Rights:
    """Write a run's model into `settings.out`, with processor, card, recipe and what licenses ask for.

    Args:
        run: a finished run.
        settings: what is written where.
        warn: told where sharing is forbidden, or something the card would state cannot be had.

    Raises:
        UsageError: `into` without `merge`, or into a dequantized base that never was quantized.
        InputError: `out` is there already and no export, or not to be replaced; the run's weights are gone.
        LicenseError: a push is meant that the licenses forbid; nothing is written then.
        ResourceError: disk or memory is exhausted.
    """
    recipe = run.recipe()
    into = _into(settings, recipe)
    _check_place(settings)
    facts = run.facts()
    check_weights(facts)
    rights = rights_of.of_run(run)
    if settings.push:
        rights_of.check_push(rights, [])
    elif rights.forbidden:
        warn(f"keep this export to yourself: {rights.forbidden}")
    hint = "export on a machine with more memory, or without --merge"
    again = "free some and run the same command again"
    with resource_errors(settings.out, hint, again), _building(settings.out) as folder:
        told = _weights(run, recipe, folder, into, warn)
        if BACKBONES.get(recipe.model.backbone).output == "class":
            # Its answers. The texts that other models match are training data, and stay.
            write_json(folder / "fitted.json", run.fitted())
        hide = _hide_paths(folder, run, rights)
        told = hide.text(told) if isinstance(told, str) else told
        missing = rights_of.write_credits(rights, folder)
        if settings.push:
            rights_of.check_push(rights, missing)
        for line in missing:
            warn(line)
        rights_of.write_terms(rights, folder, hide.text)
        write_resolved(places.public(recipe), folder / "recipe.yaml")
        described = card.Export(
            run=run,
            recipe=places.public(recipe),
            copies=places.copies(recipe),
            rights=dataclasses.replace(rights, bases={hide.text(name): entry for name, entry in rights.bases.items()}),
            place=settings.push or settings.out.name,
            whole=(folder / "config.json").is_file(),
            adapter=(folder / "adapter_config.json").is_file(),
            difference=_in_words(told, into),
            credits=(folder / rights_of.CREDITS).is_dir(),
            datasets=list(settings.datasets),
        )
        write_text(folder / "README.md", hide.text(card.render(described)))
        write_json(folder / MARKER, _facts(run, facts, into, told, folder) | hide.json(_rights_told(rights)))
    return rights


def push(folder: Path, repo: str, *, private: bool, **where: Any) -> hub.Pushed:
    """Upload a finished export to the model repository `repo`.

    Args:
        folder: what `export` wrote, with the same repository named, so that its licenses have been looked at.
        repo: see `medvlm.hub.push`, also for what is raised.
        private: make it private.
        where: token and endpoint, for another account or Hub.
    """
    told = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    upload = hub.Upload(folder, told["files"] + [MARKER], "model", MARKER, f"Upload {told['name']}, made with medvlm")
    return hub.push(upload, repo, private=private, public_flag="with --public", **where)


def _into(settings: Settings, recipe: Recipe) -> Into | None:
    if not settings.merge:
        if settings.into:
            raise UsageError("--into says into what --merge merges; add --merge")
        return None
    quantized = recipe.quantization.mode != "none"
    if settings.into == "dequantized" and not quantized:
        raise UsageError("--into dequantized: this run was trained on a base that was not quantized; use original")
    return settings.into or ("dequantized" if quantized else "original")


def _check_place(settings: Settings) -> None:
    out = settings.out
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MARKER).is_file():
        raise InputError(f"{out}: is there already and is no export of medvlm; name another folder")
    if not settings.overwrite:
        raise InputError(f"{out}: holds an export; name another folder, or set --overwrite")


@contextmanager
def _building(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` that takes its name only when the block ends well."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.{os.getpid()}")
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        if out.exists():
            out.rename(old)
        folder.rename(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _weights(
    run: Run, recipe: Recipe, folder: Path, into: Into | None, warn: Callable[[str], None]
) -> difference.Difference | str | None:
    """Write weights and processor; return what merging changed, or why that is not known, or None."""
    if (run.model / "config.json").is_file():
        shutil.copytree(run.model, folder, dirs_exist_ok=True)
        return "Nothing to merge: the whole language model was trained." if into else None
    if into is None:
        if not run.adapter.is_dir():
            raise InputError(f"{run.path}: neither adapter/ nor model/ holds weights; train it again")
        shutil.copytree(run.adapter, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("README.md"))
        _name_base(folder / "adapter_config.json", places.public(recipe))
        return None
    return _merge(run, recipe, folder, into, warn)


def _name_base(path: Path, recipe: Recipe) -> None:
    """Let the adapter name its base as the recipe does, and not where that lay on this machine."""
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = recipe.model.label
        write_json(path, config)


def _hide_paths(folder: Path, run: Run, rights: Rights) -> Hider:
    """Take the paths of this machine out of what libraries have written, and return what does so for other texts."""
    hide = places.hider([stage.recipe() for stage in rights_of.stages(run)], rights.data)
    for path in folder.glob("*.json"):
        # A vocabulary holds no paths, and may hold texts like them.
        if path.name not in ("tokenizer.json", "vocab.json"):
            before = json.loads(path.read_text(encoding="utf-8"))
            if (after := hide.json(before)) != before:
                write_json(path, after)
    return hide


def _merge(
    run: Run, recipe: Recipe, folder: Path, into: Into, warn: Callable[[str], None]
) -> difference.Difference | str:
    """Merge and save; the adapter is asked before, so that only one model is in memory at a time."""
    from medvlm.evaluate.predict import Predictor
    from medvlm.models import merge, trained

    try:
        rows, why = difference.rows_of(run, recipe), ""
    except InputError as error:
        rows, why = None, str(error)
    told = None
    if rows is not None:
        predictor = Predictor(trained.load(run, recipe), difference.greedy(recipe))
        examples = difference.examples_of(rows, predictor)
        told = difference.tell(predictor, examples)
        del predictor
        difference.release()
    merged = merge.merged(run, recipe, into)
    merged.model.save_pretrained(folder)  # type: ignore[operator]
    merged.processor.save_pretrained(folder)
    del merged
    difference.release()
    if rows is None or told is None:
        warn(f"what merging changed was not measured ({why}); medvlm eval first would let it be")
        return f"Not measured: {why}."
    return difference.compare(run, recipe, told, folder, examples, rows.split)


def _in_words(told: difference.Difference | str | None, into: Into | None) -> str:
    if told is None:
        return ""
    if isinstance(told, str):
        return told
    return (
        f"The adapter was merged into the {into} base. Against base plus adapter as trained, on {told.rows} rows of "
        f"the {told.split} split: largest difference of a logit {told.largest_logit:.3g}, same greedy answer in "
        f"{told.same_answers} of {told.rows} ({told.same_answers / told.rows:.0%})."
    )


def _rights_told(rights: Rights) -> dict[str, Any]:
    """Return what follows from the licenses and what was trained on, for who evaluates the export by itself."""
    kept = ("path", "title", "fingerprint", "rows", "licenses", "tasks", "max_images")
    learned = rights_of.distinct([*rights.data, *rights_of.base_data(rights.bases)])
    data = [{key: part[key] for key in kept if part.get(key) is not None} for part in learned]
    return {"license": rights.verdict, "data": data}


def _facts(
    run: Run, facts: dict[str, Any], into: Into | None, told: difference.Difference | str | None, folder: Path
) -> dict[str, Any]:
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {
        "schema": 1,
        "name": facts["name"],
        "run": run.path.resolve().name,
        "recipe_hash": facts["recipe_hash"],
        "merged_into": into,
        "max_images": max(stage.recipe().prompts.max_images for stage in rights_of.stages(run)),
        "weights": weights_fingerprint(folder),
        "sha256": exported.digests(folder),
        "difference": told.as_dict() if isinstance(told, difference.Difference) else told,
        "files": files,
    }
