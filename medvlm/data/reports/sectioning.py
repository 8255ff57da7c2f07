"""A report split by its headings, and the section to learn chosen from it.

How a report is read, in the order of the rules:

- What stands before FINAL REPORT (a wet read, a preliminary report) belongs to `rest`. FINAL REPORT counts alone on its
  line and where a report follows.
- Known headings open their section, at the start of a line with or without a colon, underlined, in capitals or not;
  within a line where a sentence has ended ("... clear. IMPRESSION: ..."). See `headings` for where they do not.
- One heading for both, FINDINGS AND IMPRESSION, fills findings and impression with the same text, which is given once
  where both are asked for; where IMPRESSION follows by itself, only the findings.
- Headings in capitals that are not known (LUNGS:, HEART:) stay within findings and impression as a part of their text;
  elsewhere they open what they name (INDICATION FOR CHEST RADIOGRAPH:), CHEST, TWO VIEWS: and its like the findings
  where no known heading does, others `rest`.
- "Comparison: ___." within a line of a description takes its own sentence only.
- A section that comes twice is joined in its order. An empty one is as if it were not there.
- Under no heading of its own stands `unheaded`: the whole text where nothing is headed, else, where the report has no
  headed findings, what follows an indication, comparison, technique or title after a blank line, and what LUNGS: and
  its like say. The authors of MIMIC-CXR read such paragraphs as the report, too.
- Recommendations, notifications and all else are `rest`: they say what was done, not what the pictures show.
- A report with an addendum gives no text to learn: what it adds may correct what stands above, a side for instance.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Literal, get_args

from medvlm.data.reports import headings
from medvlm.data.reports.cleaning import RULE, clean, says_something
from medvlm.data.reports.headings import Heading
from medvlm.errors import UsageError

Choice = Literal["findings", "impression", "both"]
CHOICES: tuple[Choice, ...] = get_args(Choice)

_DESCRIBES = ("findings", "impression", "both")
_ABOVE = ("indication", "comparison", "technique")
"""Below these a description may begin under no heading of its own."""
_OPENS = ("", "final", "examination", "exam", "exam type", "type of examination")
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
_SENTENCE = re.compile(r"(?<!\bDr)(?<!\bMr)(?<!\bMs)(?<!\bvs)(?<!\bNo)[.!?](?=\s)|\n[ \t]*\n")
# What headings in capitals say of the order, not of the pictures.
_ORDER = re.compile(
    r"\b(?:order\w*|service|department|physician|provider|clinician|radiologist|referring|signed|dictated|transcribed|"
    r"read by|accession|mrn|number|patient|name|age|sex|date|time|location|exam\w*|study|procedure|contrast|dose)\b"
)
_LONG_WORD = re.compile(r"[^\W\d_]{4}")
_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclasses.dataclass(frozen=True, slots=True)
class Sections:
    """What a report says under which heading, as written but for blanks at the ends; "" where it says nothing."""

    findings: str = ""
    impression: str = ""
    indication: str = ""
    """With the clinical history."""
    comparison: str = ""
    technique: str = ""
    rest: str = ""
    """Title, wet read, recommendations, notifications, and what stands before the first heading."""
    unheaded: str = ""
    """What describes the pictures under no heading of its own."""
    addendum: str = ""
    """What was added, wherever it stands."""
    once: bool = False
    """Whether the impression stands in the findings already: one heading for both."""


@dataclasses.dataclass(slots=True)
class _Piece:
    """A heading's name and part, and the text below it up to the next heading."""

    name: str
    part: str
    text: str


