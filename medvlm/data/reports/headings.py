"""The headings of radiology reports, and where in a text they stand.

The English ones are those that the authors of MIMIC-CXR counted in its 227,835 reports (MIT-LCP/mimic-cxr,
txt/section_parser.py, with the misspellings listed there) and their usual combinations, the German and Spanish ones
the usual words. Reports are wrapped at some 80 letters, so that a line may begin within a sentence: a name counts as a
heading only where a sentence cannot run on through it. Where in doubt it stays text, so that nothing said is lost, or
is marked as doubtful, so that nothing is learnt from the report. What may be an addendum counts as one.
"""

from __future__ import annotations

import dataclasses
import difflib
import re

from medvlm.data.reports.cleaning import RULE, WORDS_ON

_NAMES = {
    "findings": (
        "findings, finding, findins, findindgs, findgings, findngs, findnings, finidngs, reference findings, "
        "radiographic findings, report, report body, befund, befunde, hallazgos, hallazgo"
    ),
    "impression": (
        "impression, impressions, impresson, imprression, imoression, impressoin, imprssion, impresion, "
        "imperssion, mpression, impession, conclusion, conclusions, opinion, final impression, impression and "
        "recommendation, impression and recommendations, impression and recommendation(s), impression/recommendation, "
        "impression/recommendations, impression/recommendation(s), impression / recommendations, impression & "
        "recommendations, impression and plan, impression/plan, summary, interpretation, beurteilung, "
        "zusammenfassung, bewertung, zusammenfassende beurteilung, gesamtbeurteilung, "
        "impresión, conclusión, conclusiones, impresión diagnóstica"
    ),
    "both": (
        "findings and impression, findings and impressions, findings & impression, findings/impression, "
        "findings/ impression, findings / impression, impression and findings, impression/findings, befund "
        "und beurteilung, findings impression, hallazgos e impresión, hallazgos y conclusión"
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
        "type, type of examination, pfi, wetread, signed, attending, wet read, "
        "preliminary report, preliminary read, provisional findings impression, provisional findings "
        "impression (pfi), electronically signed by, dictated by, radiation dose, "
        "untersuchung, empfehlung, empfehlungen, estudio, recomendación, recomendaciones"
    ),
    "addendum": "addendum, addenda, final addendum, note added, nachtrag, adenda",
    "final": "final report, final radiology report",
}

PART_OF = {name.strip(): part for part, names in _NAMES.items() for name in names.split(",")}
"""Heading in lower case -> what it opens: a field of `Sections`, "both" (findings and impression), or "final"."""

PART_OF["findings, impression"] = "both"
REPORT = ("report", "report body")
"""May be over the whole report or its number, too: `sectioning` looks at what stands below."""

