"""What an article says of itself: its names, title, authors, dates, subjects, license and copyright line."""

from __future__ import annotations

import calendar
import copy
import dataclasses
import datetime
import re
from collections.abc import Callable, Iterator

from lxml import etree

from medvlm.data.sample import Credit
from medvlm.data.sources.pmc.rights import NONE_STATED, Rights, article_rights, license_address, no_freer
from medvlm.data.sources.pmc.text import local, plain, squeeze, words

_YEAR = re.compile(r"(?:1[5-9]|20)\d\d")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ISO_DATE = re.compile(r"(\d{4})(?:-?(\d\d)(?:-?(\d\d))?)?(?![\d-])")
# JATS names the dates of publication in many ways (pub, epub, ppub, collection, epub-ppub, or a format alone).
_NOT_PUBLISHED = re.compile(
    r"submit|submission|receiv|accept|rev-|revis|request|pre-?print|correct|retract|withdraw|update|embargo|review"
)
_PMCID = re.compile(r"(?:PMC)?(\d+)(?:\.(\d+))?", re.IGNORECASE)


@dataclasses.dataclass(slots=True)
class Front:
    """The front matter of an article."""

    pmcid: str | None = None
    doi: str | None = None
    version: int = 0
    """As the XML numbers it (`article-version`, or the `.2` of its PMC id); 0 where it does not."""
    article_type: str | None = None
    title: str = ""
    authors: list[str] = dataclasses.field(default_factory=list)
    """Given name and surname, in order; groups by their name."""
    surnames: frozenset[str] = frozenset()
    """Of all contributors, lower case."""
    journal: str | None = None
    year: int | None = None
    """The earliest year of publication (print, electronic or collection)."""
    published: datetime.date | None = None
    """The day on which the article was certainly out: of each date stated its last possible day, the earliest."""
    subjects: list[str] = dataclasses.field(default_factory=list)
    """Keywords, subjects and the title: what tells the field of the article."""
    rights: Rights = NONE_STATED
    told: Rights | None = None
    """What PMC says of the article."""
    license_url: str | None = None
    copyright: str = ""

    def credit(self, group: str) -> Credit:
        """Return whom to name for the figures of this article."""
        return Credit(
            group=group,
            title=self.title,
            authors="; ".join(self.authors),
            journal=self.journal,
            year=self.year,
            doi=self.doi,
            pmcid=self.pmcid,
            license=self.rights.license,
            license_url=self.license_url,
            copyright=self.copyright,
        )


Told = Rights | Callable[[str | None], Rights | None] | None
"""What PMC says of an article: its rights, or what is asked for them with the PMC id that the XML states."""


def read_front(root: etree._Element, fallback: Told = None) -> Front:
    """Return the front matter of an `article` element.

    Args:
        root: the `article`.
        fallback: what PMC says of it (see `rights.no_freer`).
    """
    meta = root.find("front/article-meta")
    pmcid, version = _pmcid(meta) if meta is not None else (None, 0)
    told = fallback(pmcid) if callable(fallback) else fallback
    rights = no_freer(article_rights(meta if meta is not None else root.find("front")), told)
    front = Front(pmcid, version=version, article_type=root.get("article-type"), journal=_journal(root), rights=rights)
    front.told = told
    if meta is None:
        return front
    front.doi = _doi(meta)
    front.title = _title(meta)
    front.authors = list(dict.fromkeys(_authors(meta)))
    surnames = (plain(e).lower() for group in meta.iterfind("contrib-group") for e in group.iter("surname"))
    front.surnames = frozenset(name for name in surnames if len(name) > 1)
    front.year, front.published = _published(meta)
    named = [*meta.iterfind("kwd-group//kwd"), *meta.iterfind("article-categories//subject")]
    front.subjects = list(dict.fromkeys(t for t in [*(plain(e) for e in named), front.title] if t))
    front.license_url = license_address(meta, rights)
    front.copyright = _copyright(meta)
    return front


def _doi(meta: etree._Element) -> str | None:
    for element in meta.findall("article-id[@pub-id-type='doi']"):
        value = re.sub(r"^(https?://(dx\.)?doi\.org/|doi:\s*)", "", squeeze(words(element)), flags=re.IGNORECASE)
        if value.startswith("10."):
            return value
    return None


def _pmcid(meta: etree._Element) -> tuple[str | None, int]:
    """Return the PMC id with its prefix and the version of the article, 0 where none is stated."""
    version = _version(meta)
    for element in meta.findall("article-id"):
        if element.get("pub-id-type") in ("pmc", "pmcid") and (match := _PMCID.fullmatch(squeeze(words(element)))):
            return f"PMC{match[1]}", int(match[2] or version)
    return None, version


