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
from medvlm.data.sources.pmc.rights import Rights, article_rights, figure_rights
from medvlm.data.sources.pmc.text import local, plain, squeeze, words
from medvlm.data.sources.pmc.xml import Document

XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
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
_THUMBNAIL = re.compile(r"thumb|scielo-\d+x\d+|[._-]tn\b|icon", re.IGNORECASE)
_SUPPLEMENT = re.compile(r"supplement|^\W*(?:fig(?:ure|\.)?|appendix|image)?\s*\.?S\d", re.IGNORECASE)
_PANEL_SUFFIX = re.compile(r"(?<=\d)([a-z])$", re.IGNORECASE)
_PANEL_MARKS = re.compile(r"(?:^|[\s.;:,(])\(?([A-Ha-h])(?:\)|[.:,](?=\s))|\(([A-Ha-h])[)\-–,]")
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
class Picture:
    """One picture: references to alternative files of it (the best first), and which panel of its figure it is."""

    hrefs: list[str]
    panel: str | None = None


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
            self.article.drops.append(Drop(where, "figure in damaged xml", _label(element) or ""))
        elif scope.translation and self._has_figures():
            self.article.drops.append(Drop(where, "translated copy", f"{scope.article_type} {scope.language}"))
        elif not graphics:
            self.article.drops.append(Drop(where, "figure without image", _label(element) or ""))
        elif not caption:
            self._drop_each(where, "no caption", graphics)
        else:
            self.article.figures.append(self._figure(element, key, caption, holder, graphics, scope))

    def _drop_each(self, where: str, reason: str, graphics: list[etree._Element]) -> None:
        for picture in _pictures(graphics):
            self.article.drops.append(Drop(where, reason, picture.hrefs[0][:200]))

    def _figure(
        self,
        element: etree._Element,
        key: str,
        caption: str,
        holder: etree._Element,
        graphics: list[etree._Element],
        scope: _Scope,
    ) -> Figure:
        label = _label(element) or (_label(holder) if holder is not element else None)
        return Figure(
            key=key,
            id=element.get("id"),
            kind=_kind(element, label),
            label=label,
            caption=caption,
            language=language(holder),
            article_type=scope.article_type,
            pictures=_pictures(graphics),
            rights=figure_rights(element, _notes(element), scope.rights, self.authors),
            mentions=scope.mentions().get(element.get("id") or "", []),
            compound=_is_compound(caption, graphics),
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


def _pictures(graphics: list[etree._Element]) -> list[Picture]:
    """Group the graphics of a figure into pictures: alternatives are one, others are parts."""
    groups: dict[object, list[etree._Element]] = {}
    for graphic in graphics:
        parent = graphic.getparent()
        stem = re.sub(r"\.\w{2,4}$", "", (graphic.get(XLINK_HREF) or "").lower())
        alternative = parent is not None and parent.tag == "alternatives"
        groups.setdefault(parent if alternative else (stem or graphic), []).append(graphic)
    whole = [g for g in groups.values() if not all(_is_thumbnail(e) for e in g)] or list(groups.values())
    pictures = [Picture([e.get(XLINK_HREF) or "" for e in sorted(group, key=_rank)]) for group in whole]
    if len(pictures) > 1:
        for index, (picture, group) in enumerate(zip(pictures, whole, strict=True)):
            picture.panel = _panel(group[0], index)
    return pictures


def _is_thumbnail(graphic: etree._Element) -> bool:
    return bool(_THUMBNAIL.search(" ".join(graphic.get(a) or "" for a in ("content-type", "specific-use", XLINK_HREF))))


def _rank(graphic: etree._Element) -> tuple[bool, bool, int]:
    """Order alternatives: thumbnails last, web copies after originals, then by what their formats keep."""
    extension = (graphic.get(XLINK_HREF) or "").rpartition(".")[2].lower()
    order = ("tif", "tiff", "png", "jpg", "jpeg", "webp", "gif")
    web = "web" in (graphic.get("specific-use") or "").lower()
    return _is_thumbnail(graphic), web, order.index(extension) if extension in order else len(order)


def _panel(graphic: etree._Element, index: int) -> str:
    label = _label(graphic)
    stem = re.sub(r"\.\w{2,4}$", "", graphic.get(XLINK_HREF) or "")
    letter = _PANEL_SUFFIX.search(stem)
    return (label or "").strip(" ().:") or (letter[1].lower() if letter else str(index + 1))


def _caption(element: etree._Element) -> tuple[str, etree._Element]:
    """Return a figure's whole caption and the element that holds it: the figure, or the group it is a part of."""
    own = [c for c in element if local(c) == "caption"]
    text = squeeze(" ".join(plain(c) for c in own))
    parent = element.getparent()
    if text or parent is None or parent.tag != "fig-group":
        return text, own[0] if own and own[0].get(XML_LANG) else element
    group = squeeze(" ".join(plain(c) for c in parent if local(c) == "caption"))
    return group, parent


def _notes(element: etree._Element) -> list[str]:
    """Return the texts of a figure and of the groups around it that may name an owner or a license."""
    notes = [plain(e) for e in element.iter("attrib")]
    for holder in (element, *element.iterancestors("fig-group")):
        parts = ("caption", "p") if holder is element else ("caption", "attrib", "p")
        notes += [plain(e) for e in holder if local(e) in parts]
    return notes


def _label(element: etree._Element) -> str | None:
    label = element.find("label")
    return (plain(label) or None) if label is not None else None


def _kind(element: etree._Element, label: str | None) -> str:
    if element.tag == "supplementary-material" or element.get("specific-use") == "child-fig":
        return "supplementary"
    if _SUPPLEMENT.search(label or "") or next(element.iterancestors("supplementary-material"), None) is not None:
        return "supplementary"
    return "figure"


def _is_compound(caption: str, graphics: list[etree._Element]) -> bool:
    """Tell whether a caption marks at least the panels A and B, each at the start of a part or in parentheses."""
    marks = {(m[1] or m[2]).lower() for m in _PANEL_MARKS.finditer(caption)}
    return {"a", "b"} <= marks or len(_pictures(graphics)) > 1


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
