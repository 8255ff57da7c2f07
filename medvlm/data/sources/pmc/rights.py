"""What may be done with an article and with each of its figures, and the words or address that say so.

A license is looked for in this order: the address on the license element (`xlink:href`, `ali:license_ref`), an address
in its text, its type attribute, its prose, the prose of the copyright statement, PMC's own `pmc-license-ref`. A
figure's own `<permissions>` (or its group's) beat its article's, and a note of ownership in its caption ("© MBARI
2001", "reproduced with permission") takes the article's license away: its authors cannot give what is not theirs.
Where address and prose disagree the stricter holds.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterable, Iterator

from lxml import etree

from medvlm.data.sources.pmc.owners import caption_license, third_party_note
from medvlm.data.sources.pmc.prose import (
    ALL_RIGHTS_RESERVED,
    PUBLIC_DOMAIN,
    address_license,
    code_license,
    is_stricter,
    prose_license,
    strictest,
    strictness,
    text_addresses,
)
from medvlm.data.sources.pmc.text import fold_hyphens, local, plain, squeeze, words

_EVIDENCE_CHARS = 400
_XLINK = "{http://www.w3.org/1999/xlink}href"
_GROUPS = ("fig-group", "table-wrap-group")
_HOLDERS = ("fig", "supplementary-material", "table-wrap", "disp-formula-group", "chem-struct-wrap", *_GROUPS)
_REWORKED = re.compile(r"\b(?:re)?adapt|\bmodif|\bredrawn", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True)
class Rights:
    """A license with what it rests on; `license` None where none is stated."""

    license: str | None = None
    scope: str = "article"
    evidence: str | None = None
    third_party: bool = False


NONE_STATED = Rights()


def article_rights(front: etree._Element | None, inherited: Rights = NONE_STATED) -> Rights:
    """Return the rights that an article's front matter (`article-meta`, or a sub-article's `front-stub`) states."""
    if front is None:
        return inherited
    found = _stated(front.find("permissions"), front)
    if found is None:
        found = _pmc_license_ref(front)
    return Rights(*found) if found else inherited


def metadata_rights(code: str | None, told_by: str = "PMC metadata") -> Rights | None:
    """Return the rights that PMC's metadata or file lists name by a code ("CC BY"); None for a code that is none."""
    found = code_license(code) if code else None
    return Rights(found, "article", f"{told_by}: {code}") if found else None


def license_address(front: etree._Element, rights: Rights) -> str | None:
    """Return the address that front matter gives for its license, None where it gives none for this one."""
    if not rights.license:
        return None
    if rights.evidence and address_license(rights.evidence) == rights.license:
        return rights.evidence.rstrip(".,;")
    for element in front.iter("license"):
        for address in (*_attribute_addresses(element), *text_addresses(_with_addresses(element))):
            if address_license(address) == rights.license:
                return address.rstrip(".,;")
    return None


def figure_rights(figure: etree._Element, notes: Iterable[str], article: Rights, authors: frozenset[str]) -> Rights:
    """Return the rights of one figure.

    Args:
        figure: the `fig` (or graphic's owner); its own `<permissions>` are looked for, then those of its groups.
        notes: the texts that may name another owner: caption, attribution, paragraphs of the figure and its groups.
        article: what holds where the figure says nothing.
        authors: family names of the article's authors, lower case: credit to them is no third party.
    """
    for holder in (figure, *figure.iterancestors(*_GROUPS)):
        for permissions in holder.iter("permissions"):
            if next(permissions.iterancestors(holder.tag, *_HOLDERS), None) is holder:
                own = _own_rights(permissions, article)
                if own is not None:
                    return own
    return _noted_rights(notes, article, authors)


def _noted_rights(notes: Iterable[str], article: Rights, authors: frozenset[str]) -> Rights:
    """Return the rights that captions and credits leave: an owner without a license takes the article's away."""
    licenses: list[tuple[str, str]] = []
    borrowed = False
    for text in notes:
        if named := caption_license(text):
            licenses.append(named)
        if not (found := third_party_note(text, authors)):
            continue
        note, owned = found
        said = caption_license(note) or _given_in_words(note)
        if said:
            licenses.append(said)
        elif owned:
            return Rights(None, "figure", note, True)
        borrowed = True
    strict = strictest(licenses)
    if strict and not (_REWORKED.search(strict[1]) and strictness(article.license) < strictness(strict[0])):
        return Rights(strict[0], "figure", strict[1][:_EVIDENCE_CHARS], True)
    return dataclasses.replace(article, third_party=True) if borrowed or strict else article


