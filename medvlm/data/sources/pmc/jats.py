"""JATS XML as articles, figures and graphics. Knows nothing of files: a graphic is what its references say.

Follows the NISO JATS tag sets (Z39.96) and the older NLM ones. Every `graphic` of an article ends up in a figure's
pictures or in its `drops`, so that nothing is lost unseen.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from lxml import etree

from medvlm.data.sources.pmc import mentions
from medvlm.data.sources.pmc.pictures import XLINK_HREF, Picture, label_of, pictures
from medvlm.data.sources.pmc.rights import Rights, article_rights, figure_rights
from medvlm.data.sources.pmc.text import fold_hyphens, local, plain, squeeze, words
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
    "abstract": "graphic",
    "trans-abstract": "graphic",
}
_DROP_REASONS = {"table": "table image", "equation": "equation image", "graphic": "graphic outside a figure"}
_SUPPLEMENT = re.compile(r"supplement|^\W*(?:fig(?:ure|\.)?|appendix|image)?\s*\.?S\d", re.IGNORECASE)
_PANEL_MARKS = re.compile(r"(?:^|[\s.;:,(])\(?([A-Ha-h])(?:\)|[.:,](?=\s))|\(([A-Ha-h])[)\-,]")
_PANEL_RANGES = re.compile(
    r"(?:^|[\s.;:,])\(?([A-Ha-h])\s?(?:-|to|and|&)\s?([A-Ha-h])(?:\)|[.:,](?=\s))|\(([A-Ha-h])-([A-Ha-h])\b"
)
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
    pmcid: str | None
    doi: str | None
    journal: str | None
    year: int | None
    article_type: str | None
    figures: list[Figure]
    drops: list[Drop]


def read_article(document: Document) -> Article:
    """Return what samples need of an article; figures that damage has reached are among its drops."""
    root = document.root
    meta = root.find("front/article-meta")
    pmcid, doi = _article_id(meta, "pmc"), _article_id(meta, "doi")
    article = Article(
        group=pmcid or (doi.lower() if doi else document.sha256()),
        pmcid=pmcid,
        doi=doi,
        journal=_journal(root),
        year=_year(meta),
        article_type=root.get("article-type"),
        figures=[],
        drops=[],
    )
    _Reader(document, article, article_rights(meta if meta is not None else root.find("front"))).run()
    return article


class _Reader:
    """Walks one article once and files every figure and graphic it meets."""

    def __init__(self, document: Document, article: Article, rights: Rights) -> None:
        self.root = root = document.root
        self.whole = document.whole
        self.article = article
        self.authors = _authors(root)
        self.scopes: dict[etree._Element, _Scope] = {}
        self.main = _Scope(root, language(root), article.article_type, rights, translation=False)

    def run(self) -> None:
        owned: dict[etree._Element, list[etree._Element]] = {}
        figures: list[etree._Element] = []
        for element in self.root.iter(
            "fig", "fig-group", "supplementary-material", "graphic", "inline-graphic", "media"
        ):
            name = element.tag
            if name in ("graphic", "inline-graphic") or (name == "media" and _is_picture(element)):
                owner, kind = _owner(element)
                if kind in _DROP_REASONS or owner is None or _beside_the_picture(element, owner):
                    self._drop_graphic(element, kind)
                else:
                    owned.setdefault(owner, []).append(element)
            if name != "graphic":
                figures.append(element)
        for index, element in enumerate(f for f in figures if f.tag in _OWNERS):
            self._file(element, owned.get(element, []), index + 1)

    def _drop_graphic(self, element: etree._Element, kind: str) -> None:
        parent = element.getparent()
        if (
            parent is not None
            and parent.tag == "alternatives"
            and element is not next(parent.iter("graphic", "inline-graphic", "media"), element)
        ):
            return  # the other forms of one picture that is counted already
        inline = element.tag == "inline-graphic" and kind in ("figure", "supplementary", "graphic")
        reason = "inline graphic" if inline else _DROP_REASONS.get(kind, "graphic outside a figure")
        self.article.drops.append(Drop(_where(element), reason, (element.get(XLINK_HREF) or "")[:200]))

    def _file(self, element: etree._Element, graphics: list[etree._Element], number: int) -> None:
        """Make a figure of a `fig`; of a `fig-group` or supplement only where it has pictures of its own."""
        if element.tag != "fig" and not graphics:
            return
        scope = self._scope(element)
        key = element.get("id") or f"fig-{number}"
        where = f"{element.tag} {key}"
        caption, holder = _caption(element)
        if not self.whole(element):
            self.article.drops.append(Drop(where, "figure in damaged xml", label_of(element) or ""))
        elif scope.translation and self._has_figures():
            self.article.drops.append(Drop(where, "translated copy", f"{scope.article_type} {scope.language}"))
        elif not graphics:
            self.article.drops.append(Drop(where, "figure without image", label_of(element) or ""))
        elif not caption:
            self._drop_each(where, "no caption", graphics)
        else:
            found, small = pictures(graphics)
            for picture in small:
                self.article.drops.append(Drop(where, "thumbnail", picture.hrefs[0][:200]))
            self.article.figures.append(self._figure(element, key, caption, holder, found, scope))

    def _drop_each(self, where: str, reason: str, graphics: list[etree._Element]) -> None:
        found, small = pictures(graphics)
        for picture in found + small:
            self.article.drops.append(Drop(where, reason, picture.hrefs[0][:200]))

    def _figure(
        self,
        element: etree._Element,
        key: str,
        caption: str,
        holder: etree._Element,
        found: list[Picture],
        scope: _Scope,
    ) -> Figure:
        shared = element not in (holder, *holder.iterancestors())
        label = label_of(element) or (label_of(element.getparent()) if shared else None)
        return Figure(
            key=key,
            id=element.get("id"),
            kind=_kind(element, label),
            label=label,
            caption=caption,
            language=language(holder),
            article_type=scope.article_type,
            pictures=found,
            rights=figure_rights(element, _notes(element), scope.rights, self.authors),
            mentions=scope.mentions().get(element.get("id") or "", []),
            compound=len(found) > 1 or _marks_panels(caption),
        )

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
                    article_rights(front, self.main.rights),
                    translation=(above.get("article-type") or above.get("response-type") or "") == "translation",
                )
            return self.scopes[above]
        return self.main

    def _has_figures(self) -> bool:
        """Tell whether the main article has figures, so that a translation's are copies."""
        return any(self._scope(f) is self.main for f in self.root.iter("fig"))


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
        self._mentions: dict[str, list[str]] | None = None

    def mentions(self) -> dict[str, list[str]]:
        if self._mentions is None:
            self._mentions = mentions.collect(self.element)
        return self._mentions


