"""Every base that a shipped recipe names, every source and every data card stands in the license registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from medvlm.data.sources import SOURCES
from medvlm.licenses import registry
from medvlm.licenses.expressions import symbols
from medvlm.recipe import load_members
from medvlm.resources import shipped


@pytest.mark.parametrize("path", sorted(shipped("recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_the_registry_knows_the_bases_of_every_recipe(path: Path) -> None:
    for _, recipe in load_members(str(path)).members:
        for name in recipe.model.parts.values():
            # What a recipe makes itself, before it, lies in a folder.
            assert name.startswith("data/") or registry.find(name) is not None, name


@pytest.mark.parametrize(
    "name", sorted({*SOURCES.names(), *(path.stem for path in shipped("data_cards").glob("*.md"))})
)
def test_the_registry_knows_every_source_and_data_card(name: str) -> None:
    entry = registry.get(name)
    assert entry.kind == "data"
    card = shipped("data_cards") / f"{name}.md"
    assert card.is_file()
    if entry.data_license != "NOASSERTION":
        words = card.read_text(encoding="utf-8").replace(" ", "-")
        assert str(entry.data_license).removesuffix("-1.0").replace(" ", "-") in words, (
            "card and registry name the same license"
        )


def test_the_registry_knows_what_prepare_makes_without_a_source() -> None:
    sample = registry.get("embedded sample")
    stated = str(sample.data_license)
    # What `--license commercial` keeps of it is what the default recipe trains on.
    assert {"CC-BY-4.0", "CC0-1.0"} <= set(symbols(stated))
    assert sample.commercial_use == "conditional"
