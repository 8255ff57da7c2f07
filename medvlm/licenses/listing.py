"""The license table for people and programs: terminal, Markdown, CSV and JSON from the same rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from medvlm.errors import UsageError
from medvlm.licenses import expressions
from medvlm.licenses.refs import resolve
from medvlm.licenses.registry import FIELDS, KINDS, LICENSE_FIELDS, Entry
from medvlm.registry import nearest

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("table", "md", "csv", "json")
COLUMNS = (
    "name",
    "code_license",
    "weights_license",
    "data_license",
    "commercial_use",
    "gated",
    "may_share",
    "conflict",
    "hub_ids",
    "repo",
    "parameters",
    "scores",
    "verified",
    "unverified",
    "evidence",
    "kind",
)
_COLORS = {"yes": "green", "no": "red", "conditional": "yellow", "unknown": "magenta"}
_NARROW = 110
_SHOWN = ("name", "code", "weights", "data", "commercial use", "gated", "conflict")
FOOTNOTE = "[unverified]: not checked against its source. `medvlm licenses show NAME` gives evidence and conflicts."


def select(
    entries: Iterable[Entry],
    names: Sequence[str] = (),
    commercial: bool = False,
    *,
    kind: str | None = None,
    share: bool = False,
    gated: bool | None = None,
) -> list[Entry]:
    """Return the entries that pass every filter, in order.

    Args:
        entries: of the registry.
        names: the name or a hub id contains every one of these words.
        commercial: only those whose commercial use is yes.
        kind: model, data or method.
        share: only those whose fine-tune, or copy, may be passed on: yes.
        gated: True for those that are gated, False for those that are not; what is unknown is neither.

    Raises:
        UsageError: no such kind.
    """
    if kind is not None and kind not in KINDS:
        raise UsageError(f'--kind "{kind}" is unknown{nearest(kind, KINDS)}; known: {", ".join(KINDS)}')
    words = [name.lower() for name in names]
    return [
        entry
        for entry in entries
        if (not commercial or entry.commercial_use == "yes")
        and (not share or entry.may_share == "yes")
        and (gated is None or entry.gated == ("yes" if gated else "no"))
        and (kind is None or entry.kind == kind)
        and all(word in " ".join([entry.name, *entry.hub_ids]).lower() for word in words)
    ]


def write(entries: Sequence[Entry], form: str, console: Console) -> None:
    """Print the entries as `form`: table, md, csv or json.

    Raises:
        UsageError: no such form.
    """
    if form == "table":
        _table(entries, console)
    elif form in ("md", "csv", "json"):
        text = {"md": as_markdown, "csv": as_csv, "json": as_json}[form](entries)
        console.file.write(text)
    else:
        raise UsageError(f'--format "{form}" is unknown{nearest(form, FORMATS)}; known: {", ".join(FORMATS)}')


def as_csv(entries: Sequence[Entry]) -> str:
    """Return CSV with one line an entry; lists are joined by "; "."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for entry in entries:
        cells = (getattr(entry, column) for column in COLUMNS)
        table.writerow("; ".join(cell) if isinstance(cell, list) else cell or "" for cell in cells)
    return out.getvalue()


def as_json(entries: Sequence[Entry]) -> str:
    """Return a JSON array: the columns of the table, original wordings, and every cell with evidence and date."""
    rows = [
        {column: getattr(entry, column) for column in COLUMNS} | {"note": entry.note, "cells": _cells(entry)}
        for entry in entries
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def _cells(entry: Entry) -> dict[str, Any]:
    return {field: {**cell.model_dump(), "evidence": entry.addresses(cell)} for field, cell in entry.each()}


def as_markdown(entries: Sequence[Entry]) -> str:
    """Return a Markdown table with the columns that the terminal shows."""
    lines = [f"| {' | '.join(_SHOWN)} |", f"|{'---|' * len(_SHOWN)}"]
    for entry in entries:
        cells = (" ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|") for cell in shown(entry))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", FOOTNOTE, ""])


def shown(entry: Entry) -> list[str]:
    """Return the cells for `name, code, weights, data, commercial use, gated, conflict`."""
    return [
        entry.name,
        entry.marked("code_license"),
        entry.marked("weights_license"),
        entry.marked("data_license"),
        entry.commercial_use,
        entry.gated,
        "yes" if entry.conflict else "",
    ]


def short(license: str) -> str:
    """Return a license id without the prefixes that only say SPDX does not list it."""
    return license.replace("LicenseRef-scancode-", "").replace("LicenseRef-", "").replace(" [unverified]", " ?")


def _table(entries: Sequence[Entry], console: Console) -> None:
    from rich.text import Text

    if console.width < _NARROW:
        _stacked(entries, console)
    else:
        _grid(entries, console)
    console.print(Text(f"{len(entries)} entries. {FOOTNOTE.replace('[unverified]', '?')}"))


def _grid(entries: Sequence[Entry], console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in _SHOWN:
        whole = column in ("commercial use", "gated", "conflict")
        table.add_column(column, overflow="fold", no_wrap=whole, min_width=16 if column == "name" else None)
    for entry in entries:
        cells = [Text(short(cell)) for cell in shown(entry)]
        cells[4].stylize(_COLORS[entry.commercial_use])
        table.add_row(*cells)
    console.print(table)


def _stacked(entries: Sequence[Entry], console: Console) -> None:
    """Print one block a system, for terminals too narrow for a grid."""
    from rich.text import Text

    for entry in entries:
        name, code, weights, data, use, gated, conflict = (short(cell) for cell in shown(entry))
        console.print(Text.assemble((name, "bold"), ": commercial use ", (use, _COLORS[entry.commercial_use])))
        console.print(Text(f"  code {code}; weights {weights}"))
        console.print(Text(f"  data {data}; gated {gated}{'; sources conflict' if conflict else ''}"))


def show(entry: Entry, console: Console) -> None:
    """Print every cell of one entry with its mark, date, original wording and evidence, then what conflicts."""
    from rich.text import Text

    def line(label: str, value: str, indent: str = "") -> None:
        console.print(Text(f"{indent}{label:<{18 - len(indent)}}{value}"), soft_wrap=True)

    console.print(Text(f"{entry.name} ({entry.kind})", style="bold"))
    cells = dict(entry.each())
    for field in FIELDS:
        if field not in cells:
            line(field.replace("_", " "), "not recorded")
            continue
        cell = cells[field]
        line(field.replace("_", " "), entry.marked(field))
        if cell.note not in (None, entry.marked(field)):
            line("as found", str(cell.note), indent="  ")
        line("checked" if cell.verified == "yes" else "recorded", cell.date, indent="  ")
        for address in entry.addresses(cell):
            line("at" if cell.verified == "yes" else "to check at", address, indent="  ")
        for key in expressions.symbols(cell.value) if field in LICENSE_FIELDS else ():
            reference = resolve(key)
            if reference:
                line("text", f"{reference.title}: {reference.address}", indent="  ")
    checked = entry.note.get("verified", entry.verified)
    doubtful = ", ".join(field.replace("_", " ") for field in entry.unverified)
    if doubtful and "unverified" not in checked:
        checked += f", except {doubtful}" if checked.startswith("yes") else f"; not checked: {doubtful}"
    line("checked", checked)
    for number, address in enumerate(entry.evidence or ["none recorded"]):
        line("" if number else "evidence", address)
    if "evidence" in entry.note:
        line("as found", entry.note["evidence"], indent="  ")
    if entry.conflict:
        line("sources conflict", f"{entry.conflict}; reported here, not resolved")