def _given_in_words(note: str) -> tuple[str, str] | None:
    """Return what a note says of the public domain or of reserved rights."""
    said = prose_license(note)
    return (said, note) if said in (ALL_RIGHTS_RESERVED, PUBLIC_DOMAIN, "CC0-1.0") else None


def _own_rights(permissions: etree._Element, article: Rights) -> Rights | None:
    words = squeeze(" ".join(plain(e) for e in permissions if local(e)))
    statement = " ".join(plain(e) for e in permissions.iter("copyright-statement", "copyright-holder"))
    found = _stated(permissions, None)
    if found and found[0] is not None:
        return Rights(found[0], "figure", found[2], bool(statement) or found[0] == ALL_RIGHTS_RESERVED)
    if not words:
        return None
    return Rights(None, "figure", words[:_EVIDENCE_CHARS], bool(statement) or article.third_party)


def _stated(
    permissions: etree._Element | None, front: etree._Element | None
) -> tuple[str | None, str, str | None] | None:
    """Return (license, scope, evidence) of `<permissions>`, or of front matter without them (before JATS 1.0)."""
    where = permissions if permissions is not None else front
    if where is None:
        return None
    licenses = list(where.iter("license")) if permissions is not None else where.findall("license")
    said = _from_prose(licenses)
    found = _from_addresses(licenses) or _from_types(licenses) or said
    if found and said and is_stricter(said[0], found[0]):
        found = said
    if found is None:
        statements = where.findall("copyright-statement") + where.findall("copyright-holder")
        found = _from_prose(statements)
    if found:
        return found[0], "article", found[1][:_EVIDENCE_CHARS]
    words = squeeze(" ".join(plain(e) for e in licenses))
    return (None, "article", words[:_EVIDENCE_CHARS]) if words else None


def _from_addresses(licenses: list[etree._Element]) -> tuple[str, str] | None:
    """Return the license behind the addresses, the strictest where they disagree; the text's count only alone."""
    return _strictest_address(a for e in licenses for a in _attribute_addresses(e)) or _strictest_address(
        a for e in licenses for a in text_addresses(_with_addresses(e))
    )


def _attribute_addresses(element: etree._Element) -> Iterator[str]:
    yield element.get(_XLINK) or element.get("href") or ""
    for ref in element.iter("{*}license_ref"):
        yield squeeze(words(ref))


def _with_addresses(element: etree._Element) -> str:
    """Return an element's text with the address of each link after its words."""
    whole = copy.deepcopy(element)
    for link in list(whole.iter("ext-link", "uri")):
        if href := link.get(_XLINK):
            link.tail = f" {href} {link.tail or ''}"
    return fold_hyphens(squeeze(words(whole)))


def _strictest_address(addresses: Iterable[str]) -> tuple[str, str] | None:
    return strictest((spdx, address) for address in addresses if (spdx := address_license(address)))


def _from_types(licenses: list[etree._Element]) -> tuple[str, str] | None:
    for element in licenses:
        refs = [r.get("content-type") or r.get("specific-use") for r in element.iter("{*}license_ref")]
        for value in (element.get("license-type"), element.get("content-type"), *refs):
            if value and (found := code_license(value)):
                return found, value
    return None


def _from_prose(elements: list[etree._Element]) -> tuple[str, str] | None:
    for element in elements:
        text = plain(element)
        if found := prose_license(text):
            return found, text
    return None


def _pmc_license_ref(front: etree._Element) -> tuple[str | None, str, str | None] | None:
    for meta in front.iter("custom-meta"):
        if squeeze(meta.findtext("meta-name") or "").lower() != "pmc-license-ref":
            continue
        value = meta.find("meta-value")
        text = plain(value) if value is not None else ""
        found = next((s for a in text_addresses(text) if (s := address_license(a))), None) or code_license(text)
        if found:
            return found, "article", f"pmc-license-ref: {text}"
    return None
