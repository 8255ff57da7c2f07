"""JATS XML as articles, figures and graphics. Knows nothing of files: a graphic is what its references say.

Follows the NISO JATS tag sets (Z39.96) and the older NLM ones. Every `graphic` of an article ends up in a figure's
pictures or in its `drops`, so that nothing is lost unseen.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Collection

from lxml import etree

from medvlm.data.sources.pmc.front import Front, read_front
from medvlm.data.sources.pmc.marks import marks_panels
from medvlm.data.sources.pmc.mentions import CITED, Mentions
from medvlm.data.sources.pmc.options import PmcOptions
from medvlm.data.sources.pmc.pictures import XLINK_HREF, Picture, file_of, is_picture, label_of, pictures
from medvlm.data.sources.pmc.rights import Rights, article_rights, figure_rights, no_freer
from medvlm.data.sources.pmc.text import plain
from medvlm.data.sources.pmc.xml import Document

XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"

_OWNERS = {
    "fig": "figure",
    "fig-group": "figure",
    "supplementary-material": "supplementary",
    "table-wrap": "table",
    "table-wrap-group": "table",
    "inline-formula": "equation",
    "disp-formula": "equation",
    "disp-formula-group": "equation",
    "chem-struct-wrap": "graphic",
}
_PLAIN_KINDS = ("table", "equation", "graphic")
# A picture in an abstract is its own, whatever the abstract stands in.
_ALONE = ("abstract", "trans-abstract")
_FIGURES = ("fig", "fig-group", "supplementary-material")
_GROUPS = ("fig-group", "table-wrap-group")
_PICTURES = ("graphic", "inline-graphic", "media")
_CITING = frozenset(("xref", *CITED))
_LOOKED_FOR = _CITING.union(_FIGURES, _PICTURES)
# Why a picture of a kind that is not asked for becomes no sample.
_UNASKED = {
    "figure": "figure not asked for",
    "supplementary": "supplementary figure not asked for",
    "table": "table image",
    "equation": "equation image",
    "graphic": "graphic outside a figure",
}
_SUPPLEMENT = re.compile(r"supplement|^\W*(?:fig(?:ure|\.)?|appendix|image)?\s*\.?S\d", re.IGNORECASE)
_LANGUAGES = {
    "eng": "en",
    "por": "pt",
    "spa": "es",
    "fra": "fr",
    "fre": "fr",
    "deu": "de",
    "ger": "de",
    "ita": "it",
    "zho": "zh",
}


@dataclasses.dataclass(slots=True)
class Figure:
    """A figure with its own caption, pictures and rights. `key` is its place in ids: its id, else `fig-N`."""

    key: str
    id: str | None
    kind: str
    label: str | None
    caption: str
    language: str
    article_type: str | None
    pictures: list[Picture]
    rights: Rights
    mentions: list[str]
    compound: bool


@dataclasses.dataclass(slots=True)
class Drop:
    """A graphic or figure that becomes no sample."""

    where: str
    reason: str
    detail: str = ""


@dataclasses.dataclass(slots=True)
class Article:
    """What samples need of an article."""

    group: str
    """Its PMC id, else its DOI in lower case, else the hash of its XML."""
    front: Front
    figures: list[Figure]
    drops: list[Drop]


def group_of(front: Front, document: Document) -> str:
    """Return the name that splits go by: the PMC id, else the DOI in lower case, else the hash of the XML."""
    return front.pmcid or (front.doi.lower() if front.doi else document.sha256())


def read_article(
    document: Document, front: Front | None = None, kinds: Collection[str] = PmcOptions().kinds
) -> Article:
    """Return what samples need of an article; what becomes no sample is among its drops, with the reason.

    Args:
        document: the article.
        front: its front matter, where it has been read already.
        kinds: which of `options.KINDS` become figures.
    """
    front = front or read_front(document.root)
    article = Article(group_of(front, document), front, [], [])
    _Reader(document, article, frozenset(kinds)).run()
    return article


class _Reader:
    """Walks one article once and files every figure and graphic it meets."""

    def __init__(self, document: Document, article: Article, kinds: frozenset[str]) -> None:
        self.root = root = document.root
        self.whole = document.whole
        self.article = article
        self.kinds = kinds
        self.authors = article.front.surnames
        self.scopes: dict[etree._Element, _Scope] = {}
        self.main = _Scope(root, language(root), article.front.article_type, article.front.rights, translation=False)
        self.in_main: dict[str, bool] = {}
        self.numbers: collections.Counter[str] = collections.Counter()

    def run(self) -> None:
        """Find the holder of each graphic, then file the holders in the order of the text."""
        holders: dict[etree._Element, tuple[str, list[etree._Element]]] = {}
        cited = self.main.citing.append
        for element in self.root.iter(*_LOOKED_FOR):
            name = element.tag
            if name in _CITING:
                cited(element)
                if name == "xref":
                    continue
            if name in _FIGURES:
                _, graphics = holders.setdefault(element, ("figure", []))
                if name == "supplementary-material" and element.get(XLINK_HREF) and is_picture(element):
                    graphics.append(element)
            elif name in _PICTURES and (name != "media" or is_picture(element)):
                holder, kind = _holder(element)
                if _beside_the_picture(element, holder) or (kind in _PLAIN_KINDS and kind not in self.kinds):
                    self._drop_graphic(element, holder, kind)
                else:
                    holders.setdefault(holder, (kind, []))[1].append(element)
        for element, (kind, graphics) in holders.items():
            self._file(element, kind, graphics)

    def _drop_graphic(self, element: etree._Element, holder: etree._Element, kind: str) -> None:
        parent = element.getparent()
        if (
            parent is not None
            and parent.tag == "alternatives"
            and element is not next(parent.iter(*_PICTURES), element)
        ):
            return  # the other forms of one picture that is counted already
        if kind == "table" and _in_cell(element, holder):
            reason = "graphic in a table cell"
        elif kind in ("table", "equation"):
            reason = _UNASKED[kind]
        else:
            reason = "inline graphic" if element.tag == "inline-graphic" else _UNASKED["graphic"]
        self.article.drops.append(Drop(_where(element), reason, (element.get(XLINK_HREF) or "")[:200]))

    def _file(self, element: etree._Element, kind: str, graphics: list[etree._Element]) -> None:
        """Make a figure of a `fig`; of a `fig-group`, supplement or other holder only where it has pictures."""
        prefix = "fig" if kind in ("figure", "supplementary") else kind
        self.numbers[prefix] += 1
        if element.tag != "fig" and not graphics:
            if element.tag == "supplementary-material" and (file := file_of(element)):
                where = f"{element.tag} {element.get('id') or f'{prefix}-{self.numbers[prefix]}'}"
                self.article.drops.append(Drop(where, "supplement is no image", file[:200]))
            return
        scope = self._scope(element)
        key = element.get("id") or f"{prefix}-{self.numbers[prefix]}"
        where = f"{element.tag} {key}"
        caption, told_by = _caption(element)
        if not self.whole(element):
            self.article.drops.append(Drop(where, "figure in damaged xml", label_of(element) or ""))
        elif scope.translation and self._in_main(element.tag):
            self.article.drops.append(Drop(where, "translated copy", f"{scope.article_type} {scope.language}"))
        elif not graphics:
            reason = "caption in another language" if _tells_a_sibling(element) else "figure without image"
            self.article.drops.append(Drop(where, reason, label_of(element) or ""))
        elif not caption:
            self._drop_each(where, "no caption", graphics)
        else:
            self._add(element, key, kind, caption, told_by, graphics)

    def _add(
        self,
        element: etree._Element,
        key: str,
        kind: str,
        caption: str,
        told_by: etree._Element,
        graphics: list[etree._Element],
    ) -> None:
        where = f"{element.tag} {key}"
        label = _label(element)
        kind = _finer(element, kind, label)
        if kind not in self.kinds:
            self._drop_each(where, _UNASKED[kind], graphics)
            return
        found, small = pictures(graphics)
        self.article.drops += [Drop(where, "thumbnail", picture.hrefs[0][:200]) for picture in small]
        scope = self._scope(element)
        figure = Figure(
            key=key,
            id=element.get("id"),
            kind=kind,
            label=label,
            caption=caption,
            language=language(told_by),
            article_type=scope.article_type,
            pictures=found,
            rights=figure_rights(element, _notes(element, caption, graphics), scope.rights, self.authors),
            mentions=scope.mentions().of([e.get("id") for e in (element, *element.iterancestors(*_GROUPS))]),
            compound=len(found) > 1 or marks_panels(caption),
        )
        self.article.figures.append(figure)

    def _drop_each(self, where: str, reason: str, graphics: list[etree._Element]) -> None:
        found, small = pictures(graphics)
        for picture in found + small:
            self.article.drops.append(Drop(where, reason, picture.hrefs[0][:200]))

    def _scope(self, element: etree._Element) -> _Scope:
        """Return the sub-article (or response) that holds an element, or the article itself."""
        for above in element.iterancestors("sub-article", "response"):
            if above not in self.scopes:
                front = above.find("front-stub")
                front = front if front is not None else above.find("front/article-meta")
                self.scopes[above] = _Scope(
                    above,
                    language(above),
                    above.get("article-type") or above.get("response-type"),
                    no_freer(article_rights(front, self.main.rights), self.article.front.told),
                    translation=(above.get("article-type") or above.get("response-type") or "") == "translation",
                )
            return self.scopes[above]
        return self.main

    def _in_main(self, tag: str) -> bool:
        """Tell whether the main article has such elements, so that a translation's are copies."""
        if tag not in self.in_main:
            self.in_main[tag] = any(self._scope(e) is self.main for e in self.root.iter(tag))
        return self.in_main[tag]


