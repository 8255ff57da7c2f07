"""The license table in its four forms."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from medvlm.errors import UsageError
from medvlm.licenses import listing
from medvlm.licenses.registry import Entry, get, load


def printed(form: str, width: int, entries: list[Entry] | None = None) -> str:
    out = io.StringIO()
    listing.write(load() if entries is None else entries, form, Console(file=out, width=width))
    return out.getvalue()


def test_csv_holds_every_entry_and_begins_as_promised() -> None:
    text = printed("csv", 80)
    assert text.startswith("name,code_license,weights_license,data_license,commercial_use,")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["name"] for row in rows] == [entry.name for entry in load()]
    assert all(row["conflict"] == (get(row["name"]).conflict or "") for row in rows)


def test_json_is_the_whole_entry() -> None:
    rows = json.loads(printed("json", 80))
    assert [Entry.model_validate(row) for row in rows] == load()


def test_markdown_has_one_cell_for_each_column() -> None:
    hostile = get("LXMERT").model_copy(update={"name": "a|b\nc \\| d"})
    lines = listing.as_markdown([hostile]).splitlines()
    assert lines[2].startswith("| a\\|b c \\\\\\| d | MIT |")
    assert len(listing.as_markdown(load()).splitlines()) == len(load()) + 4


@pytest.mark.parametrize("width", [20, 60, 80, 110, 200])
def test_no_name_is_cut_at_any_width(width: int) -> None:
    text = printed("table", width)
    packed = "".join(text.split())
    if width in (60, 80, 200):
        assert all("".join(entry.name.split()) in packed for entry in load())
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())


def test_table_marks_what_is_unverified_and_conflicting() -> None:
    text = printed("table", 200, [get("BLIP-2")])
    assert "MIT ?" in text
    assert "conditional" in text
    assert "?: not checked" in text


def test_select() -> None:
    commercial = listing.select(load(), commercial=True)
    assert commercial
    assert {entry.commercial_use for entry in commercial} == {"yes"}
    assert "medvlm tiny-base" in {entry.name for entry in commercial}
    assert [entry.name for entry in listing.select(load(), ["PALIGEMMA", "448"])] == [
        "PaliGemma-3B pt-448",
        "PaliGemma 2",
        "PaliGemma-3B mix",
    ]
    assert listing.select(load(), ["no such"]) == []


def test_unknown_format() -> None:
    with pytest.raises(UsageError, match='did you mean "csv"'):
        printed("cvs", 80)


def test_show_gives_wording_conflict_and_every_address() -> None:
    out = io.StringIO()
    entry = get("CLIP")
    listing.show(entry, Console(file=out, width=60))
    text = out.getvalue()
    for part in (entry.note["commercial_use"], entry.conflict, *entry.evidence):
        assert part is not None
        assert part in text
