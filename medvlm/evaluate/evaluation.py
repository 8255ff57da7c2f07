"""Evaluate a run: predictions of the model, its base and the constant answer, controls, then scores and what they mean.

`eval/<split>/scores.json`, schema 2, holds: n, groups, tasks, split, split_hash, limit, decoding, engine, data,
constant, constant_search; rows, intervals, bootstrap, signatures, comparisons, by_task, outputs, references, slices,
slices_left_out, settings (see `medvlm.evaluate.score_table`); controls (see `medvlm.evaluate.controls`; null where none
were asked for); leakage (see `medvlm.evaluate.leakage`; null where the training data is not known); with_leaked (n and
rows with the samples that --exclude-leaked leaves out everywhere else); vocabulary (of a classifier: how many answers
it chooses from, and `known`, how many of n samples have a reference among them, with their share); scored_ids (where a
limit or leaks may leave predictions out); warnings (sentences).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvlm.errors import InputError, UsageError
from medvlm.evaluate import baselines, controls, engines, predict, questions, retrieval
from medvlm.evaluate.baseline_run import is_baseline
from medvlm.evaluate.cautions import cautions
from medvlm.evaluate.compare import in_common, scored
from medvlm.evaluate.files import compare_rows
from medvlm.evaluate.generation import asking
from medvlm.evaluate.score_table import Row, Settings, grouped_by, table
from medvlm.io import stable_hash, write_json, write_text
from medvlm.models.locate import check_weights
from medvlm.recipe.models import MixturePart, Recipe
from medvlm.runs import Run

if TYPE_CHECKING:
    from medvlm.data.mixture import Mixture
    from medvlm.evaluate.leakage import Leakage
    from medvlm.evaluate.shown import Picture
    from medvlm.train.few_shot import FewShot

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
    tuned: engines.Engine | None = None
    """The run's model, once it is loaded; it answers with every kind of picture."""
    few_shot: FewShot | None = None
    """What chooses the examples, the same for every model and kind of picture."""

    @property
    def folder(self) -> Path:
        return self.run.evaluation(self.recipe.eval.split)

    @property
    def with_base(self) -> bool:
        """Whether the untuned base answers too; a baseline is one itself, and what is chosen from the training rows'
        answers has none before training."""
        return self.settings.base and not is_baseline(self.run.facts()) and _answers_untuned(self.recipe)


def evaluate_run(run: Run, settings: Settings, show: Show) -> dict[str, Any]:
    """Generate what is missing, score it, and write `eval/<split>/{predictions*.jsonl,scores.json}`.

    Args:
        run: a finished run.
        settings: metrics, and what differs from the recipe.
        show: label -> context manager that gives a progress to tell.

    Returns:
        The content of scores.json.

    Raises:
        InputError: the split is empty, or the data or weights are gone; no row has the column that groups are asked by.
        UsageError: samples are to be left out that training data holds which is not known.
    """
    scores, _ = _evaluated(_job(run, settings, show))
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
    jobs = [_job(run, settings, show) for run in runs]
    # What does not compare is said before hours of answers.
    in_common({name: _described(job) for name, job in zip(names, jobs, strict=True)})
    found = [_evaluated(job) for job in jobs]
    rows = {name: own for name, (_, own) in zip(names, found, strict=True)}
    return [scores for scores, _ in found], compare_rows(rows, settings)


def _job(run: Run, settings: Settings, show: Show) -> _Job:
    """Return what is to be done, of which all is at hand."""
    settings.check()
    recipe = _with(run.recipe(), settings)
    _check_asked(recipe)
    mixture, places = _rows(recipe)
    _same_as_trained_on(run, mixture)
    job = _Job(run, recipe, settings, mixture, places, show)
    for base in {False, job.with_base}:
        engines.check(_choice(settings), run, recipe, base=base)
    return job


def _answers_untuned(recipe: Recipe) -> bool:
    """Return False for a classifier, whose head is new; what matches texts chooses among the same ones untuned."""
    from medvlm.models.backbones import BACKBONES

    return BACKBONES.get(recipe.model.backbone).output != "class"


def _check_asked(recipe: Recipe) -> None:
    """Raise where the backbone cannot be shown what the recipe asks for, before anything is loaded."""
    if asking(recipe):
        from medvlm.train.few_shot import check_shown

        check_shown(recipe, training=False)


