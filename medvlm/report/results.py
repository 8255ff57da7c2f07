"""Scores as a report shows them: the table beside its controls, differences with intervals, and warnings in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medvlm.licenses import expressions, registry
from medvlm.licenses.listing import short
from medvlm.report import plots
from medvlm.report.context import Evaluation, RunContext
from medvlm.report.document import Block, Caution, Chart, Facts, Table, Text
from medvlm.report.values import counts, mapping, number, text, words

METRICS = (
    "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_1", "rouge_2", "rouge_l", "rouge_l_f1", "cider", "finding_accuracy",
    "exact_match",
)  # fmt: skip
NAMES = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "rouge_l_f1": "ROUGE-L F1",
    "cider": "CIDEr",
    "finding_accuracy": "finding acc.",
    "exact_match": "exact match",
}
ROWS = {
    "model": "this model",
    "base": "base model, untuned",
    "constant": "best constant answer",
    "blank": "this model, blank images",
}
RIGHTS_HEADER = ("commercial use", "may share")
_LICENSE_FIELDS: tuple[registry.Field, ...] = ("code_license", "weights_license", "data_license")
LICENSE_HEADER = ("code", "weights", "data license")


def score_blocks(run: RunContext, evaluation: Evaluation) -> Iterator[Block]:
    """Yield what a report says of one evaluation's scores."""
    rows = {name: mapping(values) for name, values in mapping(evaluation.scores.get("rows")).items()}
    if not rows:
        yield Text(f"No scores of the {evaluation.split} split: run medvlm eval.")
        return
    yield Text(_what(evaluation))
    yield from warnings(evaluation)
    yield _table(run, rows)
    yield from _differences(evaluation)
    by_task = mapping(evaluation.scores.get("by_task"))
    # With one task the table above is already its own.
    for task, part in by_task.items() if len(by_task) > 1 else ():
        found = {name: mapping(values) for name, values in mapping(mapping(part).get("rows")).items()}
        if found:
            caption = f"Only task {task}, n = {text(mapping(part).get('n')) or 'not recorded'}"
            yield scores_only(found, caption)
    yield from _outputs(evaluation)
    signatures = mapping(evaluation.scores.get("signatures"))
    if signatures:
        yield Text("Two scores compare only where their signatures are equal:")
        yield Facts([(name, text(value)) for name, value in signatures.items()])


