"""Choosing patterns by first letters changes nothing but the time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_findings import labelled

from medvlm.evaluate.findings.matcher import Matcher, beginnings
from medvlm.evaluate.findings.phrases import phrases

SENTENCES = [row.sentence.lower() for row in labelled()]


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


# What the hand-labelled sentences do not hold, for the words of [cues] and `ignored`.
RARE = """No effusion however edema. No effusion whereas edema. While edema. Still edema. Not yet. S/p surgery. H/o
cancer. Edema more likely than pneumonia. Edema is due to failure. Findings favor edema. Suspicion of mass.
Questions of mass. Cannot differentiate edema. Edema - none. Presumed edema. Not necessarily edema. Potential
edema. Possibility of edema. Edema is not certain. Instead of edema. Devoid of edema. Equivocal. Never edema.
Edema might be. R/o edema. A question of edema. Edema was not definitely excluded. Pneumonia can't be excluded.
Pneumonia is doubtful. Is it edema? Respiratory failure. Urinary tract infection. Vertebral body collapse.
Subcutaneous edema. Fatty infiltration. Body mass index. Nasal congestion. Breast tissue. Fluid status. Mass
effect. Mass-like. Tumor board. Edema? No. Renal mass. Mass in the liver. No pneumothorax and mild edema.
Partial resolution of edema. Lack of edema. Absent edema. Edema almost completely resolved. Nodule, if present.
Must be considered. A nodule is likely present. Unlikely to be edema. Difficult to tell. There isn't edema.
Edema is absent. Effusion absent. Resolved edema. Clear of edema. Edema is likely. Worrisome for mass.
It may be present."""


def test_every_cue_and_every_ignored_word_can_match() -> None:
    found = phrases()
    ignored = [meaning.state for meaning in found.meanings].index("ignored")
    patterns = [pattern for pattern, _, _ in found.cues._patterns]
    patterns += [pattern for pattern, number, _ in found.mentions._patterns if number == ignored]
    sentences = SENTENCES + [sentence.strip() for sentence in RARE.lower().replace("\n", " ").split(".")]
    idle = [each for each in patterns if not any(re.search(rf"(?:{each})(?!\w)", text) for text in sentences)]
    assert idle == []


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
