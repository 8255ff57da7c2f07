"""The paragraphs of an article that cite each of its figures."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator

from lxml import etree

from medvlm.data.sources.pmc.pictures import label_of
from medvlm.data.sources.pmc.text import plain, words

# "a" is a word of another kind in English.
_TO = {"pt": "a|à|ao|até", "es": "a|al|hasta", "it": "a|al|alla", "fr": "à", "de": "bis"}
_INLINE = frozenset(("bold", "italic", "sup", "sub", "sc", "underline", "named-content", "styled-content"))
_NUMBERS = re.compile(r"(\d{1,4})[A-Za-z]?\s*[-\u2010-\u2015\u2212]\s*(\d{1,4})(?!\d)")
_LABEL = re.compile(r"(.*?)(\d{1,4})\W*")
CITED = ("fig", "fig-group", "supplementary-material", "table-wrap", "table-wrap-group", "disp-formula-group")
_NO_PARAGRAPHS = frozenset(("caption", "fig", "table-wrap", "fn", "ref", "supplementary-material"))
_BORDERS = frozenset(("sub-article", "response"))


class Mentions:
    """The paragraphs of an article or sub-article, in a language (ISO 639-1), that cite its figures and tables.

    An `xref` may name several figures, and a range ("Figs 2–4") names its ends only: those between are cited as well.
    Captions are left out, and what stands in sub-articles. `elements`, where known, are the scope's `xref` and `CITED`
    ones in their order.
    """

    def __init__(
        self, scope: etree._Element, language: str = "en", elements: Iterable[etree._Element] | None = None
    ) -> None:
        self._paragraphs: list[etree._Element] = []
        self._texts: dict[int, str] = {}
        self._citing: dict[str, dict[int, None]] = {}
        """Figure id -> the numbers of the paragraphs that cite it."""
        numbers: dict[etree._Element, int] = {}
        for paragraph, rids in _citations(scope, elements, _range_sign(language)):
            number = numbers.setdefault(paragraph, len(numbers))
            if number == len(self._paragraphs):
                self._paragraphs.append(paragraph)
            for rid in rids:
                self._citing.setdefault(rid, {})[number] = None

    def of(self, ids: Iterable[str | None]) -> list[str]:
        """Return the paragraphs that cite any of `ids` (a figure's and its groups'), in the order of the text."""
        numbers = sorted({number for name in ids if name for number in self._citing.get(name, ())})
        return list(dict.fromkeys(text for number in numbers if (text := self._text(number))))

    def _text(self, number: int) -> str:
        if number not in self._texts:
            self._texts[number] = plain(self._paragraphs[number])
        return self._texts[number]


@functools.cache
def _range_sign(language: str) -> re.Pattern[str]:
    words = "|".join(("to", "through", *_TO.get(language, "").split("|"))).rstrip("|")
    return re.compile(rf"\s*(?:[-\u2010-\u2015\u2212]|{words})\s*", re.IGNORECASE)


def _citations(
    scope: etree._Element, elements: Iterable[etree._Element] | None, sign: re.Pattern[str]
) -> Iterator[tuple[etree._Element, list[str]]]:
    """Yield the paragraphs that hold references to figures, and the ids that each reference means."""
    shelf = _Shelf()
    xrefs = []
    for element in scope.iter("xref", *CITED) if elements is None else elements:
        if element.tag == "xref":
            xrefs.append(element)
        elif _inside(element, scope):
            shelf.add(element)
    previous: tuple[etree._Element, str] | None = None
    for xref in xrefs:
        named = xref.get("rid") or ""
        if named not in shelf.places and " " not in named:
            continue
        rids = [rid for rid in named.split() if rid in shelf.places] if " " in named else [named]
        if not rids or rids[0] not in shelf.places:
            continue
        paragraph = _paragraph(xref, scope)
        if paragraph is not None:
            between = shelf.between(previous[1], rids[0]) if previous and _is_range(previous[0], xref, sign) else []
            yield paragraph, between + rids + shelf.numbered(xref, rids[0])
        previous = (xref, rids[-1])


class _Shelf:
    """The figures, and the tables, of a scope in their order."""

    def __init__(self) -> None:
        self.places: dict[str, tuple[str, int]] = {}
        """Id -> kind and place in its row."""
        self._rows: dict[str, list[etree._Element]] = {}
        self._numbers: dict[str, list[tuple[str, int]]] = {}

    def add(self, element: etree._Element) -> None:
        """Add the next one, if it has an id."""
        if name := element.get("id"):
            kind = element.tag.removesuffix("-group")
            row = self._rows.setdefault(kind, [])
            self.places.setdefault(name, (kind, len(row)))
            row.append(element)

    def between(self, first: str, last: str) -> list[str]:
        """Return the ids of what lies between two of a kind."""
        (kind, start), (other, end) = self.places[first], self.places[last]
        return [e.get("id") or "" for e in self._rows[kind][start + 1 : end]] if kind == other else []

    def numbered(self, xref: etree._Element, rid: str) -> list[str]:
        """Return the ids that a range within one reference names by number: "Figs 2–4", "Figure 1—supplements 1–3".

        The reference leads to one of its ends, and all that it names carry that one's label but for the number.
        """
        match = _NUMBERS.search(words(xref))
        if not match or int(match[2]) - int(match[1]) not in range(1, 30):
            return []
        kind, place = self.places[rid]
        row = self._labels(kind)
        name, number = row[place]
        if number not in (int(match[1]), int(match[2])):
            return []
        meant = range(int(match[1]), int(match[2]) + 1)
        return [self._rows[kind][i].get("id") or "" for i, (said, n) in enumerate(row) if said == name and n in meant]

    def _labels(self, kind: str) -> list[tuple[str, int]]:
        """Return the label of each in a row as its words and its number, which is -1 where there is none."""
        if kind not in self._numbers:
            found = [_LABEL.fullmatch(label_of(element) or "") for element in self._rows[kind]]
            self._numbers[kind] = [(re.sub(r"\W", "", m[1]).lower(), int(m[2])) if m else ("", -1) for m in found]
        return self._numbers[kind]


def _is_range(first: etree._Element, second: etree._Element, sign: re.Pattern[str]) -> bool:
    """Tell whether only a dash or "to" parts two references, each perhaps in bold or italic."""
    between = first.tail or ""
    after, above = first.getnext(), first.getparent()
    while after is None and above is not None and above.tag in _INLINE:
        between += above.tail or ""
        after, above = above.getnext(), above.getparent()
    while after is not None and after is not second and after.tag in _INLINE:
        between += after.text or ""
        after = next(iter(after), None)
    return after is second and bool(sign.fullmatch(between))


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
