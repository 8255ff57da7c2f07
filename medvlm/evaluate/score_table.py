"""Rows of predictions in, a table of scores out: values, intervals, differences, slices, and what the texts are like.

The form is the one of scores.json, schema 2 (`medvlm.evaluate.evaluation` says all of its keys).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medvlm.errors import InputError
from medvlm.evaluate import cider, retrieval
from medvlm.evaluate.compare import by_task, described, intervals, pairs, scored, tasks_of
from medvlm.evaluate.metrics import METRICS, Options, Scores
from medvlm.evaluate.slices import COLUMNS, is_radiograph, slices, with_normal
from medvlm.evaluate.statistics import RESAMPLES, Bootstrap, groups_of
from medvlm.evaluate.tokenize import tokenize

SCHEMA = 2

CONTROLS = 200
"""So many samples are shown with other pictures, unless more are asked for."""

ALWAYS = ("bleu", "rouge", "cider")
"""Metrics that fit any text."""

Row = dict[str, Any]


@dataclasses.dataclass(slots=True)
class Settings:
    """What `medvlm eval` is asked for, beside what the recipe says itself."""

    metrics: list[str] | None = None
    """Names; None takes what fits the rows (see `automatic`)."""
    split: str | None = None
    limit: int | None = None
    batch_size: int | None = None
    shots: int | None = None
    """Answered training rows before each row."""
    max_images: int | None = None
    """Pictures of a sample."""
    options: Options = dataclasses.field(default_factory=Options)
    bootstrap: int = RESAMPLES
    """Resamples of the intervals; 0 computes none."""
    controls: int | None = CONTROLS
    """At most so many samples with blank and with shuffled pictures; None is all, 0 none."""
    engine: str = "transformers"
    workers: int = 1
    """Copies of the model that answer side by side, through Ray."""
    ray_address: str | None = None
    exclude_leaked: bool = False
    base: bool = True
    """Score the untuned base too."""
    group_by: str = "group"
    """The column that says which rows belong to one patient, article or image."""
    seed: int = 0
    """Of the resamples, the trials, and the choice of controls."""
    save_idf: Path | None = None
    """Write the document frequencies of the scored references there, for `Options.idf`."""

    def check(self) -> None:
        """Make sure that the texts can be compared as asked, before any answer is generated.

        Raises:
            UsageError: no such metric, tokenizer or case.
            InputError: the file of document frequencies cannot be read.
            MissingExtraError: a metric's own package is not installed.
        """
        tokenize([], self.options.tokenizer, self.options.case)
        for name in self.metrics or ALWAYS:
            METRICS.get(name)(self.options)

    def as_dict(self) -> dict[str, Any]:
        """Return what was asked for, as scores.json keeps it so that it can be asked again; null takes the default."""
        options = self.options
        return {
            "metrics": self.metrics,
            "tokenizer": options.tokenizer,
            "case": options.case,
            "stem": options.stem,
            "negation": options.negation,
            "idf": None if options.idf is None else str(options.idf),
            "groups": self.group_by,
            "bootstrap": self.bootstrap,
            "seed": self.seed,
            "split": self.split,
            "limit": self.limit,
            "batch_size": self.batch_size,
            "shots": self.shots,
            "max_images": self.max_images,
            "controls": "all" if self.controls is None else self.controls,
            "exclude_leaked": self.exclude_leaked,
            "base": self.base,
            "engine": self.engine,
        }


def automatic(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the metrics that fit the rows.

    BLEU, ROUGE and CIDEr always; vqa where there are questions; findings where there are captions or reports of chest
    radiographs, or such that say their finding.
    """
    names = list(ALWAYS)
    if any(row.get("task") == "vqa" for row in rows):
        names.append("vqa")
    if any(row.get("task") != "vqa" and (row.get("finding") or _chest_radiograph(row)) for row in rows):
        names.append("findings")
    return names


def _chest_radiograph(row: Mapping[str, Any]) -> bool:
    made, of = str(row.get("modality") or "").lower(), str(row.get("organ") or "").lower()
    return is_radiograph(made) and any(word in f"{made} {of}" for word in ("cxr", "chest", "lung", "thorax"))


def grouped_by(rows: Sequence[Row], column: str) -> list[Row]:
    """Return the rows with what `column` says as their group; a row where it says nothing is a group of its own.

    Raises:
        InputError: no row has the column.
    """
    if column == "group":
        return list(rows)
    if all(row.get(column) is None for row in rows):
        known = sorted({key for row in rows[:1000] for key, value in row.items() if isinstance(value, str | int)})
        raise InputError(f'--groups "{column}": no row has this column; there are {", ".join(known)}')
    return [row | {"group": row.get(column)} for row in rows]


