"""Fixtures of the cloud source's tests: a world of articles, its server, and a source that loses patience soon."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pmc_server import Server, World, serving

from medvlm.data.sources.pmc.cloud import CloudSource, Retries, Selection, parse_ids
from medvlm.data.sources.pmc.options import PmcOptions

HASTY = Retries(attempts=4, base=0.01, longest=0.1, connect=2.0, read=0.8, whole=5.0)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def server(world: World) -> Iterator[Server]:
    with serving(world) as running:
        yield running


@pytest.fixture
def cloud(server: Server, tmp_path: Path) -> Callable[..., CloudSource]:
    """Make a source: `cloud("PMC1,PMC2")`, `cloud(query="heart")`, `cloud(inventory=True)`, with other settings."""

    def make(ids: str = "", *, query: str = "", inventory: bool = False, **settings: Any) -> CloudSource:
        chosen = Selection(parse_ids(ids) if ids else (), query, inventory)
        given = {"options": PmcOptions(), "license": "commercial", "concurrency": 4, "retries": HASTY, **settings}
        servers = {"endpoint": server.endpoint, "eutils": server.eutils}
        return CloudSource(chosen, given.pop("store", tmp_path / "store"), **{**servers, **given})

    return make
