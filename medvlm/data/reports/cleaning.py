"""One line of running text from a section of a report: what is of the page goes, what was said stays.

Words, numbers and their order never change, but for the numbers of an enumeration and what stands in for removed
identifiers; so no digit of a measurement, no negation and no side is lost. What is removed for good is only looks,
since samples keep the original text. Reports are wrapped at some 80 letters: a number or hyphen that a wrap puts first
on a line ("positions 1 and\n2.", "3\n- 4 mm") is no item, and stays where in doubt.
"""

from __future__ import annotations

import dataclasses
import re

MARK = "___"
"""What stands for words that were removed to protect the patient, in all data sets alike: MIMIC-CXR's own mark."""

# IU X-ray writes XXXX for each such word, MIMIC-CXR ___, MIMIC-III [**...**] around a description.
_REMOVED = r"(?:\[\*\*[^\[\]]{0,200}\*\*\]|X{4,}|x{4,}|_{3,})"
_MARKS = re.compile(rf"{_REMOVED}(?:\s*(?:/\s*)?{_REMOVED})*")
RULE = re.compile(r"^[ \t]*(?:[-=*~]{3,}|_{5,})[ \t]*$", re.M)
"""A line drawn across the page; three underscores alone are a mark."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_NUMBER = re.compile(r"(?<!\S)(?P<number>\d{1,2})[.)][ \t]+(?=[^\W\d_]|___|(?P<figure>[\d(<]))")
_BULLET = re.compile(r"^[ \t]{0,99}(?P<mark>[-*•·–])[ \t]+(?=\S)(?=(?P<figure>[^\W\d_]?\d)?)", re.M)
WORDS_ON = (
    r"\b(?:and|or|to|of|at|in|on|by|the|a|an|no|not|nor|without|with|than|from|for|versus|vs|is|are|x|×|"
    r"(?-i:der|die|das|den|dem|des|zur|zum|vom|von|und|im|am|mit|bei))"
)
"""Words behind which a sentence goes on, on the next line: of German only in lower case, for "5:30 AM" ends a line."""
_RUNS_ON = re.compile(rf"(?:,|[-–+/<>=(]|{WORDS_ON})\Z", re.I)
"""What a sentence goes on behind, on the next line."""
_NUMBERED = re.compile(
    r"(?:\d|\b(?:ribs?|levels?|segments?|zones?|grade|stage|type|class|tubes?|leads?|positions?|series|images?|films?|"
    r"numbers?|days?|weeks?|toes?|fingers?|rays?|phase|about|least))\Z",
    re.I,
)
"""What a number may belong to."""
_ABBREVIATED = re.compile(r"(?:\b(?:no|nos|vs|dr|mr|mrs|ms|st|fig|figs|approx|ca)|(?<![^\W\d_])[^\W\d_])\.\Z", re.I)
_WORD = 20
"""More letters than any word of these patterns has."""
_WRAPPED = 60
"""Lines that a wrap ended have at least about as many letters."""
_PERIODS = re.compile(r"\.(?:\s*\.)+(?!\d)")
_BLANK_BEFORE = re.compile(r"\s+([.,;:])(?=\s|\Z)")
_NO_BLANK_AFTER = re.compile(r"(?<=[a-z]{2})\.(?=[A-Z][a-z])")
_LEADING = re.compile(r"\A(?:(?![-–]\s*\d)[-–=*:;,.|/]+(?=\s|\Z)\s*)+")
_TRAILING = frozenset("-–=*:;,|/")
_ENDS = frozenset(".!?:;,")


def clean(text: str) -> str:
    """Return a section of a report as one line.

    1. Marks of removed identifiers (`XXXX` of IU X-ray, `___` of MIMIC-CXR, `[**...**]` of older MIMIC texts) become
       `___`, and several in a row a single one: a model then learns one mark, whatever set a report is from, and can be
       kept from writing it. They are not dropped: "no XXXX of effusion" would say "no of effusion", and "x-XXXX" "x-".
    2. Lines drawn across the page (-----, =====, _____) go; they separate, and say nothing.
    3. Enumerations (1. 2. or 1) 2) from 1 on, at the start of a line or of a sentence) and bullets lose their numbers
       and marks, as in most published work on these sets; each item ends in a period, or in a semicolon where a colon
       leads to them ("There is no:"). A number that does not go on from 1, or stands within a sentence ("T11. 12 mm"),
       stays, as does one behind a line that runs on ("positions 1 and") or may ("left rib"), and a single hyphen before
       a digit or behind a line that does not end a sentence.
    4. Line breaks, control characters and runs of blanks become one blank, invisible letters go: lines end by hand.
    5. Doubled periods (". ." and "..") become one, a blank before a period or comma goes, one between sentences that
       lack it comes ("apex.There"): IU X-ray has many of each. Periods before a digit stay as they are.
    6. Separators left at the ends (":", "-", ",") go.
    """
    text = _CONTROL.sub(" ", _INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    text = _MARKS.sub(MARK, RULE.sub("", text))
    text = _without_bullets(_without_numbers(_PERIODS.sub(".", text)))
    text = _PERIODS.sub(".", " ".join(text.split()))
    text = _NO_BLANK_AFTER.sub(". ", _BLANK_BEFORE.sub(r"\1", text))
    return _without_trailing(_LEADING.sub("", text).strip())


def _without_trailing(text: str) -> str:
    """Return a line without the separators at its end that a blank stands before."""
    end = len(text)
    while end and text[end - 1] in _TRAILING and text[end - 2 : end - 1] in ("", " "):
        end = max(end - 2, 0)
    return text[:end]


def says_something(text: str) -> bool:
    """Whether a text has a letter or a digit besides marks of removed identifiers."""
    return any(letter.isalnum() for letter in _MARKS.sub("", text))


@dataclasses.dataclass(slots=True)
class _Mark:
    """A number or bullet that may begin an item, and what stands above it."""

    start: int
    end: int
    number: int
    above: str
    """The text before, up to 200 letters, without blanks at its end."""
    on_line: bool
    """Whether it begins a line."""
    clear: bool
    """Whether a sentence or paragraph has ended before it."""
    figure: bool
    """Whether a figure follows."""

    def wrapped(self) -> bool:
        """Whether the line above is so long that a wrap may have ended it."""
        return len(self.above) - self.above.rfind("\n") - 1 >= _WRAPPED


def _mark(match: re.Match[str], number: int, figure: bool) -> _Mark:
    text, start = match.string, match.start()
    window = text[max(0, start - 200) : start]
    above = window.rstrip()
    gap = window[len(above) :]
    on_line = not above or "\n" in gap
    ended = above[-1:] in (".", "!", "?", ";") and not _ABBREVIATED.search(above[-_WORD:])
    clear = not above or gap.count("\n") > 1 or ended or (on_line and above[-1:] == ":")
    return _Mark(start, match.end(), number, above, on_line, clear, figure)


def _without_numbers(text: str) -> str:
    """Return a text without the numbers of its enumerations, each item a sentence of its own."""
    marks = [_mark(match, int(match["number"]), match["figure"] is not None) for match in _NUMBER.finditer(text)]
    seen, later = [], set[int]()
    for mark in reversed(marks):
        seen.append((mark.number + 1 in later, mark.number in later))
        later = {1} if mark.number == 1 else later | {mark.number} if mark.clear or mark.on_line else later
    kept, expected, on_lines = [], 1, True
    for mark, (follows, again) in zip(marks, reversed(seen), strict=True):
        running = mark.number > 1
        likely = follows or (running and (on_lines or not mark.wrapped()))
        if mark.number in (1, expected) and _is_item(mark, running, follows, likely) and (mark.clear or not again):
            expected, on_lines = mark.number + 1, mark.on_line and (on_lines or not running)
            kept.append(mark)
    return _without(text, kept)


def _is_item(mark: _Mark, running: bool, follows: bool, likely: bool) -> bool:
    """Whether the number that is due begins an item.

    Args:
        mark: the number.
        running: the items before it were found.
        follows: the next item is there, too.
        likely: it is, or the items before it began lines, or no wrap can have put this one first on its line.
    """
    if mark.figure and not (running or follows):
        return False
    if mark.clear:
        # "No. 1." within a line: an enumeration begins there only behind a word.
        return mark.on_line or running or re.match(r"\w{3}\W", mark.above[-4:]) is not None
    if not mark.on_line or _RUNS_ON.search(mark.above[-_WORD:]):
        return False
    if _NUMBERED.search(mark.above[-_WORD:]):
        return running and (follows or not mark.wrapped())
    return likely


def _without_bullets(text: str) -> str:
    """Return a text without the bullets of its lists; a hyphen alone may be of a range, a sign or a compound."""
    marks = [
        mark
        for match in _BULLET.finditer(text)
        if (mark := _mark(match, 0, match["figure"] is not None)).clear
        or not (_RUNS_ON.search(mark.above[-_WORD:]) or (mark.figure and mark.above[-1:].isdigit()))
    ]
    if len(marks) == 1 and (marks[0].figure or not marks[0].clear) and text[marks[0].start :].lstrip()[0] in "-–":
        return text
    return _without(text, marks)


def _without(text: str, marks: list[_Mark]) -> str:
    """Return a text without marks of items, and a stop before each where what stands before has none."""
    kept, done = [], 0
    stop = "; " if marks and marks[0].above[-1:] == ":" else ". "
    for mark in marks:
        before = text[done : mark.start].rstrip()
        kept += [before, " " if not mark.above or mark.above[-1] in _ENDS else stop]
        done = mark.end
    return "".join([*kept, text[done:]])
