"""A report split by its headings, and the section to learn chosen from it.

How a report is read, in the order of the rules:

- What stands before FINAL REPORT (a wet read, a preliminary report) belongs to `rest`. FINAL REPORT counts where a
  report follows it, and below a wet read or preliminary report in any case.
- Known headings open their section, at the start of a line with or without a colon, underlined, in capitals or not;
  within a line where a sentence has ended ("... clear. IMPRESSION: ..."). See `headings` for where they do not.
- One heading for both, FINDINGS AND IMPRESSION, fills findings and impression with the same text, which is given once
  where both are asked for; where IMPRESSION follows by itself, only the findings.
- Headings in capitals that are not known (LUNGS:, HEART:) stay within findings and impression as a part of their text;
  elsewhere they open what they name (INDICATION FOR CHEST RADIOGRAPH:), CHEST, TWO VIEWS: and its like the findings
  where no known heading does, others `rest`.
- "Comparison: ___." within a line of a description takes its own sentence only, at the start of a line, too, where no
  paragraph follows.
- REPORT: opens the findings where nothing else does and a sentence follows; else it is over a title or number.
- A section that comes twice is joined in its order. An empty one is as if it were not there.
- Under no heading of its own stands `unheaded`: the whole text where nothing is headed, else, where the report has no
  headed findings, what follows an indication, comparison, technique or title after a blank line, and what LUNGS: and
  other names of organs and devices say. The authors of MIMIC-CXR read such paragraphs as the report, too.
- Recommendations, notifications and all else are `rest`: they say what was done, not what the pictures show.
- A report with an addendum gives no text to learn: what it adds may correct what stands above, a side for instance.
  So does a revised, amended or corrected one. "ADDENDUM: None." is no addendum.
- A report that cannot be split safely gives none either: a heading may be in the midst of a sentence, the comparison
  may be of the findings, or the final report below a preliminary one is not to be found. That costs some reports.
"""

from __future__ import annotations

import dataclasses
import itertools
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
# What names the pictures show; and what says of an order that it is not of them.
_SHOWN = re.compile(
    r"\b(?:lungs?|lobes?|pulmonary|heart|cardi\w+|mediastin\w*|hil(?:a|ar|um|us|i)|pleura\w*|bon(?:e|es|y)|osseous|"
    r"skelet\w*|spine|ribs?|abdom\w*|lines?|tubes?|devices?|catheters?|pacemaker|hardware|airways?|trachea|aorta|"
    r"vessels?|vasculature|vascular|soft tissues?|chest|diaphragms?|neck|thyroid|thora\w+|liver|spleen|kidneys?|"
    r"lunge\w*|herz\w*|zwerchfell\w*|knochen\w*|weichteile|hilus|oberbauch|pulmones|corazon|huesos)\b"
)
_ORDER = re.compile(
    r"\b(?:order\w*|service|department|physician|provider|clinician|radiologist|referring|signed|dictated|transcribed|"
    r"read by|accession|mrn|number|patient|name|age|sex|date|time|location|exam\w*|study|procedure|contrast|dose|"
    r"rate|pain|cancer|screening|history|hospital|ward|unit|clinic)\b"
)
# What an addendum says that adds nothing.
_NOTHING = re.compile(
    r"\W*(?:none|no|no addend(?:um|a)|n/?a|nil|not applicable|entfällt|keine?r?|nein|ninguna)\W*|-+", re.I
)
_PRELIMINARY = re.compile(r"wet ?read|prelim|provis")
_FINAL = re.compile(
    r"\bfinal\s+(?:radiology\s+)?(?:report|read|interpretation|impression|findings)\b(?!\s+(?:to follow|pending))", re.I
)
_DRAWN = re.compile(rf"\A(?:\s*{RULE.pattern})+", re.M)
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
    """What was added, wherever it stands; the heading where another one follows at once."""
    once: bool = False
    """Whether the impression stands in the findings already: one heading for both."""
    doubtful: bool = False
    """Whether the report cannot be split safely; then there is no text to learn."""


@dataclasses.dataclass(slots=True)
class _Piece:
    """A heading's name and part, and the text below it up to the next heading."""

    name: str
    part: str
    text: str
    doubtful: bool = False


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
    _judge_report(pieces)
    for before, piece in itertools.pairwise(pieces):
        # A comparison within the findings: what its next paragraph belongs to, nobody can tell.
        described = before.part in _DESCRIBES and says_something(before.text)
        if described and piece.part in _ABOVE and _BLANK_LINE.search(_bare(piece.text)):
            piece.doubtful = True
    _judge_addenda(pieces)
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
    """Return the chosen sections that say something; none of a report with an addendum or in doubt."""
    choice = check_choice(choice)
    both = [found.findings or found.unheaded]
    both += [found.impression] if not found.once and found.impression != found.findings else []
    wanted = {"findings": [found.findings], "impression": [found.impression]}.get(choice, both)
    return [] if found.addendum or found.doubtful else [text for text in wanted if says_something(text)]


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
    if found.doubtful:
        return "report cannot be split safely"
    there = {"findings": [found.findings], "impression": [found.impression]}
    if any(there.get(choice, [found.findings, found.impression, found.unheaded])):
        return "report says nothing but marks"
    return "no findings or impression" if choice == "both" else f"no {choice}"


