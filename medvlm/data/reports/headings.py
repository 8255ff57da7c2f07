"""The headings of radiology reports, and where in a text they stand.

The English ones are those that the authors of MIMIC-CXR counted in its 227,835 reports (MIT-LCP/mimic-cxr,
txt/section_parser.py, misspellings included), the German and Spanish ones the usual words.
"""

from __future__ import annotations

import dataclasses
import re

_NAMES = {
    "findings": (
        "findings, finding, findins, findindgs, findgings, findngs, findnings, finidngs, reference findings, "
        "radiographic findings, report body, befund, befunde, hallazgos, hallazgo"
    ),
    "impression": (
        "impression, impressions, impresson, imprression, imoression, impressoin, imprssion, impresion, "
        "imperssion, mpression, impession, conclusion, conclusions, opinion, final impression, beurteilung, "
        "zusammenfassung, impresión, conclusión, conclusiones, impresión diagnóstica"
    ),
    "both": (
        "findings and impression, findings and impressions, findings & impression, findings/impression, "
        "findings/ impression, findings / impression, impression and findings, impression/findings, befund "
        "und beurteilung, hallazgos e impresión, hallazgos y conclusión"
    ),
    "indication": (
        "indication, indications, idication, ndication, history, reason, clinical indication, clinical "
        "indications, indication for exam, indication for examination, indication for study, reason for "
        "examination, reason for exam, reason for study, reason for the exam, clinical history, patient "
        "history, medical history, clinical information, clinical data, clinical details, clinical question, "
        "history and indication, indication and history, indikation, fragestellung, anamnese, klinische "
        "angaben, klinische angaben und fragestellung, rechtfertigende indikation, indicación, motivo, "
        "antecedentes, motivo de consulta, historia clínica, datos clínicos"
    ),
    "comparison": (
        "comparison, comparisons, comparision, comparsion, comparrison, comparisions, comparison exam, "
        "comparison film, comparison films, comparison study, comparison studies, reference exam, prior "
        "study, prior studies, vergleich, voraufnahme, voraufnahmen, voruntersuchung, voruntersuchungen, "
        "comparación, estudios previos"
    ),
    "technique": "technique, technik, untersuchungstechnik, técnica, technical factors",
    "rest": (
        "examination, exam, date, notification, recommendation, recommendations, recommendation(s), exam "
        "type, type of examination, addendum, addenda, pfi, wetread, signed, attending, note added, wet read, "
        "preliminary report, preliminary read, provisional findings impression, provisional findings "
        "impression (pfi), final addendum, electronically signed by, dictated by, radiation dose, "
        "untersuchung, nachtrag, empfehlung, empfehlungen, estudio, recomendación, recomendaciones, adenda"
    ),
    "final": "final report, final radiology report",
}

PART_OF = {name.strip(): part for part, names in _NAMES.items() for name in names.split(",")}
"""Heading in lower case -> what it opens: a field of `Sections`, "both" (findings and impression), or "final"."""

# "CHEST, TWO VIEWS:" stands over the findings where no other heading does.
_VIEWS = re.compile(r"\b(?:chest|portable|views?|frontal|lateral|pa|ap|upright|ribs)\b", re.I)
_ANY = "|".join(
    re.escape(name).replace(r"\ ", r"[ \t]{1,8}") for name in sorted(PART_OF, key=lambda name: (-len(name), name))
)
# Marks of Markdown may stand around a heading. Blanks are bounded, or a line of a million of them would take hours.
_LINE = re.compile(
    rf"^[ \t]{{0,99}}[#*_>]{{0,6}}[ \t]{{0,8}}(?P<name>{_ANY})"
    r"[*_]{0,3}[ \t]{0,8}(?P<end>:[*_]{0,3}|$|(?<=[ \t])[-–—](?=[ \t]))",
    re.I | re.M,
)
_INLINE = re.compile(rf"(?<=[ \t])(?P<name>{_ANY})[ \t]{{0,8}}(?P<end>:)", re.I)
_CAPITALS = re.compile(r"^[ \t]{0,99}(?P<name>[A-Z][A-Z ()/,&-]{2,60}?)[ \t]{0,8}:(?=\s|$)", re.M)
_ENDS_SENTENCE = frozenset(".;:!?]_")


@dataclasses.dataclass(frozen=True, slots=True)
class Heading:
    """A heading: its place in the text, its name in lower case, and the part that it opens."""

    start: int
    end: int
    name: str
    part: str
    """A value of `PART_OF`; "views" or "unknown" for headings in capitals that are not in it."""


def find(text: str) -> list[Heading]:
    """Return the headings of a report in order, without overlaps."""
    found = [_heading(match) for match in _LINE.finditer(text) if _is_line(match)]
    found += [_heading(match) for match in _INLINE.finditer(text) if _is_inline(text, match)]
    found += [_heading(match) for match in _CAPITALS.finditer(text)]
    kept: list[Heading] = []
    # The sort is stable: where two begin at one place, the known name counts before one that is only in capitals.
    for heading in sorted(found, key=lambda heading: heading.start):
        if not kept or heading.start >= kept[-1].end:
            kept.append(heading)
    return kept


def _is_line(match: re.Match[str]) -> bool:
    """Whether a name at the start of a line is a heading: before a colon always, else only in capitals or Titlecase."""
    if match["end"].startswith(":"):
        return True
    return match["name"].isupper() if match["end"] else not match["name"][:1].islower()


def _is_inline(text: str, match: re.Match[str]) -> bool:
    """Whether a name within a line is a heading: in capitals always, in Titlecase only where a sentence has ended."""
    before = text[max(0, match.start() - 100) : match.start()].rstrip(" \t")[-1:]
    return match["name"].isupper() or (match["name"][:1].isupper() and before in _ENDS_SENTENCE)


def _heading(match: re.Match[str]) -> Heading:
    name = " ".join(match["name"].lower().split())
    part = PART_OF.get(name) or ("views" if _VIEWS.search(name) else "unknown")
    return Heading(match.start(), match.end(), name, part)
