"""The license table for people and programs: terminal, Markdown, CSV and JSON from the same rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from medvlm.errors import UsageError
from medvlm.licenses.registry import FIELDS, Entry
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
)
_COLORS = {"yes": "green", "no": "red", "conditional": "yellow", "unknown": "magenta"}
_NARROW = 110
_SHOWN = ("name", "code", "weights", "data", "commercial use", "gated", "conflict")
FOOTNOTE = "[unverified]: not checked against its source. `medvlm licenses show NAME` gives evidence and conflicts."


def select(entries: Iterable[Entry], names: Sequence[str] = (), commercial: bool = False) -> list[Entry]:
    """Return the entries whose name or hub id contains every word of `names`, only those free to sell if asked."""
    words = [name.lower() for name in names]
    return [
        entry
        for entry in entries
        if (not commercial or entry.commercial_use == "yes")
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
    """Return a JSON array of whole entries, columns of the table first."""
    rows = [entry.model_dump() for entry in entries]
    ordered = [{column: row[column] for column in COLUMNS} | {"note": row["note"]} for row in rows]
    return json.dumps(ordered, indent=2, ensure_ascii=False) + "\n"


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
    console.print(Text(f"{len(entries)} systems. {FOOTNOTE.replace('[unverified]', '?')}"))


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
    """Print every field of one entry with its mark, its original wording and its evidence."""
    from rich.text import Text

    def line(label: str, value: str, indent: str = "") -> None:
        console.print(Text(f"{indent}{label:<{18 - len(indent)}}{value}"), soft_wrap=True)

    console.print(Text(entry.name, style="bold"))
    for field in FIELDS:
        value = entry.marked(field)
        line(field.replace("_", " "), value)
        if field in entry.note and entry.note[field] != value:
            line("as found", entry.note[field], indent="  ")
    line("checked", entry.note.get("verified", entry.verified))
    for number, address in enumerate(entry.evidence or ["none recorded"]):
        line("" if number else "evidence", address)
    if "evidence" in entry.note:
        line("as found", entry.note["evidence"], indent="  ")