def _version(meta: etree._Element) -> int:
    """Return the number of `article-version` ("2", "v2", "2.0"), 0 where there is none or it is a word ("VoR")."""
    for element in meta.iter("article-version"):
        for text in (squeeze(words(element)), element.get("designator") or ""):
            if match := re.fullmatch(r"v?(?:ersion\s*)?(\d{1,4})(?:\.\d+)?", text, re.IGNORECASE):
                return int(match[1])
    return 0


def _title(meta: etree._Element) -> str:
    parts = [meta.find("title-group/article-title"), meta.find("title-group/subtitle")]
    return ": ".join(text for part in parts if part is not None and (text := plain(_without_notes(part))))


def _without_notes(title: etree._Element) -> etree._Element:
    """Return a title without the marks of its footnotes."""
    if title.find(".//xref") is None:
        return title
    bare = copy.deepcopy(title)
    etree.strip_elements(bare, "xref", "fn", with_tail=False)
    return bare


def _authors(meta: etree._Element) -> Iterator[str]:
    for contrib in meta.iterfind("contrib-group/contrib"):
        if contrib.get("contrib-type", "author") != "author":
            continue
        for element in contrib.iter("name", "name-alternatives", "collab", "string-name", "collab-name"):
            found = element.find("*") if element.tag == "name-alternatives" else element
            name = _name(found) if found is not None else ""
            if name:
                yield name
                break


def _name(element: etree._Element) -> str:
    if element.tag == "name":
        parts = {child.tag: plain(child) for child in element}
        return " ".join(text for part in ("given-names", "surname", "suffix") if (text := parts.get(part)))
    if element.tag == "collab":
        inside = [element.text or ""]
        for child in element:
            # The members of a group are listed inside its name.
            inside += ["" if local(child) == "contrib-group" else plain(child), child.tail or ""]
        return squeeze("".join(inside)).rstrip(" :;,")
    return plain(element) if element.tag in ("string-name", "collab-name") else ""


def _journal(root: etree._Element) -> str | None:
    meta = root.find("front/journal-meta")
    if meta is None:
        return None
    for path in ("journal-title-group/journal-title", "journal-title", "journal-id[@journal-id-type='nlm-ta']"):
        title = meta.find(path)
        if title is not None and (text := plain(title)):
            return text
    return None


def _published(meta: etree._Element) -> tuple[int | None, datetime.date | None]:
    """Return the earliest year of publication, and the earliest of the last possible days that the dates leave.

    Other dates than those of publication (received, preprint, retracted) are passed over; that of the release in PMC
    counts where there is no other.
    """
    dates = [date for date in meta.iterfind("pub-date") if not _NOT_PUBLISHED.search(_kind(date))]
    kinds = [date for date in dates if "release" not in _kind(date)] or dates
    found = [said for date in kinds if (said := _stated_date(date))]
    years = [year for year, _, _ in found]
    return min(years, default=None), min((_last_day(*parts) for parts in found), default=None)


def _kind(date: etree._Element) -> str:
    return " ".join(date.get(name) or "" for name in ("pub-type", "date-type")).lower()


def _stated_date(date: etree._Element) -> tuple[int, int, str] | None:
    """Return year, month (0 where none is said) and day of the parts of a date, else of its ISO 8601 form."""
    year = squeeze(date.findtext("year") or "")
    month = _month(squeeze(date.findtext("month") or ""))
    iso = _ISO_DATE.match((date.get("iso-8601-date") or "").strip())
    if _YEAR.fullmatch(year) and (month or not iso or iso[1] != year):
        return int(year), month, squeeze(date.findtext("day") or "")
    return (int(iso[1]), _month(iso[2] or ""), iso[3] or "") if iso and _YEAR.fullmatch(iso[1]) else None


def _last_day(year: int, month: int, day: str) -> datetime.date:
    if not month:
        return datetime.date(year, 12, 31)
    last = calendar.monthrange(year, month)[1]
    return datetime.date(year, month, int(day) if re.fullmatch(r"\d\d?", day) and 1 <= int(day) <= last else last)


def _month(text: str) -> int:
    """Return a month's number, of "3", "03" or "March"; 0 where it is none."""
    if re.fullmatch(r"\d\d?", text):
        return int(text) if 1 <= int(text) <= 12 else 0
    return _MONTHS.index(text[:3].lower()) + 1 if text[:3].lower() in _MONTHS else 0


def _copyright(meta: etree._Element) -> str:
    """Return the copyright line, else the year and the holder, of `permissions` or (before JATS 1.0) beside it."""
    for holder in (meta.find("permissions"), meta):
        if holder is None:
            continue
        statement = holder.find("copyright-statement")
        if statement is not None and (text := plain(statement)):
            return text
        parts = [holder.find("copyright-year"), holder.find("copyright-holder")]
        if line := " ".join(text for part in parts if part is not None and (text := plain(part))):
            return line
    return ""