def _owner(graphic: etree._Element) -> tuple[etree._Element | None, str]:
    """Return the nearest element that a graphic belongs to, and that element's kind."""
    for above in graphic.iterancestors():
        kind = _OWNERS.get(above.tag)
        if kind:
            return above, kind
    return None, "graphic"


def _beside_the_picture(graphic: etree._Element, owner: etree._Element) -> bool:
    """Tell whether a graphic is a symbol in a figure's text rather than the figure."""
    if graphic.tag == "inline-graphic":
        return True
    for above in graphic.iterancestors():
        if above is owner:
            return False
        if above.tag in ("caption", "label", "attrib", "permissions"):
            return True
    return False


def _is_picture(media: etree._Element) -> bool:
    """Tell whether a `media` element of a supplement is a still picture."""
    href = media.get(XLINK_HREF) or ""
    kind = (media.get("mimetype") or "").lower()
    return kind.startswith("image") or (not kind and href.lower().endswith((".jpg", ".jpeg", ".png", ".tif", ".tiff")))


def _caption(element: etree._Element) -> tuple[str, etree._Element]:
    """Return a figure's whole caption and the element that tells its language.

    That is the caption, or a paragraph of it, where it stands in several languages; else the figure, or the group
    whose caption it shares.
    """
    text, holder = _in_one_language(element)
    parent = element.getparent()
    if text or parent is None or parent.tag != "fig-group":
        return text, holder
    return _in_one_language(parent)


