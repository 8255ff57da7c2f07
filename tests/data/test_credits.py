"""The attribution file: what is told comes back as it was, and no cell can break out of its place or run."""

from __future__ import annotations

import csv
import dataclasses
import re
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from medvlm.data.credits import ANSWERS, COLUMNS, cell, write
from medvlm.data.sample import Credit

ARTICLE = Credit(
    group="PMC1",
    title="A study\n of\tlungs",
    authors="Müller A; 李 B",
    journal="J Lungs",
    year=2021,
    doi="10.1/x",
    pmcid="PMC1",
    license="CC-BY-4.0",
    license_url="https://creativecommons.org/licenses/by/4.0/",
    copyright="© 2021 Müller",
)


def test_the_file_byte_for_byte(tmp_path: Path) -> None:
    rows = [{**dataclasses.asdict(ARTICLE), "samples": 3}, {"group": "dir/7", "doi": None, "samples": 1, "other": "x"}]
    assert write(tmp_path / "attribution.tsv", rows) == 2
    assert (tmp_path / "attribution.tsv").read_bytes().decode() == (
        "group\tpmcid\tdoi\ttitle\tauthors\tjournal\tyear\tlicense\tlicense_url\tcopyright\tsamples\n"
        "PMC1\tPMC1\t10.1/x\tA study of lungs\tMüller A; 李 B\tJ Lungs\t2021\tCC-BY-4.0\t"
        "https://creativecommons.org/licenses/by/4.0/\t© 2021 Müller\t3\n"
        "dir/7\t\t\t\t\t\t\t\t\t\t1\n"
    )


def test_columns_are_the_fields_of_a_credit_and_the_count() -> None:
    assert set(COLUMNS) == {field.name for field in dataclasses.fields(Credit)} | {"samples"}


def test_what_the_license_asks_for_is_answered_by_columns_that_exist() -> None:
    named = {name for _, answer in ANSWERS for name in re.findall(r"`(\w+)`", answer)}
    assert named <= set(COLUMNS)
    assert {"authors", "copyright", "license", "license_url", "doi"} <= named


def test_formulas_and_quotes_are_disarmed() -> None:
    assert cell('=HYPERLINK("http://x")') == '\'=HYPERLINK("http://x")'
    assert cell(" \t-omics of the lung") == "'-omics of the lung"
    assert cell("\ufeff@SUM(A1)") == "'@SUM(A1)"
    assert cell('"Quoted" title') == '\'"Quoted" title'
    assert cell("A - B = C") == "A - B = C"
    assert (cell(None), cell(0), cell("")) == ("", "0", "")


def test_what_is_not_unicode_is_spelled_out() -> None:
    assert cell("a\ud800b") == "a\\ud800b"


@given(st.lists(st.text(st.characters(), max_size=12), min_size=11, max_size=11))
def test_any_text_stays_in_its_cell(values: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "attribution.tsv"
        write(path, [dict(zip(COLUMNS, values, strict=True))])
        text = path.read_bytes().decode()
        with path.open(encoding="utf-8", newline="") as file:
            by_reader = list(csv.reader(file, "excel-tab"))
    lines = text.split("\n")
    assert len(lines) == 3
    assert by_reader == [line.split("\t") for line in lines[:2]]
    for value in by_reader[1]:
        assert not value.startswith(("=", "+", "-", "@"))
        assert value == " ".join(value.split())
