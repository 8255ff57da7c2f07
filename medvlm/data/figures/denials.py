"""Whether a sentence says that something is there, that it is not, or neither for sure.

A denial is believed in two forms only: "no (evidence of) X", with X bare or a member of a list that "or" or "nor"
closes, and "X is not seen", "X has resolved". Its reach ends at a verb, at a comma outside such a list, at "but" or
"with"; one that names a place or side says nothing of the rest of the picture. Every other word of denial, doubt,
change or history leaves all that its sentence names undecided.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

# What is blanked before all else: it says how the picture was taken. Places stay.
_CONTRAST = re.compile(
    r"\b(?:with(?: and | or |/))?(?:without|(?:before and )?after)"
    r" (?:(?:the|an?|use|administration|injection|of|intravenous|iv|i\.v\.|oral|any) )*(?:contrast|gadolinium)\b"
    r"(?:[- ](?:medium|media|agents?|materials?|enhancement|administration|injection|dye)\b)*"
    r"(?! (?:extravasation|filling|uptake|leak\w*|opacification|passage))"
    r"|\b(?:non|post)[- ]?(?:contrast|enhanced)\b",
    re.IGNORECASE,
)
_OPENS = re.compile(
    r"\b(?:no(?! longer\b)|without|absence of|negative for|(?<!-)free of|lack of|devoid of|neither)(?=\s)",
    re.IGNORECASE,
)
_UNSURE = re.compile(
    # denial
    r"\b(?:no|not|nor|neither|never|none|nothing|without|absen\w+|lack\w*|free (?:of|from)|devoid|negative"
    r"|fail(?:s|ed|ing)"
    r"|failure to|except|exclud\w*|exclusion|rather|instead|unlike|other than|resol(?:ves?|ved|ving|ution)|disappear\w*"
    r"|vanish\w*|clear(?:ed|ing|ance)|unable|unseen|invisible|normal\w*|unremarkable|healthy|controls?"
    # doubt
    r"|possibl[ey]|probabl[ey]|suspect(?:ed|ing)?|suspicious|suspicion|may|might|could|would|should|likely|unlikely"
    r"|hardly|scarcely|barely|little|nowhere|almost|den(?:y|ies|ied)|suggest\w*|rule[sd]? out|ruling out|cannot"
    r"|versus|vs|differential|presum\w+|question\w*|mimic\w*|simulat\w+"
    r"|resembl\w+|appear(?:s|ed|ing)? (?:to|as|like)|like|uncertain|equivocal|indeterminate|concern\w*|consider\w*"
    r"|compatible|consistent with|assess\w*|evaluat\w*|screening|search\w*|risk|potential\w*|prevent\w*|expect\w*"
    r"|predict\w*|if|whether|or|models?|phantoms?|schematic"
    # change and history
    r"|histor(?:y|ies)|previous\w*|prior|former\w*|before|after|following|post|status|known|decreas\w*|regress\w*"
    r"|improv\w*|reduc(?:ed|tion)|subsid\w*|diminish\w*|remov\w+|resect\w+|excis\w+|evacuat\w+|drained|heal\w*"
    r"|repair\w*|treated|embolized|aspirated|no longer)\b|-free\b|n't\b|\?|\([-\u2212\u2013]\)",
    re.IGNORECASE,
)
_VERB = (
    r"\b(?:is|are|was|were|be|been|being|has|have|had|does|did|shows?|showed|shown|showing|reveal\w*|demonstrat\w*"
    r"|depict\w*|display\w*|indicat\w*|confirm\w*|seen|noted|found|visible|identified|detected|observed|present|evident"
    r"|visuali[sz]ed|appreciated|which|who|that|while|whereas)\b"
)
_BUT = r"\b(?:but|however|although|though)\b"
_ENDS = re.compile(
    rf"[;:()\[\]]|\.(?:\s|$)|{_VERB}|{_BUT}|\b(?:with|without|no|not|neither|except|despite)\b", re.IGNORECASE
)
_OR = re.compile(r"\b(?:or|nor)\b", re.IGNORECASE)
_BETWEEN = re.compile(r"\b(?:or|nor)\b|,", re.IGNORECASE)
# All that may stand between "no" and what it denies: words that leave the denial whole, as "new" or "other" do not.
_PLAIN = re.compile(
    r"(?:\s*\b(?:(?:evidence|signs?|findings?|features?|indications?) (?:of|for)|definite|obvious|visible|radiographic"
    r"|radiological|sonographic|any|an?|the|lung|rib|bone|bony|osseous|skull|vertebral|intracranial|cerebral"
    r"|mediastinal"
    r"|hilar|abdominal|hepatic|liver|renal|focal)\b)*\s*",
    re.IGNORECASE,
)
# Such a word goes with all members of a list: "no new fracture or hemorrhage".
_NARROW = re.compile(
    r"\b(?:new|other|further|additional|more|second|recurrent|residual|remaining|acute|old|active|ongoing"
    r"|significant\w*"
    r"|relevant|large|massive|displaced|increas\w+|chang\w+|progress\w+|worsening|enlarging|growing|interval)\b",
    re.IGNORECASE,
)
_BEHIND_LAST = re.compile(rf"\s*(?:$|[,.;:()]|{_VERB}|{_BUT}|\b(?:in|on|at|within|anywhere|either)\b)", re.IGNORECASE)
# A denial of one place or side says nothing of the others.
_PLACED = re.compile(
    r"\b(?:in|on|at|within|near|along|of|to)\b"
    r"(?!\s+(?:(?:this|the|either|both|any)\s+)?(?:images?|pictures?|radiographs?|scans?|films?|stud(?:y|ies)|examination"
    r"|(?:axial |coronal |sagittal |chest |the )*(?:ct|mri|x-?rays?)|side)\b)",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[,.;:()]|$")
_BEHIND_OTHER = re.compile(r"\s*(?:,|\b(?:or|nor)\b)", re.IGNORECASE)
_SEEN = r"(?:seen|present|identified|visible|evident|detected|found|observed|visuali[sz]ed|noted|demonstrated|apparent)"
_GONE = re.compile(
    rf"\s(?:(?:is|are|was|were|has been|have been) (?:not|no longer) {_SEEN}|(?:is|are|was|were) absent"
    r"|(?:(?:has|have|had|is|are) )?(?:(?:completely|fully|totally|since) )?(?:resolved|disappeared|vanished))\b",
    re.IGNORECASE,
)
_ANEW = re.compile(rf"[;:]|{_BUT}|,\s*(?:the|an?|there)\b[^,]*{_VERB}", re.IGNORECASE)
_ANEW_AFTER_VERB = re.compile(rf"[,;:]|{_BUT}", re.IGNORECASE)

# Characters. Longer ones are lists and tables run together.
_LONGEST = 1500


class _Reach(NamedTuple):
    """Of one denial: where its word begins, and where the things that it denies begin and end."""

    start: int
    first: int
    last: int


class _Sentence(NamedTuple):
    """What is understood of a sentence: its text without the words about contrast, and its denials."""

    text: str
    reaches: list[_Reach]
    gone: list[tuple[int, int]]


def told(sentence: str, match: re.Match[str]) -> bool | None:
    """Return True where a sentence says that what it names at `match` is there, False where not, None in doubt."""
    understood = _understood(sentence)
    if understood is None:
        return None
    start, end = match.span()
    answers = [_by_reach(understood.text, reach, start, end) for reach in understood.reaches]
    answers += [_by_gone(understood.text, span, start, end) for span in understood.gone]
    if False in answers:
        return False
    return None if None in answers else True


@functools.lru_cache(maxsize=64)
def _understood(sentence: str) -> _Sentence | None:
    """Return the denials of a sentence; None where it has words of doubt, or is too long to be one."""
    if len(sentence) > _LONGEST:
        return None
    bare = _blanked(sentence, [found.span() for found in _CONTRAST.finditer(sentence)])
    reaches = [_reach(bare, opening) for opening in _OPENS.finditer(bare)]
    gone = [found.span() for found in _GONE.finditer(bare)]
    denials = [(reach.start, reach.first) for reach in reaches] + gone
    ors = [found.span() for reach in reaches for found in _OR.finditer(bare, reach.first, reach.last)]
    return None if _UNSURE.search(_blanked(bare, denials + ors)) else _Sentence(bare, reaches, gone)


def _blanked(text: str, spans: list[tuple[int, int]]) -> str:
    for start, end in spans:
        text = text[:start] + " " * (end - start) + text[end:]
    return text


def _reach(text: str, opening: re.Match[str]) -> _Reach:
    """Return the reach of a denial: to the first comma, or the end of a list that goes on to an "or"."""
    first = opening.end()
    ended = _ENDS.search(text, first)
    last = ended.start() if ended else len(text)
    ors = [found.end() for found in _OR.finditer(text, first, last) if text[found.end() : last].strip()]
    comma = text.find(",", ors[-1] if ors else first, last)
    return _Reach(opening.start(), first, last if comma < 0 else comma)


def _by_reach(text: str, reach: _Reach, start: int, end: int) -> bool | None:
    """Return what one denial says of the words at `start` to `end`: True where it leaves them alone."""
    if end <= reach.start:
        return True
    if start >= reach.last:
        rest = text[reach.last : start]
        verb = re.match(_VERB, rest, re.IGNORECASE)
        # The verb of the new clause may stand behind what it names.
        anew = _ANEW_AFTER_VERB.search(rest) if verb else _ANEW.search(text, reach.last)
        return True if anew and (verb or anew.start() < start) else None
    if start < reach.first or end > reach.last:
        return None
    before = [found.end() for found in _BETWEEN.finditer(text, reach.first, start)]
    behind = _BEHIND_OTHER if _OR.search(text, end, reach.last) else _BEHIND_LAST
    plain = _PLAIN.fullmatch(text, max(before, default=reach.first), start)
    narrow = _NARROW.search(text, reach.first, start) or _placed(text, end, reach.last)
    return False if plain and not narrow and behind.match(text, end) else None


def _placed(text: str, start: int, last: int) -> bool:
    """Tell whether a place is named between `start` and the end of the clause that goes on at `last`."""
    clause = _CLAUSE.search(text, last)
    return _PLACED.search(text, start, clause.start() if clause else len(text)) is not None


def _by_gone(text: str, gone: tuple[int, int], start: int, end: int) -> bool | None:
    """Return what "is not seen" at `gone` says of the words at `start` to `end`: True where it leaves them alone."""
    if end <= gone[0]:
        if _placed(text, gone[1], gone[1]):
            return None
        return None if text[end : gone[0]].strip() or re.search(r"\b(?:and|or|of)\s*$", text[:start]) else False
    return True if _ANEW_AFTER_VERB.search(text, gone[1], start) else None