class _Scope:
    """An article or sub-article: what holds for all figures in it."""

    def __init__(
        self, element: etree._Element, language: str, article_type: str | None, rights: Rights, translation: bool
    ) -> None:
        self.element = element
        self.language = language
        self.article_type = article_type
        self.rights = rights
        self.translation = translation
        self.citing: list[etree._Element] = []
        """References, and what they may cite, in the order of the text; found anew where it is empty."""
        self._mentions: Mentions | None = None

    def mentions(self) -> Mentions:
        if self._mentions is None:
            self._mentions = Mentions(self.element, self.language, self.citing or None)
        return self._mentions


def _tells_a_sibling(element: etree._Element) -> bool:
    """Tell whether a figure without image is only the caption, in another language, of one beside it in its group."""
    parent = element.getparent()
    if parent is None or parent.tag not in _GROUPS:
        return False
    return any(e.get(XML_LANG) != element.get(XML_LANG) for e in parent if e.tag == element.tag)


def _holder(graphic: etree._Element) -> tuple[etree._Element, str]:
    """Return the nearest element that a graphic belongs to, and that element's kind.

    Outside of any that is the graphic itself, or the first of its alternatives.
    """
    for above in graphic.iterancestors():
        kind = _OWNERS.get(above.tag)
        if kind:
            return above, kind
        if above.tag in _ALONE:
            break
    parent = graphic.getparent()
    if parent is None or parent.tag != "alternatives":
        return graphic, "graphic"
    return next(parent.iter(*_PICTURES)), "graphic"


