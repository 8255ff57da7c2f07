"""Whether a caption marks panels: "(A) CT. (B) MRI.", "A, CT; B, MRI.", "(A-C) CT.", "Left: CT. Right: MRI."."""

from __future__ import annotations

from collections.abc import Iterator

from medvlm.data.figures.captions import marks_places, split_panels
from medvlm.data.sources.pmc.text import fold_hyphens

_PANELS = "abcdefghABCDEFGH"
_MARKS = {letter: (f"{letter})", f"{letter},", f"{letter}.", f"{letter}:", f"({letter}-") for letter in "ab"}
_RARE_SIGNS = ("ii)", "ii,", "\uff08")
_RANGE_SIGNS = ("-", " - ", " to ", " and ", "&", " & ", "/", ";", "; ")


def marks_panels(caption: str) -> bool:
    """Tell whether a caption marks at least the panels A and B, or two places: what alone decides on `compound`.

    Each letter stands at the start of a part or in parentheses; a range ("(A-C) CT.") marks all from its first to its
    last. What `split_panels` splits is marked; some of the marked captions it cannot split.
    """
    if _marks_letters(caption) or marks_places(caption):
        return True
    # Roman numbers and wide parentheses are too rare to be looked for everywhere.
    return any(sign in caption for sign in _RARE_SIGNS) and split_panels(caption) is not None


def _marks_letters(caption: str) -> bool:
    folded = f" {fold_hyphens(caption)}"
    lower = folded.lower()
    second = _stands(lower, "b")
    if second and _stands(lower, "a"):
        return True
    found = {"b"} if second else set()
    for first, last in _ranges(folded):
        found |= set("abcdefgh"["abcdefgh".index(first.lower()) : "abcdefgh".index(last.lower()) + 1])
    return "b" in found and ("a" in found or _stands(lower, "a"))


def _stands(text: str, letter: str) -> bool:
    """Tell whether a letter is set off as a mark somewhere in a text in lower case."""
    for mark in _MARKS[letter]:
        place = text.find(mark)
        while place >= 0:
            if mark[0] == "(" or _is_mark(text, place, place + 1):
                return True
            place = text.find(mark, place + 1)
    return False


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
