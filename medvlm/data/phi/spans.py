"""All kinds of identifiers in one text: what each is found by."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator

from medvlm.data.phi import dates, known, names, numbers, persons
from medvlm.data.phi.plain import Span, plain

Finder = Callable[[str], Iterator[tuple[int, int]]]

FINDERS: dict[str, Finder] = {
    "IP address": numbers.addresses_of_machines,
    "UID": functools.partial(numbers.plain_matches, numbers.UID),
    "accession number": numbers.accessions,
    "address": functools.partial(numbers.plain_matches, numbers.ADDRESS),
    "age over 89": functools.partial(numbers.plain_matches, numbers.AGE),
    "date": dates.find,
    "e-mail": numbers.emails,
    "name": names.find,
    "phone": numbers.phones,
    "record number": numbers.records,
    "serial number": functools.partial(numbers.labelled, numbers.SERIAL, least=4),
    "social security number": functools.partial(numbers.plain_matches, numbers.SOCIAL),
    "web address": functools.partial(numbers.plain_matches, numbers.WEB),
}
"""By kind. The kinds are those of 45 CFR 164.514(b)(2)(i) that a text can carry, as far as a pattern can know them."""
_NOT_PHONES = ("accession number", "record number", "serial number", "social security number", "UID")


def scan(text: str, model: str | None, beforehand: Collection[str] = ()) -> list[Span]:
    """Return the identifiers in `text` in order; overlapping ones of one kind are one."""
    shown, positions = plain(text)
    found = [Span(*span, kind) for kind, finder in FINDERS.items() for span in finder(shown)]
    found += known.find(shown, beforehand)
    if model is not None:
        found += [Span(*span, "name") for span in persons.find(shown, model)]
    merged = _without_labelled(_merge(found))
    if positions is None:
        return merged
    return sorted(Span(positions[start], positions[end - 1] + 1, kind) for start, end, kind in merged)


def _without_labelled(spans: list[Span]) -> list[Span]:
    """Return `spans` without phone numbers whose label says that they number something else."""
    labelled = {place for span in spans if span.kind in _NOT_PHONES for place in range(span.start, span.end)}
    return [span for span in spans if span.kind != "phone" or labelled.isdisjoint(range(span.start, span.end))]


def _merge(spans: list[Span]) -> list[Span]:
    """Return `spans` in order, with those of one kind that overlap made one."""
    last: dict[str, Span] = {}
    done: list[Span] = []
    for span in sorted(spans):
        before = last.get(span.kind)
        if before is not None and span.start < before.end:
            last[span.kind] = Span(before.start, max(before.end, span.end), span.kind)
            continue
        if before is not None:
            done.append(before)
        last[span.kind] = span
    return sorted([*done, *last.values()])
