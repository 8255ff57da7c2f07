"""Whether a caption marks panels: "(A) CT. (B) MRI.", "A, CT; B, MRI.", "(A-C) CT."."""

from __future__ import annotations

import re
from collections.abc import Iterator

from medvlm.data.sources.pmc.text import fold_hyphens

_AFTER_LETTER = re.compile(r"[).:,-](?<=[\s.;:,(][A-Ha-h].)")
_PANELS = "abcdefghABCDEFGH"
_RANGE_SIGNS = ("-", " - ", " to ", " and ", "&", " & ")


def marks_panels(caption: str) -> bool:
    """Tell whether a caption marks at least the panels A and B, each at the start of a part or in parentheses.

    A range ("(A-C) CT.") marks all from its first to its last.
    """
    folded = f" {fold_hyphens(caption)}"
    places = [match.start() for match in _AFTER_LETTER.finditer(folded)]
    marks = {folded[place - 1].lower() for place in places if _is_mark(folded, place - 1, place)}
    if not {"a", "b"} <= marks:
        for first, last in _ranges(folded):
            marks |= set("abcdefgh"["abcdefgh".index(first.lower()) : "abcdefgh".index(last.lower()) + 1])
    return {"a", "b"} <= marks


def _ranges(text: str) -> Iterator[tuple[str, str]]:
    """Yield the first and last letter of each range of panels."""
    for sign in _RANGE_SIGNS:
        place = text.find(sign, 1)
        while place > 0:
            end = place + len(sign)
            first, last = text[place - 1], text[end : end + 1]
            alike = first in _PANELS and last and last in _PANELS and first.islower() == last.islower()
            if alike and _is_mark(text, place - 1, end + 1):
                yield first, last
            place = text.find(sign, end)


def _is_mark(text: str, start: int, end: int) -> bool:
    """Tell whether a letter or a range is set off as a mark: "(A)", "(A,", "A) ", ". B, "."""
    before, after, next_after = text[start - 1], text[end : end + 1], text[end + 1 : end + 2]
    if before == "(" and after in ("-", ","):
        return True
    return (before in ".;:,(" or before.isspace()) and (
        after == ")" or (after in (".", ":", ",") and next_after.isspace())
    )
