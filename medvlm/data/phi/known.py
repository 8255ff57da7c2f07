"""Identifiers that are known beforehand, as those of a study's own header: found in a text wherever they stand."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from medvlm.data.phi.plain import Span, plain

_BETWEEN = re.compile(r"[\s^=,;.]+")
_PLACEHOLDERS = """
    anon anonym anonymous anonymized deidentified name none null patient removed test unknown male female prof mrs
"""
_NOBODY = frozenset(_PLACEHOLDERS.split())
"""What stands in the place of a name where there is none, and titles."""


def find(text: str, known: Collection[str]) -> Iterator[Span]:
    """Yield where a part of a known value stands as a word of its own, however it is capitalized.

    Args:
        text: as `plain` returns it.
        known: names ("SMITH^JOHN") and numbers as they are. Parts of names count from three letters on, numbers from
            four digits on, with and without zeros in front.
    """
    names, numbers = set(), set()
    for value in known:
        for part in _BETWEEN.split(plain(value)[0]):
            digits = sum(char.isdigit() for char in part)
            if digits >= 4:
                numbers |= {part, part.lstrip("0")}
            elif not digits:
                names |= {piece for piece in (part, *part.split("-")) if len(piece.strip("'-")) >= 3}
    for kind, parts in (("name", names), ("record number", numbers)):
        parts = {part for part in parts if part and part.lower() not in _NOBODY}
        # The longest first, so that a span holds all of a double name.
        wanted = sorted(parts, key=lambda part: (-len(part), part))
        if wanted:
            pattern = rf"(?i)(?<![^\W_])(?:{'|'.join(map(re.escape, wanted))})(?![^\W_])"
            yield from (Span(*match.span(), kind) for match in re.finditer(pattern, text))
