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
    assert re.findall(r"^## (.+)$", text, re.M) == SECTIONS
    assert all(body.strip() for body in re.split(r"^## .+$", text, flags=re.M))
    assert f"medvlm prepare {name}" in text
    assert "vidence:" in text