def table(rows: Mapping[str, Sequence[Row]], settings: Settings) -> dict[str, Any]:
    """Score every row of the table on the same references.

    Args:
        rows: name -> predictions in one order, each with id, prediction, references, and further columns; the first is
            the one that the others are compared with.
        settings: metrics and how they are computed.

    Returns:
        schema, n, groups, tasks, rows, intervals, bootstrap, signatures, comparisons, by_task, outputs, references,
        slices, slices_left_out, retrieval (null where nothing was ranked; see `medvlm.evaluate.retrieval`), settings.

    Raises:
        InputError: none of the metrics finds anything to score.
    """
    main, *others = rows
    names = settings.metrics or automatic(rows[main])
    groups = groups_of(rows[main])
    found = {name: scored(listed, names, settings.options) for name, listed in rows.items()}
    _check_scored(found[main])
    if settings.save_idf is not None:
        own, options = [row["references"] for row in rows[main]], settings.options
        cider.save_idf(settings.save_idf, own, options.tokenizer, options.case)
    bootstrap = bootstrap_of(groups, settings)
    differences = pairs(found, [(main, other) for other in others], groups, bootstrap, seed=settings.seed)
    tasks = _by_task(rows, found, settings)
    # Each task has a table of its own: two CIDErs of the same samples, by other document frequencies, would confuse.
    by = [column for column in COLUMNS if not (tasks and column == "task")]
    kept, small = slices(with_normal(rows[main]), groups, found, settings.bootstrap, settings.seed, by)
    return {
        "schema": SCHEMA,
        "n": len(groups),
        "groups": len(set(groups)),
        "tasks": tasks_of(rows[main]),
        "rows": {name: scores.values for name, scores in found.items()},
        "intervals": {name: intervals(scores, bootstrap) for name, scores in found.items()},
        "bootstrap": described(bootstrap, groups),
        "signatures": found[main].signatures,
        "comparisons": {pair["b"]: pair["keys"] for pair in differences},
        "by_task": tasks,
        "outputs": {name: outputs(listed) for name, listed in rows.items()},
        "references": _references(rows[main]),
        "slices": kept,
        "slices_left_out": small,
        "retrieval": retrieval.summary(rows, groups, bootstrap),
        "settings": settings.as_dict(),
    }


def _check_scored(found: Scores) -> None:
    """Say which metrics found nothing to score; raise InputError where none found anything."""
    from medvlm.cli.common import warn

    idle = [name for name, metric in found.metrics.items() if not found.values.keys() & set(metric.keys)]
    why = "; none is a question (their task is not vqa)" if "vqa" in idle else ""
    sentence = f"{', '.join(idle)}: nothing to score in these {found.n} rows{why}"
    if not found.values:
        raise InputError(sentence)
    if idle:
        warn(sentence)


def bootstrap_of(groups: Sequence[str], settings: Settings) -> Bootstrap | None:
    """Return the draws of these groups; None where no intervals are asked for."""
    return Bootstrap(groups, settings.bootstrap, settings.seed) if settings.bootstrap else None


def _by_task(rows: Mapping[str, Sequence[Row]], found: Mapping[str, Scores], settings: Settings) -> dict[str, Any]:
    """Return scores of each task by itself, and what the first row differs by from each other one."""
    main, *others = rows
    which = [(main, other) for other in others]
    tables = by_task(rows, found, which, settings.options, settings.bootstrap, seed=settings.seed)
    for part in tables.values():
        part["comparisons"] = {pair["b"]: pair["keys"] for pair in part.pop("pairs")}
    return tables


def outputs(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the predictions are like as texts: how many, distinct, empty, and their mean length in words."""
    texts = [str(row["prediction"]) for row in rows]
    return {
        "n": len(texts),
        "distinct": len(set(texts)),
        "empty": sum(not text.strip() for text in texts),
        "mean_words": _mean_words(texts),
    }


def _references(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    texts = [text for row in rows for text in row["references"]]
    return {"n": len(texts), "distinct": len(set(texts)), "mean_words": _mean_words(texts)}


def _mean_words(texts: Sequence[str]) -> float:
    return sum(len(text.split()) for text in texts) / len(texts) if texts else 0.0