# "CHEST, TWO VIEWS:" and COMMENT: stand over the findings where no other heading does.
_VIEWS = re.compile(r"\b(?:chest|portable|views?|frontal|lateral|pa|ap|upright|ribs)\b|^comments?$")
# What a heading in capitals that is not known opens: the first that it names.
_NAMED = {
    "addendum": re.compile(r"\baddend"),
    "both": re.compile(r"\bfindings?\b.*\b(?:impression|conclusion)|\b(?:impression|conclusion)s?\b.*\bfinding"),
    "impression": re.compile(r"\b(?:impression|conclusion)s?\b"),
    "findings": re.compile(r"\bfindings?\b"),
    "rest": re.compile(r"\b(?:preliminary|provisional|wet read|recommend\w*|notif\w*)\b"),
    "comparison": re.compile(r"\b(?:comparisons?|prior|previous)\b"),
    "indication": re.compile(r"\b(?:indications?|history|reason)\b"),
    "technique": re.compile(r"\btechnique\b"),
}
_NO_NAME = re.compile(r"\b(?:no|not|without|since|see|is|are|change|changed|unchanged|following)\b")
_MISSPELT = ("findings", "impression", "indication", "comparison", "technique")
_ANY = "|".join(
    re.escape(name).replace(r"\ ", r"[ \t]{1,8}") for name in sorted(PART_OF, key=lambda name: (-len(name), name))
)
# Marks of Markdown may stand around a heading. Blanks are bounded, or a line of a million of them would take hours.
_LINE = re.compile(
    rf"^[ \t]{{0,99}}(?P<marks>[#*>]{{0,6}}|_{{1,2}})[ \t]{{0,8}}(?P<name>{_ANY})"
    r"[*_]{0,3}[ \t]{0,8}(?P<end>:[*_]{0,3}|$|(?<=[ \t])[-–—](?=[ \t]))",
    re.I | re.M,
)
_INLINE = re.compile(rf"(?<=[ \t])(?P<name>{_ANY})[ \t]{{0,8}}(?P<end>:)", re.I)
_CAPITALS = re.compile(r"^[ \t]{0,99}(?P<name>[A-Z][A-Z ()/,&-]{2,60}?)[ \t]{0,8}:(?=\s|$)", re.M)
# With no colon and in other words, too: it may correct what stands above.
_ADDENDUM = re.compile(
    r"(?:^(?P<line>(?:(?!\n)[\W_]){0,120})|(?<=[.;!?])[ \t]{1,8}[(\[*]{0,3})"
    r"(?:(?:start|beginning|end)[ ]of[ ])?(?:(?:final|first|second|third|late)[ ])?"
    r"(?P<name>addend(?:um|a)|nachtrag|adenda"
    r"|(?:revised|amended|corrected)[ ](?:report|impression|findings?|interpretation|read(?:ing)?)"
    r"|(?:revised|amended|correction|erratum|korrektur|berichtigung)(?=[ \t]{0,8}:))(?![^\W_])"
    r"(?P<end>(?:[ \t)\]*_]{0,5}:)?)(?=(?P<colon>(?<=:)|[^\n:]{0,40}(?::|[ ][-–—][ ]))?)",
    re.I | re.M,
)
_SIGNED = re.compile(
    r"^[ \t]{0,99}(?P<name>mit (?:freundlichen|kollegialen|besten)\b[^\n]{0,40}gr(?:ü|ue)(?:ß|ss)en|"
    r"electronically signed|(?:this report was )?"
    r"(?:electronically signed|dictated|transcribed|verified|signed) by\b|reported by(?=:| dr))",
    re.I | re.M,
)
"""Who signed a report, and all below it."""
_RUNS_ON = re.compile(rf"(?:{WORDS_ON}|\b(?:since|prior|previous|see))\Z", re.I)
_SHORT = 40
"""Fewer letters than a line has that a wrap has ended."""
_ENDS_SENTENCE = frozenset(".;:!?]_")
_NUMBER = re.compile(r"(?:\A|\s)(\d{1,2})[.)](?=\s|\Z)")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_DESCRIBES = ("findings", "impression", "both", "views")
# What ends a description in capitals within a line; a history or comparison may stand in its midst.
_CLOSES = re.compile(r"recomm?end|notif|empfehl|addend|electronic|signed|dictated|attending|wet|prelim|provis")
_NEAR = 2000
"""How many letters around a name are looked at; a section is seldom longer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Heading:
    """A heading: its place in the text, its name in lower case, and the part that it opens."""

    start: int
    end: int
    name: str
    part: str
    """A value of `PART_OF`; "views" or "unknown" for headings in capitals that are not in it and name no part."""
    brief: bool = False
    """Whether only the sentence behind it is its own, and what it stands in goes on then."""
    on_line: bool = False
    """Whether it is brief at the start of a line; all below is its own then where that has several paragraphs."""
    apart: bool = False
    """Whether no description stands right above one that is brief at the start of a line."""
    doubtful: bool = False
    """Whether it may be in the midst of a sentence."""


def find(text: str) -> list[Heading]:
    """Return the headings of a report in order, without overlaps."""
    matches = [match for form in (_LINE, _ADDENDUM, _INLINE, _CAPITALS, _SIGNED) for match in form.finditer(text)]
    kept: list[Heading] = []
    current = ""
    # The sort is stable: where two begin at one place, the known name counts before one that is only in capitals.
    for match in sorted(matches, key=lambda match: match.start()):
        if kept and match.start() < kept[-1].end:
            continue
        judge = _JUDGES[match.re]
        heading = judge(text, match, current, kept[-1].end if kept else -1)
        if heading is None:
            continue
        kept.append(heading)
        if not heading.brief and not (heading.part in ("unknown", "views") and current in _DESCRIBES):
            current = heading.part
    return kept


def _on_line(text: str, match: re.Match[str], current: str, last: int) -> Heading | None:
    """Return a known name at the start of a line, if it is a heading.

    With a colon: in lower case only where a sentence begins, within a description see `_in_description`. Without:
    alone on the line, not in lower case, or before a dash, in capitals; REPORT: only with a colon.
    """
    name, heading = match["name"], _known(match)
    colon = match["end"].startswith(":")
    if heading.part == "final":
        return heading if _is_final(text, match, colon) else None
    if not colon and (heading.name in REPORT or not (name.isupper() if match["end"] else not name[:1].islower())):
        return None
    if name[:1].islower():
        opens = match["marks"] or (colon and _below_lower_case(text, match)) or _begins_sentence(text, match.start())
        return heading if opens else None
    return _in_description(text, match, heading, last) if current in _DESCRIBES else heading


def _is_final(text: str, match: re.Match[str], colon: bool) -> bool:
    """Whether FINAL REPORT is a heading: alone on its line, or before a colon where no sentence runs on."""
    name, place = match["name"], match.start()
    if not text[match.end() : match.end() + 99].partition("\n")[0].strip():
        return not name[:1].islower()
    runs_on = _RUNS_ON.search(_line_above(text, place)) is not None
    return colon and ((name.isupper() and not runs_on) or (name[:1].isupper() and _begins_sentence(text, place)))


def _in_description(text: str, match: re.Match[str], heading: Heading, last: int) -> Heading | None:
    """Return a known name at the start of a line of a description, if it is a heading.

    In capitals it is none where a sentence in capitals runs on, in Titlecase where any does: German nouns are written
    so. In Titlecase it is doubtful below a full line without an end, and a comparison, technique or indication brief.
    What closes a report is a heading in any case.
    """
    place = match.start()
    if _CLOSES.match(heading.name):
        return heading
    above = _line_above(text, place)
    if match["name"].isupper():
        stays = heading.part not in ("impression", "both") and _in_capitals_above(above)
        return None if stays else heading
    ended = _begins_sentence(text, place)
    if not ended and _RUNS_ON.search(above):
        return None
    apart = not text[last:place].strip()
    brief = (
        match["end"].startswith(":")
        and heading.part in ("comparison", "technique", "indication")
        and (apart or above != "")
    )
    doubtful = not ended and heading.part not in ("impression", "both") and len(above) >= _SHORT
    return dataclasses.replace(heading, brief=brief, on_line=brief, apart=apart, doubtful=doubtful)


def _within_line(text: str, match: re.Match[str], current: str, last: int) -> Heading | None:
    """Return a known name within a line, if it is a heading.

    Findings, impression and both: in capitals, or in Titlecase where a sentence has ended. Others: where a sentence has
    ended, and no enumeration goes on; in capitals also on the line of a heading that describes nothing. Within a
    description they are brief.
    """
    name, heading = match["name"], _known(match)
    before = text[max(0, match.start() - 100) : match.start()].rstrip(" \t")
    if not before or before[-1] == "\n" or name[:1].islower() or heading.part == "final":
        return None
    ended = before[-1] in _ENDS_SENTENCE
    if heading.part in ("findings", "impression", "both"):
        free = name.isupper() and (heading.part != "findings" or current not in _DESCRIBES)
        return heading if ended or free else None
    since = text[max(last, match.start() - _NEAR, 0) : match.start()]
    behind = last >= 0 and not since.strip()
    if name.isupper() and current not in _DESCRIBES and last >= 0 and "\n" not in since:
        return heading
    if not ended or (before[-1] == ":" and not behind) or _enumerated(text, match, since):
        return None
    if current not in _DESCRIBES and (_BLANK_LINE.search(since) if last >= 0 else not name.isupper()):
        return None
    closes = name.isupper() and not behind and _CLOSES.match(heading.name) is not None
    return dataclasses.replace(heading, brief=current in _DESCRIBES and not closes)


def _in_capitals(text: str, match: re.Match[str], current: str, last: int) -> Heading | None:
    """Return a name in capitals that is not known; within a description it opens only an impression or addendum."""
    name = _plain(match["name"])
    if name in PART_OF:
        return None
    part = _named(name)
    stays = current in _DESCRIBES and (part == current or part not in ("impression", "both", "addendum", "views"))
    return Heading(match.start(), match.end(), name, "unknown" if stays else part)


def _addendum(text: str, match: re.Match[str], current: str, last: int) -> Heading | None:
    """Return what opens an addendum, unless a sentence runs on through it; in a line only before a colon or dash."""
    name, place = match["name"], match.start()
    first = match["name"][:1].isupper()
    if match["line"] is None:
        opens = first and match["colon"] is not None
    else:
        likely = name.isupper() or (first and match["colon"] is not None)
        opens = _begins_sentence(text, place) or (likely and not _RUNS_ON.search(_line_above(text, place)))
    whole = _plain(text[place : match.end()].strip(" \t\r\n()[]*_:#>=-"))
    return Heading(place, match.end(), whole, "addendum") if opens else None


def _signed(text: str, match: re.Match[str], current: str, last: int) -> Heading | None:
    """Return where a report is signed; the words stay, with all below them, in what is not learnt."""
    place = match.start()
    return Heading(place, place, "signed", "rest") if _begins_sentence(text, place) else None


def _below_lower_case(text: str, match: re.Match[str]) -> bool:
    """Whether the line above is a heading in lower case too, with few words: a report all in lower case."""
    above = _line_above(text, match.start())
    headed = _LINE.match(above)
    if headed is None or len(above) >= _SHORT or _RUNS_ON.search(above):
        return False
    return headed["name"][:1].islower() and headed["end"].startswith(":")


_JUDGES = {_LINE: _on_line, _INLINE: _within_line, _CAPITALS: _in_capitals, _ADDENDUM: _addendum, _SIGNED: _signed}


def _known(match: re.Match[str]) -> Heading:
    name = _plain(match["name"])
    return Heading(match.start(), match.end(), name, PART_OF[name])


def _plain(name: str) -> str:
    return " ".join(name.lower().split())


def _named(name: str) -> str:
    """Return the part that a name in capitals opens, though it is not known as a whole."""
    if not _NO_NAME.search(name):
        for part, words in _NAMED.items():
            if words.search(name):
                return part
        near = difflib.get_close_matches(name, _MISSPELT, n=1, cutoff=0.8)
        if near and near[0][0] == name[0]:
            return near[0]
    return "views" if _VIEWS.search(name) else "unknown"


def _begins_sentence(text: str, place: int) -> bool:
    """Whether a sentence begins at the start of a line: at the top, after a blank line, a drawn one or a sentence."""
    window = text[max(0, place - 200) : place]
    above = window.rstrip()
    drawn = RULE.fullmatch(above[above.rfind("\n") + 1 :]) is not None
    return not above or window[len(above) :].count("\n") > 1 or above[-1] in ".!?:" or drawn


def _line_above(text: str, place: int) -> str:
    """Return up to 200 letters of the line above the one that begins at a place."""
    return text[max(0, place - 200) : place].removesuffix("\n").rpartition("\n")[2].strip()


def _in_capitals_above(line: str) -> bool:
    """Whether a sentence in capitals runs on at the end of a full line."""
    runs_on = _RUNS_ON.search(line) is not None
    return len(line) >= _SHORT and runs_on and re.split(r"[.;:!?]", line)[-1].isupper()


def _enumerated(text: str, match: re.Match[str], since: str) -> bool:
    """Whether a name stands behind the number of an item, or the next item follows."""
    numbers = list(_NUMBER.finditer(since))
    if not numbers:
        return False
    number = numbers[-1]
    following = _BLANK_LINE.split(text[match.end() : match.end() + _NEAR], maxsplit=1)[0]
    return not since[number.end() :].strip() or str(int(number[1]) + 1) in _NUMBER.findall(following)