def columns(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the metrics that any of the rows has, in the usual order, others behind."""
    there = {key for values in rows.values() for key in values if number(values[key]) is not None}
    return [key for key in METRICS if key in there] + sorted(there - set(METRICS))


def shown(values: Mapping[str, Any], key: str) -> str:
    """Return a score with four decimals, "-" where there is none."""
    value = number(values.get(key))
    return "-" if value is None else f"{value:.4f}"


def scores_only(rows: Mapping[str, Mapping[str, Any]], caption: str) -> Table:
    """Return a table of scores without license columns."""
    keys = columns(rows)
    body = [[ROWS.get(name, name), *(shown(values, key) for key in keys)] for name, values in rows.items()]
    header = ["row", *(NAMES.get(key, key) for key in keys)]
    return Table(header, body, caption, numeric=frozenset(range(1, len(header))))


def rights_cells(run: RunContext, row: str) -> list[str]:
    """Return commercial use and may share for one row of the score table."""
    verdict, entries = run.verdict(), list(run.parts.values())
    if row == "constant":
        # It is a text from the training data, and no weights.
        use = expressions.most_restrictive(expressions.commercial_use(license) for license in run.licenses)
        return [use, "-"]
    if row == "base":
        use = expressions.most_restrictive(entry.commercial_use if entry else "unknown" for entry in entries or [None])
        share = expressions.most_restrictive(entry.may_share if entry else "unknown" for entry in entries or [None])
        return [use, share]
    return [verdict.commercial_use, verdict.may_share] if row in ("model", "blank") else ["-", "-"]


def license_cells(run: RunContext, row: str) -> list[str]:
    """Return the licenses of code, weights and data for one row of the score table."""
    code, weights, seen = (
        " + ".join(dict.fromkeys(short(e.marked(field)) if e else "unknown" for e in run.parts.values())) or "unknown"
        for field in _LICENSE_FIELDS
    )
    data = ", ".join(f"{license} ({count:,})" for license, count in run.licenses.items()) or "not recorded"
    if row == "base":
        return [code, weights, seen]
    if row in ("model", "blank"):
        # Where there is no license to carry, the reason follows a colon; the Licenses part says it.
        return [code, short(run.verdict().license).split(":")[0], data]
    return ["-", "none", data] if row == "constant" else ["-", "-", "-"]


def warnings(evaluation: Evaluation) -> Iterator[Caution]:
    """Yield a sentence for each control that the model does not beat, and for outputs that are all the same."""
    rows = {name: mapping(values) for name, values in mapping(evaluation.scores.get("rows")).items()}
    for name in ("constant", "base", "blank"):
        if name in rows and (doubt := _not_beaten(evaluation, rows, name)):
            yield Caution(doubt)
    n = evaluation.scores.get("n")
    distinct = counts(evaluation.scores.get("distinct_outputs")).get("model")
    if distinct == 1 and isinstance(n, int) and n > 1:
        yield Caution(f"The model gives the same answer to all {n:,} samples: it does not look at the images.")
    empty = counts(evaluation.scores.get("empty_predictions")).get("model", 0)
    if empty:
        yield Caution(f"{empty:,} predictions of the model are empty; they are scored as they are.")


def _not_beaten(evaluation: Evaluation, rows: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """Return a sentence where the model's paired difference to a row is not clearly above zero, else nothing."""
    label = ROWS[name]
    intervals = mapping(mapping(evaluation.scores.get("comparisons")).get(name))
    for metric, interval in intervals.items():
        low, high = number(mapping(interval).get("low")), number(mapping(interval).get("high"))
        if low is not None and high is not None and low <= 0:
            how = "is worse than" if high < 0 else "does not clearly beat"
            return (
                f"The model {how} the row «{label}»: the 95 % interval of the {NAMES.get(metric, metric)} "
                f"difference is {low:+.4f} to {high:+.4f}."
            )
    if intervals:
        return ""
    for metric in ("cider", "rouge_l", "bleu_4"):
        mine, other = number(rows.get("model", {}).get(metric)), number(rows[name].get(metric))
        if mine is not None and other is not None:
            what = f"The model does not beat the row «{label}» in {NAMES[metric]}: {mine:.4f} against {other:.4f}."
            return what if mine <= other else ""
    return ""


def _what(evaluation: Evaluation) -> str:
    scores = evaluation.scores
    split_hash = text(scores.get("split_hash"))
    parts = [f"Split {evaluation.split}, n = {text(scores.get('n')) or 'not recorded'}"]
    if scores.get("limit"):
        parts.append(f"an evenly spread choice of at most {text(scores['limit'])} rows")
    if split_hash:
        parts.append(f"split hash {split_hash[:12]}")
    decoding = mapping(scores.get("decoding"))
    if decoding:
        parts.append(
            "decoding " + ", ".join(f"{key.replace('_', ' ')} {words(value)}" for key, value in decoding.items())
        )
    return "; ".join(parts) + ". BLEU, ROUGE and accuracies from 0 to 1, CIDEr from 0 to 10."


def _table(run: RunContext, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    keys = columns(rows)
    header = ["row", *RIGHTS_HEADER, *(NAMES.get(key, key) for key in keys), *LICENSE_HEADER]
    body = [
        [
            ROWS.get(name, name),
            *rights_cells(run, name),
            *(shown(values, key) for key in keys),
            *license_cells(run, name),
        ]
        for name, values in rows.items()
    ]
    numeric = frozenset(range(3, 3 + len(keys)))
    return Table(header, body, "Scores and licenses", numeric, rights=frozenset({1, 2}))


def _differences(evaluation: Evaluation) -> Iterator[Block]:
    found: dict[str, list[plots.Bar]] = {}
    body = []
    for name, metrics in mapping(evaluation.scores.get("comparisons")).items():
        for metric, interval in mapping(metrics).items():
            values = [number(mapping(interval).get(key)) for key in ("difference", "low", "high")]
            difference, low, high = values
            if difference is None or low is None or high is None:
                continue
            label = f"minus {ROWS.get(name, name)}"
            found.setdefault(metric, []).append(plots.Bar(label, difference, low, high))
            body.append(
                [f"model {label}", NAMES.get(metric, metric), f"{difference:+.4f}", f"{low:+.4f}", f"{high:+.4f}"]
            )
    if not body:
        return
    header = ("difference", "metric", "estimate", "95 % low", "95 % high")
    caption = "Paired differences, 95 % intervals from a bootstrap over groups"
    yield Table(header, body, caption, numeric=frozenset({2, 3, 4}))
    for metric, bars in found.items():
        title = f"{NAMES.get(metric, metric)} of the model minus each other row, with 95 % intervals"
        svg = plots.interval_chart(title, bars, f"{NAMES.get(metric, metric)} difference")
        if svg:
            yield Chart(svg, title)


def _outputs(evaluation: Evaluation) -> Iterator[Block]:
    distinct = counts(evaluation.scores.get("distinct_outputs"))
    empty = counts(evaluation.scores.get("empty_predictions"))
    if distinct:
        body = [[ROWS.get(name, name), f"{count:,}", f"{empty.get(name, 0):,}"] for name, count in distinct.items()]
        yield Table(("row", "distinct outputs", "empty outputs"), body, "Outputs", numeric=frozenset({1, 2}))
    constant = mapping(evaluation.scores.get("constant"))
    if constant:
        yield Facts(
            [
                (f"constant answer ({task})" if task else "constant answer", text(said))
                for task, said in constant.items()
            ]
        )
