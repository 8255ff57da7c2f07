"""What a caption says for sure of a picture: findings that are there or not, the organ, the side.

Where the words leave a doubt, nothing is told.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from medvlm.data.figures import denials, terms

_SENTENCE = re.compile(r"(?<=[.;!?])\s+|\n")
_SIDES = re.compile(r"(?<!\w)(left|right)(?!\w)", re.IGNORECASE)
_SIDED = re.compile(
    rf"(?<![\w-])(left|right)(?:-sided)? (?:(?:{terms.SIDE_ADJECTIVES}) ){{0,3}}(?:{terms.SIDED})(?![\w-])",
    re.IGNORECASE,
)


def named(text: str, table: Mapping[str, str]) -> list[str]:
    """Return the keys of a table of `terms` whose words stand in a text, in the order of the table."""
    return [name for name, pattern in table.items() if _pattern(pattern).search(text)]


def findings_of(text: str) -> dict[str, bool]:
    """Return the findings that a text asserts (True) or denies (False); those in doubt or both are left out."""
    told: dict[str, set[bool | None]] = {}
    for sentence in _SENTENCE.split(text):
        for name, pattern in terms.FINDINGS.items():
            for match in _pattern(pattern).finditer(sentence):
                told.setdefault(name, set()).add(denials.told(sentence, match))
    return {name: True in values for name, values in told.items() if len(values) == 1 and None not in values}


def organ_of(text: str) -> str | None:
    """Return the one organ that a text names; None where it names none, several, or parts of the body far from it.

    Idioms ("on the other hand") and what a patient is known for ("a patient with breast cancer") name no organ.
    """
    plain = terms.NO_ORGAN.sub(" ", text)
    found = named(plain, terms.ORGANS)
    regions = regions_of(text)
    if len(found) != 1 or len(regions) > 1 or not regions <= terms.ORGAN_REGIONS[found[0]]:
        return None
    return found[0]


def regions_of(text: str) -> frozenset[str]:
    """Return the regions of the body that a text names by words for no single organ: "head", "trunk", "limbs"."""
    return frozenset(named(terms.IDIOMS.sub(" ", text), terms.REGION_WORDS))


def side_of(text: str) -> str | None:
    """Return the one side of the body that a text says to be affected: "left", "right" or None.

    It counts only before a noun of a paired part of the body or of a finding, and in a sentence without denial or
    doubt; a text that names the other side anywhere, both sides or something normal tells none.
    """
    plain = terms.NO_SIDE.sub(" ", text)
    if terms.BOTH_SIDES.search(plain) or len({match[1].lower() for match in _SIDES.finditer(plain)}) != 1:
        return None
    told = [
        (match[1].lower(), denials.told(sentence, match))
        for sentence in _SENTENCE.split(plain)
        for match in _SIDED.finditer(sentence)
    ]
    return told[0][0] if told and all(sure is True for _, sure in told) else None


@functools.cache
def _pattern(pattern: str) -> re.Pattern[str]:
    return terms.whole_words(pattern)
