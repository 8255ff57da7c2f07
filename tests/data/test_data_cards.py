"""Every source has a data card, and each card says all that a user must know."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from medvlm.cli import build_app
from medvlm.data.sources import SOURCES
from medvlm.data.sources.facts import Facts
from medvlm.data.splits import WAYS
from medvlm.licenses import registry
from medvlm.licenses.expressions import commercial_use, is_license_id, symbols
from medvlm.licenses.policy import admit
from medvlm.resources import shipped

SECTIONS = ["Origin", "License", "Gate", "Size", "Splits", "Known problems", "Citation"]
FILE = re.compile(r"[\w*-]+\.(?:jsonl|json|csv\.gz|csv|txt|parquet|zip|tgz|xml|jpg|png|pkl)\b")


def card(name: str) -> str:
    return (shipped("data_cards") / f"{name}.md").read_text(encoding="utf-8")


def section(name: str, title: str) -> str:
    found = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", card(name), re.M | re.S)
    assert found, f"{name}: no section {title}"
    return " ".join(found[1].replace("`", "").split())


def facts(name: str) -> Facts:
    kind: Any = SOURCES.get(name)
    found: Facts = kind.facts
    return found


def test_a_card_for_every_source() -> None:
    assert sorted(path.stem for path in shipped("data_cards").glob("*.md")) == sorted(SOURCES.names())


@pytest.mark.parametrize("name", SOURCES.names())
def test_sections(name: str) -> None:
    text = card(name)
    headings = re.findall(r"^## (.+)$", text, re.M)
    assert [heading for heading in headings if heading in SECTIONS] == SECTIONS
    assert set(headings) - set(SECTIONS) <= {"What becomes of a figure"}
    assert all(body.strip() for body in re.split(r"^## .+$", text, flags=re.M))
    assert f"medvlm prepare {name}" in text
    assert "vidence:" in text


def test_the_counts_of_pmc_add_up() -> None:
    text = card("pmc")
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
    text = card("pmc")
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


@pytest.mark.parametrize("name", SOURCES.names())
def test_a_command_for_every_source(name: str) -> None:
    prepare: Any = typer.main.get_command(build_app()).commands["prepare"]  # type: ignore[attr-defined]
    assert name in prepare.commands


@pytest.mark.parametrize("name", SOURCES.names())
def test_the_line_of_usage(name: str) -> None:
    told = facts(name)
    assert told.name == name
    head = " ".join(card(name).split("## ")[0].split())
    usage = re.search(rf"`medvlm prepare {name}\b([^`]*)`", head)
    tasks = re.search(r"· tasks?: ([a-z, ]+)$", head)
    assert usage
    assert tasks
    assert set(re.split(r", | or ", tasks[1])) == set(told.tasks)
    # The default policy admits nothing of a set that may not be used commercially: the line says what does.
    if of_whole(told) and admit("commercial", told.license, commercial_use(told.license)):
        assert "--license" in usage[1]


def of_whole(told: Facts) -> list[str]:
    """Return the ids of the license of a whole set, none where its rows have their own."""
    names = symbols(told.license)
    return names if all(is_license_id(name) for name in names) else []


@pytest.mark.parametrize("name", SOURCES.names())
def test_one_license_in_card_registry_and_source(name: str) -> None:
    told, stated = facts(name), str(registry.get(name).data_license)
    if of_whole(told):
        assert stated == told.license
        for license in of_whole(told):
            words = license.removeprefix("LicenseRef-").replace("-", " ").lower()
            assert words in section(name, "License").replace("-", " ").lower()
    else:
        # Phantoms: of the whole without the embedded sample, whose rows have their articles' licenses.
        assert stated == {"phantom": "CC0-1.0"}.get(name, "NOASSERTION")


@pytest.mark.parametrize("name", SOURCES.names())
def test_one_gate_in_card_registry_and_source(name: str) -> None:
    told, gated = facts(name).gate, registry.get(name).gated
    assert told
    if gated == "yes":
        assert not told.startswith("none")
        assert not section(name, "Gate").startswith("None")
    else:
        assert gated == "no"
        assert section(name, "Gate").startswith("None")


@pytest.mark.parametrize("name", SOURCES.names())
def test_the_card_gives_the_size_and_the_files_of_the_source(name: str) -> None:
    told, text = facts(name), card(name)
    assert told.size
    assert told.layout
    assert told.download
    for number in re.findall(r"\d[\d,]*\d", told.size):
        assert number in text, f"{number} of the source's size"
    for file in FILE.findall(told.layout):
        assert file.rpartition("*")[2] in text, f"{file} of the source's layout"
    if told.hub:
        assert told.hub in text
        assert told.hub in registry.get(name).hub_ids
        assert told.hub_files


@pytest.mark.parametrize("name", SOURCES.names())
def test_homepage_and_citation(name: str) -> None:
    told = facts(name)
    entry = registry.get(name)
    if told.homepage:
        place = told.homepage.removeprefix("https://").split("#")[0].rstrip("/")
        addresses = " ".join((card(name), *map(str, entry.sources.values())))
        assert place in addresses, f"{place} stands neither in the card nor in the registry"
    for identifier in re.findall(r"10\.\d{4,}/[\w./()-]*\w|\d{4}\.\d{5}", told.citation):
        assert identifier in section(name, "Citation")


@pytest.mark.parametrize("name", SOURCES.names())
def test_the_way_of_splitting(name: str) -> None:
    told = facts(name)
    assert told.split in WAYS
    if told.split == "official":
        assert "official" in section(name, "Splits").lower() or "published" in section(name, "Splits").lower()
    assert re.search(r"[a-z]", section(name, "Known problems"))