def _add(pieces: list[_Piece], heading: Heading, words: str, body: str) -> None:
    """Add a heading and the text below it to the pieces."""
    before = pieces[-1]
    if heading.part == "final":
        pieces.append(_Piece("final", "rest", body))
    elif heading.brief and not (heading.on_line and _BLANK_LINE.search(body.strip())):
        _add_brief(pieces, heading, body)
    elif heading.part in ("unknown", "views") and before.part in _DESCRIBES:
        before.text += words + body
    elif heading.part == "unknown" or (heading.part == "views" and not body.strip()):
        pieces.append(_Piece(heading.name, "unknown" if heading.part == "unknown" else "rest", words + body))
    else:
        if heading.name not in headings.PART_OF:
            pieces.append(_Piece(heading.name, "rest", words))
        pieces.append(_Piece(heading.name, heading.part, body, heading.doubtful))


def _add_brief(pieces: list[_Piece], heading: Heading, body: str) -> None:
    """Add a heading with the sentence behind it; what follows belongs to what the heading stands in."""
    before = pieces[-1]
    end = _SENTENCE.search(body)
    stop = end.end() if end else len(body)
    # Without a stop on its line, and below findings of their own, nobody can tell where it ends.
    unclear = "\n" in body[:stop].strip() or (not heading.apart and says_something(body[stop:]))
    doubtful = heading.doubtful or (heading.on_line and unclear)
    # An empty body under CHEST, TWO VIEWS: is not one of views yet.
    part = "views" if before.part == "rest" else before.part
    pieces += [_Piece(heading.name, heading.part, body[:stop], doubtful), _Piece(before.name, part, body[stop:])]


def _judge_report(pieces: list[_Piece]) -> None:
    """Make `rest` of what stands below REPORT: unless it is the findings; beside others it is doubtful."""
    others = any(
        piece.part in ("findings", "both") and piece.name not in headings.REPORT and _bare(piece.text)
        for piece in pieces
    )
    for piece in pieces:
        if piece.name in headings.REPORT and piece.part == "findings":
            sentence = "." in piece.text and _LONG_WORD.search(piece.text) is not None
            piece.part = "findings" if sentence and not others else "rest"
            piece.doubtful = piece.doubtful or (sentence and others)


def _judge_addenda(pieces: list[_Piece]) -> None:
    """Make `rest` of addenda that add nothing; one that has only headings below is told by its own name."""
    below = False
    for piece in reversed(pieces):
        own = _bare(piece.text)
        if piece.part == "addendum" and not own and below:
            piece.text = piece.name.upper()
        elif piece.part == "addendum" and _NOTHING.fullmatch(own):
            piece.part = "rest"
        below = below or bool(own)


def _set_aside_before_final(pieces: list[_Piece]) -> None:
    """Make `rest` of what was said before the final report; an addendum stays one.

    Where a preliminary report stands above and the final one is told of otherwise, the report is doubtful.
    """
    follows = False
    first = next((place for place, piece in enumerate(pieces) if _PRELIMINARY.match(piece.name)), len(pieces))
    for place in range(len(pieces) - 1, -1, -1):
        last = pieces[place]
        told = says_something(last.text) and _LONG_WORD.search(last.text) is not None
        if last.name == "final" and (follows or told or first < place):
            for piece in pieces[:place]:
                piece.name, piece.part = "before", "addendum" if piece.part == "addendum" else "rest"
            return
        follows = follows or (last.part not in ("rest", "addendum") and says_something(last.text))
    for piece in pieces[first:]:
        piece.doubtful = piece.doubtful or _FINAL.search(f"{piece.name}\n{piece.text}") is not None


def _find_unheaded(pieces: list[_Piece]) -> None:
    """Mark what describes the pictures though no heading of findings says so, in place."""
    stop = next((place for place, piece in enumerate(pieces) if piece.part == "impression"), len(pieces))
    for place in range(stop - 1, -1, -1):
        piece = pieces[place]
        if piece.part == "unknown" and _SHOWN.search(piece.name) and not _ORDER.search(piece.name):
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
    doubtful = any(piece.doubtful for piece in pieces)
    return Sections(**{part: "\n".join(texts) for part, texts in parts.items()}, once=once, doubtful=doubtful)


def _bare(text: str) -> str:
    """Return a text without blanks at its ends, and without the line drawn under its heading."""
    return _DRAWN.sub("", text).strip()
