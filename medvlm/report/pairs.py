"""Runs against each other on the same samples: every two's difference, with interval and corrected p-value."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medvlm.errors import InputError, MissingExtraError, UsageError
from medvlm.evaluate.compare import compare
from medvlm.evaluate.metrics import Options
from medvlm.report import results, side_by_side
from medvlm.report.context import Evaluation, Prediction, RunContext
from medvlm.report.document import Block, Section, Table, Text
from medvlm.report.scored import Difference, Scored, columns, differences, name, numbers, p_value, whole
from medvlm.report.values import listed, mapping, text, texts, words

_OFFLINE = ("bleu", "rouge", "cider", "vqa", "findings")
"""Metrics that need nothing but the texts; others would load models for a report."""
_MOST = 12
"""More runs than this give more pairs than anybody reads: then each is compared with the first alone."""


Comparisons = Mapping[str, "dict[str, Any] | str"]


def section(comparisons: Comparisons) -> Section:
    """Return the chapter that compares runs pair by pair on the samples that all of them answered."""
    blocks: list[Block] = []
    for split, found in comparisons.items():
        blocks += [Text(f"{split}: {found}")] if isinstance(found, str) else _blocks(split, found)
    return Section("Differences between the runs", blocks or [Text("Fewer than two of these runs are evaluated yet.")])


def compared(runs: Sequence[RunContext]) -> dict[str, dict[str, Any] | str]:
    """Return for each split that at least two runs were evaluated on what the comparison found, or why there is none.

    The scores are computed anew from the predictions, with one setting for all runs, so that they compare.
    """
    labels = side_by_side.labels(runs)
    by_split: dict[str, dict[str, Evaluation]] = {}
    for label, run in zip(labels, runs, strict=True):
        for evaluation in run.evaluations:
            by_split.setdefault(evaluation.split, {})[label] = evaluation
    return {split: _compare(found) for split, found in by_split.items() if len(found) > 1}


def _compare(evaluations: Mapping[str, Evaluation]) -> dict[str, Any] | str:
    systems = {label: _rows(evaluation) for label, evaluation in evaluations.items()}
    empty = [label for label, rows in systems.items() if not rows]
    if empty:
        return f"not compared pair by pair: no predictions with references were kept of {', '.join(empty)}."
    names = _metrics(list(evaluations.values()))
    options, differ = _options(list(evaluations.values()))
    try:
        return {**compare(systems, names, options, which=_which(list(systems))), "settings_differ": differ}
    except (InputError, MissingExtraError, UsageError) as error:
        return f"not compared pair by pair: {error}."


def _which(names: Sequence[str]) -> list[tuple[str, str]] | None:
    """Return the pairs to be compared; None for each two.

    The first run is the first of its recipe, or the first that was named: chosen before any score was known.
    """
    return [(name, names[0]) for name in names[1:]] if len(names) > _MOST else None


def _rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    return [_row(row) for row in evaluation.predictions if row.references]


def _row(row: Prediction) -> dict[str, Any]:
    """Return what metrics read of a prediction, each of its kind, whatever the file holds."""
    group = row.row.get("group")
    return {
        "id": row.id,
        "prediction": row.prediction,
        "references": row.references,
        "group": None if group is None else text(group),
        "task": row.task,
        "finding": text(row.row.get("finding")),
        "answer_type": text(row.row.get("answer_type")),
        "choices": texts(row.row.get("choices")),
    }


def _metrics(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the metrics that all were scored with, or, where there is none, those that fit any text."""
    shared = set(_OFFLINE)
    for evaluation in evaluations:
        shared &= evaluation.scored.signatures.keys()
    return [metric for metric in _OFFLINE if metric in shared] or list(_OFFLINE[:3])


def _options(evaluations: Sequence[Evaluation]) -> tuple[Options, list[str]]:
    """Return how all were scored, and in words where they were not all scored alike, for which the usual stands."""
    usual = dataclasses.asdict(Options())
    chosen: dict[str, Any] = {}
    differ = []
    for key in ("tokenizer", "case", "stem", "negation", "idf"):
        asked = [_asked(evaluation, key, usual[key]) for evaluation in evaluations]
        if all(value == asked[0] for value in asked):
            chosen[key] = asked[0]
        else:
            values = ", ".join(dict.fromkeys(words(value) or "none" for value in asked))
            differ.append(f"{key} ({values}; here {words(usual[key]) or 'none'})")
    idf = chosen.get("idf")
    return Options(**chosen | {"idf": Path(idf) if idf else None}), differ


