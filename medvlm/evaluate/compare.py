"""Several systems on the same samples: their scores, the paired differences of each two, and how sure those are."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from medvlm.errors import InputError
from medvlm.evaluate import retrieval
from medvlm.evaluate.finding_accuracy import FindingAccuracy, fits
from medvlm.evaluate.metrics import Metric, Options, Scores, Segments, aggregate, by_segment, score
from medvlm.evaluate.ngrams import Floats, Ints
from medvlm.evaluate.statistics import RESAMPLES, TRIALS, Bootstrap, groups_of, holm, randomization
from medvlm.evaluate.vqa import without_labels

Row = Mapping[str, Any]

SHARED = ("group", "task", "choices", "answer_type", "finding", "modality", "organ")
"""What is told of a sample, not of a system, and decides how it is scored or drawn."""

_DESCRIBES = ("modality", "organ")
"""Of these the first system that says one is believed: people name one in many ways, and no metric reads them."""

LEVEL = 0.05
"""From this corrected p-value on, a difference is not clear."""


def compare(
    systems: Mapping[str, Sequence[Row]],
    metrics: Sequence[str],
    options: Options | None = None,
    resamples: int = RESAMPLES,
    trials: int = TRIALS,
    seed: int = 0,
    which: Sequence[tuple[str, str]] | None = None,
) -> dict[str, Any]:
    """Return the scores of at least two systems on the samples that all of them answered, and each two's differences.

    Args:
        systems: name -> its rows (id, prediction, references, group, and other columns).
        metrics: names of `METRICS`.
        options: how texts are compared.
        resamples: of the intervals; 0 for none.
        trials: of the tests.
        seed: of both.
        which: pairs of systems to compare; None compares each two.

    Returns:
        schema, runs, n, groups, left_out (name -> how many of its rows others lack); rows and intervals by system;
        pairs: {a, b, keys: {key: {difference, low, high, p, p_holm}}} (a minus b; p_holm is corrected over the pairs,
        for each key); by_task as the function of this name says; signatures; bootstrap, trials.

    Raises:
        InputError: fewer than two systems, no sample in common, or one id with different references or `SHARED`.
    """
    if len(systems) < 2:
        raise InputError("give at least two runs or prediction files to compare")
    common = in_common(systems)
    names = list(systems)
    found = {name: scored(rows, metrics, options) for name, rows in common.items()}
    which = list(itertools.combinations(names, 2)) if which is None else which
    groups = groups_of(common[names[0]])
    bootstrap = Bootstrap(groups, resamples, seed) if resamples else None
    return {
        "schema": 2,
        "runs": names,
        "n": len(groups),
        "groups": len(set(groups)),
        "left_out": {name: len(rows) - len(groups) for name, rows in systems.items()},
        "rows": {name: one.values for name, one in found.items()},
        "intervals": {name: intervals(one, bootstrap) for name, one in found.items()},
        "pairs": pairs(found, which, groups, bootstrap, trials, seed),
        "by_task": by_task(common, found, which, options, resamples, trials, seed),
        "signatures": found[names[0]].signatures,
        "bootstrap": described(bootstrap, groups),
        "trials": trials,
    }


def verdict(cell: Mapping[str, float | None]) -> Literal["better", "worse", "unclear"]:
    """Return whether the first of two systems is better or worse, which both the interval and the test must say.

    Args:
        cell: of `pairs`: difference; low and high, where an interval was drawn; p_holm, where it was tested.
    """
    difference, low, high, p = (cell.get(key) for key in ("difference", "low", "high", "p_holm"))
    if low is None or high is None:
        # The test alone decides; of what is neither drawn nor tested nothing is known.
        low = high = 0.0 if difference is None or p is None else difference
    if p is not None and p >= LEVEL:
        return "unclear"
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def intervals(scored: Scores, bootstrap: Bootstrap | None) -> dict[str, list[float]]:
    """Return key -> [low, high]; nothing without a bootstrap."""
    found: dict[str, list[float]] = {}
    for name, metric in scored.metrics.items() if bootstrap else ():
        assert bootstrap is not None
        found |= {key: one.as_list() for key, one in bootstrap.intervals(metric, scored.statistics[name]).items()}
    return found


def described(bootstrap: Bootstrap | None, groups: Sequence[str]) -> dict[str, Any] | None:
    """Return what a table of scores says of its intervals; None without a bootstrap."""
    if bootstrap is None:
        return None
    return {
        "resamples": bootstrap.resamples,
        "seed": bootstrap.seed,
        "confidence": bootstrap.confidence,
        "groups": len(set(groups)),
    }


def pairs(
    scored: Mapping[str, Scores],
    which: Sequence[tuple[str, str]],
    groups: Sequence[str],
    bootstrap: Bootstrap | None,
    trials: int = TRIALS,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return the differences of the pairs `which`, as `compare` describes them.

    Args:
        scored: system -> its scores, all of the same segments.
        which: pairs of systems.
        groups: [n] the cluster of each segment.
        bootstrap: of these groups; None leaves the intervals out.
        trials: of the tests.
        seed: of the tests.
    """
    cells = [_differences(scored[a], scored[b], groups, bootstrap, trials, seed) for a, b in which]
    for key in dict.fromkeys(key for own in cells for key in own):
        tested = [own[key] for own in cells if key in own]
        for cell, corrected in zip(tested, holm([cell["p"] for cell in tested]), strict=True):
            cell["p_holm"] = corrected
    return [{"a": a, "b": b, "keys": own} for (a, b), own in zip(which, cells, strict=True)]


