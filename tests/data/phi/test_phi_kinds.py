"""What is found in texts whose identifiers were marked by hand, and what is not taken for one.

`labelled.txt` holds one text a line with its identifiers as <kind|text>; `clean.txt` holds lines without any.
"""

from __future__ import annotations

import datetime
import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medvlm.data.phi import Scanner
from medvlm.data.phi.spans import FINDERS

HERE = Path(__file__).parent
LABELLED = (HERE / "labelled.txt").read_text(encoding="utf-8").splitlines()
CLEAN = (HERE / "clean.txt").read_text(encoding="utf-8").splitlines()
MARK = re.compile(r"<([^|<>]+)\|([^<>]+)>")
SCANNER = Scanner("count")


def unmarked(line: str) -> tuple[str, list[tuple[int, int, str]]]:
    """Return the text, and start, end and kind of each identifier."""
    text, marks, last = "", [], 0
    for match in MARK.finditer(line):
        text += line[last : match.start()]
        marks.append((len(text), len(text) + len(match[2]), match[1]))
        text, last = text + match[2], match.end()
    return text + line[last:], marks


def rows(text: str) -> list[tuple[int, int, str]]:
    return [tuple(span) for span in SCANNER.spans(text)]


@pytest.mark.parametrize("line", LABELLED)
def test_every_marked_identifier_is_found_whole_and_nothing_else(line: str) -> None:
    text, marks = unmarked(line)
    found = rows(text)
    for start, end, kind in marks:
        assert any(kind == k and s <= start and end <= e for s, e, k in found), (kind, text[start:end], found)
    for start, end, kind in found:
        assert any(kind == k and start < e and s < end for s, e, k in marks), (kind, text[start:end])


@pytest.mark.parametrize("line", CLEAN)
def test_nothing_is_found_in_a_clean_line(line: str) -> None:
    assert [(kind, line[start:end]) for start, end, kind in rows(line)] == []


def test_the_marked_lines_have_every_kind() -> None:
    assert {kind for line in LABELLED for _, _, kind in unmarked(line)[1]} == set(FINDERS)


SPELLINGS = """
    %m/%d/%Y|%d/%m/%Y|%m/%d/%y|%Y-%m-%d|%Y/%m/%d|%d.%m.%Y|%Y%m%d|%m-%d-%Y|%d-%b-%Y|%d-%b-%y|%b-%d-%Y|%m/%Y|%d %b %Y
    |%d %B %Y|%d. %B %Y|%d of %B %Y|%B %d, %Y|%b %d %Y|%b. %d, %Y|%B %Y|%B %d|%Y %b %d
""".replace("\n", "").replace("    ", "")


@given(
    st.dates(datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)),
    st.sampled_from(SPELLINGS.split("|")),
    st.booleans(),
)
def test_every_day_in_every_spelling_is_a_date(day: datetime.date, spelling: str, loud: bool) -> None:
    written = day.strftime(spelling)
    written = written.upper() if loud else written
    text = f"COMPARISON: {written}. No change."
    assert "date" in SCANNER.kinds(text)
    assert any(kind == "date" and text[start:end].strip(".") == written for start, end, kind in rows(text))


@given(st.integers(0, 130))
def test_ages_above_89_count_and_others_do_not(age: int) -> None:
    for text in (f"{age}-year-old woman", f"a {age} y/o man", f"{age} years old", f"Age: {age}", f"{age:03}Y"):
        assert SCANNER.kinds(text) == (["age over 89"] if 90 <= age <= 129 else [])


@given(st.text(max_size=200))
def test_spans_lie_in_the_text_in_order_and_do_not_overlap_in_kind(text: str) -> None:
    found = rows(text)
    assert found == sorted(found)
    assert all(0 <= start < end <= len(text) and kind in FINDERS for start, end, kind in found)
    for one, other in itertools.pairwise(found):
        assert one[2] != other[2] or one[1] <= other[0]


hidden = st.sampled_from(["\u200b", "\u00ad", "\u2060", "\ufeff"])


@given(hidden, st.integers(1, 9))
def test_what_cannot_be_seen_hides_nothing(char: str, place: int) -> None:
    text = "seen on 01/02/2019 by"
    [span] = SCANNER.spans(text)
    cut = span.start + place
    disguised = text[:cut] + char + text[cut:]
    assert rows(disguised) == [(span.start, span.end + 1, "date")]


@given(st.sampled_from([line for line in LABELLED if line.isascii()]), st.sampled_from("\u00a0\u2009\u3000"))
def test_a_wide_or_fixed_blank_is_a_blank(line: str, blank: str) -> None:
    text, _ = unmarked(line)
    assert rows(text.replace(" ", blank)) == rows(text)


@pytest.mark.realdata
def test_questions_and_answers_on_radiographs_hold_no_identifiers(realdata: Path) -> None:
    texts = set()
    for file in sorted((realdata / "vqa_rad").glob("*.json")):
        texts |= {str(row[key]) for row in json.loads(file.read_text("utf-8")) for key in ("question", "answer")}
    assert len(texts) > 2000
    assert {text: SCANNER.kinds(text) for text in texts if SCANNER.kinds(text)} == {}