def sections(text: str) -> Sections:
    """Split a report by its headings; see the module for the rules.

    Every word of the text that is no heading is in some section.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    found = headings.find(text)
    if not found:
        return Sections(unheaded=text.strip())
    pieces = [_Piece("", "rest", text[: found[0].start])]
    for heading, stop in zip(found, [*(after.start for after in found[1:]), len(text)], strict=True):
        _add(pieces, heading, text[heading.start : heading.end], text[heading.end : stop])
    _set_aside_before_final(pieces)
    if not any(piece.part in ("findings", "both") and _bare(piece.text) for piece in pieces):
        _find_unheaded(pieces)
    return _joined(pieces)


def check_choice(choice: str) -> Choice:
    """Return the choice of sections, if it is one.

    Raises:
        UsageError: it is none.
    """
    for known in CHOICES:
        if choice == known:
            return known
    raise UsageError(f'--sections "{choice}": give {", ".join(CHOICES[:-1])} or {CHOICES[-1]}')


def chosen(found: Sections, choice: str) -> str | None:
    """Return the text of the chosen section as written, or None where the report lacks it; `lacking` says what then.

    Args:
        found: of one report.
        choice: findings or impression: only what stands under that heading. both: the findings, then the impression, or
            one of them where the other is missing; what stands under no heading takes the place of missing findings.

    Raises:
        UsageError: no such choice.
    """
    return "\n".join(_wanted(found, choice)) or None


def target(found: Sections, choice: str) -> str | None:
    """Return the text to learn: the chosen sections cleaned one by one, each before another ended by a period.

    Joined before they are cleaned, "no pneumothorax" and "Pneumonia" would run into one another.

    Raises:
        UsageError: no such choice.
    """
    *others, last = [clean(text) for text in _wanted(found, choice)] or [""]
    return " ".join([*(_ended(text) for text in others), last]) or None


def _wanted(found: Sections, choice: str) -> list[str]:
    """Return the chosen sections that say something; none of a report with an addendum."""
    choice = check_choice(choice)
    both = [found.findings or found.unheaded]
    both += [found.impression] if not found.once and found.impression != found.findings else []
    wanted = {"findings": [found.findings], "impression": [found.impression]}.get(choice, both)
    return [] if found.addendum else [text for text in wanted if says_something(text)]


def _ended(text: str) -> str:
    return text if text.rstrip("\"')]")[-1:] in (".", "!", "?") else f"{text.rstrip(',;:')}."


def lacking(found: Sections, choice: str) -> str:
    """Return the short fixed reason for which `chosen` gives None.

    Raises:
        UsageError: no such choice.
    """
    choice = check_choice(choice)
    if found.addendum:
        return "report has an addendum"
    there = {"findings": [found.findings], "impression": [found.impression]}
    if any(there.get(choice, [found.findings, found.impression, found.unheaded])):
        return "report says nothing but marks"
    return "no findings or impression" if choice == "both" else f"no {choice}"


def _add(pieces: list[_Piece], heading: Heading, words: str, body: str) -> None:
    """Add a heading and the text below it to the pieces."""
    before = pieces[-1]
    if heading.part == "final":
        pieces.append(_Piece("final", "rest", body))
    elif heading.brief:
        end = _SENTENCE.search(body)
        stop = end.end() if end else len(body)
        # An empty body under CHEST, TWO VIEWS: is not one of views yet.
        part = "views" if before.part == "rest" else before.part
        pieces += [_Piece(heading.name, heading.part, body[:stop]), _Piece(before.name, part, body[stop:])]
    elif heading.part in ("unknown", "views") and before.part in _DESCRIBES:
        before.text += words + body
    elif heading.part == "unknown" or (heading.part == "views" and not body.strip()):
        pieces.append(_Piece(heading.name, "unknown" if heading.part == "unknown" else "rest", words + body))
    else:
        if heading.name not in headings.PART_OF:
            pieces.append(_Piece(heading.name, "rest", words))
        pieces.append(_Piece(heading.name, heading.part, body))


def _set_aside_before_final(pieces: list[_Piece]) -> None:
    """Make `rest` of what was said before the final report; an addendum stays one."""
    follows = False
    for place in range(len(pieces) - 1, -1, -1):
        last = pieces[place]
        if last.name == "final" and (follows or "." in last.text):
            for piece in pieces[:place]:
                piece.name, piece.part = "before", "addendum" if piece.part == "addendum" else "rest"
            return
        follows = follows or (last.part not in ("rest", "addendum") and says_something(last.text))


def _find_unheaded(pieces: list[_Piece]) -> None:
    """Mark what describes the pictures though no heading of findings says so, in place."""
    stop = next((place for place, piece in enumerate(pieces) if piece.part == "impression"), len(pieces))
    for place in range(stop - 1, -1, -1):
        piece = pieces[place]
        if piece.part == "unknown" and not _ORDER.search(piece.name):
            piece.part = "unheaded"
        elif piece.part in _ABOVE or piece.name in _OPENS:
            own, others = _paragraphs(piece)
            if others:
                piece.text = own
                pieces.insert(place + 1, _Piece("", "unheaded", others))
            if others or piece.text.strip():
                break
    _take_views(pieces)


def _take_views(pieces: list[_Piece]) -> None:
    """Make findings of what CHEST, TWO VIEWS: and its like say, with what describes the pictures elsewhere."""
    unheaded = [piece for piece in pieces if piece.part == "unheaded"]
    for piece in pieces:
        # Beside a description "___, 5:32 PM." is when the picture was taken.
        sentence = "." in piece.text and len(_WORD.findall(piece.text)) > 2
        if piece.part == "views" and (sentence or (not unheaded and _LONG_WORD.search(piece.text))):
            piece.part = "findings"
    if any(piece.part == "findings" and _bare(piece.text) for piece in pieces):
        for piece in unheaded:
            piece.part = "findings"


def _paragraphs(piece: _Piece) -> tuple[str, str]:
    """Return what belongs to a heading itself, and the paragraphs below that do not."""
    paragraphs = [paragraph for paragraph in _BLANK_LINE.split(_bare(piece.text)) if paragraph.strip()]
    # Below FINAL REPORT and at the very top stand titles, if anything: lines without a sentence.
    titles = piece.name in ("", "final")
    own = next((n for n, one in enumerate(paragraphs) if "." in one), len(paragraphs)) if titles else 1
    return "\n\n".join(paragraphs[:own]), "\n\n".join(paragraphs[own:])


def _joined(pieces: list[_Piece]) -> Sections:
    """Return the sections, pieces of one kind joined in order."""
    parts: dict[str, list[str]] = {}
    for piece in pieces:
        part = "rest" if piece.part in ("views", "unknown") else piece.part
        if bare := _bare(piece.text):
            parts.setdefault(part, []).append(bare)
    both = parts.pop("both", [])
    parts["findings"] = [*parts.get("findings", []), *both]
    once = bool(both) and not parts.get("impression")
    parts["impression"] = parts.get("impression") or both
    return Sections(**{part: "\n".join(texts) for part, texts in parts.items()}, once=once)


def _bare(text: str) -> str:
    """Return a text without blanks at its ends, and without the line drawn under its heading."""
    text = text.strip()
    while (rule := RULE.match(text)) is not None:
        text = text[rule.end() :].strip()
    return text
