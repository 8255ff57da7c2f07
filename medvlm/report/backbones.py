"""Backbones in one table: what each is, how well it does, what its licenses allow, and what its training cost."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence

from medvlm.report import cost, results
from medvlm.report.context import Evaluation, RunContext, parsed
from medvlm.report.document import Block, Table, Text
from medvlm.report.scored import Value, columns, name
from medvlm.report.values import counts, mapping, number, text, texts

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

    Only runs that were scored on the same samples are ranked; a second table holds the others, with the reason.

    Args:
        labels: what to call each run.
        runs: in the same order.
    """
    if len({backbone(run) for run in runs}) < 2:
        return
    yield Text(_what(runs))
    ground = _ground(runs)
    alike = [Line(label, run, _on(run, ground)) for label, run in zip(labels, runs, strict=True)]
    others = [dataclasses.replace(line, on=_first(line.run)) for line in alike if line.on is None and _first(line.run)]
    key = next((line.on.scored.headline for line in alike if line.on), "")
    ranked = sorted((line for line in alike if line.on), key=lambda line: _rank(line, key))
    unscored = [line for line in alike if _first(line.run) is None]
    yield _table([*ranked, *unscored], key, CAPTION)
    yield from map(Text, _remarks(ranked, unscored, key))
    if others:
        yield Text(_why_apart(others, ranked[0]))
        yield _table(others, key, f"{CAPTION}, of runs scored on other samples, not ranked", constant=False)
    bars = [results.bar(line.label, value) for line in ranked if (value := line.value("model", key)).value is not None]
    if len(bars) > 1:
        bars += [results.bar(CONSTANT, _constant(ranked, key))]
        confidence = next(line.on.scored.confidence for line in ranked if line.on)
        yield from results.chart(f"{name(key)} of each backbone, with {confidence} intervals", bars, name(key))


CAPTION = "Backbones: rights, what they are, scores with intervals, size, compute and licenses"


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A run in the table."""

    label: str
    run: RunContext
    on: Evaluation | None
    """Whose scores stand there."""

    def value(self, row: str, key: str) -> Value:
        """Return a score; of nothing where it was not scored."""
        return self.on.scored.value(row, key) if self.on else Value(None)


Ground = tuple[str, frozenset[str]]
"""A split, and the samples of it that were scored."""


def _ground_of(evaluation: Evaluation) -> Ground:
    told = texts(evaluation.scores.get("scored_ids"))
    return evaluation.split, frozenset(told or (row.id for row in evaluation.predictions))


def _scored(run: RunContext) -> list[Evaluation]:
    return [one for one in run.evaluations if one.scored.rows.get("model")]


def _first(run: RunContext) -> Evaluation | None:
    return next(iter(_scored(run)), None)


def _ground(runs: Sequence[RunContext]) -> Ground:
    """Return what most runs were scored on; of several the test split, then the one of more samples."""
    found = Counter(ground for run in runs for ground in dict.fromkeys(map(_ground_of, _scored(run))))
    order = {"test": 2, "validation": 1}
    return max(found, key=lambda one: (found[one], order.get(one[0], 0), len(one[1])), default=("", frozenset()))


def _on(run: RunContext, ground: Ground) -> Evaluation | None:
    return next((one for one in _scored(run) if _ground_of(one) == ground), None)


def _why_apart(others: Sequence[Line], first: Line) -> str:
    told = "; ".join(f"{line.label}: {_size(line)}" for line in others)
    return (
        f"Not ranked, because they were scored on other samples than those above ({_size(first)}): {told}. "
        f"medvlm eval RUN --split {first.on.split if first.on else 'test'} with the same --limit scores them alike."
    )


def _size(line: Line) -> str:
    if line.on is None:
        return "not scored"
    return f"{'an unknown number' if line.on.scored.n is None else line.on.scored.n} of {line.on.split}"


def _remarks(ranked: Sequence[Line], unscored: Sequence[Line], key: str) -> Iterator[str]:
    """Yield why something is not in the table."""
    if unscored:
        yield "Not scored yet: " + "; ".join(f"{line.label} (run medvlm eval {line.run.path})" for line in unscored)
    if ranked and _constant(ranked, key).value is None:
        yield f"The {CONSTANT} is left out: it was not scored, or is not the same for all of these runs."


def backbone(run: RunContext) -> str:
    """Return the name of a run's backbone, as its recipe says it; "unknown" where that is damaged."""
    told = text(mapping(run.facts.get("model")).get("backbone"))
    if told:
        return told
    recipe = mapping(parsed(run.recipe))
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
    said = (
        "Backbones side by side on the same samples, the best score first, each with the recipe named below it in "
        "«What differs»."
    )
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


def _table(lines: Sequence[Line], headline: str, caption: str, constant: bool = True) -> Table:
    keys = sorted(_keys(lines), key=lambda key: key != headline)
    rows = [_cells(line, keys) for line in lines]
    if constant and _constant(lines, headline).value is not None:
        scored = next(line for line in lines if line.on)
        scores = [str(_constant(lines, key)) for key in keys]
        licenses = results.license_cells(scored.run, "constant")
        rights = results.rights_cells(scored.run, "constant")
        rows.append(
            [CONSTANT, *rights, "-", "-", *_where(scored), *scores, "-", "-", *["-"] * len(_COMPUTE), *licenses]
        )
    first = ("run", *results.RIGHTS_HEADER, "backbone", "answers", "split")
    header = [*first, "n", *map(name, keys), "parameters", "trained", *_COMPUTE, *results.LICENSE_HEADER]
    numeric = frozenset(range(len(first), len(header) - len(results.LICENSE_HEADER)))
    return Table(header, rows, caption, numeric, frozenset({1, 2}), sortable=True)


_COMPUTE = ("GFLOP", "seconds", "samples/s", "peak memory")


def _cells(line: Line, keys: Sequence[str]) -> list[str]:
    run, sizes = line.run, parameters(line.run)
    seconds, flops = number(run.compute.get("seconds")), number(run.compute.get("flops"))
    return [
        line.label,
        *results.rights_cells(run, "model"),
        backbone(run),
        output(run),
        *_where(line),
        *(str(line.value("model", key)) for key in keys),
        *([f"{size:,}" for size in sizes] if sizes else [cost.UNKNOWN] * 2),
        # In one unit, so that a reader can sort by it.
        cost.UNKNOWN if flops is None else f"{flops / 1e9:,.0f}" if flops >= 1e11 else f"{flops / 1e9:.3g}",
        cost.UNKNOWN if seconds is None else f"{seconds:,.0f}",
        cost.rate(run, "samples_per_second"),
        cost.memory(run),
        *results.license_cells(run, "model"),
    ]


def _where(line: Line) -> tuple[str, str]:
    """Return the split and the number of samples."""
    if line.on is None:
        return "-", "-"
    return line.on.split, cost.UNKNOWN if line.on.scored.n is None else f"{line.on.scored.n:,}"


def _keys(lines: Sequence[Line]) -> list[str]:
    scored = [line.on.scored for line in lines if line.on]
    known = columns({str(place): one.rows.get("model", {}) for place, one in enumerate(scored)})
    return [key for key in known if any(key in one.main for one in scored)]


def _rank(line: Line, key: str) -> float:
    value = line.value("model", key).value
    return float("inf") if value is None else -value


def _constant(lines: Sequence[Line], key: str) -> Value:
    """Return the constant answer's score, where it is one and the same for all runs that have it."""
    found = [line.value("constant", key) for line in lines]
    found = [one for one in found if one.value is not None]
    return found[0] if found and all(one.value == found[0].value for one in found) else Value(None)
