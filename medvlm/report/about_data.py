"""The data sets of a run: where they came from, how they were split, what was left out, and their own cards."""

from __future__ import annotations

from collections.abc import Iterator

from medvlm.report.context import DataSet, RunContext
from medvlm.report.document import Block, Code, Facts, Table, Text
from medvlm.report.values import counts, mapping, number, text, texts

_LONGEST_CARD = 20_000


def data_blocks(run: RunContext) -> Iterator[Block]:
    """Yield what is known of each data set."""
    if not run.data:
        yield Text("Nothing was recorded.")
    for part in run.data:
        facts = _data_facts(part)
        # A baseline answers about this data, and was not trained on it here.
        yield Facts([row for row in facts if not (run.baseline and row[0] in ("training rows", "weight"))])
        yield from _manifest_tables(part)
        if part.readme:
            yield Text(f"The data card of {part.title}:")
            more = len(part.readme) - _LONGEST_CARD
            cut = f"\n... ({more:,} more characters in README.md)" if more > 0 else ""
            yield Code(part.readme[:_LONGEST_CARD] + cut, "markdown")


_STATES = {"there": "", "gone": " (not there any more)", "changed": " (has changed since)"}


def _data_facts(part: DataSet) -> list[tuple[str, str]]:
    rows = part.facts.get("rows")
    trained = counts(rows).get("train") if isinstance(rows, dict) else number(rows)
    facts = [
        ("data set", part.title),
        ("path", part.path + _STATES[part.state]),
        ("synthetic", "yes: drawn by a program" if part.synthetic else "no"),
        ("command", text(part.manifest.get("command"))),
        ("training rows", f"{trained:,.0f}" if trained is not None else ""),
        ("weight", text(part.facts.get("weight"))),
        ("fingerprint", text(part.facts.get("fingerprint"))),
    ]
    for key in ("description", "homepage", "citation", "known_problems"):
        value = part.card.get(key)
        facts.append((key.replace("_", " "), "; ".join(texts(value)) if isinstance(value, list) else text(value)))
    return [(label, value) for label, value in facts if value]


def _manifest_tables(part: DataSet) -> Iterator[Table]:
    counted = mapping(part.manifest.get("counts"))
    tables = {
        "samples by split": counted.get("split"),
        "groups (articles, patients or images) by split": counted.get("groups_by_split"),
        "samples by license": counted.get("license") or part.licenses,
        "samples by modality": counted.get("modality"),
        "dropped, by reason": part.manifest.get("drops"),
    }
    for caption, value in tables.items():
        found = counts(value)
        if found:
            body = [[name, f"{count:,}"] for name, count in found.items()]
            yield Table((caption, "count"), body, numeric=frozenset({1}))