def _in_cell(graphic: etree._Element, table: etree._Element) -> bool:
    """Tell whether a graphic stands in a cell beside others: a symbol in a table, no picture of it."""
    cell = next(graphic.iterancestors("td", "th"), None)
    return cell is not None and sum(1 for _ in zip(table.iter("td", "th"), range(2), strict=False)) > 1


def _beside_the_picture(graphic: etree._Element, holder: etree._Element) -> bool:
    """Tell whether a graphic is a symbol in a figure's text, or in a table's cell, rather than the figure."""
    if graphic.tag == "inline-graphic":
        return True
    if holder is graphic:
        return False
    for above in graphic.iterancestors():
        if above is holder:
            return False
        if above.tag in ("caption", "label", "attrib", "permissions"):
            return True
        if above.tag in ("td", "th"):
            return _in_cell(graphic, holder)
    return False


def _caption(element: etree._Element) -> tuple[str, etree._Element]:
    """Return a figure's whole caption and the element that tells its language.

    That is the caption, or a paragraph of it, where it stands in several languages; else the figure, or the group
    whose caption it shares. The caption of a group stands before those of its figures that are in the same language.
    """
    text, holder = _in_one_language(element)
    parent = element.getparent()
    if parent is None or parent.tag not in _GROUPS:
        return text, holder
    shared, told_by = _in_one_language(parent, language(holder) if text else None)
    if not text:
        return shared, told_by
    if not shared or language(told_by) != language(holder) or text.startswith(shared):
        return text, holder
    return f"{shared} {text}", holder


