"""`medvlm eval`: generate what is missing, score it, say what the scores mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from medvlm.cli import eval_options as given
from medvlm.cli.common import DebugOption, QuietOption, progress, say, warn

if TYPE_CHECKING:
    from medvlm.evaluate.score_table import Settings
    from medvlm.runs import Run


def register(app: typer.Typer) -> None:
    """Add the verb to the app."""
    app.command("eval")(evaluate)


def evaluate(
    context: typer.Context,
    runs: given.Runs = None,
    predictions: given.Predictions = None,
    references: given.References = None,
    model: given.Model = None,
    like: given.Like = None,
    data: given.Data = None,
    trained_on: given.TrainedOn = None,
    split: given.Split = None,
    limit: given.Limit = None,
    no_base: given.NoBase = False,
    controls: given.Controls = "200",
    exclude_leaked: given.ExcludeLeaked = False,
    batch_size: given.BatchSize = None,
    shots: given.Shots = None,
    max_images: given.MaxImages = None,
    engine: given.EngineName = "transformers",
    workers: given.Workers = 1,
    ray_address: given.RayAddress = None,
    metrics: given.Metrics = "auto",
    tokenizer: given.Tokenizer = "ptb",
    case: given.Case = "lower",
    stem: given.Stem = False,
    negation: given.Negation = "rules",
    idf: given.Idf = None,
    save_idf: given.SaveIdf = None,
    bootstrap: given.Resamples = 1000,
    groups: given.Groups = "group",
    seed: given.Seed = 0,
    json_file: given.JsonFile = None,
    all_columns: given.AllColumns = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Score a run beside its untuned base, the best constant answer, and itself with pictures that tell nothing.

    Several runs, or prediction files, are compared on the samples that all of them answered.

    Example: medvlm eval

    Example: medvlm eval runs/A runs/B --json comparison.json

    Example: medvlm eval --predictions answers.csv --references annotations.json

    Example: medvlm eval --model google/paligemma2-3b-mix-448 --like runs/latest
    """
    from medvlm.errors import UsageError
    from medvlm.evaluate.metrics import Options, parse_metrics
    from medvlm.evaluate.score_table import Settings

    asked = [
        name for name, value in (("RUN", runs), ("--predictions", predictions), ("--model", model)) if _said(value)
    ]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)}: name one of them, not both")
    if model is not None and not model.strip():
        raise UsageError("--model: is empty; name a Hub id or a folder")
    if predictions:
        _check_used(context)
    read = [*(predictions or []), *(path for path in (references, idf) if path)]
    _check_file("--json", json_file, read)
    _check_file("--save-idf", save_idf, read)
    if save_idf is not None and json_file is not None and save_idf.resolve() == json_file.resolve():
        raise UsageError("--save-idf and --json: name two files")
    if save_idf is not None and len(runs or predictions or []) > 1:
        raise UsageError("--save-idf: counts the references of one run or file; name one")
    _check_companions({"--references": references}, "--predictions", predictions)
    _check_companions({"--like": like, "--data": data, "--trained-on": trained_on}, "--model", model)
    if split not in (None, "train", "validation", "test"):
        raise UsageError(f'--split "{split}": expected train, validation or test')
    settings = Settings(
        metrics=None if metrics.strip().lower() == "auto" else parse_metrics(metrics),
        split=split,
        limit=limit,
        batch_size=batch_size,
        shots=shots,
        max_images=max_images,
        options=Options(tokenizer, case, stem, idf, negation=negation),
        bootstrap=bootstrap,
        controls=_controls(controls),
        engine=engine,
        workers=workers,
        ray_address=ray_address,
        exclude_leaked=exclude_leaked,
        base=not no_base,
        group_by=groups,
        seed=seed,
        save_idf=save_idf,
    )
    show = _Show(all_columns, quiet)
    if predictions:
        result = _files(predictions, references, settings, show)
    else:
        result = _runs(_open(runs) if model is None else _baseline(model, like, data, trained_on), settings, show)
    if json_file is not None:
        from medvlm.io import write_json

        write_json(json_file, result)
        say(f"scores: {json_file}", quiet)


def _check_companions(options: dict[str, Any], leader: str, value: Any) -> None:
    from medvlm.errors import UsageError

    alone = [name for name, given in options.items() if _said(given)]
    if alone and not _said(value):
        raise UsageError(f"{alone[0]} goes with {leader}")


