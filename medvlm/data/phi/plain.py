"""Text as the patterns read it: one width and one script for digits, plain blanks and dashes, marks taken out."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple


class Span(NamedTuple):
    """Where an identifier stands: text[start:end]."""

    start: int
    end: int
    kind: str


GAP = "\0"
"""What stands where a de-identification mark stood: part of no pattern, so nothing is found across it."""

_MARKS = re.compile(r"\[\*\*[^\[\]*]{0,80}\*\*\]|(?<![^\W\d_])[Xx]{3,}(?![^\W\d_])|_{3,}")
"""`[**...**]` of MIMIC-III (with stand-ins inside), `XXXX` of the Indiana collection, `___` of MIMIC-CXR."""


def plain(text: str) -> tuple[str, list[int] | None]:
    """Return `text` as it is to be scanned, and where each of its characters stood (None: where it stands)."""
    table: dict[int, str] = {}
    if not text.isascii():
        for char in set(text):
            if not char.isascii():
                table[ord(char)] = _replacement(char)
        positions = None
        if "" in table.values():
            positions = [place for place, char in enumerate(text) if table.get(ord(char), char)]
        text = text.translate(table)
    else:
        positions = None
    return _MARKS.sub(lambda mark: GAP * len(mark[0]), text), positions


def _replacement(char: str) -> str:
    """Return the one character that stands for a non-ASCII one; none for what cannot be seen."""
    category = unicodedata.category(char)
    if category == "Cf":
        return ""
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if category == "Pd" or char == "\N{MINUS SIGN}":
        return "-"
    if category == "Zs":
        return " "
    if category in ("Zl", "Zp"):
        return "\n"
    if char in "\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}":
        return "'"
    normal = unicodedata.normalize("NFKC", char)
    return normal if len(normal) == 1 else char
