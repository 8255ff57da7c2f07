"""Names of persons, as far as a title, a label or a degree beside them says so."""

from __future__ import annotations

import re
from collections.abc import Iterator

_UPPER = "A-ZÀ-ÖØ-ÞĀ-ŽΑ-ΩА-Я"
_LETTER = r"[^\W\d_]"
_PARTICLE = r"(?:(?:van|von|der|den|de|la|le|di|da|dos|del|al|el|bin|ten|ter|zu)[ ]){0,3}"
_WORD = rf"(?:(?:[{_UPPER}]'|O'|Mc|Mac)?[{_UPPER}]{_LETTER}{{1,24}}(?:[-'][{_UPPER}]?{_LETTER}{{1,24}}){{0,3}})"
_INITIAL = rf"(?:[{_UPPER}](?:\.|(?!{_LETTER})))"
_PART = rf"(?:{_INITIAL}|{_PARTICLE}{_WORD})"
_FULL = rf"(?P<name>(?:{_INITIAL}[ ]?){{0,3}}{_PARTICLE}{_WORD}(?:,?[ ]{_PART}){{0,3}})"
_TWO = rf"(?P<name>(?:{_INITIAL}[ ]?){{1,3}}{_PARTICLE}{_WORD}|{_WORD},?[ ]{_PART}(?:[ ]{_PART}){{0,2}})"
_ANY_CASE = (
    rf"(?P<name>(?:{_LETTER}\.[ ]?){{0,2}}{_LETTER}{{2,25}}(?:['-]{_LETTER}{{1,25}})?"
    rf"(?:,?[ ](?:{_LETTER}\.|{_LETTER}{{2,25}})){{0,3}})"
)
_BREAK = r"[ \t]{0,4}:?[ \t\n]{0,4}"

TITLE = re.compile(
    # MR, MS and DR in capitals without a dot are what radiology calls other things.
    rf"(?<![\w-])(?:Dr|Doctor|Drs|Prof|Professor|Mr|Mrs|Ms|Miss|Mx|Nurse)(?:\.[ ]?|[ ]){_FULL}"
    rf"|(?<![\w-])(?:DR|DRS|PROF|MRS|DOCTOR|PROFESSOR)(?:\.[ ]?|[ ])(?P<loud>[A-Z]{{3,25}}(?:['-][A-Z]{{2,25}})?)\b"
)
_DEGREES = r"M\.?D\b\.?|D\.O\.|MBBS\b|MBChB\b|FRCR\b|FACR\b|R\.N\.|RN\b|PA-C\b|CRNP\b|APRN\b|DNP\b|NP\b|Ph\.?D\b\.?"
DEGREE = re.compile(
    rf"(?<![\w-]){_TWO}(?:,[ ]?|[ ])(?:{_DEGREES})"
    rf"|(?<![\w-])(?P<single>{_WORD}),?[ ](?:M\.D\.|D\.O\.|R\.N\.)"
)
SIGNED = re.compile(
    r"(?i:\b(?:dictated|electronically signed|e-?signed|signed|transcribed|authenticated|countersigned|attested)"
    r"(?:[ ]and[ ][a-z]{4,20})?(?:[ ](?:electronically|digitally))?[ ]by)" + _BREAK + _FULL
)
_READ = "read|reported|interpreted|reviewed|approved|verified|finali[sz]ed"
BY = re.compile(
    rf"(?i:\b(?:{_READ}|performed|requested|ordered|referred)[ ]by)[ ]?:[ \t]{{0,4}}{_FULL}"
    rf"|(?i:\b(?:{_READ})[ ]by)[ \t]{{1,4}}" + _TWO.replace("?P<name>", "?P<prose>")
)
LABEL = re.compile(
    r"(?i:(?<![\w-])(?:(?:patient|pt|full|first|last|family|given|maiden|mother|father|husband|wife|son|daughter)(?:'s)?"
    r"[ ]name|surname|name of patient|signed|(?:referring|ordering|attending|requesting|reading|primary care"
    r"|interpreting)[ ](?:physician|provider|doctor|clinician|radiologist|surgeon|md)|referrer|transcriptionist"
    r"|attending))[ ]?:[ \t]{0,4}" + _ANY_CASE
)
WEAK_LABEL = re.compile(
    r"(?<![\w-])(?:(?i:radiologist|technologist|resident|fellow|physician|provider|sonographer|cc)[ ]?:[ \t]{0,4}"
    + _FULL
    + rf"|(?im:^[ \t]*name)[ ]?:[ \t]{{0,4}}(?P<single>(?:{_INITIAL}[ ]?){{0,2}}{_WORD}(?:,?[ ]{_PART}){{0,3}})"
    + r"|(?i:patient|pt|name)[ ]?:[ \t]{0,4}"
    + _TWO.replace("?P<name>", "?P<loud>")
    + ")"
)
TOLD = re.compile(
    r"(?i:\b(?:(?:discussed|reviewed|communicated|relayed|conveyed|reported|called|given|telephoned|paged)"
    r"(?:[ ][a-z]{2,12}){0,4}[ ](?:with|to)"
    r"|(?:physician|radiologist|technologist|sonographer|surgeon|resident|provider)|(?:report|read|reading) by))[ ]"
    + _TWO.replace("?P<name>", "?P<prose>")
)
DICOM = re.compile(rf"(?<![\w^=])(?P<name>[{_UPPER}]{_LETTER}{{1,39}}\^[{_UPPER}]{_LETTER}{{0,39}})")
"""Person names as DICOM writes them: SMITH^JOHN."""

_NO_NAMES = """
    a an and any are at by for from has he her his in is it no none not of on or our she the their there this to was
    were with unknown unavailable other same self see above below pending final preliminary anonymous anonymized
    redacted deidentified removed withheld male female man woman adult child infant pediatric upright supine prone
    portable stable normal negative positive history chest ct mr mri pet xray radiology department hospital clinic
    team service emergency surgery surgical medicine medical icu primary requesting ordering referring provider
    physician doctor nurse radiologist resident attending staff findings impression comparison technique indication
    exam prior previous outside floor study report date age sex gender left right bilateral lateral anterior
    posterior position status patient imaging images image views view system room
"""
_NOT_FIRST = frozenset(_NO_NAMES.split())

_NOT_PERSONS = frozenset(
    ("board", "committee", "university", "institute", "council", "society", "ethics", "college", "agency", "federal")
)


def find(text: str) -> Iterator[tuple[int, int]]:
    """Yield where names stand."""
    for pattern in (TITLE, DEGREE, SIGNED, BY, LABEL, WEAK_LABEL, TOLD, DICOM):
        for match in pattern.finditer(text):
            group = next(name for name, value in match.groupdict().items() if value is not None)
            words = re.split(r"[ ,.]+", match[group].lower())
            # In prose all in capitals any two words look like a name.
            if group == "prose" and match[group].isupper() and "," not in match[group]:
                continue
            if words[0] not in _NOT_FIRST and _NOT_PERSONS.isdisjoint(words):
                yield match.span(group)
