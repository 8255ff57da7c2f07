"""Scores by slice (modality, organ, kind of question, data set, ...): a table and a chart for each column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medvlm.report import results
from medvlm.report.context import RunContext
from medvlm.report.document import Block, Table, Text
from medvlm.report.scored import ROWS, Scored, Slice, Value, name, ordered


def slice_blocks(scored: Scored) -> Iterator[Block]:
    """Yield the slices of one evaluation: for each column a table, and a chart of the metric that leads."""
    if not scored.slices:
        yield Text("No slices: no column of the data tells enough samples apart, or this evaluation made none.")
    else:
        yield Text(
            "Parts of the test set, largest first. Where intervals overlap, a difference between two parts may be "
            "chance; CIDEr weighs words as in the whole set."
        )
    for column in dict.fromkeys(one.column for one in scored.slices):
        parts = [one for one in scored.slices if one.column == column]
        yield _table(scored, column, parts)
        key = _leading(scored, parts)
        if key:
            title = f"{name(key)} of the model by {words_of(column)}, with {scored.confidence} intervals"
            bars = [results.bar(f"{one.value}{_size(one)}", one.rows.get("model", {}).get(key)) for one in parts]
            yield from results.chart(title, bars, name(key))
    yield from _left_out(scored)


def _table(scored: Scored, column: str, parts: Sequence[Slice]) -> Table:
    rows = list(dict.fromkeys(row for one in parts for row in one.rows))
    every = ordered(key for one in parts for values in one.rows.values() for key in values)
    keys = [key for key in every if key in scored.main] or every
    # The model in every main metric, other rows in the one that leads.
    cells = [("model", key) for key in keys] if "model" in rows else []
    leading = _leading(scored, parts)
    cells += [(row, leading) for row in rows if row != "model" and leading]
    header = [
        words_of(column),
        "n",
        "groups",
        *(name(key) if row == "model" else f"{name(key)}, {ROWS.get(row, row)}" for row, key in cells),
    ]
    body = [
        [
            one.value,
            "-" if one.n is None else f"{one.n:,}",
            "-" if one.groups is None else f"{one.groups:,}",
            *(str(one.rows.get(row, {}).get(key, Value(None))) for row, key in cells),
        ]
        for one in parts
    ]
    return Table(header, body, f"By {words_of(column)}", numeric=frozenset(range(1, len(header))), sortable=True)


def _leading(scored: Scored, parts: Sequence[Slice]) -> str:
    """Return the metric of the chart: the summary's where all slices have it, else the first that they have."""
    found = [one.rows.get("model", {}) for one in parts]
    if not found:
        return ""
    shared = ordered(key for key in found[0] if all(key in values for values in found))
    return scored.headline if scored.headline in shared else next(iter(shared), "")


def words_of(column: str) -> str:
    """Return a column's name as a reader would write it."""
    return "normal or not" if column == "normal" else column.replace("_", " ")


def _size(one: Slice) -> str:
    return "" if one.n is None else f" (n = {one.n:,})"


def _left_out(scored: Scored) -> Iterator[Block]:
    if scored.left_out:
        parts = [
            f"{words_of(column)}: {value} ({'-' if n is None else f'{n:,}'})" for column, value, n in scored.left_out
        ]
        more = f", and {len(parts) - 40} more" if len(parts) > 40 else ""
        yield Text(f"Too few samples or groups to score by themselves (n): {'; '.join(parts[:40])}{more}.")


def side_by_side(labels: Sequence[str], runs: Sequence[RunContext]) -> Iterator[Block]:
    """Yield the slices that more than one run has on the same split, one run a column, in the metric that leads."""
    found = [run.evaluations[0].scored if run.evaluations else Scored({}) for run in runs]
    leaders = {scored.headline for scored in found if scored.slices}
    if len(leaders) != 1:
        return
    (key,) = leaders
    tables: dict[str, dict[str, list[str]]] = {}
    for place, scored in enumerate(found):
        for one in scored.slices:
            value = one.rows.get("model", {}).get(key)
            row = tables.setdefault(one.column, {}).setdefault(one.value, ["-"] * len(runs))
            if value is not None:
                row[place] = f"{value}{_size(one)}"
    for column, rows in tables.items():
        header = (words_of(column), *labels)
        body = [[value, *cells] for value, cells in rows.items()]
        caption = f"{name(key)} by {words_of(column)}"
        yield Table(header, body, caption, numeric=frozenset(range(1, len(header))), sortable=True)
