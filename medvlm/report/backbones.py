"""Backbones in one table: what each is, how well it does, what its licenses allow, and what its training cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import yaml

from medvlm.report import cost, results
from medvlm.report.context import RunContext
from medvlm.report.document import Block, Table, Text
from medvlm.report.scored import Value, columns, name
from medvlm.report.values import counts, mapping, number, text

OUTPUTS = {
    "text": "generated text",
    "class": "closed vocabulary",
    "match": "best-matching training text",
}
"""What `run.json` says of a backbone's answers, in words."""

_GENERATE = ("paligemma", "git_llm")
"""Backbones of runs that were made before it was recorded."""

CONSTANT = "best constant answer"


def blocks(labels: Sequence[str], runs: Sequence[RunContext]) -> Iterator[Block]:
    """Yield the table and a chart of the runs, the best first; nothing where all have one backbone.

    Args:
        labels: what to call each run.
        runs: in the same order.
    """
    if len({backbone(run) for run in runs}) < 2:
        return
    yield Text(_what(runs))
    key = _headline(runs)
    order = sorted(zip(labels, runs, strict=True), key=lambda pair: _rank(pair[1], key))
    yield _table(order, key)
    scored = [(label, value) for label, run in order if (value := _score(run, key)).value is not None]
    bars = [results.bar(label, value) for label, value in scored]
    if len(bars) > 1:
        bars += [results.bar(CONSTANT, _constant(runs, key))]
        yield from results.chart(f"{name(key)} of each backbone, with {_confidence(runs)} intervals", bars, name(key))


def backbone(run: RunContext) -> str:
    """Return the name of a run's backbone, as its recipe says it; "unknown" where that is damaged."""
    told = text(mapping(run.facts.get("model")).get("backbone"))
    if told:
        return told
    try:
        recipe = mapping(yaml.safe_load(run.recipe))
    except (yaml.YAMLError, ValueError, RecursionError):
        return cost.UNKNOWN
    return text(mapping(recipe.get("model")).get("backbone")) or cost.UNKNOWN


def output(run: RunContext) -> str:
    """Return in words what a run's answers are."""
    told = text(mapping(run.facts.get("model")).get("output"))
    known = "text" if not told and backbone(run) in _GENERATE else told
    return OUTPUTS.get(known, cost.UNKNOWN)


def parameters(run: RunContext) -> tuple[int, int] | None:
    """Return how many parameters the model has and how many were trained; None where it is not known."""
    parts = [counts(part) for part in mapping(run.facts.get("census")).values()]
    total = sum(part.get("total", 0) for part in parts)
    return (total, sum(part.get("trainable", 0) for part in parts)) if total else None


def _what(runs: Sequence[RunContext]) -> str:
    said = "Backbones side by side, the best score first, each with the recipe named below it in «What differs»."
    if all(run.model_id.startswith("medvlm/tiny-random") for run in runs):
        said += (
            " All began with random weights: this compares small models of these architectures, trained from nothing "
            "on this data for this budget, and says nothing of the published models."
        )
    kinds = {output(run) for run in runs}
    if len(kinds) > 1:
        said += (
            " Where answers come from a closed vocabulary or the training texts, no other answer can be given: right "
            "for questions whose answers are known, no measure of writing."
        )
    return said


def _table(order: Sequence[tuple[str, RunContext]], headline: str) -> Table:
    runs = [run for _, run in order]
    keys = sorted(_keys(runs), key=lambda key: key != headline)
    rows = [[label, *_cells(run, keys)] for label, run in order]
    if _constant(runs, headline).value is not None:
        scores = [str(_constant(runs, key)) for key in keys]
        licenses = results.license_cells(runs[0], "constant")
        rights = results.rights_cells(runs[0], "constant")
        rows.append([CONSTANT, *rights, "-", "-", *scores, "-", "-", *["-"] * len(_COMPUTE), *licenses])
    first = ("run", *results.RIGHTS_HEADER, "backbone", "answers")
    header = [*first, *map(name, keys), "parameters", "trained", *_COMPUTE, *results.LICENSE_HEADER]
    numeric = frozenset(range(len(first), len(header) - len(results.LICENSE_HEADER)))
    caption = "Backbones: rights, what they are, scores with intervals, size, compute and licenses"
    return Table(header, rows, caption, numeric, frozenset({1, 2}), sortable=True)


_COMPUTE = ("GFLOP", "seconds", "samples/s", "peak memory")


def _cells(run: RunContext, keys: Sequence[str]) -> list[str]:
    sizes = parameters(run)
    seconds, flops = number(run.compute.get("seconds")), number(run.compute.get("flops"))
    return [
        *results.rights_cells(run, "model"),
        backbone(run),
        output(run),
        *(str(_score(run, key)) for key in keys),
        *([f"{size:,}" for size in sizes] if sizes else [cost.UNKNOWN] * 2),
        # In one unit, so that a reader can sort by it.
        cost.UNKNOWN if flops is None else f"{flops / 1e9:,.0f}" if flops >= 1e11 else f"{flops / 1e9:.3g}",
        cost.UNKNOWN if seconds is None else f"{seconds:,.0f}",
        cost.rate(run, "samples_per_second"),
        cost.memory(run),
        *results.license_cells(run, "model"),
    ]


def _score(run: RunContext, key: str) -> Value:
    return run.evaluations[0].scored.value("model", key) if run.evaluations else Value(None)


def _keys(runs: Sequence[RunContext]) -> list[str]:
    scored = [run.evaluations[0].scored for run in runs if run.evaluations]
    known = columns({str(place): one.rows.get("model", {}) for place, one in enumerate(scored)})
    return [key for key in known if any(key in one.main for one in scored)]


def _headline(runs: Sequence[RunContext]) -> str:
    return next((run.evaluations[0].scored.headline for run in runs if run.evaluations), "")


def _rank(run: RunContext, key: str) -> float:
    value = _score(run, key).value
    return float("inf") if value is None else -value


def _constant(runs: Sequence[RunContext], key: str) -> Value:
    """Return the constant answer's score, where it is one and the same for all runs that have it."""
    found = [run.evaluations[0].scored.value("constant", key) for run in runs if run.evaluations]
    found = [one for one in found if one.value is not None]
    return found[0] if found and all(one.value == found[0].value for one in found) else Value(None)


def _confidence(runs: Sequence[RunContext]) -> str:
    return next((run.evaluations[0].scored.confidence for run in runs if run.evaluations), "95 %")
