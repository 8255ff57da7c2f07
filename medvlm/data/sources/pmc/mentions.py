"""The paragraphs of an article that cite each of its figures."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree

from medvlm.data.sources.pmc.text import plain, words

_RANGE = re.compile(r"\s*(?:[-\u2010-\u2015\u2212]|to|through|a|até|hasta)\s*", re.IGNORECASE)
_NUMBERS = re.compile(r"(\d{1,4})[A-Za-z]?\s*[-\u2010-\u2015\u2212]\s*(\d{1,4})(?!\d)")
_NO_PARAGRAPHS = frozenset(("caption", "fig", "table-wrap", "fn", "ref", "supplementary-material"))
_BORDERS = frozenset(("sub-article", "response"))


def collect(scope: etree._Element) -> dict[str, list[str]]:
    """Return figure id -> the paragraphs that cite it, in the order of the text; captions and sub-articles left out.

    An `xref` may name several figures, and a range ("Figs 2–4") names its ends only: those between are cited as well.
    """
    order = [f.get("id") or "" for f in scope.iter("fig", "fig-group", "supplementary-material") if _inside(f, scope)]
    known = {name: index for index, name in enumerate(order) if name}
    numbers = _by_number(scope)
    found: dict[str, list[str]] = {}
    texts: dict[etree._Element, str] = {}
    for paragraph, rids in _citations(scope, known, order, numbers):
        text = texts.get(paragraph)
        if text is None:
            text = texts[paragraph] = plain(paragraph)
        for rid in rids:
            cited = found.setdefault(rid, [])
            if text and text not in cited:
                cited.append(text)
    return found


def _citations(
    scope: etree._Element, known: dict[str, int], order: list[str], numbers: dict[int, str]
) -> Iterator[tuple[etree._Element, list[str]]]:
    previous: tuple[etree._Element, str] | None = None
    for xref in scope.iter("xref"):
        rids = [rid for rid in (xref.get("rid") or "").split() if rid in known]
        if not rids:
            continue
        paragraph = _paragraph(xref, scope)
        if paragraph is not None:
            between = _between(previous, xref, rids[0], known, order)
            yield paragraph, between + rids + _numbered(xref, numbers)
        previous = (xref, rids[-1])


def _between(
    previous: tuple[etree._Element, str] | None, xref: etree._Element, rid: str, known: dict[str, int], order: list[str]
) -> list[str]:
    """Return the figures between two references that only a dash or "to" parts."""
    if previous is None or previous[0].getnext() is not xref or not _RANGE.fullmatch(previous[0].tail or ""):
        return []
    return [name for name in order[known[previous[1]] + 1 : known[rid]] if name]


def _numbered(xref: etree._Element, numbers: dict[int, str]) -> list[str]:
    """Return the figures that a range within one reference names by number."""
    match = _NUMBERS.search(words(xref))
    if not match or int(match[2]) - int(match[1]) not in range(1, 30):
        return []
    return [numbers[n] for n in range(int(match[1]), int(match[2]) + 1) if n in numbers]


def _by_number(scope: etree._Element) -> dict[int, str]:
    found: dict[int, str] = {}
    for figure in scope.iter("fig", "fig-group"):
        label = figure.find("label")
        match = re.fullmatch(r"\D*?(\d{1,4})\W*", plain(label)) if label is not None else None
        if match and figure.get("id") and _inside(figure, scope):
            found.setdefault(int(match[1]), figure.get("id") or "")
    return found


def _paragraph(xref: etree._Element, scope: etree._Element) -> etree._Element | None:
    """Return the paragraph that holds a reference, unless it is part of a caption, table or another sub-article."""
    paragraph = None
    for above in xref.iterancestors():
        if above is scope:
            return paragraph
        if above.tag in _NO_PARAGRAPHS or above.tag in _BORDERS:
            return None
        if paragraph is None and above.tag == "p":
            paragraph = above
    return paragraph


def _inside(element: etree._Element, scope: etree._Element) -> bool:
    return next((a for a in element.iterancestors() if a is scope or a.tag in _BORDERS), scope) is scope
