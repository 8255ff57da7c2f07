"""Evaluate a run: predictions of the model, its base and the constant answer, controls, then scores and what they mean.

`eval/<split>/scores.json`, schema 2, holds: n, groups, tasks, split, split_hash, limit, decoding, engine, data,
constant, constant_search; rows, intervals, bootstrap, signatures, comparisons, by_task, outputs, references, slices,
slices_left_out (see `medvlm.evaluate.score_table`); controls (see `medvlm.evaluate.controls`; null where none were
asked for); leakage (see `medvlm.evaluate.leakage`; null where the training data is not known); with_leaked (n and rows
with the samples that --exclude-leaked leaves out everywhere else); warnings (sentences).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.errors import InputError, UsageError
from medvlm.evaluate import baselines, controls, engines, predict
from medvlm.evaluate.baseline_run import is_baseline
from medvlm.evaluate.cautions import cautions
from medvlm.evaluate.files import compare_rows
from medvlm.evaluate.score_table import Row, Settings, grouped_by, scored, table
from medvlm.io import stable_hash, write_json, write_text
from medvlm.models.locate import check_weights
from medvlm.recipe.models import Recipe
from medvlm.runs import Run

if TYPE_CHECKING:
    from medvlm.data.mixture import Mixture
    from medvlm.evaluate.leakage import Leakage
    from medvlm.evaluate.shown import Picture

Show = Callable[[str], Any]
"""label -> context manager that gives a progress to tell."""


def file_name(row: str) -> str:
    """Return the name of a row's predictions in the evaluation's folder."""
    return "predictions.jsonl" if row == "model" else f"predictions-{row}.jsonl"


@dataclasses.dataclass(slots=True)
class _Job:
    """One evaluation under way."""

    run: Run
    recipe: Recipe
    settings: Settings
    mixture: Mixture
    places: list[int]
    show: Show

    @property
    def folder(self) -> Path:
        return self.run.evaluation(self.recipe.eval.split)


def evaluate_run(run: Run, settings: Settings, show: Show) -> dict[str, Any]:
    """Generate what is missing, score it, and write `eval/<split>/{predictions*.jsonl,scores.json}`.

    Args:
        run: a finished run.
        settings: metrics, and what differs from the recipe.
        show: label -> context manager that gives a progress to tell.

    Returns:
        The content of scores.json.

    Raises:
        InputError: the split is empty, or the data or weights are gone.
    """
    scores, _ = _evaluated(run, settings, show)
    return scores


def evaluate_runs(runs: Sequence[Run], settings: Settings, show: Show) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Evaluate each run as `evaluate_run`, then compare them on the samples that all of them answered.

    Returns:
        The contents of their scores.json, and the comparison (see `medvlm.evaluate.compare`).

    Raises:
        InputError: as `evaluate_run`; no sample in common.
        UsageError: the same run twice.
    """
    names = [run.path.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.path) for run in runs]
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise UsageError(f"{', '.join(names)}: one run is named twice; name different ones to compare")
    found = [_evaluated(run, settings, show) for run in runs]
    rows = {name: own for name, (_, own) in zip(names, found, strict=True)}
    return [scores for scores, _ in found], compare_rows(rows, settings)


def _evaluated(run: Run, settings: Settings, show: Show) -> tuple[dict[str, Any], list[Row]]:
    """Return the content of scores.json and the model's rows that it is about."""
    settings.check()
    recipe = _with(run.recipe(), settings)
    mixture, places = _rows(recipe)
    _same_as_trained_on(run, mixture)
    with_base = settings.base and not is_baseline(run.facts())
    for base in {False, with_base}:
        engines.check(_choice(settings), run, recipe, base=base)
    job = _Job(run, recipe, settings, mixture, places, show)
    leakage = _leakage(job)
    constants = _constants(recipe)
    rows = {"model": _generate(job, "model", places)}
    if with_base:
        rows["base"] = _generate(job, "base", places)
    rows["constant"] = _constant_rows(constants, job)
    others = _other_pictures(job)
    rows = {name: _described(listed, job) for name, listed in rows.items()}
    leaked = set(leakage.leaked) if leakage and settings.exclude_leaked else set[str]()
    clean = {name: _without(listed, leaked) for name, listed in rows.items()}
    scores = _scores(rows, clean, others, leakage, settings)
    scores |= {
        "split": recipe.eval.split,
        "split_hash": stable_hash([row["id"] for row in clean["model"]]),
        "limit": recipe.eval.limit,
        "decoding": predict.decoding(recipe, run=run),
        "engine": settings.engine,
        "data": mixture.facts(),
        "constant": {task: constant.text for task, constant in constants.items()},
        "constant_search": {task: {"tried": c.tried, "distinct": c.distinct} for task, c in constants.items()},
    }
    write_json(job.folder / "scores.json", scores)
    return scores, clean["model"]


def _with(recipe: Recipe, settings: Settings) -> Recipe:
    changes = {key: getattr(settings, key) for key in ("split", "limit", "batch_size")}
    part = recipe.eval.model_copy(update={key: value for key, value in changes.items() if value is not None})
    return recipe.model_copy(update={"eval": part})


def _same_as_trained_on(run: Run, mixture: Mixture) -> None:
    """Raise where the data or the base are not those of training: scores would say nothing about this run."""
    facts = run.facts()
    for old, new in zip(facts["data"], mixture.facts(), strict=True):
        if old["fingerprint"] != new["fingerprint"]:
            raise InputError(
                f"{new['path']}: this data set has changed since {run.path} was trained on it, so its test "
                "rows may have been trained on; prepare it again with the earlier settings, or train again"
            )
    check_weights(facts)


