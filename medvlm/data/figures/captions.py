"""Captions of compound figures: the text that all panels share, and the text of each panel.

Markers are read in these styles: "(A) ...", "(A, B) ...", "(a-c) ...", "A) ...", "A, ...", "A: ...", "A. ...",
"(i) ...", "Left: ...", "(left) ..."; before their text, behind it ("axial (A) and coronal CT (B)") or within its
sentence. The markers must count up from the first letter without a gap, else they are taken for something else.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ROMANS = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii")
_PLACES = (("left", "middle", "right"), ("left", "center", "right"), ("left", "centre", "right"), ("left", "right"))
_HEIGHTS = (("top", "middle", "bottom"), ("top", "bottom"), ("upper", "middle", "lower"), ("upper", "lower"))
_ENDS = (("left", "right"), ("top", "bottom"), ("upper", "lower"))

# One character each, so that places in the folded text are places in the caption.
_FOLD = {ord(c): "-" for c in "‐‑‒–—−"} | {
    0xFF08: "(",
    0xFF09: ")",
    0xFF0C: ",",
    0xFF1A: ":",
    0xFF1B: ";",
    0xA0: " ",
    0x3002: ".",
}

_JOIN = r"\s*(?:,?\s*and\s|,?\s*to\s|[,;&/-])\s*"
_PLACE_WORD = r"(?:upper|lower|top|bottom|left|right|middle|inset|cent(?:er|re))(?: (?:row|panels?|left|right|half))?"


def _list_of(item: str) -> str:
    return rf"{item}(?:{_JOIN}{item})*"


def _in_parentheses(item: str) -> str:
    inner = rf"\(\s*{_list_of(item)}(?:[,;:]?\s+{_PLACE_WORD}(?: and {_PLACE_WORD})?)?\s*\)"
    return rf"(?<![\w)]){inner}(?:{_JOIN}{inner})*(?![a-z0-9-])|(?<=[a-z.]){inner}(?=\s[A-Z])"


_START = r"(?:^|(?<=[.;:!?)\n])|(?<=[.;:!?\n)]\s)|(?<=[,;]\sand\s)|(?<=,\s))"
_SENTENCE_START = r"(?:^|(?<=[.;!?\n])|(?<=[.;!?\n]\s)|(?<=;\sand\s))"


def _styles() -> list[re.Pattern[str]]:
    patterns: list[re.Pattern[str]] = []
    for letter in ("[A-Z]", "[a-z]"):
        patterns += [
            re.compile(_in_parentheses(letter)),
            re.compile(rf"\b(?={letter}){_START}{_list_of(letter)}\)(?=\s)"),
            re.compile(rf"\b(?={letter}){_SENTENCE_START}{_list_of(letter)}[,:.](?=\s)"),
        ]
    roman = "(?:" + "|".join(sorted(_ROMANS, key=len, reverse=True)) + ")"
    return [*patterns, re.compile(_in_parentheses(roman)), re.compile(rf"\b(?=[ivx]){_START}{roman}\)(?=\s)")]


_STYLES = _styles()
_SIDE = r"(?:left|right|top|bottom|upper|lower|middle|cent(?:er|re))"
_SIDE_STYLES = (
    re.compile(rf"\((?:on the )?{_SIDE}(?: (?:panels?|row|column|image))?\)", re.IGNORECASE),
    re.compile(rf"\b(?=[tlrbumc]){_START}(?:the )?{_SIDE}(?: (?:panels?|row|column|image))?[:,](?=\s)", re.IGNORECASE),
)
# What stands before "(A)" where it is a name or points elsewhere.
_NO_MARKER = re.compile(
    r"(?:\b(?:fig(?:ure)?s?\.?\s*(?:S?\d+\s*)?|panels?|tables?|eqs?\.?|equations?|see|see also|as in|shown in"
    r"|seen in|same as|groups?|vitamins?|hepatitis|influenza|types?|class|stages?|grades?|patients?|cases?|arms?"
    r"|sites?|cohorts?|factors?|proteins?|poly|subunits?|chains?|strains?|compounds?|than|ref\.?)\s*)$",
    re.IGNORECASE,
)
_BEFORE_TEXT = re.compile(r"(?:^|[.;:!?)\n]|[,;]\s*and)\s*$")
_BEHIND_TEXT = re.compile(r"\s*(?:$|[.,;:)]|(?:and|or|but|with|as well as)\b)")
_LEADS_IN = re.compile(
    r"(?:\b(?:showing|shows?|of|the|and|with|for|by|at|in|on|are|is|including|include|between|an?)|,)\s*$",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.;!?](?:\s+|$)(?=[^a-z]|$)")
_WORD = re.compile(r"\w")
_EDGES = " \t\n\r,;:"
_TAIL = " \t\n\r,;"


class Panels(NamedTuple):
    """A caption split: `lead` is what all panels share, `parts` pairs panel labels (lower case) with their text."""

    lead: str
    parts: list[tuple[tuple[str, ...], str]]

    def labels(self) -> list[str]:
        """Return all labels in order of the alphabet, or as they come where they are words."""
        found = list(dict.fromkeys(label for labels, _ in self.parts for label in labels))
        return sorted(found) if all(len(label) == 1 and label in _LETTERS for label in found) else found

    def text_of(self, label: str) -> str:
        """Return the shared text and that of one panel."""
        own = [text for labels, text in self.parts if label in labels]
        return " ".join(text for text in (self.lead, *own) if text)


@dataclasses.dataclass(frozen=True, slots=True)
class _Marker:
    start: int
    end: int
    labels: tuple[str, ...]


def split_panels(caption: str) -> Panels | None:
    """Split a caption at its panel markers; None where it has none that count up from the first.

    No word is lost: lead and parts together hold all words but the markers.
    """
    folded = caption.translate(_FOLD)
    best: list[_Marker] = []
    for style in _STYLES:
        found = _counting_up(folded, [_marker(m) for m in style.finditer(folded)])
        if len(_all_labels(found)) > len(_all_labels(best)):
            best = found
    best = best or _places(folded)
    return _cut(caption, folded, best) if best else None


def marks_places(caption: str) -> bool:
    """Tell whether a caption marks panels by their places: "Left, CT. Right, MRI.", "CT (top) and MRI (bottom)"."""
    lower = caption.lower()
    return any(first in lower and last in lower for first, last in _ENDS) and bool(_places(caption.translate(_FOLD)))


def _marker(match: re.Match[str]) -> _Marker:
    return _Marker(match.start(), match.end(), _expand(match[0]))


def _expand(text: str) -> tuple[str, ...]:
    """Return the labels that a marker names: "(A, C-E)" -> a, c, d, e; words of place beside letters are dropped."""
    bare = re.sub(rf"\b{_PLACE_WORD}\b", " ", text.lower())
    tokens = re.findall(r"[a-z]+|-", re.sub(r"\bto\b", "-", re.sub(r"\band\b", ",", bare)))
    order: Sequence[str] = (
        _ROMANS if all(t in _ROMANS or t == "-" for t in tokens) and tokens[:1] != ["-"] else _LETTERS
    )
    labels: list[str] = []
    for index, token in enumerate(tokens):
        if token != "-":
            labels.append(token)
        elif labels and index + 1 < len(tokens) and labels[-1] in order and tokens[index + 1] in order:
            first, last = order.index(labels[-1]), order.index(tokens[index + 1])
            labels += order[first + 1 : last]
    return tuple(dict.fromkeys(labels))


def _all_labels(markers: list[_Marker]) -> set[str]:
    return {label for marker in markers for label in marker.labels}


def _counting_up(text: str, candidates: list[_Marker]) -> list[_Marker]:
    """Return the candidates that mark panels: each counts on from the last, or starts a sentence on known panels."""
    romans = any(len(label) > 1 for marker in candidates for label in marker.labels)
    order: Sequence[str] = _ROMANS if romans else _LETTERS
    seen: set[str] = set()
    kept: list[_Marker] = []
    for marker in candidates:
        new = [label for label in marker.labels if label not in seen]
        following = next((label for label in order if label not in seen), None)
        before = text[: marker.start]
        if _NO_MARKER.search(before[-30:]):
            continue
        if (new and new[0] == following) or (not new and seen and _BEFORE_TEXT.search(before[-8:])):
            kept.append(marker)
            seen.update(new)
    whole = len(seen) >= 2 and seen == set(order[: len(seen)])
    alone = len(kept) == 1 and not _BEFORE_TEXT.search(text[: kept[0].start][-8:])
    return kept if whole and not alone else []


def _places(text: str) -> list[_Marker]:
    return next((found for style in _SIDE_STYLES if (found := _sides(text, style))), [])


def _sides(text: str, style: re.Pattern[str]) -> list[_Marker]:
    """Return the markers by place where each place of a known set is marked once."""
    found = [(m, re.search(_SIDE, m[0], re.IGNORECASE)) for m in style.finditer(text)]
    markers = [_Marker(m.start(), m.end(), (side[0].lower(),)) for m, side in found if side]
    names = [marker.labels[0] for marker in markers]
    return markers if any(sorted(names) == sorted(known) for known in (*_PLACES, *_HEIGHTS)) else []


def _cut(caption: str, folded: str, markers: list[_Marker]) -> Panels | None:
    """Cut a caption at its markers, in the way that they stand to their text."""
    before = [bool(_BEFORE_TEXT.search(folded[: m.start][-8:])) for m in markers]
    behind = [bool(_BEHIND_TEXT.match(folded, m.end)) for m in markers]
    leads_in = [bool(_LEADS_IN.search(folded[: m.start][-12:])) for m in markers]
    cutter: Callable[[str, str, list[_Marker]], Panels]
    if sum(before) * 2 >= len(markers) and (sum(before) > 1 or not all(behind)):
        cutter = _cut_before
    elif all(behind) or (all(behind[:-1]) and not any(leads_in)):
        cutter = _cut_behind
    elif _one_a_sentence(folded, markers) and not all(leads_in):
        cutter = _cut_sentences
    elif not any(behind):
        cutter = _cut_before
    else:
        return None
    panels = cutter(caption, folded, markers)
    whole = all(_WORD.search(text) for _, text in panels.parts)
    return panels if whole and not _tells_apart(panels) else None


def _tells_apart(panels: Panels) -> bool:
    """Tell whether the shared text marks some of the panels: "Patient 1 (A-C), patient 2 (D-F): CT (A, D) ..."."""
    known = {*panels.labels()}
    marked = [{*_expand(m[0])} for style in _STYLES[::3] for m in style.finditer(panels.lead.translate(_FOLD))]
    return any(labels < known for labels in marked)


def _cut_before(caption: str, folded: str, markers: list[_Marker]) -> Panels:
    ends = [*(marker.start for marker in markers[1:]), len(caption)]
    parts = [
        (m.labels, caption[m.end : end].rstrip(_TAIL).lstrip(_EDGES).removeprefix(". "))
        for m, end in zip(markers, ends, strict=True)
    ]
    return Panels(caption[: markers[0].start].strip(_EDGES), parts)


def _cut_behind(caption: str, folded: str, markers: list[_Marker]) -> Panels:
    """Cut where the text stands before its marker; what precedes its first sentence or follows the last is shared."""
    start = max((m.end() for m in _SENTENCE_END.finditer(folded, 0, markers[0].start)), default=0)
    starts = [start, *(marker.end for marker in markers[:-1])]
    parts = [(m.labels, caption[s : m.start].strip(_EDGES + ".")) for m, s in zip(markers, starts, strict=True)]
    shared = (caption[:start].strip(), caption[markers[-1].end :].strip(_EDGES + "."))
    return Panels(" ".join(text for text in shared if text), parts)


def _cut_sentences(caption: str, folded: str, markers: list[_Marker]) -> Panels:
    """Cut where each marker stands amid its sentence; sentences without one go with the one before."""
    starts = [max((e.end() for e in _SENTENCE_END.finditer(folded, 0, m.start)), default=0) for m in markers]
    ends = [*starts[1:], len(caption)]
    parts = [
        (m.labels, f"{caption[s : m.start].rstrip()} {caption[m.end : e].strip()}".strip(_EDGES))
        for m, s, e in zip(markers, starts, ends, strict=True)
    ]
    return Panels(caption[: starts[0]].strip(), parts)


def _one_a_sentence(folded: str, markers: list[_Marker]) -> bool:
    return all(_SENTENCE_END.search(folded, a.end, b.start) for a, b in itertools.pairwise(markers))
