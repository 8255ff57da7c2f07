"""Several runs side by side: what differs, losses in one chart, scores, speed and cost in one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medvlm.recipe.members import differing
from medvlm.report import backbones, by_slice, cost, plots, results
from medvlm.report.context import RunContext, parsed
from medvlm.report.document import Block, Chart, Section, Table, Text
from medvlm.report.scored import Value, columns
from medvlm.report.scored import name as metric_name
from medvlm.report.values import counts, listed, mapping, number, text, texts, words


def order(runs: Sequence[RunContext]) -> list[RunContext]:
    """Return the runs of one group in the order of its recipe, others as they are."""
    names = texts(runs[0].group.get("members"))
    if not one_group(runs) or not names:
        return list(runs)
    places = {name: place for place, name in enumerate(names)}
    return sorted(runs, key=lambda run: places.get(run.member, len(places)))


def one_group(runs: Sequence[RunContext]) -> bool:
    """Return True where all runs are members of one group, each another one."""
    ids = {text(run.group.get("id")) for run in runs}
    members = {run.member for run in runs}
    return len(ids) == 1 and "" not in ids and len(members) == len(runs)


def labels(runs: Sequence[RunContext]) -> list[str]:
    """Return what to call each run: its member's name within one group, else its folder's, or where two are alike
    its path."""
    if one_group(runs):
        return [run.member for run in runs]
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def title(runs: Sequence[RunContext]) -> str:
    """Return the title of the comparison."""
    if not one_group(runs):
        return f"{len(runs)} runs compared"
    return f"{text(runs[0].group['id'])}: {len(runs)} {text(runs[0].group.get('kind')) or 'runs'}"


def section(runs: Sequence[RunContext]) -> Section:
    """Return the chapter that sets the runs side by side."""
    blocks: list[Block] = []
    if one_group(runs):
        missing = [name for name in texts(runs[0].group.get("members")) if name not in labels(runs)]
        if text(runs[0].group.get("kind")) == "stages":
            blocks.append(Text(f"Stages in order, each starting from the one before: {', then '.join(labels(runs))}."))
        if missing:
            blocks.append(Text(f"Not trained, or not named here: {', '.join(missing)}."))
    blocks += backbones.blocks(labels(runs), runs)
    blocks += _kinds_of_losses(runs)
    blocks.append(_outcomes(runs))
    blocks += _differences(runs)
    blocks += _curves(runs)
    blocks += _by_data_set(runs)
    blocks += by_slice.side_by_side(labels(runs), runs)
    rows = [[label, *cost.cells(run)] for label, run in zip(labels(runs), runs, strict=True)]
    header = ("run", *cost.HEADER)
    blocks.append(Table(header, rows, "What each run cost", numeric=frozenset({3, 4}), sortable=True))
    return Section("Side by side", blocks)


_HEADLINE = ("accuracy", "bleu_4", "rouge_l", "cider", "exact_match", "finding_accuracy")
"""The scores beside the losses; the chapter on scores has all."""


def _outcomes(runs: Sequence[RunContext]) -> Table:
    scored = {run.name: _scores(run) for run in runs}
    keys = [key for key in columns(scored) if key in _HEADLINE]
    header = [
        "run",
        *results.RIGHTS_HEADER,
        "status",
        "trained parameters",
        "last training loss",
        "best validation loss",
        "at step",
        "last validation loss",
        *(metric_name(key) for key in keys),
        "samples/s",
        "peak memory",
        "time",
        "cost",
    ]
    body = []
    for label, run in zip(labels(runs), runs, strict=True):
        trained = sum(counts(part).get("trainable", 0) for part in mapping(run.facts.get("census")).values())
        body.append(
            [
                label,
                *results.rights_cells(run, "model"),
                text(run.facts.get("status")) or "unknown",
                f"{trained:,}" if run.facts.get("census") else "none" if run.baseline else "unknown",
                *_losses(run),
                *(str(_value(run, key)) for key in keys),
                cost.rate(run, "samples_per_second"),
                cost.memory(run),
                cost.hours(run),
                cost.money(run).split(":")[0].split(" at ")[0],
            ]
        )
    return Table(header, body, "Outcomes", frozenset(range(4, 10 + len(keys))), frozenset({1, 2}), sortable=True)


_APART = "not comparable between kinds of answers"


def _by_output(runs: Sequence[RunContext]) -> dict[str, list[str]]:
    """Return kind of answers -> labels of the runs with such losses, as far as it is known."""
    found: dict[str, list[str]] = {}
    for label, run in zip(labels(runs), runs, strict=True):
        kind = backbones.output(run)
        if kind != cost.UNKNOWN and points(run, "loss"):
            found.setdefault(kind, []).append(label)
    return found


def _kinds_of_losses(runs: Sequence[RunContext]) -> Iterator[Block]:
    found = _by_output(runs)
    if len(found) > 1:
        kinds = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in found.items())
        yield Text(
            f"Losses are {_APART} ({kinds}): one is over the next token, another over classes, another over the "
            "texts of a batch. Nor do they compare between models that cut texts into other tokens."
        )


def _scores(run: RunContext) -> dict[str, float]:
    """Return the tuned model's scores on its first evaluated split."""
    return run.evaluations[0].scored.rows.get("model", {}) if run.evaluations else {}


def _value(run: RunContext, key: str) -> Value:
    return run.evaluations[0].scored.value("model", key) if run.evaluations else Value(None)


