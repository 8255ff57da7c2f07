"""Numbers and addresses that lead to one person: of records, studies, phones, places, machines."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterator
from typing import Any

_IS = r"(?:[ ]?(?:(?:number|num|nr|no|id|identifier)(?![a-z])\.?|#))?[ ]?(?:is[ ])?[:#=]{0,2}[ \t]{0,4}"
_VALUE = r"(?P<value>[A-Z]{0,4}[-]?[0-9](?:[A-Z0-9]|[-](?=[A-Z0-9])){2,24})(?![A-Z0-9])"

RECORD = re.compile(
    r"(?i)(?<![\w-])(?:mrn?s?(?=[ ]?[#:])|mrn|m\.r\.n\.?|medical[ ]record|med\.?[ ]rec(?:ord)?"
    r"|(?:patient|pt\.?|hospital|hosp|unit|chart|account|acct|encounter|visit|episode|order|requisition|csn|fin|nhs|chi"
    r"|health[ ]card|insurance|policy|member|subscriber|medicare|medicaid|license|licence|passport)"
    r"(?=[ .#:]{0,2}(?:(?:number|num|nr|no|id|identifier)(?![a-z])|#))"
    r"|id(?=[ ]?:)|case[ ]?(?=#))" + _IS + _VALUE
)
HEALTH_SERVICE = re.compile(
    r"(?i)(?<![\w-])(?:nhs|chi)" + _IS + r"(?P<value>[0-9]{3}[ -][0-9]{3}[ -][0-9]{4})(?![0-9])"
)
ACCESSION = re.compile(r"(?i)(?<![\w-])(?:accession|acc(?=[ ]?(?:#|no\b|num|:)))" + _IS + _VALUE)
_SEQUENCES = re.compile(
    r"(?i)genbank|geo\b|ncbi|embl|ebi\b|ddbj|uniprot|swiss-?prot|pdb|refseq|arrayexpress|sra\b|database|gene|protein"
    r"|sequence|data ?set|repository|bank"
)
"""Where biology, not a hospital, numbers its accessions."""
SERIAL = re.compile(r"(?i)(?<![\w-])(?:serial(?=[ ]?(?:number|num|no|#|:))|s/n|sn)" + _IS + _VALUE)
SOCIAL = re.compile(
    r"(?<![\w.-])(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![\w-]|\.[0-9])"
    r"|(?i:\b(?:ssn?|social security)(?:[ ](?:number|no))?)[ ]?[:#.]{0,2}[ ]{0,2}"
    r"[0-9]{3}[ .-]?[0-9]{2}[ .-]?[0-9]{4}(?![0-9])"
)
UID = re.compile(r"(?<![\w.])[012](?:\.[0-9]{1,39}){5,30}(?![0-9])")
"""Unique identifiers of DICOM (PS3.5, chapter 9)."""
PHONE = re.compile(
    r"(?i)(?<![\w-])(?:phone|telephone|tel|fax|facsimile|pager|paged|beeper|cell(?: ?phone)?|mobile|extension|ext"
    r"|x(?=[ ]?[0-9]{4,5}\b)|call(?:back)?|contact|hotline)(?:[ ](?:number|no|at|is|on)){0,2}[ ]?[.:#]{0,2}[ ]{0,3}"
    r"(?P<value>[+(]?[0-9](?:[0-9]|[-() ./](?=[-() 0-9])){3,22})(?![A-Za-z0-9%])"
)
_AMERICAN = re.compile(
    r"(?<![\w./+-])(?:\+?1[-. ]|001[-. ])?(?:\([2-9][0-9]{2}\)[ ]?|[2-9][0-9]{2}[-. ])[2-9][0-9]{2}[-. ][0-9]{4}"
    r"(?:[ ]?(?:x|ext\.?)[ ]?[0-9]{1,6})?(?![\w%]|[./-][0-9])"
)
_DIALED = re.compile(r"(?<![\w./+-])(?:\+[0-9]{1,3}[-. ]?|\()?[0-9](?:[0-9]|[-() .](?=[-() .0-9])){6,22}(?![\w%])")
_SEPARATED = re.compile(r"[-.() +]")
_EMAIL = re.compile(r"(?<=[\w.+%-])@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")
WEB = re.compile(
    r"(?i)\b(?:https?|ftp)://(?!(?:dx\.)?doi\.org)[^\s<>()\"\0]{3,2000}|(?<![\w@.-])www\.[a-z0-9-]{1,63}\.[^\s<>()\"\0]{2,2000}"
    r"|(?<![\w@.-])(?!(?:dx\.)?doi\.org)(?:[a-z0-9-]{1,63}\.){1,4}(?:com|org|net|edu|gov|mil)(?![\w-])"
)
_IP4 = re.compile(r"(?<![\w.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![\w]|\.[0-9])")
_IP6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_STATES = (
    "A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|P[AR]|RI|S[CD]|T[NX]|UT|V[AT]"
    "|W[AIVY]|GU|PR|VI|AE|AP|AA"
)
_STREETS = (
    "Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Parkway|Pkwy|Terrace|Highway|Hwy|Court|Circle|Place"
    "|Square|Trail|Crescent|Close|Turnpike|Way"
)
ADDRESS = re.compile(
    rf"(?<![\w-])[0-9]{{1,5}}[A-Z]?[ ](?:[NSEW]\.?[ ])?(?:[A-Z][a-z]{{2,20}}[ ]|[0-9]{{1,3}}(?:st|nd|rd|th)[ ]){{1,3}}"
    rf"(?:{_STREETS})\b|(?<!\w)(?:Apt|Apartment|Suite)\.?[ ]#?[0-9]{{1,5}}[A-Z]?\b"
    r"|(?i:(?<!\w)P\.?[ ]?O\.?[ ]Box)[ ]?[0-9]{1,6}"
    rf"|,[ ](?:{_STATES})[ ]{{1,2}}[0-9]{{5}}(?:-[0-9]{{4}})?(?![\w-])"
    r"|(?i:\bzip(?:[ -]?code)?)[ ]?:?[ ]?[0-9]{5}(?:-[0-9]{4})?(?![\w-])"
    r"|(?im:(?<!-)\b(?:home[ ])?address[ ]?:[ \t]{0,4}(?P<line>[0-9][^\n\0]{4,100}))"
)
_OLD = r"(?:9[0-9]|1[0-2][0-9])"
_NINETY = r"ninety(?:[- ](?:one|two|three|four|five|six|seven|eight|nine))?"
AGE = re.compile(
    rf"(?i)(?<![\w.<>-])(?<![<>]\s)(?:{_OLD}|{_NINETY}|one[ ]hundred)(?:[ -]{{1,2}}|(?=y))"
    r"(?:years?|yrs?|y)(?:[ -]{1,2}(?:of[ ]age|olds?)|[ ./-]?o(?:ld)?\b|/o)"
    rf"|(?i:\bage(?:d|/sex)?(?:[ ](?:is|of|was))?[ ]?:?[ ]{{0,3}})0?(?:{_OLD}|{_NINETY})"
    r"(?![\w%+/-]|\.[0-9]|[ ](?:days?|weeks?|months?|hours?|min|or[ ])|[ ]?-)"
    # 92F with ...
    r"|(?<![\w.])(?:9[0-9]|10[0-9])[ ]?[MF](?=[,;]?[ ](?:with|w/|p/w|s/p|h/o|who|presents|presenting|status)\b)"
    # 092Y of DICOM
    r"|(?<![\w.])(?:09[0-9]|1[0-2][0-9])Y(?!\w)"
)
"""Ages above 89, which 45 CFR 164.514(b)(2)(i)(C) counts as identifiers; below that an age stays."""


def labelled(pattern: re.Pattern[str], text: str, least: int) -> Iterator[tuple[int, int]]:
    """Yield where values with at least `least` digits stand behind a label."""
    for match in pattern.finditer(text):
        if sum(char.isdigit() for char in match["value"]) >= least:
            yield match.span("value")


def plain_matches(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """Yield where `pattern` matches."""
    for match in pattern.finditer(text):
        yield match.span()


def records(text: str) -> Iterator[tuple[int, int]]:
    """Yield where numbers of patients, charts, visits, accounts and insurances stand."""
    yield from labelled(RECORD, text, 4)
    yield from labelled(HEALTH_SERVICE, text, 10)


def accessions(text: str) -> Iterator[tuple[int, int]]:
    """Yield where accession numbers of studies stand: not those of gene and protein banks."""
    for start, end in labelled(ACCESSION, text, 4):
        if not _SEQUENCES.search(text[max(0, start - 80) : start]):
            yield start, end


def emails(text: str) -> Iterator[tuple[int, int]]:
    """Yield where e-mail addresses stand."""
    for match in _EMAIL.finditer(text):
        start = match.start()
        # Backwards from each @, since looking for one behind every word takes a long text's length squared.
        while start > max(0, match.start() - 64) and (text[start - 1].isalnum() or text[start - 1] in "._+%-"):
            start -= 1
        yield start, match.end()


def phones(text: str) -> Iterator[tuple[int, int]]:
    """Yield where phone and fax numbers stand: behind a label, or written as such in North America or with +."""
    yield from labelled(PHONE, text, 4)
    yield from plain_matches(_AMERICAN, text)
    for match in _DIALED.finditer(text):
        if _SEPARATED.search(match[0]) and _is_phone(match[0]):
            yield match.span()


@functools.cache
def _library() -> Any:
    import phonenumbers

    return phonenumbers


def _is_phone(text: str) -> bool:
    if not 7 <= sum(char.isdigit() for char in text) <= 15 or text.count("(") > 1:
        return False
    library = _library()
    matcher = library.PhoneNumberMatcher(text, "US", leniency=library.Leniency.STRICT_GROUPING)
    return bool(matcher.has_next())


def addresses_of_machines(text: str) -> Iterator[tuple[int, int]]:
    """Yield where IP addresses stand."""
    for match in _IP4.finditer(text):
        if _is_ip(match[0]):
            yield match.span()
    for match in _IP6.finditer(text):
        # Two groups around "::" are what a program's or a gene's name has as well.
        if len([group for group in match[0].split(":") if group]) >= 3 and _is_ip(match[0]):
            yield match.span()


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
