"""One line of running text from a section of a report: what is of the page goes, what was said stays.

Words, numbers and their order never change, but for the numbers of an enumeration and what stands in for removed
identifiers; so no digit of a measurement, no negation and no side is lost. What is removed for good is only looks,
since samples keep the original text.
"""

from __future__ import annotations

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
_ITEM = re.compile(
    r"(?P<before>\A|\n)[ \t]*(?P<line>\d{1,2})[.)][ \t]+(?=[^\W\d_]|___)"
    r"|(?<=\w{3}[.;!?])[ \t]+(?P<inline>\d{1,2})[.)][ \t]+(?=[^\W\d_]|___)"
)
_BULLET = re.compile(r"(?P<before>\A|\n)[ \t]*[-*•·–][ \t]+(?=\S)")
_PERIODS = re.compile(r"\.(?:\s*\.)+(?!\d)")
_BLANK_BEFORE = re.compile(r"\s+([.,;:])(?=\s|\Z)")
_NO_BLANK_AFTER = re.compile(r"(?<=[a-z]{2})\.(?=[A-Z][a-z])")
_EDGES = re.compile(r"\A(?:[-–=*:;,.|/]+(?=\s|\Z)\s*)+|(?:\s*[-–=*:;,|/]+(?<!\S[-–=*:;,|/]))+\Z")
_ENDS = frozenset(".!?:;,")


def clean(text: str) -> str:
    """Return a section of a report as one line.

    1. Marks of removed identifiers (`XXXX` of IU X-ray, `___` of MIMIC-CXR, `[**...**]` of older MIMIC texts) become
       `___`, and several in a row a single one: a model then learns one mark, whatever set a report is from, and can be
       kept from writing it. They are not dropped: "no XXXX of effusion" would say "no of effusion", and "x-XXXX" "x-".
    2. Lines drawn across the page (-----, =====, _____) go; they separate, and say nothing.
    3. Enumerations (1. 2. or 1) 2) from 1 on, at the start of a line or of a sentence) and bullets lose their numbers
       and marks, as in most published work on these sets; each item ends in a period. A number that does not go on from
       1, or stands within a sentence ("T11. 12 mm"), stays.
    4. Line breaks, control characters and runs of blanks become one blank, invisible letters go: lines end by hand.
    5. Doubled periods (". ." and "..") become one, a blank before a period or comma goes, one between sentences that
       lack it comes ("apex.There"): IU X-ray has many of each. Periods before a digit stay as they are.
    6. Separators left at the ends (":", "-", ",") go.
    """
    text = _CONTROL.sub(" ", _INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    text = _MARKS.sub(MARK, RULE.sub("", text))
    text = _BULLET.sub(_item_start, _without_numbers(_PERIODS.sub(".", text)))
    text = _PERIODS.sub(".", " ".join(text.split()))
    text = _NO_BLANK_AFTER.sub(". ", _BLANK_BEFORE.sub(r"\1", text))
    return _EDGES.sub("", text).strip()


def says_something(text: str) -> bool:
    """Whether a text has a letter or a digit besides marks of removed identifiers."""
    return any(letter.isalnum() for letter in _MARKS.sub("", text))


def _without_numbers(text: str) -> str:
    """Return a text without the numbers of its enumerations, each item a sentence of its own."""
    kept, done, expected = [], 0, 1
    for match in _ITEM.finditer(text):
        number = int(match["line"] or match["inline"])
        if number not in (1, expected):
            continue
        expected = number + 1
        kept += [text[done : match.start()], _separator(text, match.start())]
        done = match.end()
    return "".join([*kept, text[done:]])


def _item_start(match: re.Match[str]) -> str:
    return _separator(match.string, match.start())


def _separator(text: str, place: int) -> str:
    """Return what to put before an item: a period where what stands before has none."""
    before = text[max(0, place - 200) : place].rstrip()[-1:]
    return " " if not before or before in _ENDS else ". "