def _losses(run: RunContext) -> list[str]:
    training, validation = points(run, "loss"), points(run, "eval_loss")
    best = min(validation, key=lambda point: point[1], default=None)
    return [
        f"{training[-1][1]:.4f}" if training else "unknown",
        *((f"{best[1]:.4f}", f"{best[0]:g}") if best else ("-", "-")),
        f"{validation[-1][1]:.4f}" if validation else "-",
    ]


def points(run: RunContext, key: str, x: str = "step") -> list[plots.Point]:
    """Return (x, value) of every line of metrics.jsonl that has both; `losses/NAME` is a loss by data set."""
    found = []
    for row in run.steps:
        outer, _, inner = key.partition("/")
        value = number(mapping(row.get(outer)).get(inner)) if inner else number(row.get(key))
        place = number(row.get(x))
        if place is not None and value is not None:
            found.append((place, value))
    return found


def _differences(runs: Sequence[RunContext]) -> Iterator[Block]:
    """Yield what differs between the resolved recipes, a setting a row."""
    recipes = [_recipe(run) for run in runs]
    if not all(recipes):
        yield Text("A recipe is missing or damaged, so what differs cannot be said.")
        return
    found = differing(recipes)
    if not found:
        yield Text("The recipes do not differ.")
        return
    body = [
        [path, *("-" if value is None else words(value) or "none" for value in values)]
        for path, values in found.items()
    ]
    yield Table(("setting", *labels(runs)), body, "What differs between the recipes")


def _recipe(run: RunContext) -> dict[str, object]:
    return dict(mapping(parsed(run.recipe)))


def _curves(runs: Sequence[RunContext]) -> Iterator[Block]:
    """Yield training and validation losses of all runs, each kind in one chart."""
    x = _axis(runs)
    starts = _starts(runs, x)
    apart = f", {_APART}" if len(_by_output(runs)) > 1 else ""
    for name, key in (("Training", "loss"), ("Validation", "eval_loss")):
        series = [
            plots.Series(label, [(at + start, value) for at, value in points(run, key, x)])
            for label, run, start in zip(labels(runs), runs, starts, strict=True)
        ]
        heading = f"{name} loss of all runs by {x.removesuffix('s')}{apart}"
        svg = plots.line_chart(heading, series, x.removesuffix("s") if x == "step" else "samples seen", "loss")
        said = in_words(series)
        if said:
            yield Chart(svg, f"{heading}: {said}") if svg else Text(f"{heading}: {said}.")


def _axis(runs: Sequence[RunContext]) -> str:
    """Return what losses are drawn over: steps, or samples where a step does not hold the same number in all runs."""
    sizes = set()
    for run in runs:
        train = mapping(_recipe(run).get("train"))
        sizes.add((number(train.get("batch_size")), number(train.get("gradient_accumulation"))))
    counted = all(points(run, "loss", "samples") for run in runs if points(run, "loss"))
    return "samples" if len(sizes) > 1 and counted else "step"


def _starts(runs: Sequence[RunContext], x: str) -> list[float]:
    """Return where each run begins on the axis: stages one behind the other, all else at 0."""
    starts = [0.0]
    staged = one_group(runs) and text(runs[0].group.get("kind")) == "stages"
    for run in runs:
        reached = max((place for place, _ in points(run, "loss", x)), default=0.0)
        starts.append(starts[-1] + reached if staged else 0.0)
    return starts[: len(runs)]


def in_words(series: Sequence[plots.Series]) -> str:
    """Return the first and last point of each line, for those who do not see it."""
    parts = []
    for one in series:
        ends = dict.fromkeys((one.points[0], one.points[-1])) if one.points else {}
        parts.append(", ".join(f"{value:.4g} at {x:g}" for x, value in ends))
    return "; ".join(f"{one.label} {said}" for one, said in zip(series, parts, strict=True) if said)


def data_sets(run: RunContext) -> list[str]:
    """Return the data sets that losses are told of, in the order of metrics.jsonl."""
    return list(dict.fromkeys(name for row in run.steps for name in mapping(row.get("losses"))))


def last_losses(run: RunContext, name: str) -> tuple[float | None, float | None]:
    """Return the last training and validation loss on one data set."""
    found: dict[str, float | None] = {"loss": None, "eval_loss": None}
    for row in run.steps:
        value = number(mapping(row.get("losses")).get(name))
        if value is not None:
            found["eval_loss" if "eval_loss" in row else "loss"] = value
    return found["loss"], found["eval_loss"]


def _by_data_set(runs: Sequence[RunContext]) -> Iterator[Block]:
    body = []
    for label, run in zip(labels(runs), runs, strict=True):
        for name in data_sets(run):
            losses = last_losses(run, name)
            body.append([label, name, *("-" if value is None else f"{value:.4f}" for value in losses)])
    if body:
        header = ("run", "data set", "last training loss", "last validation loss")
        yield Table(header, body, "Losses by data set", numeric=frozenset({2, 3}))


def note_of_group(run: RunContext) -> str:
    """Return a sentence on the group that a run belongs to; nothing where it stands alone."""
    if not run.group:
        return ""
    kind, names = text(run.group.get("kind")), texts(listed(run.group.get("members")))
    what = "stage" if kind == "stages" else "variant"
    return f"This is the {what} {run.member} of {', '.join(names)}; medvlm report {text(run.group['id'])} shows all."
