"""The steps that every sample of an article goes through after reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from medvlm.data.sample import Credit, Reject, Sample

if TYPE_CHECKING:
    from medvlm.data.sources.pmc.options import PmcOptions


def apply(
    items: Iterable[Sample | Reject | Credit], options: PmcOptions, keywords: Sequence[str] = ()
) -> Iterator[Sample | Reject | Credit]:
    """Yield what the steps that `options` ask for make of one article's items."""
    yield from items
