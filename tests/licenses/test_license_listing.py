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
    assert [row["name"] for row in rows] == [entry.name for entry in load()]
    for row, entry in zip(rows, load(), strict=True):
        for field, cell in entry.each():
            assert row[field] == row["cells"][field]["value"] == cell.value
            assert row["cells"][field]["date"] == cell.date
            assert row["cells"][field]["evidence"] == entry.addresses(cell)
        assert {field for field, cell in row["cells"].items() if cell["verified"] == "no"} == set(entry.unverified)


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
    text = printed("table", 200, [get("BLIP-2 (Flan-T5)"), get("LLaVA-1.5")])
    assert "MIT AND Apache-2.0 ?" in text
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


def test_filters_hold_together() -> None:
    data = listing.select(load(), kind="data", commercial=True, share=True, gated=False)
    assert [entry.name for entry in data] == ["phantom", "vqa-rad"]
    gated = listing.select(load(), gated=True)
    assert {entry.gated for entry in gated} == {"yes"}
    assert "PaliGemma 2" in {entry.name for entry in gated}
    assert {entry.gated for entry in listing.select(load(), gated=False)} == {"no"}
    assert {entry.may_share for entry in listing.select(load(), share=True)} == {"yes"}
    with pytest.raises(UsageError, match='did you mean "model"'):
        listing.select(load(), kind="modell")


def test_unknown_format() -> None:
    with pytest.raises(UsageError, match='did you mean "csv"'):
        printed("cvs", 80)


def test_show_gives_wording_conflict_and_every_address() -> None:
    out = io.StringIO()
    entry = get("CLIP")
    listing.show(entry, Console(file=out, width=60))
    text = out.getvalue()
    dates = [cell.date for _, cell in entry.each()]
    for part in (entry.note["commercial_use"], entry.conflict, *entry.evidence, *dates, "reported here, not resolved"):
        assert part is not None
        assert part in text


def test_show_names_the_text_of_a_license_that_spdx_does_not_list() -> None:
    out = io.StringIO()
    listing.show(get("OPT"), Console(file=out, width=200))
    assert "OPT-175B License Agreement: https://github.com/facebookresearch/metaseq/" in out.getvalue()


@pytest.mark.parametrize("entry", load(), ids=lambda entry: entry.name)
def test_what_was_checked_names_every_cell_that_was_not(entry: Entry, capsys: pytest.CaptureFixture[str]) -> None:
    listing.show(entry, Console(width=200))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("checked")]
    (said,) = (line.removeprefix("checked").strip() for line in lines)
    if "unverified" not in said:
        assert ("except" in said or "not checked" in said) == bool(entry.unverified)
        assert all(field.replace("_", " ") in said for field in entry.unverified)
