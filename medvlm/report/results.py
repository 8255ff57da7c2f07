"""Scores as a report shows them: beside licenses, with intervals, as differences, by task, with their signatures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medvlm.licenses import expressions, registry
from medvlm.licenses.listing import short
from medvlm.report import plots, retrieval
from medvlm.report.context import Evaluation, RunContext
from medvlm.report.document import Block, Chart, Facts, Table, Text
from medvlm.report.scored import ROWS, Difference, Scored, Value, name, p_value
from medvlm.report.values import mapping, number, text, words

RIGHTS_HEADER = ("commercial use", "may share")
_LICENSE_FIELDS: tuple[registry.Field, ...] = ("code_license", "weights_license", "data_license")
LICENSE_HEADER = ("code", "weights", "data license")


def score_blocks(run: RunContext, evaluation: Evaluation) -> Iterator[Block]:
    """Yield what a report says of one evaluation's scores."""
    scored = evaluation.scored
    if not scored.rows:
        yield Text(f"No scores of the {evaluation.split} split: run medvlm eval.")
        return
    yield Text(what(evaluation))
    yield scores_and_licenses(run, scored)
    if len(scored.keys) > len(scored.main):
        yield every_score(scored)
    yield from retrieval.blocks(scored)
    yield from difference_blocks(scored)
    if any(one.key not in scored.main for one in scored.differences):
        yield Text("The differences in every other metric stand in report.json.")
    yield from _tasks(scored)
    yield from _constants(scored)
    yield from signature_blocks(scored)


def shown(values: Mapping[str, Any], key: str) -> str:
    """Return a score with four decimals, "-" where there is none."""
    return str(Value(number(values.get(key))))


def rights_cells(run: RunContext, row: str) -> list[str]:
    """Return commercial use and may share for one row of the score table."""
    if row == "constant":
        # It is a text from the training data, and no weights.
        use = expressions.most_restrictive(expressions.commercial_use(license) for license in run.data_licenses)
        return [use, "-"]
    if row == "base":
        base = run.base_verdict()
        return [base.commercial_use, base.may_share]
    verdict = run.verdict()
    return [verdict.commercial_use, verdict.may_share] if row in _OF_THE_MODEL else ["-", "-"]


_OF_THE_MODEL = ("model", "blank", "shuffled")


def license_cells(run: RunContext, row: str) -> list[str]:
    """Return the licenses of code, weights and data for one row of the score table."""
    code, weights, seen = (
        " + ".join(dict.fromkeys(short(e.marked(field)) if e else "unknown" for e in run.parts.values())) or "unknown"
        for field in _LICENSE_FIELDS
    )
    counts = run.all_licenses if row in _OF_THE_MODEL else run.data_licenses
    data = ", ".join(f"{license} ({count:,})" for license, count in counts.items()) or "not recorded"
    if row == "base" or (row in _OF_THE_MODEL and run.baseline):
        return [code, weights, seen]
    if row in _OF_THE_MODEL:
        # Where there is no license to carry, the reason follows a colon; the Licenses part says it.
        return [code, short(run.verdict().license).split(":")[0], data]
    return ["-", "none", data] if row == "constant" else ["-", "-", "-"]


def scores_and_licenses(run: RunContext, scored: Scored) -> Table:
    """Return the main scores of each row with their intervals, between rights and licenses."""
    keys = sorted(scored.main, key=lambda key: key != scored.headline)
    header = ["row", *RIGHTS_HEADER, *map(name, keys), *LICENSE_HEADER]
    body = [
        [
            ROWS.get(row, row),
            *rights_cells(run, row),
            *(str(scored.value(row, key)) for key in keys),
            *license_cells(run, row),
        ]
        for row in scored.rows
    ]
    numeric = frozenset(range(3, 3 + len(keys)))
    return Table(header, body, "Scores and licenses", numeric, rights=frozenset({1, 2}), sortable=True)


def every_score(scored: Scored, caption: str = "Every score") -> Table:
    """Return all scores, a metric a line."""
    rows = list(scored.rows)
    body = [[name(key), *(str(scored.value(row, key)) for row in rows)] for key in scored.keys]
    header = ["metric", *(ROWS.get(row, row) for row in rows)]
    return Table(header, body, caption, numeric=frozenset(range(1, len(header))), sortable=True)


def warnings(scored: Scored) -> list[str]:
    """Return the evaluation's own sentences; of scores that hold none, those that follow from them."""
    if number(scored.raw.get("schema")) != 1 and isinstance(scored.raw.get("warnings"), list):
        return [_sentence(line) for line in scored.warnings]
    found = [_not_beaten(scored, row) for row in ("constant", "base", "blank") if row in scored.rows]
    model = scored.outputs.get("model")
    if model and model.distinct == 1 and (scored.n or 0) > 1:
        found.append(f"The model gives the same answer to all {scored.n:,} samples: it does not look at the images.")
    if model and model.empty:
        one = model.empty == 1
        are = "is empty; it is scored as it is" if one else "are empty; they are scored as they are"
        found.append(f"{model.empty:,} {'prediction' if one else 'predictions'} of the model {are}.")
    return [line for line in found if line]


def _sentence(line: str) -> str:
    return f"{line[:1].upper()}{line[1:]}" + ("" if line.endswith((".", "!", "?")) else ".")


