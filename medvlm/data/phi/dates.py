"""Dates in the usual English and numeric spellings: day, month and year, or two of them with the month."""

from __future__ import annotations

import re
from collections.abc import Iterator

_SHORT = "jan|feb|mar|apr|may|jun|jul|aug|sept?|oct|nov|dec"
_LONG = "january|february|march|april|may|june|july|august|september|october|november|december"
_MONTH = rf"(?i:(?:{_LONG})(?![a-z])|(?:{_SHORT})(?![a-z])\.?)"
_DAY = r"(?:0?[1-9]|[12][0-9]|3[01])(?![0-9])"
_NUMBER_OF_DAY = rf"{_DAY}(?:[ ]?(?:st|nd|rd|th|ST|ND|RD|TH)(?![A-Za-z]))?"
_MM, _DD = r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12][0-9]|3[01])"
_YEAR = r"(?:1[89]|2[01])[0-9]{2}(?![0-9])"
_YY = r"'?[0-9]{2}(?![0-9])"
_START = r"(?<![A-Za-z0-9.,/+-])"
_UNIT = r"(?![ ]?(?:mm|cm|ml|mL|cc|Gy|mg|kg|mSv|HU|%)(?![A-Za-z]))(?![0-9]|[./-][0-9])"
_GAP = r"[ ,.\n-]{0,3}"

NUMERIC = re.compile(
    # 01/02/2019, 1/2/19
    rf"(?<![A-Za-z0-9./])[0-9]{{1,2}}[ ]?/[ ]?[0-9]{{1,2}}[ ]?/[ ]?(?:{_YEAR}|{_YY}){_UNIT}"
    # 01-02-2019, 1.2.2019
    rf"|{_START}[0-9]{{1,2}}(?P<sep>[.-])[0-9]{{1,2}}(?P=sep){_YEAR}{_UNIT}"
    # 01-02-19, 01.02.19
    rf"|{_START}[0-9]{{2}}(?P<two>[.-])[0-9]{{2}}(?P=two)[0-9]{{2}}{_UNIT}"
    # 2019-01-02, 2019/1/2, 2019.01.02
    rf"|{_START}{_YEAR}(?P<iso>[./-])[0-9]{{1,2}}(?P=iso)[0-9]{{1,2}}(?![0-9])"
    # 20190102 and 20190102101500 of DICOM
    rf"|(?<![A-Za-z0-9./-])(?:19|20)[0-9]{{2}}{_MM}{_DD}"
    r"(?:[0-2][0-9][0-5][0-9][0-5][0-9](?:\.[0-9]{1,6})?)?(?![0-9A-Za-z/-])"
)
MONTH_AND_YEAR = re.compile(rf"(?<![A-Za-z0-9./-]){_MM}/{_YEAR}(?![/-])")
WORDS = re.compile(
    # 2 Jan 2019, 2nd of January, 2019, 02-JAN-19
    rf"(?<![A-Za-z0-9./]){_NUMBER_OF_DAY}(?:[ ](?i:of))?{_GAP}{_MONTH}{_GAP}(?:{_YEAR}|{_YY}{_UNIT})"
    # January 2, 2019
    rf"|(?<![A-Za-z]){_MONTH}{_GAP}{_NUMBER_OF_DAY}{_GAP}(?:{_YEAR}|'[0-9]{{2}}(?![0-9]))"
    # January 2019, Jan of 2019, Jan-19 with an apostrophe
    rf"|(?<![A-Za-z]){_MONTH}(?:[ ](?i:of))?{_GAP}(?:{_YEAR}|'[0-9]{{2}}(?![0-9]))"
    # 2019 Jan 2
    rf"|(?<![A-Za-z0-9./-]){_YEAR}[ /-]{_MONTH}(?:[ /-]{_NUMBER_OF_DAY})?(?![A-Za-z0-9])"
)
_NAMED = f"{_LONG.title()}|{_LONG.upper()}|(?:{_SHORT.title()})(?![a-z])\\.?"
NO_YEAR = re.compile(
    rf"(?<![A-Za-z])(?:{_NAMED})[ ]{_NUMBER_OF_DAY}{_UNIT}(?![ ]?(?:patients|cases|of)\b)"
    rf"|(?<![A-Za-z0-9./-]){_NUMBER_OF_DAY}(?:[ ](?i:of))?[ ](?:{_LONG.replace('|may', '').title()}|May(?=[.,;)]|$))\b"
)
_TWO_NUMBERS = r"(?:(?:0?[1-9]|1[0-2])/(?:0?[1-9]|[12][0-9]|3[01])|(?:[12][0-9]|3[01])/(?:0?[1-9]|1[0-2]))(?![0-9/])"
AFTER_WORDS = re.compile(
    r"(?i)\b(?:dated|dictated|signed(?: on)?|(?:study|studies|scan|exam|examination|radiographs?|films?|comparison"
    r"|prior|ct|mri)(?: dated| from| of| on)|(?:performed|obtained|done|taken|discharged|admitted) on):?[ ]{1,3}"
    rf"(?P<date>{_TWO_NUMBERS}){_UNIT}"
    rf"|\b(?:on|of)[ ](?P<hour>{_TWO_NUMBERS})(?=[ ]at[ ][0-9]{{1,2}}[:.]?[0-9]{{2}})"
)
"""3/5 is a date only behind words that announce one: alone it is a grade, a fraction or a level."""


def find(text: str) -> Iterator[tuple[int, int]]:
    """Yield where dates stand."""
    for match in NUMERIC.finditer(text):
        if _possible([int(part) for part in re.findall(r"[0-9]+", match[0])]):
            yield match.span()
    for pattern in (MONTH_AND_YEAR, WORDS, NO_YEAR):
        for match in pattern.finditer(text):
            yield match.span()
    for match in AFTER_WORDS.finditer(text):
        yield match.span("date" if match["date"] else "hour")


def _possible(numbers: list[int]) -> bool:
    """Return True where numbers can be day, month and year in one of the three usual orders."""
    if len(numbers) < 3:
        return True
    first, second, third = numbers[:3]
    if first > 31:
        return 1 <= second <= 12 and 1 <= third <= 31
    pairs = ((first, second), (second, first))
    return any(1 <= month <= 12 and 1 <= day <= 31 for month, day in pairs) or (
        first < 32 and 1 <= second <= 12 and 1 <= third <= 31
    )
