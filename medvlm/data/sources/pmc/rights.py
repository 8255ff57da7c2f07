"""What may be done with an article and with each of its figures, and the words or address that say so.

A license is looked for at all places that may state it: the address on the license element (`xlink:href`,
`ali:license_ref`), an address in its text, its type attribute, its prose, else the prose of the copyright statement,
and PMC's own `pmc-license-ref`. Where they disagree that holds which all of them allow. Terms that are stated and not
known are no license, whatever PMC's metadata says; metadata counts where nothing is stated, or where it is stricter. A
figure's own `<permissions>` (or its group's) beat its article's, and a note of ownership in its caption ("© MBARI
2001", "reproduced with permission") takes the article's license away: its authors cannot give what is not theirs.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator

from lxml import etree

from medvlm.data.sources.pmc.owners import caption_license, third_party_note
from medvlm.data.sources.pmc.prose import (
    ALL_RIGHTS_RESERVED,
    PUBLIC_DOMAIN,
    UNREAD,
    address_license,
    code_license,
    combined,
    is_open,
    prose_license,
    stated_license,
    strictest,
    text_addresses,
    worded,
)
from medvlm.data.sources.pmc.text import fold_hyphens, local, plain, squeeze, words

_EVIDENCE_CHARS = 400
_BLOCKS = ("license_ref", "license-p", "p")
_XLINK = "{http://www.w3.org/1999/xlink}href"
_GROUPS = ("fig-group", "table-wrap-group")
_HOLDERS = ("fig", "supplementary-material", "table-wrap", "disp-formula-group", "chem-struct-wrap", *_GROUPS)
_TERMS = re.compile(
    r"\b(?:(?:re-?)?us(?:e|ed|age)\b|permi(?:t|ss)|(?:re-?)?distribut|reproduc|copied\b|licen[cs](?!ee)|rights?\b|"
    r"prohibit|restrict|forbid|terms\b|conditions\b|uso\b|derech|direit|droits\b|rechte\b)",
    re.IGNORECASE,
)
# A sentence whose license is that of the whole picture; all others may speak of a part, of data or of software.
_PICTURE = r"(?:fig(?:ure|\.)|image|picture|photo(?:graph)?|illustration|diagram|drawing|map)"
_WHOLE = re.compile(
    rf"\W*(?:(?:(?:this|the)\s+(?:(?:entire|whole)\s+)?)?{_PICTURE}(?:\s+\d+)?\s+(?:is|was|has\s+been)\s+"
    r"(?:\w+\s+)?(?:licensed|available|published|distributed|released|shared|reused|used|"
    r"reproduced|reprinted|republished|taken)|(?:reproduced|reprinted|republished|taken)\s+(?:\w+\s+){0,2}?from|"
    rf"{_PICTURE}(?:\s+credit)?(?:\s+by|:))\b",
    re.IGNORECASE,
)
_PARTLY = re.compile(
    r"\b(?:re)?adapt|\bmodif|\bredrawn|\b(?:parts?|partly|partially|portions?|elements?|components?|panels?|insets?|"
    r"icons?|silhouettes?|base\s?maps?|backgrounds?|templates?|some|using|(?:meta)?data\w*|software|codes?|tools?)\b|"
    r"\b(?:left|right|top|bottom|upper|lower|middle)\s*(?:[:,)]|images?|row|column)|"
    r"^\W*[A-Z]\s*[),:.]|\([A-Za-z](?:\s*[-–,]\s*[A-Za-z])*\)",
    re.IGNORECASE,
)


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
        return _of_article(_pmc_license_refs(front)) or inherited
    license, evidence = found
    if license is None:
        return Rights(None, "article", evidence)
    return _of_article([(license, evidence), *_pmc_license_refs(front)]) or inherited


def _of_article(found: Iterable[tuple[str, str]]) -> Rights | None:
    strict = strictest(found)
    return Rights(_known(strict[0]), "article", strict[1][:_EVIDENCE_CHARS]) if strict else None


def _known(license: str) -> str | None:
    return None if license == UNREAD else license


def no_freer(stated: Rights, told: Rights | None) -> Rights:
    """Return the rights that hold for an article that states some and of which PMC tells others.

    What PMC tells counts alone only where the article states no terms at all, known or not.
    """
    if told is None or told.license is None or (stated.license is None and stated.evidence is not None):
        return stated
    if stated.license is None:
        return told
    license = combined(stated.license, told.license)
    if license == stated.license:
        return stated
    if license == told.license:
        evidence = f"{told.evidence} (stricter than the article's {stated.license})"
    else:
        evidence = f"{told.evidence} (beside the article's {stated.license})"
    return dataclasses.replace(stated, license=license, evidence=evidence)


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
    if strict and not all(_of_whole(sentence) for _, sentence in licenses):
        # What was made of, or with, somebody's figure is under the terms of both.
        strict = _with_article(strict, article)
    if strict:
        return Rights(_known(strict[0]), "figure", strict[1][:_EVIDENCE_CHARS], True)
    borrowed = borrowed or bool(licenses)
    return dataclasses.replace(article, third_party=True) if borrowed else article


def _of_whole(sentence: str) -> bool:
    """Tell whether a sentence gives its license to the whole picture, as somebody else's work."""
    return bool(_WHOLE.match(sentence)) and not _PARTLY.search(sentence)


