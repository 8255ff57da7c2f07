"""Every source has a data card, and each card says all that a user must know."""

from __future__ import annotations

import re

import pytest

from medvlm.data.sources import SOURCES
from medvlm.resources import shipped

SECTIONS = ["Origin", "License", "Gate", "Size", "Splits", "Known problems", "Citation"]


def test_a_card_for_every_source() -> None:
    assert sorted(path.stem for path in shipped("data_cards").glob("*.md")) == sorted(SOURCES.names())


@pytest.mark.parametrize("name", SOURCES.names())
def test_sections(name: str) -> None:
    text = (shipped("data_cards") / f"{name}.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.M)
    assert [heading for heading in headings if heading in SECTIONS] == SECTIONS
    assert set(headings) - set(SECTIONS) <= {"What becomes of a figure"}
    assert all(body.strip() for body in re.split(r"^## .+$", text, flags=re.M))
    assert f"medvlm prepare {name}" in text
    assert "vidence:" in text


def test_the_counts_of_pmc_add_up() -> None:
    text = (shipped("data_cards") / "pmc.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w -]+) \| ([\d,]+) \| ([\d.]+) % \|$", text, re.M)
    counts = {name: int(count.replace(",", "")) for name, count, _ in rows}
    whole = counts.pop("all of the subset")
    assert sum(counts.values()) == whole
    assert all(
        share == f"{count / whole * 100:.1f}" for (_, _, share), count in zip(rows[1:], counts.values(), strict=True)
    )
    admitted = counts["CC BY"] + counts["CC0"] + counts["CC BY-SA"]
    assert f"{admitted:,} articles, {admitted / whole * 100:.1f} %" in text


def test_every_selection_of_pmc_is_named() -> None:
    text = (shipped("data_cards") / "pmc.md").read_text(encoding="utf-8")
    for option in (
        "--ids",
        "--query",
        "--inventory",
        "--input",
        "--panels",
        "--modality",
        "--drop-duplicates",
        "--push",
    ):
        assert option in text
