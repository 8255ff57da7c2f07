"""Licenses in a report: what follows for the model, what went in, and the published systems with theirs."""

from __future__ import annotations

from collections.abc import Iterator

from medvlm.export.rights import licenses_of
from medvlm.licenses import registry
from medvlm.licenses.listing import short
from medvlm.report.context import RunContext
from medvlm.report.document import Block, Facts, Section, Table, Text
from medvlm.report.values import text


def license_blocks(run: RunContext) -> Iterator[Block]:
    """Yield what may be done with a run's model, and why."""
    verdict = run.verdict()
    yield Facts(
        [
            ("commercial use", verdict.commercial_use),
            ("may be shared", verdict.may_share),
            ("license to carry", verdict.license),
        ]
    )
    rights = [*_base_rows(run)]
    for part in run.data if not run.baseline else ():
        rights += [[f"data: {part.title}", license, f"{count:,}"] for license, count in part.licenses.items()]
    if not run.data and not run.baseline:
        rights.append(["data", "not recorded", "-"])
    for what, parts in (("data of an earlier stage", run.earlier_data), ("data", run.exported_data)):
        for facts in parts:
            title, counts = text(facts.get("title")) or text(facts.get("path")), licenses_of([facts]).items()
            rights += [[f"{what}: {title}", license, f"{count:,}"] for license, count in counts]
    yield Table(("input", "license", "samples"), rights, "What went in", numeric=frozenset({2}))
    if verdict.forbids:
        yield Table(("what forbids it",), [[line] for line in verdict.forbids], "What forbids it")
    if verdict.reasons:
        yield Table(("why",), [[reason] for reason in verdict.reasons], "What limits it")
    if verdict.obligations:
        yield Table(("what follows",), [[line] for line in verdict.obligations], "Obligations when it is passed on")
    yield Text(verdict.notice)


def _base_rows(run: RunContext) -> Iterator[list[str]]:
    for name, entry in (run.parts or {"": None}).items():
        if entry is None:
            yield [f"base model: {name or 'not recorded'}", "not in the license registry", "-"]
            continue
        yield [f"code: {entry.name}", entry.marked("code_license"), "-"]
        yield [f"weights: {entry.name}", entry.marked("weights_license"), "-"]
        yield [f"pre-training data: {entry.name}", entry.marked("data_license"), "-"]


PUBLISHED = (
    "Published systems and data sets with their licenses. The scores are on other splits and by other scorers, as "
    "their own sources state them: they do not compare with the tables above, nor with each other. The source of each "
    "row stands in its last column; medvlm licenses show NAME gives all evidence. A question mark stands behind what "
    "has not been checked against its source."
)


def published() -> Section:
    """Return the chapter on published systems."""
    header = (
        "system",
        "kind",
        "code",
        "weights",
        "data",
        "commercial use",
        "may share",
        "gated",
        "conflict",
        "published scores (other splits and scorers)",
        "source",
    )
    body = [
        [
            entry.name,
            entry.kind,
            short(entry.marked("code_license")),
            short(entry.marked("weights_license")),
            short(entry.marked("data_license")),
            entry.commercial_use,
            entry.may_share,
            entry.gated,
            entry.conflict or "",
            short(entry.marked("scores")) if entry.scores else "",
            _source(entry),
        ]
        for entry in registry.load()
    ]
    table = Table(
        header, body, "License registry", rights=frozenset({5, 6}), sortable=True, links=frozenset({len(header) - 1})
    )
    return Section("Baselines", [Text(PUBLISHED), table])


def _source(entry: registry.Entry) -> str:
    """Return where the published scores stand, else the first address there is."""
    scores = entry.cells.scores
    addresses = (entry.addresses(scores) if scores is not None else []) or entry.evidence
    return addresses[0] if addresses else "none recorded"
