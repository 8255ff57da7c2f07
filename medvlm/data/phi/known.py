"""Identifiers that are known beforehand, as those of a study's own header: found in a text wherever they stand."""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Iterator

from medvlm.data.phi.plain import Span, plain

_BETWEEN = re.compile(r"[\s^=,;.]+")
_PLACEHOLDERS = """
    anon anonym anonymous anonymized deidentified name none null patient removed test unknown male female prof mrs
    not no and the specified available given emergency room department clinic referred referring self physician doctor
    ii iii iv
"""
_NOBODY = frozenset(_PLACEHOLDERS.split())
"""What stands in the place of a name where there is none, titles, and what follows names."""
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_CUT = r"[\s./-]?"
_START, _END = r"(?i)(?<![^\W_])(?:", r")(?![^\W_])"


def find(text: str, known: Collection[str]) -> Iterator[Span]:
    """Yield where a known value stands, however it is capitalized.

    Args:
        text: as `plain` returns it.
        known: names ("SMITH^JOHN"), numbers, and dates of birth ("19570713") as headers have them. Parts of names count
            from three letters on, shorter ones beside another part of the same name; numbers from four digits on, with
            and without zeros in front, written in groups or not; dates in any order of day, month and year, which may
            have two digits.
    """
    values = sorted({plain(value)[0] for value in known})
    parts = {part for value in values for part in _BETWEEN.split(value)}
    wanted = {
        "name": [*_names({part for part in parts if not _has_digit(part)}), *filter(None, map(_together, values))],
        "record number": [*_grouped(parts.union(values)), *_words(set(filter(_is_number, parts)))],
        "date": [spelled for value in values for spelled in _dates(value)],
    }
    for kind, patterns in wanted.items():
        if patterns:
            found = re.finditer(_START + "|".join(patterns) + _END, text)
            yield from (Span(*match.span(), kind) for match in found)


def _has_digit(part: str) -> bool:
    return any(char.isdigit() for char in part)


def _is_number(part: str) -> bool:
    return sum(char.isdigit() for char in part) >= 4 and not any(_dates(part))


def _grouped(parts: Collection[str]) -> list[str]:
    """Return patterns of numbers, the longest first, however they are cut into groups: 12.345.678, AB 12345."""
    bare = {re.sub(r"[\W_]", "", part) for part in parts if _is_number(part)}
    # Without its zeros 0001 would be any 1.
    numbers = {number for part in bare for number in (part, part.lstrip("0")) if _is_number(number)}
    return [_CUT.join(number) for number in sorted(numbers, key=lambda number: (-len(number), number))]


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
    parts = {part for part in _BETWEEN.split(value) if not _has_digit(part)}
    initials = {part for part in parts if len(part) < 2}
    one, long, initial = (_one_of(_words(some)) for some in (parts, parts - initials, initials))
    if not long or len(_words(parts)) < 2:
        return ""
    between = r"[\s^=,.]{1,3}"
    # Of Doe^A^B initials alone are no person: "a B-line".
    before = f"|(?:{initial}{between}){{1,3}}{long}" if initial else ""
    return f"(?:{long}(?={between}{one}){before})(?:{between}{one})*"


def _one_of(words: list[str]) -> str:
    return f"(?:{'|'.join(words)})(?![^\\W_])" if words else ""


def _dates(value: str) -> Iterator[str]:
    """Yield patterns of the spellings of a date of DICOM."""
    bare = re.sub(r"(\d{4})\.(\d\d)\.", r"\1\2", value.strip())
    try:
        date = datetime.datetime.strptime(bare, "%Y%m%d").date()
    except ValueError:
        return
    # Six digits are read as a date, too.
    if len(bare) != 8:
        return
    yield _CUT.join(bare)
    day, year = f"0?{date.day}", f"(?:{date.year}|'?{date.year % 100:02})"
    month, cut = f"0?{date.month}", r"[ ]?[./-][ ]?"
    yield from (cut.join(order) for order in ((day, month, year), (month, day, year), (str(date.year), month, day)))
    word, blank = rf"{_MONTHS[date.month - 1]}[a-z]{{0,6}}", r"[ ,./-]{0,3}"
    ordinal = f"{day}(?:st|nd|rd|th)?(?:[ ]of)?"
    yield from (blank.join(order) for order in ((ordinal, word, year), (word, ordinal, year)))