def _in_one_language(element: etree._Element) -> tuple[str, etree._Element]:
    """Return the text of an element's captions in the language of the article, else in that of the first caption."""
    parts = [c for c in element if local(c) == "caption"]
    holder = parts[0] if parts and parts[0].get(XML_LANG) else element
    if len(parts) == 1 and any(part.get(XML_LANG) for part in parts[0]):
        parts = list(parts[0])
    spoken = [language(part) for part in parts]
    if len(set(spoken)) > 1:
        main = language(element)
        kept = main if main in spoken else spoken[0]
        parts = [part for part, code in zip(parts, spoken, strict=True) if code == kept]
        holder = parts[0]
    return squeeze(" ".join(plain(part) for part in parts)), holder


def _notes(element: etree._Element) -> list[str]:
    """Return the texts of a figure and of the groups around it that may name an owner or a license."""
    notes = [plain(e) for e in element.iter("attrib")]
    for holder in (element, *element.iterancestors("fig-group")):
        parts = ("caption", "p") if holder is element else ("caption", "attrib", "p")
        notes += [plain(e) for e in holder if local(e) in parts]
    return notes


def _kind(element: etree._Element, label: str | None) -> str:
    if element.tag == "supplementary-material" or element.get("specific-use") == "child-fig":
        return "supplementary"
    if _SUPPLEMENT.search(label or "") or next(element.iterancestors("supplementary-material"), None) is not None:
        return "supplementary"
    return "figure"


def _marks_panels(caption: str) -> bool:
    """Tell whether a caption marks at least the panels A and B, each at the start of a part or in parentheses.

    A range ("(A-C) CT.") marks all from its first to its last.
    """
    folded = fold_hyphens(caption)
    marks = {(m[1] or m[2]).lower() for m in _PANEL_MARKS.finditer(folded)}
    for match in _PANEL_RANGES.finditer(folded):
        first, last = (match[1] or match[3]), (match[2] or match[4])
        if first.islower() == last.islower():
            marks |= set("abcdefgh"["abcdefgh".index(first.lower()) : "abcdefgh".index(last.lower()) + 1])
    return {"a", "b"} <= marks


def _where(element: etree._Element) -> str:
    owner = next((e for e in element.iterancestors() if e.get("id")), None)
    return f"{owner.tag} {owner.get('id')}" if owner is not None else element.tag


def language(element: etree._Element) -> str:
    """Return the ISO 639-1 code that holds at an element. JATS declares "en" as the default of `article/@xml:lang`."""
    for above in (element, *element.iterancestors()):
        value = (above.get(XML_LANG) or "").strip().lower()
        if value:
            code = re.split(r"[-_]", value)[0]
            return _LANGUAGES.get(code, code)
    return "en"


def _article_id(meta: etree._Element | None, kind: str) -> str | None:
    if meta is None:
        return None
    for element in meta.findall("article-id"):
        value, id_type = squeeze(words(element)), element.get("pub-id-type")
        if kind == "doi" and id_type == "doi":
            value = re.sub(r"^(https?://(dx\.)?doi\.org/|doi:\s*)", "", value, flags=re.IGNORECASE)
            if value.startswith("10."):
                return value
        elif kind == "pmc" and id_type in ("pmc", "pmcid"):
            match = re.fullmatch(r"(?:PMC)?(\d+)(?:\.\d+)?", value, re.IGNORECASE)
            if match:
                return f"PMC{match[1]}"
    return None


def _journal(root: etree._Element) -> str | None:
    meta = root.find("front/journal-meta")
    if meta is None:
        return None
    for path in ("journal-title-group/journal-title", "journal-title", "journal-id[@journal-id-type='nlm-ta']"):
        title = meta.find(path)
        if title is not None and (text := plain(title)):
            return text
    return None


def _year(meta: etree._Element | None) -> int | None:
    """Return the earliest year of publication (print, electronic or collection)."""
    years = meta.findall("pub-date/year") if meta is not None else []
    values = [int(t) for y in years if re.fullmatch(r"(?:1[5-9]|20)\d\d", t := squeeze(words(y)))]
    return min(values, default=None)


def _authors(root: etree._Element) -> frozenset[str]:
    names: Iterator[etree._Element] = root.iterfind("front/article-meta/contrib-group/contrib//surname")
    return frozenset(n for e in names if len(n := plain(e).lower()) > 1)