def _differences(
    a: Scores, b: Scores, groups: Sequence[str], bootstrap: Bootstrap | None, trials: int, seed: int
) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, metric in a.metrics.items():
        if name not in b.statistics:
            # A model that generates ranks nothing.
            continue
        mine, other = a.statistics[name], b.statistics[name]
        p = randomization(metric, mine, other, groups, trials, seed)
        drawn = bootstrap.differences(metric, mine, other) if bootstrap else {}
        for key in p:
            found[key] = {"difference": a.values[key] - b.values[key], "p": p[key]}
            if key in drawn:
                found[key] |= {"low": drawn[key].low, "high": drawn[key].high}
    return found


def scored(rows: Sequence[Row], names: Sequence[str], options: Options | None = None) -> Scores:
    """Score rows of predictions, each with prediction and references.

    By their known findings too, and by what was found in retrieval, where rows say such.
    """
    predictions, references = [row["prediction"] for row in rows], [row["references"] for row in rows]
    found = score(names, predictions, references, rows, options)
    options, segments = options or Options(), Segments(predictions, references, rows)
    if fits(rows):
        found = _and(found, FindingAccuracy(options), segments)
    if retrieval.fits(rows):
        found = _and(found, retrieval.Retrieval(options), segments)
    return found


def _and(found: Scores, metric: Metric, segments: Segments) -> Scores:
    """Return the scores with those of another metric, which is not asked for by name."""
    statistics = metric.statistics(segments)
    return dataclasses.replace(
        found,
        values=found.values | aggregate(metric, statistics),
        per_segment=found.per_segment | by_segment(metric, statistics),
        statistics=found.statistics | {metric.name: statistics},
        metrics=found.metrics | {metric.name: metric},
    )


