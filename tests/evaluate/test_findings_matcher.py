"""Choosing patterns by first letters changes nothing but the time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_findings import labelled

from medvlm.evaluate.findings.matcher import Matcher, beginnings
from medvlm.evaluate.findings.phrases import phrases

SENTENCES = [row.sentence.lower() for row in labelled("tune")]


def plainly(matcher: Matcher, text: str) -> list[tuple[int, int, int]]:
    """Return what `matcher` should find: every pattern tried at every place where one may begin."""
    expression = re.compile("|".join(rf"({pattern})(?!\w)" for pattern, _, _ in matcher._patterns))
    numbers = [number for _, number, _ in matcher._patterns]
    found, place = [], 0
    while place < len(text):
        within_a_word = re.match(r"\w\w", text[place - 1 : place + 1]) if place else None
        match = None if within_a_word else expression.match(text, place)
        if match:
            found.append((*match.span(), numbers[(match.lastindex or 1) - 1]))
        place = match.end() if match else place + 1
    return found


@given(st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=2).map(" ".join))
@settings(deadline=None)
def test_finds_what_all_patterns_find(text: str) -> None:
    for matcher in (phrases().mentions, phrases().cues):
        assert list(matcher.find(text)) == plainly(matcher, text)


@pytest.mark.parametrize(
    ("pattern", "starts"),
    [
        ("effusions?", {"eff"}),
        ("no", {"no"}),
        ("(?:pleural )?effusion", {"ple", "eff"}),
        ("o?edema", {"oed", "ede"}),
        ("(?:a|b(?:c|d))x", {"ax", "bcx", "bdx"}),
        ("(?<!with )to", {"to"}),
        ("(?=x)yes", {"yes"}),
        (r"\w+ing", {""}),
        (r"a\w+", {"a"}),
    ],
)
def test_beginnings(pattern: str, starts: set[str]) -> None:
    assert beginnings(pattern) == starts