def _said(value: Any) -> bool:
    """Return True where an option was given, were it as an empty text; one that repeats is [] where it was not."""
    return value is not None and value != []


_FOR_MODELS = (
    "split", "limit", "no_base", "controls", "exclude_leaked", "batch_size", "shots", "max_images", "engine", "workers",
    "ray_address",
)  # fmt: skip


def _check_used(context: typer.Context) -> None:
    """Refuse options that say nothing about answers that are there already."""
    from medvlm.errors import UsageError

    names = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    # By its name: typer carries its own copy of click.
    sources = {name: context.get_parameter_source(name) for name in _FOR_MODELS}
    idle = [names[name] for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    if idle:
        raise UsageError(f"{', '.join(idle)}: of no use with --predictions, whose answers are made already")


def _check_file(option: str, path: Path | None, read: list[Path]) -> None:
    """Refuse a file that cannot be written, that is read or that a run keeps, before any work is done."""
    import os

    from medvlm.errors import UsageError
    from medvlm.io import check_plain

    if path is None:
        return
    check_plain(path, option)
    run = next((folder for folder in path.resolve().parents if (folder / "run.json").is_file()), None)
    if run is not None and (path.exists() or (run / "eval") in path.resolve().parents):
        raise UsageError(f"{option} {path}: belongs to the run {run.name}; name a new file, or one elsewhere")
    if path.resolve() in {one.resolve() for one in read}:
        raise UsageError(f"{option} {path}: is read too and would be overwritten; name another file")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {path}: {there} is no folder that can be written to; name another file")


def _controls(text: str) -> int | None:
    from medvlm.errors import UsageError

    word = text.strip().lower()
    if word in ("all", "none"):
        return None if word == "all" else 0
    if not (word.isascii() and word.isdecimal()):
        raise UsageError(f'--controls "{text}": expected a number of samples, all or none')
    return int(word)


class _Show:
    """Prints results as they come."""

    def __init__(self, all_columns: bool, quiet: bool) -> None:
        self.all_columns, self.quiet = all_columns, quiet

    def table(self, scores: dict[str, Any], title: str, model: str = "model") -> None:
        from medvlm.cli import eval_table

        eval_table.print_scores(scores, title, model, self.all_columns)
        for sentence in scores["warnings"]:
            warn(sentence)

    def comparison(self, found: dict[str, Any]) -> None:
        from medvlm.cli import eval_table

        eval_table.print_comparison(found, self.all_columns)


def _open(names: list[str] | None) -> list[Run]:
    from medvlm.runs import open_run

    return [open_run(name) for name in names] if names else [open_run(None)]


def _baseline(model: str, like: str | None, data: list[str] | None, trained_on: list[str] | None) -> list[Run]:
    import shlex
    import sys

    from medvlm.evaluate import baseline_run

    command = shlex.join(["medvlm", *sys.argv[1:]])
    return [baseline_run.make(model, like, data or [], trained_on or [], command)]


def _runs(runs: list[Run], settings: Settings, show: _Show) -> dict[str, Any]:
    from medvlm.evaluate.evaluation import evaluate_run, evaluate_runs

    def bar(label: str) -> Any:
        return progress(label, show.quiet)

    if len(runs) == 1:
        scores = evaluate_run(runs[0], settings, bar)
        show.table(scores, f"{runs[0].path}, {scores['split']} split")
        return scores
    each, comparison = evaluate_runs(runs, settings, bar)
    for run, scores in zip(runs, each, strict=True):
        show.table(scores, f"{run.path}, {scores['split']} split")
    show.comparison(comparison)
    return comparison


def _files(paths: list[Path], references: Path | None, settings: Settings, show: _Show) -> dict[str, Any]:
    from medvlm.errors import UsageError
    from medvlm.evaluate import files
    from medvlm.evaluate.compare import in_common

    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("--predictions: one file is named twice; name different ones to compare")
    rows = {str(path): files.rows_of(path, references, settings) for path in paths}
    if len(rows) > 1:
        in_common(rows)
    tables = {name: files.score_rows(listed, settings) for name, listed in rows.items()}
    for name, scores in tables.items():
        show.table(scores, name, "predictions")
    if len(paths) == 1:
        return next(iter(tables.values()))
    comparison = files.compare_rows(rows, settings)
    show.comparison(comparison)
    return comparison
