"""Identifiers that are known beforehand, as those of a study's own header: found in a text wherever they stand."""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Iterator

from medvlm.data.phi.plain import Span, plain

_BETWEEN = re.compile(r"[\s^=,;.]+")
_PLACEHOLDERS = """
    anon anonym anonymous anonymized deidentified name none null patient removed test unknown male female prof mrs
"""
_NOBODY = frozenset(_PLACEHOLDERS.split())
"""What stands in the place of a name where there is none, and titles."""
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_START, _END = r"(?i)(?<![^\W_])(?:", r")(?![^\W_])"


def find(text: str, known: Collection[str]) -> Iterator[Span]:
    """Yield where a known value stands, however it is capitalized.

    Args:
        text: as `plain` returns it.
        known: names ("SMITH^JOHN"), numbers, and dates of birth ("19570713") as headers have them. Parts of names count
            from three letters on, shorter ones beside another part of the same name; numbers from four digits on, with
            and without zeros in front; dates in any order of day, month and year, which may have two digits.
    """
    values = sorted({plain(value)[0] for value in known})
    parts = {part for value in values for part in _BETWEEN.split(value)}
    numbers = {part for part in parts if sum(char.isdigit() for char in part) >= 4}
    wanted = {
        "name": [*_names({part for part in parts if not _has_digit(part)}), *filter(None, map(_together, values))],
        "record number": _words(numbers | {part.lstrip("0") for part in numbers}),
        "date": [spelled for value in values for spelled in _dates(value)],
    }
    for kind, patterns in wanted.items():
        if patterns:
            found = re.finditer(_START + "|".join(patterns) + _END, text)
            yield from (Span(*match.span(), kind) for match in found)


def _has_digit(part: str) -> bool:
    return any(char.isdigit() for char in part)


def _names(parts: set[str]) -> list[str]:
    pieces = {piece for part in parts for piece in (part, *part.split("-"))}
    return _words({piece for piece in pieces if len(piece.strip("'-")) >= 3})


def _words(parts: set[str]) -> list[str]:
    """Return patterns of the parts, the longest first, so that a span holds all of a double name."""
    words = {part for part in parts if part and part.lower() not in _NOBODY}
    return [re.escape(word) for word in sorted(words, key=lambda word: (-len(word), word))]


def _together(value: str) -> str:
    """Return a pattern of two or more parts of a name side by side in any order, "" for what has no two.

    Li and Wu alone are words and shorthand of much else; Li Wu is a person.
    """
    parts = _words({part for part in _BETWEEN.split(value) if not _has_digit(part)})
    if len(parts) < 2 or max(map(len, parts)) < 2:
        return ""
    one = f"(?:{'|'.join(parts)})(?![^\\W_])"
    return rf"{one}(?:[\s^=,.]{{1,3}}{one})+"


def _dates(value: str) -> Iterator[str]:
    """Yield patterns of the spellings of a date of DICOM."""
    try:
        date = datetime.datetime.strptime(re.sub(r"(\d{4})\.(\d\d)\.", r"\1\2", value.strip()), "%Y%m%d").date()
    except ValueError:
        return
    day, year = f"0?{date.day}", f"(?:{date.year}|'?{date.year % 100:02})"
    month, cut = f"0?{date.month}", r"[ ]?[./-][ ]?"
    yield from (cut.join(order) for order in ((day, month, year), (month, day, year), (str(date.year), month, day)))
    word, blank = rf"{_MONTHS[date.month - 1]}[a-z]{{0,6}}", r"[ ,./-]{0,3}"
    ordinal = f"{day}(?:st|nd|rd|th)?(?:[ ]of)?"
    yield from (blank.join(order) for order in ((ordinal, word, year), (word, ordinal, year)))