_SIGNED = {"tokenizer": "tok", "case": "case"}


def _asked(evaluation: Evaluation, key: str, usual: Any) -> Any:
    """Return one setting, of scores without settings what their signatures say of it, else the usual one."""
    told = mapping(evaluation.scores.get("settings")).get(key)
    if isinstance(told, bool if isinstance(usual, bool) else str):
        return told
    return (evaluation.scored.setting(_SIGNED[key]) if key in _SIGNED else "") or usual


def _blocks(split: str, found: Mapping[str, Any]) -> Iterator[Block]:
    names = [text(label) for label in listed(found.get("runs"))]
    yield Text(_what(split, found))
    yield _scores(found, names, "Scores on the samples in common")
    tasks = {task: mapping(part) for task, part in mapping(found.get("by_task")).items()}
    for task, part in tasks.items():
        yield _scores(
            part, names, f"Scores on the samples in common, only task {task}, n = {whole(part.get('n')) or 0:,}"
        )
        yield from _differences(f"{split}, only task {task}", part, names)
    if tasks:
        yield Text("CIDEr of one task weighs words as in that task alone; that of all samples, as in all of them.")
    else:
        yield from _differences(split, found, names)
    if differ := texts(found.get("settings_differ")):
        yield Text(
            f"The runs were not all scored alike, so here all are scored anew with one setting: {', '.join(differ)}."
        )
    signatures = mapping(found.get("signatures"))
    yield Text("Computed anew with: " + "; ".join(text(value) for value in signatures.values()) + ".")


def _differences(of: str, found: Mapping[str, Any], names: Sequence[str]) -> Iterator[Block]:
    """Yield each two's differences, as a table and drawn; `of` says of what in the captions."""
    pairs = [mapping(pair) for pair in listed(found.get("pairs"))]
    values = {label: mapping(part) for label, part in mapping(found.get("rows")).items()}
    scored = Scored({"rows": {**values, "model": values.get(names[0], {})}} if names else {})
    keys = scored.main
    rows = [_cells(pair, one) for pair in pairs for one in differences(text(pair.get("b")), pair.get("keys"))]
    main = [cells for key, cells in rows if key in keys] or [cells for _, cells in rows]
    header = ("first run", "second run", "metric", "first minus second", "p", "p, Holm", "in words")
    yield Table(header, main, f"Paired differences: {of}", numeric=frozenset({3, 4, 5}), sortable=True)
    for key in scored.charted:
        bars = [
            results.bar(f"{text(pair.get('a'))} - {text(pair.get('b'))}", one.value)
            for pair in pairs
            for one in differences("", pair.get("keys"))
            if one.key == key
        ]
        yield from results.chart(f"{name(key)} differences between runs: {of}", bars, f"{name(key)} difference")


def _what(split: str, found: Mapping[str, Any]) -> str:
    n, groups = whole(found.get("n")), whole(found.get("groups"))
    left = {label: count for label, count in numbers(found.get("left_out")).items() if count}
    said = "".join(f"; {count:,.0f} samples of {label} left out, which others lack" for label, count in left.items())
    names = texts(found.get("runs"))
    few = f" More than {_MOST} runs: each is compared with the first, {names[0]}." if len(names) > _MOST else ""
    return (
        f"Split {split}: {n or 0:,} samples of {groups or 0:,} patients, articles or images that all these runs "
        f"answered{said}. p is from a paired randomization test over whole groups ({whole(found.get('trials')) or 0:,} "
        f"trials), corrected by Holm over the pairs of each metric.{few}"
    )


def _scores(found: Mapping[str, Any], names: Sequence[str], caption: str) -> Table:
    scored = Scored({"rows": found.get("rows"), "intervals": found.get("intervals")})
    keys = columns(scored.rows)
    body = [[name(key), *(str(scored.value(label, key)) for label in names)] for key in keys]
    return Table(("metric", *names), body, caption, numeric=frozenset(range(1, 1 + len(names))))


def _cells(pair: Mapping[str, Any], one: Difference) -> tuple[str, list[str]]:
    first, second = text(pair.get("a")), text(pair.get("b"))
    said = {
        "better": f"{first} is better",
        "worse": f"{second} is better",
        "not clearly different": "not clearly different",
    }.get(one.verdict, "-")
    return one.key, [first, second, name(one.key), one.value.signed(), p_value(one.p), p_value(one.p_holm), said]
