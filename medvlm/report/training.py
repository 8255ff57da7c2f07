"""How a run was trained: curves, validation losses against what was spent, parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medvlm.report import plots, side_by_side
from medvlm.report.context import RunContext
from medvlm.report.document import Block, Chart, Facts, Table, Text
from medvlm.report.values import counts, mapping, number, text, words

_MOST_VALIDATIONS = 20


def training_blocks(run: RunContext) -> Iterator[Block]:
    """Yield curves, validations and parameters of one run."""
    if run.baseline:
        yield Text("Nothing was trained: the model is as it was published.")
        yield from _model(run)
        return
    drawn = False
    names = side_by_side.data_sets(run)
    # A part by data set repeats the whole where there is only one.
    parts = [(f"training, {name}", f"losses/{name}") for name in names] if len(names) > 1 else []
    for title, y_label, lines in (
        ("Loss by step", "loss", [("training", "loss"), ("validation", "eval_loss")]),
        ("Loss by data set", "loss", parts),
        ("Learning rate by step", "learning rate", [("learning rate", "learning_rate")]),
    ):
        series = [plots.Series(label, side_by_side.points(run, key)) for label, key in lines]
        svg = plots.line_chart(title, series, "step", y_label)
        said = side_by_side.in_words(series)
        drawn = drawn or bool(said)
        if said:
            yield Chart(svg, f"{title}: {said}") if svg else Text(f"{title}: {said}.")
    if not drawn:
        yield Text("No training curve was recorded.")
    yield from _validation(run, names)
    census = [
        [name, *(f"{counts(part).get(key, 0):,}" for key in ("total", "trainable", "quantized"))]
        for name, part in mapping(run.facts.get("census")).items()
    ]
    if census:
        header = ("component", "parameters", "trained", "4-bit")
        yield Table(header, census, "Parameters", numeric=frozenset({1, 2, 3}))
    yield from _model(run)


def _model(run: RunContext) -> Iterator[Block]:
    model = mapping(run.facts.get("model"))
    if model:
        yield Facts([(key.replace("_", " "), words(value)) for key, value in model.items() if value is not None])


def _validation(run: RunContext, names: Sequence[str]) -> Iterator[Block]:
    """Yield the validation loss against what was spent up to there, which a scaling law is fitted to."""
    validated = [row for row in run.steps if number(row.get("eval_loss")) is not None]
    # One at the end of an epoch that is also due by its step is one.
    rows = list({text(row.get("step")): row for row in validated}.values())
    keys = [key for key in ("samples", "tokens", "flops") if any(number(row.get(key)) is not None for row in rows)]
    if not rows:
        return
    by_set = names if len(names) > 1 else []
    shown = rows[:: -(-len(rows) // _MOST_VALIDATIONS)]
    shown += [] if shown[-1] is rows[-1] else [rows[-1]]
    body = []
    for row in shown:
        values = [number(row.get(key)) for key in ("step", *keys)]
        losses = [number(row.get("eval_loss")), *(number(mapping(row.get("losses")).get(name)) for name in by_set)]
        cells = ["-" if value is None else f"{value:,.0f}" if value < 1e12 else f"{value:.4g}" for value in values]
        body.append([*cells, *("-" if value is None else f"{value:.4f}" for value in losses)])
    header = ("step", *keys, "validation loss", *(f"on {name}" for name in by_set))
    yield Table(header, body, "Validation loss and what was spent", numeric=frozenset(range(1, len(header))))
