"""Evaluate a run: predictions of the model, its base, itself on blank images, and the constant answer, then scores."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.errors import InputError
from medvlm.evaluate import baselines, findings, predict
from medvlm.evaluate.metrics import score
from medvlm.io import stable_hash, write_json, write_text
from medvlm.models.locate import check_weights
from medvlm.recipe.models import Recipe
from medvlm.runs import Run

if TYPE_CHECKING:
    from medvlm.data.mixture import Mixture

ROWS = ("model", "base", "constant", "blank")
RESAMPLES = 1000


def file_name(row: str) -> str:
    """Return the name of a row's predictions in the evaluation's folder."""
    return "predictions.jsonl" if row == "model" else f"predictions-{row}.jsonl"


@dataclasses.dataclass(slots=True)
class Settings:
    """What `medvlm eval` may change of the recipe's own evaluation."""

    metrics: list[str]
    split: str | None = None
    limit: int | None = None
    batch_size: int | None = None


def evaluate_run(run: Run, settings: Settings, show: Callable[[str], Any]) -> dict[str, Any]:
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
    recipe = _with(run.recipe(), settings)
    mixture, places = _rows(recipe)
    _same_as_trained_on(run, mixture)
    folder = run.evaluation(recipe.eval.split)
    constants = _constants(recipe)
    rows = {
        "model": _generate(run, recipe, mixture, places, folder, show, "model"),
        "base": _generate(run, recipe, mixture, places, folder, show, "base"),
        "constant": _constant_rows(constants, mixture, places, folder),
        "blank": _generate(run, recipe, mixture, places, folder, show, "blank"),
    }
    scores = {
        **score_table(rows, settings.metrics),
        "split": recipe.eval.split,
        "constant": {task: constant.text for task, constant in constants.items()},
        "constant_search": {task: {"tried": c.tried, "distinct": c.distinct} for task, c in constants.items()},
        "decoding": predict.decoding(recipe),
        "data": mixture.facts(),
        "split_hash": stable_hash([row["id"] for row in rows["model"]]),
        "limit": recipe.eval.limit,
    }
    write_json(folder / "scores.json", scores)
    return scores


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


def _generate(
    run: Run,
    recipe: Recipe,
    mixture: Mixture,
    places: Sequence[int],
    folder: Path,
    show: Callable[[str], Any],
    row: str,
) -> list[dict[str, Any]]:
    def predictor() -> predict.Predictor:
        from medvlm.models.load import load_base

        loaded = load_base(recipe) if row == "base" else predict.load_tuned(run, recipe)
        return predict.Predictor(loaded, recipe)

    with show(f"predict {row}") as bar:
        return predict.predict_rows(
            mixture,
            places,
            recipe,
            predictor,
            folder / file_name(row),
            bar,
            fingerprint=predict.fingerprint(run, recipe, mixture, row),
            blank=row == "blank",
        )


def _constants(recipe: Recipe) -> dict[str, baselines.Constant]:
    """Return the best constant answers of the tasks that are evaluated."""
    from medvlm.data.mixture import Mixture

    train = list(Mixture(recipe.data, "train", recipe.seed, weighted=False).texts())
    validation = list(Mixture(recipe.data, "validation", recipe.seed).texts())
    tasks = recipe.eval.tasks
    chosen = [row for row in train if tasks is None or row["task"] in tasks]
    return baselines.best_constants(chosen, validation, recipe.seed)


def _constant_rows(
    constants: dict[str, baselines.Constant], mixture: Mixture, places: Sequence[int], folder: Path
) -> list[dict[str, Any]]:
    rows = []
    for place in places:
        row = predict.row_of(mixture.text(place))
        rows.append(row | {"prediction": constants[str(row["task"])].text if row["task"] in constants else ""})
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(folder / file_name("constant"), text)
    return rows


def score_table(rows: dict[str, list[dict[str, Any]]], metrics: list[str]) -> dict[str, Any]:
    """Score every row of the table on the same references.

    Args:
        rows: name -> predictions in one order, each with id, prediction, references, group, task, finding.
        metrics: names for `medvlm.evaluate.metrics.score`.

    Returns:
        schema, n, rows, signatures; by_task; comparisons (model minus each other row, per-segment CIDEr or else
        ROUGE-L, with a 95 % interval from a bootstrap over groups); distinct outputs and empty predictions.
    """
    table: dict[str, Any] = {"schema": 1, "n": len(rows["model"]), "rows": {}, "signatures": {}}
    segments = {}
    for name, predictions in rows.items():
        found = _score(predictions, metrics)
        table["rows"][name] = found.values | _finding_accuracy(predictions)
        table["signatures"] = found.signatures
        segments[name] = found.per_segment
    table["by_task"] = _by_task(rows, metrics)
    table["comparisons"] = _comparisons(rows, segments)
    table["distinct_outputs"] = {name: len({row["prediction"] for row in listed}) for name, listed in rows.items()}
    table["empty_predictions"] = {
        name: sum(1 for row in listed if not row["prediction"].strip()) for name, listed in rows.items()
    }
    return table


def _score(rows: Sequence[dict[str, Any]], metrics: list[str]) -> Any:
    return score(metrics, [row["prediction"] for row in rows], [row["references"] for row in rows])


def _by_task(rows: dict[str, list[dict[str, Any]]], metrics: list[str]) -> dict[str, Any]:
    tasks = sorted({str(row["task"]) for row in rows["model"] if row.get("task")})
    if len(tasks) < 2:
        return {}
    table = {}
    for task in tasks:
        chosen = {name: [row for row in listed if row["task"] == task] for name, listed in rows.items()}
        values = {name: _score(listed, metrics).values | _finding_accuracy(listed) for name, listed in chosen.items()}
        if task == "vqa":
            for name, listed in chosen.items():
                values[name]["exact_match"] = sum(map(_right, listed)) / len(listed)
        table[task] = {"n": len(chosen["model"]), "rows": values}
    return table


def _right(row: dict[str, Any]) -> bool:
    given = " ".join(row["prediction"].lower().split())
    return given in {" ".join(text.lower().split()) for text in row["references"]}


def _finding_accuracy(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the share of texts that name just the known finding, where findings are known."""
    known = [row for row in rows if row.get("finding") and row.get("task") in ("caption", "report")]
    if not known:
        return {}
    accuracy = findings.finding_accuracy([row["prediction"] for row in known], [row["finding"] for row in known])
    return {"finding_accuracy": accuracy}


def _comparisons(rows: dict[str, list[dict[str, Any]]], segments: dict[str, Any]) -> dict[str, Any]:
    from medvlm.evaluate.statistics import paired_bootstrap

    metric = next((name for name in ("cider", "rouge_l") if name in segments["model"]), None)
    if metric is None:
        return {}
    groups = [str(row.get("group") or row["id"]) for row in rows["model"]]
    table = {}
    for name in rows:
        if name == "model":
            continue
        interval = paired_bootstrap(segments["model"][metric], segments[name][metric], groups, RESAMPLES)
        table[name] = {metric: {"difference": interval.difference, "low": interval.low, "high": interval.high}}
    return table