def _rows(recipe: Recipe) -> tuple[Mixture, list[int]]:
    """Return the evaluated split and the places of its rows, evenly spread where there is a limit."""
    from medvlm.data.mixture import Mixture

    mixture = Mixture(recipe.data, recipe.eval.split, recipe.seed, weighted=False)
    tasks = recipe.eval.tasks
    first: dict[str, int] = {}
    for place, text in enumerate(mixture.texts()):
        if tasks is not None and text["task"] not in tasks:
            continue
        known = first.setdefault(str(text["id"]), place)
        if mixture.text(known)["target"] != text["target"]:
            raise InputError(f"data: the id {text['id']} stands for different rows; prepare one of the data sets anew")
    places = list(first.values())
    if not places:
        paths = ", ".join(part.path for part in recipe.data)
        raise InputError(f"{paths}: no rows in the {recipe.eval.split} split; name another one with --split")
    limit = recipe.eval.limit
    if limit is not None and limit < len(places):
        places = [places[index * len(places) // limit] for index in range(limit)]
    return mixture, places


_SHOWN: dict[str, Picture] = {"blank": "blank", "shuffled": "shuffled"}


def _choice(settings: Settings) -> engines.Choice:
    return engines.Choice(settings.engine, settings.workers, settings.ray_address)


def _generate(job: _Job, row: str, places: Sequence[int]) -> list[Row]:
    """Return the predictions of one row; blank and shuffled are the model with other pictures."""
    run, recipe, settings = job.run, job.recipe, job.settings

    def engine() -> engines.Engine:
        return engines.load(_choice(settings), run, recipe, base=row == "base")

    with job.show(f"predict {row}") as bar:
        return predict.predict_rows(
            job.mixture,
            places,
            recipe,
            engine,
            job.folder / file_name(row),
            bar,
            fingerprint=predict.fingerprint(run, recipe, job.mixture, row, settings.engine),
            picture=_SHOWN.get(row, "own"),
            seed=settings.seed,
        )


def _other_pictures(job: _Job) -> dict[str, list[Row]]:
    """Return the model's answers to some samples with other pictures; none where none are asked for."""
    if job.settings.controls == 0:
        return {}
    chosen = controls.choose(job.places, job.settings.controls, job.settings.seed)
    return {name: _generate(job, name, chosen) for name in controls.PICTURES}


def _described(rows: list[Row], job: _Job) -> list[Row]:
    """Return predictions with all that the data tells of their rows, and with the groups asked for.

    Predictions of an earlier version may tell less.
    """
    titles = [facts["title"] for facts in job.mixture.facts()] if len(job.mixture.parts) > 1 else []
    found = []
    for place, row in zip(job.places, rows, strict=True):
        told = predict.row_of(job.mixture.text(place)) | {"prediction": row["prediction"]}
        found.append(told | ({"data": titles[job.mixture.picks[place].part]} if titles else {}))
    return grouped_by(found, job.settings.group_by)


def _leakage(job: _Job) -> Leakage | None:
    """Return what of the split the training data holds too; None where the training data is not known."""
    from medvlm.evaluate import leakage

    facts = job.run.facts()
    if is_baseline(facts) and not facts.get("trained_on"):
        return None
    with job.show("leakage") as bar:
        return leakage.of_run(job.run, job.mixture, job.places, bar)


def _constants(recipe: Recipe) -> dict[str, baselines.Constant]:
    """Return the best constant answers of the tasks that are evaluated."""
    from medvlm.data.mixture import Mixture

    train = list(Mixture(recipe.data, "train", recipe.seed, weighted=False).texts())
    validation = list(Mixture(recipe.data, "validation", recipe.seed).texts())
    tasks = recipe.eval.tasks
    chosen = [row for row in train if tasks is None or row["task"] in tasks]
    return baselines.best_constants(chosen, validation, recipe.seed)


def _constant_rows(constants: dict[str, baselines.Constant], job: _Job) -> list[Row]:
    rows = []
    for place in job.places:
        row = predict.row_of(job.mixture.text(place))
        rows.append(row | {"prediction": constants[str(row["task"])].text if row["task"] in constants else ""})
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(job.folder / file_name("constant"), text)
    return rows


def _scores(
    rows: dict[str, list[Row]],
    clean: dict[str, list[Row]],
    others: dict[str, list[Row]],
    leakage: Leakage | None,
    settings: Settings,
) -> dict[str, Any]:
    """Return the table, controls, leakage and warnings of the `clean` rows among all `rows`."""
    if not clean["model"]:
        raise InputError("every sample is in the training data too; score them without --exclude-leaked")
    found = table(clean, settings)
    names = list(found["signatures"])
    found["controls"] = _controls(clean["model"], others, names, settings)
    found["leakage"] = leakage and leakage.as_dict()
    if settings.exclude_leaked:
        values = {name: scored(listed, names, settings.options).values for name, listed in rows.items()}
        found["with_leaked"] = {"n": len(rows["model"]), "rows": values}
    found["warnings"] = cautions(found, leakage is not None)
    return found


def _controls(model: list[Row], others: dict[str, list[Row]], names: list[str], settings: Settings) -> Row | None:
    if not others:
        return None
    by_id = {row["id"]: row for row in model}
    shown = {name: [row for row in listed if row["id"] in by_id] for name, listed in others.items()}
    own = [by_id[row["id"]] for row in shown["blank"]]
    return controls.measure({"model": own, **shown}, model, names, settings) if own else None


def _without(rows: list[Row], leaked: set[str]) -> list[Row]:
    return [row for row in rows if row["id"] not in leaked]
