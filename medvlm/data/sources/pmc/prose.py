"""The license that a text names: in an address, a short code, or the words publishers write.

Whatever is doubtful reads as the stricter license, or as none: "non-commercial" anywhere in a text makes a CC BY
license an NC one, a reservation beats the public domain, and what is said of data alone is not said of the article.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator

from medvlm.data.sources.pmc.text import fold_hyphens
from medvlm.licenses.expressions import commercial_use, from_url

ALL_RIGHTS_RESERVED = "LicenseRef-all-rights-reserved"
PUBLIC_DOMAIN = "LicenseRef-public-domain"
TDM = "LicenseRef-PMC-TDM"
UNREAD = "unread"
"""An address of Creative Commons that cannot be read: no record has it, it takes a freer license away."""

_STRICTEST_FIRST = ("no", "unknown", "conditional", "yes")
_CC_BY = re.compile(r"(?:LicenseRef-)?CC-BY((?:-(?:NC|ND|SA))*)-(unversioned|\d\.\d(?:-[A-Z]+)?)")
_OTHER_TERMS = 9
"""Weighs more than all terms of Creative Commons together."""
_OPEN = ("CC0-1.0", PUBLIC_DOMAIN, "CC-PDM-1.0", "CC-PDDC")
_URL = re.compile(r"https?://[^\s<>\"')\]]+")
_CC_ADDRESS = re.compile(
    r"\W*(?:https?://)?(?:www\.)?creativecommons\.org/+(?:licen[sc]es|publicdomain)/+\w", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"(?<=[.;!?])\s+(?=[\"'(\[]?[A-Z])")
_DATA = re.compile(r"\b(?:meta)?data(?:sets?)?\b", re.IGNORECASE)

# The names' parts; hyphens of all kinds are folded before.
_GAP = r"[\s\-_,;:/&+()]*"
_NONCOMMERCIAL = r"non?\W?\s?comm?erciale?s?\b|n[aã]o\W?\s?comercial"
_NO_DERIVATIVES = r"(?:non?|sem|sin)\W?\s?deriv\w*"
_SHARE_ALIKE = r"share\W?\s?alike|compartilh?a\w*?\W?\s?igual|compartir\W?\s?igual"
_WORDED = rf"{_NONCOMMERCIAL}|{_NO_DERIVATIVES}(?:\s+works)?|{_SHARE_ALIKE}"
_TERMS = rf"((?:{_GAP}(?:(?:NC|ND|SA)(?:(?=NC|ND|SA)|(?![a-z]))|{_WORDED}|[1-4]\.[05](?!\d)))*)"
# "5 cc by needle" is no license: in lower case the two words need a hyphen, or a term after them.
_SHORT = re.compile(
    rf"\b(?:(?-i:CC{_GAP}BY)|cc[-_]?by|cc\s?by(?={_GAP}(?:nc|nd|sa|non|\d\.\d))){_TERMS}(?![a-z])", re.IGNORECASE
)
_LONG = re.compile(
    r"(?:creative\s+commons\W+(?:\w+\W+){0,6}?(?:attribution|atribui[cç][aã]o|atribuci[oó]n|cc[ -]?by)|"
    rf"\battribution(?={_GAP}(?:{_WORDED}))){_TERMS}",
    re.IGNORECASE,
)
_VERSION = re.compile(r"\b([1-4]\.[05])\b")
_CODE = re.compile(r"c?cc(by)?(nc)?(nd|sa)?(nc)?(\d\d)?(licen[cs]e)?")

# The terms in running text.
_BOTH = re.compile(
    r"commercial(?:ly)?(?: use)?s?\s*(?:and|or|and/or|as well as|,|/|&)\s*(?:for )?non\W?\s?commercial(?:ly)?|"
    r"non\W?\s?commercial(?:ly)?(?: use)?s?\s*(?:and|or|and/or|as well as|,|/|&)\s*(?:for )?commercial(?:ly)?",
    re.IGNORECASE,
)
_EVEN_COMMERCIAL = re.compile(r"\b(?:includ\w+|even)\s+(?:for\s+)?commercial", re.IGNORECASE)
_NC = re.compile(
    rf"non\W?\s?commercial|\b(?:{_NONCOMMERCIAL})|\bnot\s+(?:\w+\s+){{0,5}}?commercial|"
    r"\bcommercial\s+(?:\w+\s+){0,3}?(?:not|prohibited|forbidden)\b",
    re.IGNORECASE,
)
_ND = re.compile(
    rf"no\W?\s?deriv|\b(?:{_NO_DERIVATIVES})|\bno\s+(?:modifications?|adaptations?|changes|alterations?)\b|"
    r"\bnot\s+(?:\w+\s+){0,5}?(?:derivative|altered|transformed)",
    re.IGNORECASE,
)
_SA = re.compile(rf"{_SHARE_ALIKE}|\bunder\s+(?:the\s+same|identical|an\s+identical)\s+(?:licen[cs]e|terms)", re.I)
_CC0 = re.compile(r"\bCC[ -]?0\b|creative commons zero|\bCC[ -]?zero\b", re.IGNORECASE)
_PUBLIC = re.compile(
    r"public domain (?:declaration|dedication)|free of all copyright|(?:in|of|within) the public domain|"
    r"(?:is|are) (?:a )?public[- ]domain|not subject to (?:u\.?s\.? )?copyright",
    re.IGNORECASE,
)
_LIMITED = re.compile(
    r"\b(?:not|no|never|nor|neither|isn't|aren't|portions?|parts?|some|certain|except|unless|partly)\b", re.I
)
_RESERVED = re.compile(
    r"all rights (?:are )?reserved|\bexclusive rights\b|todos los derechos reservados|"
    r"todos os direitos reservados",
    re.IGNORECASE,
)

# Words before a license's name that say that it does not hold, or that somebody would have to ask for it.
_WITHHELD = re.compile(
    r"\b(?:(?:not|cannot|never)(?:\s+(?!(?:and|but|or|only|otherwise|is|are)\b)\w+){0,8}|"
    r"who\s+(?:need|want|wish|require|prefer)s?(?:\s+\w+){0,3})\W*$",
    re.IGNORECASE,
)


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
    match = _CODE.fullmatch(bare)
    if not match or not match[1]:
        return None
    terms = (["NC"] if match[2] or match[4] else []) + ([match[3].upper()] if match[3] else [])
    return _named(set(terms), version[1] if version else None)


def _named(terms: set[str], version: str | None) -> str | None:
    if {"ND", "SA"} <= terms:
        return None  # no such license exists
    name = "-".join(["CC", "BY", *sorted(terms)])
    return f"{name}-{version}" if version else f"LicenseRef-{name}-unversioned"


@functools.lru_cache(maxsize=1024)
def prose_license(text: str) -> str | None:
    """Return the license that a text names in words, or None."""
    text = fold_hyphens(text)
    names = _names(text)
    # One that is not withheld makes all count: the terms of the others only add to it.
    if names and not all(_WITHHELD.search(text[max(0, name.start() - 120) : name.start()]) for name in names):
        terms = {term for name in names for term in _terms_in_name(name[1])}
        return _named(terms | _terms_in_words(text), _version(text, *names[0].span()))
    if _RESERVED.search(text):
        return ALL_RIGHTS_RESERVED
    return next((found for sentence in _sentences(text) if (found := _given_up(sentence))), None)


def cc_by_names(text: str) -> list[tuple[int, int]]:
    """Return where a text (its hyphens folded) names a CC BY license of any kind: start and end of each name."""
    return [match.span() for match in _names(text)]


def _names(text: str) -> list[re.Match[str]]:
    return sorted([*_SHORT.finditer(text), *_LONG.finditer(text)], key=lambda match: match.start())


def _terms_in_name(tail: str) -> set[str]:
    """Return the terms in what follows "CC BY" or "Attribution": NC, ND, SA, or the words for them."""
    signs = (("NC", _NC), ("ND", _ND), ("SA", _SA))
    return set(re.findall("NC|ND|SA", tail.upper())) | {term for term, sign in signs if sign.search(tail)}


def _terms_in_words(text: str) -> set[str]:
    rest = _BOTH.sub(" ", text)
    found = {key for key, sign in (("ND", _ND), ("SA", _SA)) if sign.search(rest)}
    if _NC.search(rest) and not _EVEN_COMMERCIAL.search(rest):
        found.add("NC")
    return found


def _version(text: str, start: int, end: int) -> str | None:
    # A waiver for the data may follow, with a version of its own.
    match = _VERSION.search(re.split(r"\bCC[ -]?0\b|public domain", text[start : end + 80], flags=re.I)[0])
    return match[1] if match else None


def _sentences(text: str) -> list[str]:
    return _SENTENCE_END.split(text)


def _given_up(sentence: str) -> str | None:
    """Return CC0 or the public domain where a sentence gives a whole work to it."""
    if _DATA.search(sentence):
        return None
    for pattern, license in ((_CC0, "CC0-1.0"), (_PUBLIC, PUBLIC_DOMAIN)):
        match = pattern.search(sentence)
        if match and not _LIMITED.search(sentence[: match.start()]):
            return license
    return None


@functools.lru_cache(maxsize=1024)
def text_addresses(text: str) -> tuple[str, ...]:
    """Return the addresses in a text; those of CC0 and the public domain only where a whole work is meant."""
    return tuple(_addresses(text)) if "//" in text else ()


def _addresses(text: str) -> Iterator[str]:
    reserved = bool(_RESERVED.search(text))
    for sentence in _sentences(text):
        partial = reserved or bool(_DATA.search(sentence))
        for match in _URL.finditer(sentence):
            limited = partial or bool(_LIMITED.search(sentence[: match.start()]))
            if not (limited and (address_license(match[0]) in _OPEN or "/publicdomain/" in match[0].lower())):
                yield match[0]


@functools.lru_cache(maxsize=1024)
def address_license(address: str) -> str | None:
    """Return the license behind an address, which may carry the punctuation of its sentence."""
    return from_url(address.rstrip(".,;")) if address else None


def stated_license(address: str) -> str | None:
    """Return the license behind an address; `UNREAD` for one of Creative Commons that may be any license."""
    return address_license(address) or (UNREAD if _CC_ADDRESS.match(address) else None)


def strictest(pairs: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """Return the (license, evidence) that allows only what all of them allow; of equal ones the first.

    Where none of them is that license, as with NC and ND, the evidence of both is given.
    """
    found = list(pairs)
    return functools.reduce(_both, found) if found else None


def _both(one: tuple[str, str], other: tuple[str, str]) -> tuple[str, str]:
    license = combined(one[0], other[0])
    if license in (one[0], other[0]):
        return one if license == one[0] else other
    return license, f"{one[1][:190]} | {other[1][:190]}"


@functools.lru_cache(maxsize=1024)
def combined(one: str, other: str) -> str:
    """Return the license that allows only what both allow: one of the two, or that with the terms of both."""
    mine, others = _terms_of(one), _terms_of(other)
    if mine is None or others is None:
        return one if strictness(one) <= strictness(other) else other
    if mine >= others or others >= mine:
        return one if mine >= others else other
    return _with_terms(mine | others, (one, other))


def _with_terms(terms: frozenset[str], licenses: Iterable[str]) -> str:
    versions = {match[2] for name in licenses if (match := _CC_BY.fullmatch(name)) and match[2] != "unversioned"}
    # What may not be changed need not be shared alike when changed.
    names = terms - {"BY"} - ({"SA"} if "ND" in terms else set())
    name = "-".join(["CC-BY", *sorted(names)])
    return f"{name}-{versions.pop()}" if len(versions) == 1 else f"LicenseRef-{name}-unversioned"


def _terms_of(license: str) -> frozenset[str] | None:
    """Return what a license asks for; None for one that is not of Creative Commons. Who forbids changes asks for SA."""
    if license in _OPEN:
        return frozenset()
    match = _CC_BY.fullmatch(license)
    if not match:
        return None
    terms = {"BY", *match[1].split("-")} - {""}
    return frozenset(terms | {"SA"} if "ND" in terms else terms)


@functools.lru_cache(maxsize=1024)
def worded(license: str, text: str) -> str:
    """Return a CC BY license with the terms that a text about it adds in words ("permits non-commercial use")."""
    terms = _terms_of(license)
    said = _terms_in_words(fold_hyphens(text)) if terms else set()
    if not terms or said <= terms:
        return license
    return _with_terms(terms | said, (license,))


def strictness(license: str | None) -> tuple[int, int]:
    """Return a license's place in the order of what it allows: first for commercial use, then by how much it asks.

    A license that comes later is not always freer: NC and ND each ask what the other does not (see `combined`).
    """
    terms = _terms_of(license) if license else None
    return _STRICTEST_FIRST.index(commercial_use(license)), -(_OTHER_TERMS if terms is None else len(terms))


def is_open(license: str) -> bool:
    """Tell whether a license asks for nothing: CC0 and the public domain."""
    return license in _OPEN
