"""Every base that a shipped recipe names stands in the license registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from medvlm.licenses import registry
from medvlm.recipe import load_members
from medvlm.resources import shipped


@pytest.mark.parametrize("path", sorted(shipped("recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_the_registry_knows_the_bases_of_every_recipe(path: Path) -> None:
    for _, recipe in load_members(str(path)).members:
        for name in recipe.model.parts.values():
            # What a recipe makes itself, before it, lies in a folder.
            assert name.startswith("data/") or registry.find(name) is not None, name