def _with_article(note: tuple[str, str], article: Rights) -> tuple[str, str] | None:
    """Return the license and evidence of a figure partly under a note's; None where what holds is the article's own."""
    if article.license is None:
        return None
    both = strictest([note, (article.license, article.evidence or "")])
    return None if both is None or (both[0] == article.license and both[0] != note[0]) else both


def _given_in_words(note: str) -> tuple[str, str] | None:
    """Return what a note says of the public domain or of reserved rights."""
    said = prose_license(note)
    return (said, note) if said in (ALL_RIGHTS_RESERVED, PUBLIC_DOMAIN, "CC0-1.0") else None


def _own_rights(permissions: etree._Element, article: Rights) -> Rights | None:
    words = squeeze(" ".join(plain(e) for e in permissions if local(e)))
    statement = " ".join(plain(e) for e in permissions.iter("copyright-statement", "copyright-holder"))
    found = _stated(permissions, None)
    if found and found[0] is not None:
        return Rights(found[0], "figure", found[1], bool(statement) or found[0] == ALL_RIGHTS_RESERVED)
    if not words:
        return None
    return Rights(None, "figure", words[:_EVIDENCE_CHARS], bool(statement) or article.third_party)


def _stated(permissions: etree._Element | None, front: etree._Element | None) -> tuple[str | None, str] | None:
    """Return license and evidence of `<permissions>`, or of front matter without them (before JATS 1.0).

    The license is None where terms are stated that are not known; all is None where none are.
    """
    where = permissions if permissions is not None else front
    if where is None:
        return None
    licenses = list(where.iter("license")) if permissions is not None else where.findall("license")
    statements = where.findall("copyright-statement") + where.findall("copyright-holder")
    found = _licensed(licenses) or strictest(_from_prose(statements))
    if found:
        return _known(found[0]), found[1][:_EVIDENCE_CHARS]
    terms = [plain(e) or next(_attribute_addresses(e), "") for e in licenses]
    terms += [text for e in statements if _TERMS.search(text := plain(e))]
    words = squeeze(" ".join(terms))
    return (None, words[:_EVIDENCE_CHARS]) if words else None


def _licensed(licenses: list[etree._Element]) -> tuple[str, str] | None:
    """Return what all license elements allow, by their addresses, types and prose."""
    said = list(_from_prose(licenses))
    found = strictest([*_from_addresses(licenses), *_from_types(licenses)])
    if found is None:
        return strictest(said)
    # "All rights reserved" beside a license is a habit of typesetters; beside the public domain it is a denial.
    said = [pair for pair in said if pair[0] != ALL_RIGHTS_RESERVED or is_open(found[0])]
    for text in map(plain, licenses):
        if (license := worded(found[0], text)) != found[0]:
            said.append((license, text))
    return strictest([found, *said])


def _from_addresses(licenses: list[etree._Element]) -> Iterator[tuple[str, str]]:
    """Yield the licenses behind the addresses, first those in attributes, then those in the text."""
    for addresses in (_attribute_addresses, lambda e: text_addresses(_with_addresses(e))):
        for element in licenses:
            for address in addresses(element):
                if license := stated_license(address):
                    yield license, address


def _attribute_addresses(element: etree._Element) -> Iterator[str]:
    yield element.get(_XLINK) or element.get("href") or ""
    for ref in element.iter("{*}license_ref"):
        yield squeeze(words(ref))


def _with_addresses(element: etree._Element) -> str:
    """Return an element's text with the address of each link after its words."""
    parts: list[str] = []
    _spell_out(element, parts)
    return fold_hyphens(squeeze("".join(parts)))


def _spell_out(element: etree._Element, parts: list[str]) -> None:
    parts.append(element.text or "")
    for child in element:
        _spell_out(child, parts)
        if child.tag in ("ext-link", "uri") and (href := child.get(_XLINK)):
            parts.append(f" {href} ")
        elif local(child) in _BLOCKS:
            parts.append(" ")
        parts.append(child.tail or "")


def _from_types(licenses: list[etree._Element]) -> Iterator[tuple[str, str]]:
    for element in licenses:
        refs = [r.get("content-type") or r.get("specific-use") for r in element.iter("{*}license_ref")]
        for value in (element.get("license-type"), element.get("content-type"), *refs):
            if value and (found := code_license(value)):
                yield found, value


def _from_prose(elements: list[etree._Element]) -> Iterator[tuple[str, str]]:
    for element in elements:
        text = plain(element)
        if found := prose_license(text):
            yield found, text


def _pmc_license_refs(front: etree._Element) -> Iterator[tuple[str, str]]:
    for meta in front.iter("custom-meta"):
        if squeeze(meta.findtext("meta-name") or "").lower() != "pmc-license-ref":
            continue
        value = meta.find("meta-value")
        text = plain(value) if value is not None else ""
        found = next((s for a in text_addresses(text) if (s := stated_license(a))), None) or code_license(text)
        if found:
            yield found, f"pmc-license-ref: {text}"
