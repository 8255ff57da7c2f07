"""A source's articles read as the engine reads them, for tests of the cloud source."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

from medvlm.data.sample import Credit, Reject, Sample
from medvlm.data.sources.base import Unit
from medvlm.data.sources.pmc.cloud import CloudSource

Item = Sample | Reject | Credit


def read(source: CloudSource, units: Sequence[Unit] | None = None) -> list[Item]:
    """Fetch all units as one chunk and return what they hold."""
    chosen = list(source.units() if units is None else units)
    source.prefetch(chosen)
    return [item for unit in chosen for item in source.read(unit)]


def samples(items: list[Item]) -> list[Sample]:
    return [item for item in items if isinstance(item, Sample)]


def reasons(items: list[Item]) -> dict[str, int]:
    return dict(collections.Counter(item.reason for item in items if isinstance(item, Reject)))


def sums(source: CloudSource, phase: str) -> dict[str, Any]:
    found: dict[str, Any] = source.store.traffic()[phase]
    return found