def _in_one_language(element: etree._Element, wanted: str | None = None) -> tuple[str, etree._Element]:
    """Return the text of an element's captions in one language: `wanted`, the article's, or that of the first."""
    parts = [c for c in element if c.tag == "caption"]
    holder = parts[0] if parts and parts[0].get(XML_LANG) else element
    if len(parts) == 1 and any(part.get(XML_LANG) for part in parts[0]):
        parts = list(parts[0])
    spoken = [language(part) for part in parts] if len(parts) > 1 else []
    if len(set(spoken)) > 1:
        main = wanted or language(element)
        kept = main if main in spoken else spoken[0]
        parts = [part for part, code in zip(parts, spoken, strict=True) if code == kept]
        holder = parts[0]
    return " ".join(text for part in parts if (text := plain(part))), holder


def _notes(element: etree._Element, caption: str, graphics: list[etree._Element]) -> list[str]:
    """Return the texts of a figure, its graphics and the groups around it that may name an owner or a license."""
    notes = [caption, *(plain(e) for e in element.iter("attrib"))]
    notes += [plain(e) for g in graphics if g is not element for e in g if e.tag in ("caption", "p")]
    captions = [e for e in element if e.tag == "caption"]
    if len(captions) > 1 or any(e.get(XML_LANG) for c in captions for e in c):
        notes += [plain(e) for e in captions]  # in other languages as well
    notes += [plain(e) for e in element if e.tag in ("p", "table-wrap-foot")]
    for group in element.iterancestors(*_GROUPS):
        notes += [plain(e) for e in group if e.tag in ("caption", "attrib", "p")]
    return notes


def _label(element: etree._Element) -> str | None:
    """Return an element's label, or that of the group around it."""
    parent = element.getparent()
    return label_of(element) or (label_of(parent) if parent is not None and parent.tag in _GROUPS else None)


def _finer(element: etree._Element, kind: str, label: str | None) -> str:
    """Tell the supplementary among the figures."""
    if kind in _PLAIN_KINDS:
        return kind
    if element.tag == "supplementary-material" or element.get("specific-use") == "child-fig":
        return "supplementary"
    if _SUPPLEMENT.search(label or "") or next(element.iterancestors("supplementary-material"), None) is not None:
        return "supplementary"
    return "figure"


def _where(element: etree._Element) -> str:
    owner = next((e for e in element.iterancestors() if e.get("id")), None)
    return f"{owner.tag} {owner.get('id')}" if owner is not None else element.tag


def language(element: etree._Element) -> str:
    """Return the ISO 639-1 code that holds at an element. JATS declares "en" as the default of `article/@xml:lang`."""
    for above in (element, *element.iterancestors()):
        stated = above.get(XML_LANG)
        if stated and (value := stated.strip().lower()):
            code = re.split(r"[-_]", value)[0]
            return _LANGUAGES.get(code, code)
    return "en"