def tasks_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the tasks that the rows name, sorted."""
    return sorted({str(row["task"]) for row in rows if row.get("task")})


def by_task(
    rows: Mapping[str, Sequence[Row]],
    found: Mapping[str, Scores],
    which: Sequence[tuple[str, str]],
    options: Options | None,
    resamples: int = RESAMPLES,
    trials: int = TRIALS,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Return n, rows, intervals and pairs of each task by itself, where there are several; {} where there are not.

    CIDEr takes the task's own document frequencies: those of answers and of reports together mean little.

    Args:
        rows: system -> its rows, all of the same samples in one order.
        found: system -> its scores of these rows.
        which: pairs of systems.
        options: how texts are compared.
        resamples: of the intervals; 0 for none.
        trials: of the tests.
        seed: of both.
    """
    first = next(iter(rows.values()))
    tasks = tasks_of(first)
    tables = {}
    for task in tasks if len(tasks) > 1 else ():
        places = [place for place, row in enumerate(first) if row.get("task") == task]
        own = {name: [listed[place] for place in places] for name, listed in rows.items()}
        scores = {name: _of_task(own[name], np.asarray(places), found[name], options) for name in rows}
        groups = groups_of([first[place] for place in places])
        bootstrap = Bootstrap(groups, resamples, seed) if resamples else None
        tables[task] = {
            "n": len(places),
            "rows": {name: one.values for name, one in scores.items()},
            "intervals": {name: intervals(one, bootstrap) for name, one in scores.items()},
            "pairs": pairs(scores, which, groups, bootstrap, trials, seed),
        }
    return tables


def _of_task(rows: Sequence[Row], places: Ints, found: Scores, options: Options | None) -> Scores:
    """Return the scores of a task's rows, which stand at `places` of those that were scored; only CIDEr is anew."""
    statistics = {name: whole[places] for name, whole in found.statistics.items()}
    if "cider" in statistics:
        predictions, references = [row["prediction"] for row in rows], [row["references"] for row in rows]
        statistics["cider"] = score(["cider"], predictions, references, rows, options).statistics["cider"]
    values: dict[str, float] = {}
    per_segment: dict[str, Floats] = {}
    for name, metric in found.metrics.items():
        values |= aggregate(metric, statistics[name])
        per_segment |= by_segment(metric, statistics[name])
    empty = sum(not row["prediction"].strip() for row in rows)
    return Scores(values, found.signatures, len(rows), empty, per_segment, statistics, found.metrics)


def in_common(systems: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """Return the rows of each system that all systems have, in the order of the first.

    What any system says of a sample (`SHARED`) is said of it in all of them, so that no order of the systems changes
    how they are scored.

    Raises:
        InputError: no sample in common, or one id with different references or `SHARED`.
    """
    by_id = {name: {str(row["id"]): row for row in rows} for name, rows in systems.items()}
    first, *others = by_id.values()
    ids = [key for key in first if all(key in other for other in others)]
    if not ids:
        names = ", ".join(systems)
        raise InputError(f"{names}: no sample in common; evaluate them on the same split of the same data")
    for key in ids:
        for name, rows in by_id.items():
            if rows[key]["references"] != first[key]["references"]:
                raise InputError(
                    f'{name}: "{key}" has other references than in {next(iter(systems))}; compare on one data set'
                )
    told = {key: _told(key, {name: rows[key] for name, rows in by_id.items()}) for key in ids}
    return {name: [{**rows[key], **told[key]} for key in ids] for name, rows in by_id.items()}


def _told(key: str, rows: Mapping[str, Row]) -> dict[str, Any]:
    """Return what the systems' rows of one sample say of it together."""
    found: dict[str, Any] = {}
    by: dict[str, str] = {}
    for name, row in rows.items():
        for column in SHARED:
            value = row.get(column)
            if value in (None, "", []):
                continue
            known = found.setdefault(column, value)
            if column not in _DESCRIBES and _plain(value) != _plain(known):
                raise InputError(
                    f'{name}: "{key}" has another {column} than in {by[column]}; make them alike, or leave one out'
                )
            by.setdefault(column, name)
    return found


def _plain(value: object) -> object:
    """Return a value as it is compared: texts without their case, choices without their letters."""
    if isinstance(value, list | tuple):
        return [one.strip().casefold() for one in without_labels([str(one) for one in value])]
    return str(value).strip().casefold()