def _not_beaten(scored: Scored, row: str) -> str:
    """Return a sentence where the model's paired difference to a row is not clearly above zero, else nothing."""
    label = ROWS[row]
    known = [one for one in scored.differences if one.row == row and one.verdict]
    for one in known:
        low, high = one.value.low, one.value.high
        if one.verdict != "better" and low is not None and high is not None:
            how = "is worse than" if one.verdict == "worse" else "does not clearly beat"
            return (
                f"The model {how} the row «{label}»: the {scored.confidence} interval of the {name(one.key)} "
                f"difference is {low:+.4f} to {high:+.4f}."
            )
    if known:
        return ""
    for key in ("cider", "rouge_l", "bleu_4"):
        mine, other = scored.rows.get("model", {}).get(key), scored.rows[row].get(key)
        if mine is not None and other is not None:
            sentence = f"The model does not beat the row «{label}» in {name(key)}: {mine:.4f} against {other:.4f}."
            return sentence if mine <= other else ""
    return ""


def what(evaluation: Evaluation) -> str:
    """Return the split, its size and how the answers were generated, in one sentence."""
    scores, scored = evaluation.scores, evaluation.scored
    split_hash = text(scores.get("split_hash"))
    parts = [f"Split {evaluation.split}, n = {text(scores.get('n')) or 'not recorded'}"]
    if scored.groups is not None:
        parts.append(f"{scored.groups:,} groups (patients, articles or images)")
    if scores.get("limit"):
        parts.append(f"an evenly spread choice of at most {text(scores['limit'])} rows")
    if split_hash:
        parts.append(f"split hash {split_hash[:12]}")
    decoding = mapping(scores.get("decoding"))
    if decoding:
        parts.append(
            "decoding " + ", ".join(f"{key.replace('_', ' ')} {words(value)}" for key, value in decoding.items())
        )
    if scores.get("engine"):
        parts.append(f"engine {words(scores['engine'])}")
    return "; ".join(parts) + ". BLEU, ROUGE and accuracies from 0 to 1, CIDEr from 0 to 10." + _intervals(scored)


def _intervals(scored: Scored) -> str:
    told = mapping(scored.raw.get("bootstrap"))
    if not told:
        return ""
    resamples, groups = number(told.get("resamples")), number(told.get("groups"))
    drawn = f" from {resamples:,.0f} bootstrap resamples" if resamples is not None else " from a bootstrap"
    over = f" of {groups:,.0f} whole groups" if groups is not None else " of whole groups"
    return f" In brackets: {scored.confidence} intervals{drawn}{over}."


def difference_rows(found: Sequence[Difference], label: str) -> list[list[str]]:
    """Return the cells (difference, metric, value, p, p corrected) of each, with `label` before its row's name."""
    return [
        [
            f"{label} minus {ROWS.get(one.row, one.row)}",
            name(one.key),
            one.value.signed(),
            p_value(one.p),
            p_value(one.p_holm),
        ]
        for one in found
    ]


DIFFERENCE_HEADER = ("difference", "metric", "estimate", "p", "p, Holm")


def difference_blocks(scored: Scored) -> Iterator[Block]:
    """Yield the model's paired differences to the other rows, as a table and as charts of the main metrics."""
    found = [one for one in scored.differences if one.value.interval or one.p is not None]
    if not found:
        return
    main = [one for one in found if one.key in scored.main] or found
    caption = f"Paired differences, {scored.confidence} intervals from a bootstrap over groups"
    yield Table(DIFFERENCE_HEADER, difference_rows(main, "model"), caption, numeric=frozenset({2, 3, 4}), sortable=True)
    if any(one.p is not None for one in found):
        yield Text(
            "p is from a paired randomization test over whole groups: how often chance alone would give a difference "
            "as large. Holm's correction makes up for testing several differences at once."
        )
    there = list(dict.fromkeys(one.key for one in main))
    for key in [key for key in scored.charted if key in there] or there[:1]:
        bars = [bar(f"minus {ROWS.get(one.row, one.row)}", one.value) for one in main if one.key == key]
        title = f"{name(key)} of the model minus each other row, with {scored.confidence} intervals"
        yield from chart(title, bars, f"{name(key)} difference")


def bar(label: str, value: Value | None) -> plots.Bar | None:
    """Return a bar where there is something to draw; without an interval it is a point."""
    if value is None or value.value is None:
        return None
    low = value.value if value.low is None else value.low
    high = value.value if value.high is None else value.high
    return plots.Bar(label, value.value, low, high)


def chart(title: str, bars: Sequence[plots.Bar | None], x_label: str) -> Iterator[Chart]:
    """Yield an interval chart with its numbers in words; nothing where nothing can be drawn."""
    drawn = [bar for bar in bars if bar is not None]
    svg = plots.interval_chart(title, drawn, x_label)
    if svg:
        said = "; ".join(f"{bar.label} {Value(bar.value, bar.low, bar.high)}" for bar in drawn)
        yield Chart(svg, f"{title}: {said}")


def _tasks(scored: Scored) -> Iterator[Block]:
    by_task = mapping(scored.raw.get("by_task"))
    # With one task the tables above are already its own.
    for task, part in by_task.items() if len(by_task) > 1 else ():
        found = {row: mapping(values) for row, values in mapping(mapping(part).get("rows")).items()}
        if found:
            caption = f"Only task {task}, n = {text(mapping(part).get('n')) or 'not recorded'}"
            intervals = mapping(mapping(part).get("intervals"))
            yield every_score(Scored({"rows": found, "intervals": intervals}), caption)
    if len(by_task) > 1:
        yield Text("CIDEr of one task weighs words as in that task alone; everywhere else, as in the whole set.")


def _constants(scored: Scored) -> Iterator[Block]:
    constant = mapping(scored.raw.get("constant"))
    if constant:
        yield Facts(
            [
                (f"constant answer ({task})" if task else "constant answer", text(said))
                for task, said in constant.items()
            ]
        )


def signature_blocks(scored: Scored) -> Iterator[Block]:
    """Yield what each metric was computed with."""
    if scored.signatures:
        yield Text("Two scores compare only where their signatures are equal:")
        yield Facts(list(scored.signatures.items()))
