"""What may be done with an article and with each of its figures, and the words or address that say so.

A license is looked for in this order: the address on the license element (`xlink:href`, `ali:license_ref`), an address
in its text, its type attribute, its prose, the prose of the copyright statement, PMC's own `pmc-license-ref`. A
figure's own `<permissions>` beat its article's, and a note of ownership in its caption ("© MBARI 2001", "reproduced
with permission") takes the article's license away: the article's authors cannot give what is not theirs.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator

from lxml import etree

from medvlm.data.sources.pmc.text import local, plain, squeeze, words
from medvlm.licenses.expressions import commercial_use, from_url

ALL_RIGHTS_RESERVED = "LicenseRef-all-rights-reserved"
PUBLIC_DOMAIN = "LicenseRef-public-domain"
TDM = "LicenseRef-PMC-TDM"

_EVIDENCE_CHARS = 400
_XLINK = "{http://www.w3.org/1999/xlink}href"
_URL = re.compile(r"https?://[^\s<>\"')\]]+")
_STRICTEST_FIRST = ("no", "unknown", "conditional", "yes")

_CC_CODE = re.compile(r"c?cc(by)?(nc)?(nd|sa)?(nc)?(\d\d)?(licen[cs]e)?")
_CC_NAME = re.compile(
    r"creative\s+commons\W+(?:\w+\W+){0,6}?(?:attribution|atribui[cç][aã]o|atribuci[oó]n|cc[ -]?by)", re.I
)
_CC_SHORT = re.compile(r"\bCC[ -]BY((?:[ -](?:NC|ND|SA))*)(?:[ -](\d\.\d))?\b", re.I)
_VERSION = re.compile(r"\b([1-4]\.[05])\b")
_NC_TERMS = re.compile(r"(?<!commercial and )(?<!commercial or )\bnon[- ]?commercial (?:use|purpose)", re.IGNORECASE)
_NC = re.compile(r"non[- ]?\s?commercial|n[aã]o[- ]?comercial|no[- ]?comercial", re.I)
_ND = re.compile(r"no[- ]?\s?deriv|sem[- ]?deriv|sin[- ]?deriv", re.I)
_SA = re.compile(r"share[- ]?\s?alike|compartilha?\s?igual|compartir\s?igual", re.I)
_CC0 = re.compile(r"\bCC0\b|creative commons zero|\bCC[ -]?zero\b", re.I)
_PUBLIC = re.compile(
    r"public domain (?:declaration|dedication)|free of all copyright|(?:in|of|within) the public domain|"
    r"(?:is|are) (?:a )?public[- ]domain|not subject to (?:u\.?s\.? )?copyright",
    re.I,
)
_RESERVED = re.compile(r"all rights (?:are )?reserved|todos los derechos reservados|todos os direitos reservados", re.I)


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


def figure_rights(figure: etree._Element, notes: Iterable[str], article: Rights, authors: frozenset[str]) -> Rights:
    """Return the rights of one figure.

    Args:
        figure: the `fig` (or graphic's owner); its own `<permissions>` are looked for.
        notes: the texts that may name another owner: caption, attribution, paragraphs of the figure.
        article: what holds where the figure says nothing.
        authors: family names of the article's authors, lower case: credit to them is no third party.
    """
    for permissions in figure.iter("permissions"):
        own = _own_rights(permissions, article)
        if own is not None:
            return own
    for text in notes:
        found = third_party_note(text, authors)
        if found is not None:
            note, owned = found
            named = prose_license(note)
            if named:
                return Rights(named, "figure", note, True)
            if owned:
                return Rights(None, "figure", note, True)
            return dataclasses.replace(article, third_party=True)
    return article


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
    found = _from_addresses(licenses) or _from_types(licenses) or _from_prose(licenses)
    if found is None:
        statements = where.findall("copyright-statement") + where.findall("copyright-holder")
        found = _from_prose(statements)
    if found:
        return found[0], "article", found[1][:_EVIDENCE_CHARS]
    words = squeeze(" ".join(plain(e) for e in licenses))
    return (None, "article", words[:_EVIDENCE_CHARS]) if words else None


def _from_addresses(licenses: list[etree._Element]) -> tuple[str, str] | None:
    """Return the license behind the addresses, the strictest where they disagree; the text's count only alone."""
    return _strictest(a for e in licenses for a in _attribute_addresses(e)) or _first_known(
        a for e in licenses for a in _text_addresses(e)
    )


def _attribute_addresses(element: etree._Element) -> Iterator[str]:
    yield element.get(_XLINK) or element.get("href") or ""
    for ref in element.iter("{*}license_ref"):
        yield squeeze(words(ref))


def _text_addresses(element: etree._Element) -> Iterator[str]:
    for link in element.iter("ext-link", "uri"):
        yield link.get(_XLINK) or squeeze(words(link))
    yield from _URL.findall(words(element))


def _strictest(addresses: Iterable[str]) -> tuple[str, str] | None:
    known = [(spdx, url) for url in addresses if url and (spdx := from_url(url.rstrip(".,;")))]
    return min(known, key=lambda pair: _STRICTEST_FIRST.index(commercial_use(pair[0])), default=None)


def _first_known(addresses: Iterable[str]) -> tuple[str, str] | None:
    # Springer's texts name CC0 too, but for the data only: a license for the article comes first.
    known = [(spdx, url) for url in addresses if url and (spdx := from_url(url.rstrip(".,;")))]
    return next((pair for pair in known if pair[0] != "CC0-1.0"), known[0] if known else None)


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
        found = next((s for u in _URL.findall(text) if (s := from_url(u))), None) or code_license(text)
        if found:
            return found, "article", f"pmc-license-ref: {text}"
    return None


def code_license(code: str) -> str | None:
    """Return the license that a short code names: "CC BY-NC", "cc-by", "ccbyncndlicense", "CC0", "TDM"."""
    version = _VERSION.search(code)
    bare = re.sub(r"[^a-z0-9]", "", _VERSION.sub("", code.lower()))
    if bare in ("cc0", "cc010", "cczero"):
        return "CC0-1.0"
    if bare == "tdm":
        return TDM
    if bare in ("publicdomain", "pd"):
        return PUBLIC_DOMAIN
    match = _CC_CODE.fullmatch(bare)
    if not match or not match[1]:
        return None
    parts = ["CC", "BY"] + (["NC"] if match[2] or match[4] else []) + ([match[3].upper()] if match[3] else [])
    return _named(parts, version[1] if version else None)


def _named(parts: list[str], version: str | None) -> str:
    name = "-".join(parts)
    return f"{name}-{version}" if version else f"LicenseRef-{name}-unversioned"


def prose_license(text: str) -> str | None:
    """Return the license that a text names in words, or None."""
    if short := _CC_SHORT.search(text):
        extra = re.findall(r"NC|ND|SA", short[1].upper())
        version = short[2] or _version_near(text, short.end())
        return _named(["CC", "BY", *extra], version)
    if long := _CC_NAME.search(text):
        # The rest of the name follows the word "Attribution" at once; further on, the text explains.
        rest = re.split(r",|\blicen[cs]", text[long.end() : long.end() + 60], maxsplit=1, flags=re.IGNORECASE)[0]
        parts = ["CC", "BY"] + [key for key, sign in (("NC", _NC), ("ND", _ND), ("SA", _SA)) if sign.search(rest)]
        if "NC" not in parts and _NC_TERMS.search(text):
            parts.insert(2, "NC")
        return _named(parts, _version_near(text, long.end()))
    if _CC0.search(text):
        return "CC0-1.0"
    if _PUBLIC.search(text):
        return PUBLIC_DOMAIN
    return ALL_RIGHTS_RESERVED if _RESERVED.search(text) else None


def _version_near(text: str, start: int) -> str | None:
    match = _VERSION.search(text[start : start + 80])
    return match[1] if match else None


_NAME = r"(?-i:[A-Z])[\w&.'’-]*"
_SOURCE = rf"(?:\[|\(?(?:ref|https?:)|{_NAME}|the\b[^.;]{{0,60}}?\b(?:website|database|atlas|archive|collection)\b)"
# Words by which somebody else claims the picture.
_OWNED = re.compile(
    rf"©|\bcopyright(?:ed)?\b|\(c\)\s*(?:(?:19|20)\d\d\b|{_NAME}(?:[ ,]+{_NAME}){{0,5}},?\s+(?:19|20)\d\d\b)|"
    r"\b(?:re)?(?:produced|printed|used|published|adapted|modified)\b[^.;]{0,120}?\b(?:with|by)\b[^.;]{0,30}?"
    r"\bpermission\b|\bpermission\s+(?:from|of|by)\b|\b(?:reproduced|reprinted|republished)\s+from\b|"
    r"\b(?:reproduzid|reproducid)[oa]s?\s+(?:de|do|da|del)\b|\ball rights reserved\b",
    re.IGNORECASE,
)
# Words by which the authors credit somebody else's work, in English, Portuguese and Spanish.
_BORROWED = re.compile(
    r"\b(?:re)?adapted\s+(?:\w+\s+){0,8}?from\b|\b(?:redrawn|adapted|modified)\s+(?:after|from)\b|"
    r"\b(?:adap\w*tad|modificad|extra[ií]d)[oa]s?\s+(?:de|do|da|del)\b|"
    r"\b(?:figure|image|picture|photo|photograph|diagram|map|drawing|illustration|schematic)s?\s+"
    rf"(?:(?:is|are|was|were|has|been|have)\s+){{0,2}}(?:taken|obtained|downloaded|redrawn)\s+from\s+{_SOURCE}",
    re.IGNORECASE,
)
# Credit to the maker of a picture, who may be one of the authors.
_CREDITED = re.compile(
    r"\bcourtesy\s*(?:of|to|by|:)|\b(?:photo|photograph|image|picture|figure|illustration)s?\s+credits?\b|"
    rf"\b(?:photo|photograph|illustration|drawing|artwork)s?\s*(?::|by\s+(?={_NAME}))|"
    r"\bwikimedia\b|\bwikipedia commons\b|\bgetty images\b|\bshutterstock\b|\bistockphoto\b",
    re.IGNORECASE,
)
_NOT_PICTURES = re.compile(
    r"\b(?:protocol|method|procedure|assay|primer|sequence|strain|cell|medium|scale|criteri[ao])s?\b[^.]{0,40}$", re.I
)
# Every note holds one of these; most captions hold none, and are done with cheaply.
_CLUES = """
© copyright (c) permission rights reprod republish reprint adap modif redrawn extra taken obtained downloaded courtesy
credit photo illustration drawing artwork wikimedia wikipedia getty shutterstock istock
""".split()  # noqa: SIM905
_PANEL_MARK = re.compile(r"\(([abABdD])\)")


def third_party_note(text: str, authors: frozenset[str] = frozenset()) -> tuple[str, bool] | None:
    """Return the words of a caption that name another owner, and whether they claim ownership (©, permission).

    "photographed", the panel mark "(C)" and credit to the article's own authors are no such words.
    """
    lower = text.lower()
    if not any(clue in lower for clue in _CLUES):
        return None
    for pattern in (_OWNED, _BORROWED, _CREDITED):
        for match in pattern.finditer(text):
            if match[0].startswith(("(c)", "(C)")) and _PANEL_MARK.search(text):
                continue
            if pattern is _BORROWED and _NOT_PICTURES.search(text[: match.start()].rsplit(". ", 1)[-1]):
                continue
            if pattern is _CREDITED and _names_author(text[match.end() : match.end() + 80], authors):
                continue
            return _sentence(text, match.start(), match.end()), pattern is _OWNED
    return None


def _names_author(credit: str, authors: frozenset[str]) -> bool:
    return any(re.search(rf"\b{re.escape(name)}\b", credit, re.IGNORECASE) for name in authors)


def _sentence(text: str, start: int, end: int) -> str:
    first = max(text.rfind(". ", 0, start) + 2, start - 200, 0) if ". " in text[:start] else max(0, start - 200)
    last = text.find(". ", end)
    last = len(text) if last < 0 else last + 1
    return text[first : min(last, end + 200)].strip()