def _evaluated(job: _Job) -> tuple[dict[str, Any], list[Row]]:
    """Return the content of scores.json and the model's rows that it is about."""
    run, recipe, settings, mixture, places = job.run, job.recipe, job.settings, job.mixture, job.places
    described = _described(job)
    leakage = _leakage(job)
    leaked = _left_out(leakage, job)
    constants = _constants(recipe)
    rows = {"model": _generate(job, "model", places)}
    others = _other_pictures(job, leaked)
    ranks = {"model": _ranks(job, "model")}
    # Two models at a time may be more than fits.
    job.tuned = None
    if job.with_base:
        rows["base"] = _generate(job, "base", places)
        ranks["base"] = _ranks(job, "base")
    rows["constant"] = _constant_rows(constants, job)
    # One text for all pictures tells none of them apart.
    ranks["constant"] = [retrieval.at_chance(told) for told in ranks["model"]]
    rows = {name: _answered(described, listed, ranks[name]) for name, listed in rows.items()}
    clean = {name: _without(listed, leaked) for name, listed in rows.items()}
    scores = _scores(rows, clean, others, leakage, settings, _vocabulary(job, clean["model"]))
    ids = [row["id"] for row in clean["model"]]
    if recipe.eval.limit is not None or settings.exclude_leaked:
        # predictions.jsonl may hold others too, of this evaluation or a larger one.
        scores["scored_ids"] = ids
    scores |= {
        "split": recipe.eval.split,
        "split_hash": stable_hash(ids),
        "limit": recipe.eval.limit,
        "decoding": predict.decoding(recipe, run=run) | asking(recipe),
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
    shown = {key: value for key in ("shots", "max_images") if (value := getattr(settings, key)) is not None}
    return recipe.model_copy(update={"eval": part, "prompts": recipe.prompts.model_copy(update=shown)})


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

    mixture = Mixture(recipe.data, recipe.eval.split, recipe.seed, weighted=False, how=recipe.mixture)
    tasks = recipe.eval.tasks
    first: dict[str, int] = {}
    for place, text in enumerate(mixture.texts()):
        if tasks is not None and text["task"] not in tasks:
            continue
        known = first.setdefault(str(text["id"]), place)
        if known != place and not _same_row(mixture, known, place):
            raise InputError(f"data: the id {text['id']} stands for different rows; prepare one of the data sets anew")
    places = list(first.values())
    if not places:
        paths = ", ".join(part.path for part in recipe.data)
        raise InputError(f"{paths}: no rows in the {recipe.eval.split} split; name another one with --split")
    limit = recipe.eval.limit
    if limit is not None and limit < len(places):
        places = [places[index * len(places) // limit] for index in range(limit)]
    return mixture, places


def _same_row(mixture: Mixture, one: int, other: int) -> bool:
    """Return True where two places ask the same about the same picture: a data set may be named twice."""
    texts = mixture.text(one), mixture.text(other)
    if any(texts[0][column] != texts[1][column] for column in ("task", "prompt", "target")):
        return False
    picks = mixture.picks[one], mixture.picks[other]
    return len({mixture.rows[pick.part].encoded(pick.row) for pick in picks}) == 1


_SHOWN: dict[str, Picture] = {"blank": "blank", "shuffled": "shuffled"}


def _choice(settings: Settings) -> engines.Choice:
    return engines.Choice(settings.engine, settings.workers, settings.ray_address)


def _generate(job: _Job, row: str, places: Sequence[int]) -> list[Row]:
    """Return the predictions of one row; blank and shuffled are the model with other pictures."""
    run, recipe, settings = job.run, job.recipe, job.settings

    def engine() -> engines.Engine:
        if row == "base":
            return engines.load(_choice(settings), run, recipe, base=True)
        if job.tuned is None:
            job.tuned = engines.load(_choice(settings), run, recipe)
        return job.tuned

    def few_shot(ready: engines.Engine) -> FewShot:
        if job.few_shot is None:
            job.few_shot = questions.few_shot_of(recipe, ready)
        return job.few_shot

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
            few_shot=few_shot,
        )


def _other_pictures(job: _Job, leaked: set[str]) -> dict[str, list[Row]]:
    """Return the model's answers to some samples that count with other pictures; none where none are asked for."""
    if job.settings.controls == 0:
        return {}
    clean = [place for place in job.places if str(job.mixture.text(place)["id"]) not in leaked]
    chosen = controls.choose(clean, job.settings.controls, job.settings.seed)
    return {name: _generate(job, name, chosen) for name in controls.PICTURES}


def _described(job: _Job) -> list[Row]:
    """Return all that the data tells of the rows that are to be answered, with the groups asked for."""
    titles = [facts["title"] for facts in job.mixture.facts()] if len(job.mixture.parts) > 1 else []
    found = []
    for place in job.places:
        told = predict.row_of(job.mixture.text(place))
        found.append(told | ({"data": titles[job.mixture.picks[place].part]} if titles else {}))
    return grouped_by(found, job.settings.group_by)


def _answered(described: Sequence[Row], rows: Sequence[Row], ranks: Sequence[Row]) -> list[Row]:
    """Return the rows with their predictions and ranks; those of an earlier version may tell less of their rows."""
    found = [told | {"prediction": row["prediction"]} for told, row in zip(described, rows, strict=True)]
    if ranks:
        found = [row | {retrieval.COLUMN: told} for row, told in zip(found, ranks, strict=True)]
    return found


def _ranks(job: _Job, row: str) -> list[Row]:
    """Return what the row's model finds in retrieval, place by place; nothing of models that do not match."""
    run, recipe = job.run, job.recipe
    if recipe.model.backbone != "contrastive":
        return []

    def predictor() -> predict.Predictor:
        if row == "model" and isinstance(job.tuned, predict.Predictor):
            return job.tuned
        return predict.Predictor(
            predict.load_plain(recipe) if row == "base" else predict.load_tuned(run, recipe), recipe
        )

    print_of = predict.fingerprint(run, recipe, job.mixture, row)
    with job.show(f"retrieve {row}") as bar:
        return retrieval.of_run(predictor, job.mixture, job.places, job.folder / f"retrieval-{row}.json", print_of, bar)


def _leakage(job: _Job) -> Leakage | None:
    """Return what of the split the training data holds too; None where the training data is not known."""
    from medvlm.evaluate import leakage

    facts = job.run.facts()
    if is_baseline(facts) and not facts.get("trained_on"):
        return None
    with job.show("leakage") as bar:
        return leakage.of_run(job.run, job.mixture, job.places, bar, job.recipe.prompts.max_images)


def _left_out(leakage: Leakage | None, job: _Job) -> set[str]:
    """Return the ids of the samples that are not to be scored.

    Raises:
        UsageError: the training data is not known.
        InputError: no sample would be left.
    """
    if not job.settings.exclude_leaked:
        return set()
    if leakage is None:
        raise UsageError(
            "--exclude-leaked: what this model was trained on is not known; name the data with --trained-on FOLDER, or "
            "leave --exclude-leaked out"
        )
    if all(str(job.mixture.text(place)["id"]) in leakage.leaked for place in job.places):
        raise InputError("every sample is in the training data too; score them without --exclude-leaked")
    return set(leakage.leaked)


_SEED = 0
"""Of the choice of constant answers: another one for each training seed would make their rows differ for nothing."""


def _constants(recipe: Recipe) -> dict[str, baselines.Constant]:
    """Return the best constant answers of the tasks that are evaluated, the same for all seeds of training."""
    from medvlm.data.mixture import Mixture

    tasks = recipe.eval.tasks

    def answers(split: str) -> list[Row]:
        # Two columns of what may be millions of rows.
        mixture = Mixture(recipe.data, split, _SEED, weighted=False, how=MixturePart(streaming=True))
        each = (pair for rows in mixture.rows for pair in rows.columns(("task", "target")))
        return [{"task": task, "target": target} for task, target in each if tasks is None or task in tasks]

    return baselines.best_constants(answers("train"), answers("validation"), _SEED)


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
    vocabulary: Row | None,
) -> dict[str, Any]:
    """Return the table, controls, leakage and warnings of the `clean` rows among all `rows`."""
    found = table(clean, settings)
    names = list(found["signatures"])
    found["controls"] = _controls(clean["model"], others, names, settings)
    found["leakage"] = leakage and leakage.as_dict()
    if settings.exclude_leaked:
        values = {name: scored(listed, names, settings.options).values for name, listed in rows.items()}
        found["with_leaked"] = {"n": len(rows["model"]), "rows": values}
    if vocabulary:
        found["vocabulary"] = vocabulary
    found["warnings"] = cautions(found, leakage is not None)
    return found


def _vocabulary(job: _Job, rows: Sequence[Row]) -> Row | None:
    """Return how many of the rows a classifier could answer at all; None of what writes its answers."""
    if is_baseline(job.run.facts()) or _answers_untuned(job.recipe):
        return None
    from medvlm.models.backbones.classifier import ClassifierBackbone, key_of
    from medvlm.models.trained import fitted_of

    answers: list[str] = fitted_of(job.run, ClassifierBackbone)["answers"]
    keys = set(map(key_of, answers))
    known = sum(any(key_of(str(text)) in keys for text in row["references"]) for row in rows)
    return {"answers": len(answers), "n": len(rows), "known": known, "share": known / len(rows)}


def _controls(model: list[Row], others: dict[str, list[Row]], names: list[str], settings: Settings) -> Row | None:
    if not others:
        return None
    by_id = {row["id"]: row for row in model}
    own = [by_id[row["id"]] for row in others["blank"]]
    return controls.measure({"model": own, **others}, model, names, settings)


def _without(rows: list[Row], leaked: set[str]) -> list[Row]:
    return [row for row in rows if row["id"] not in leaked]
