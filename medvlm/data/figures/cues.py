"""Words that tell what made a picture, found in a text by the table `cues.tsv`."""

from __future__ import annotations

import dataclasses
import functools
import re
from importlib import resources

NAMES_IT = 3
"""The strength of words that name the picture outright."""

_BLANK = r"[\s\-\u2010-\u2013/]"


@dataclasses.dataclass(frozen=True, slots=True)
class Cue:
    """Words at `start` of a text that speak for a modality, with their strength (1 to 3)."""

    modality: str
    strength: int
    start: int
    words: str


def find(text: str) -> list[Cue]:
    """Return the cues of a text in order; of those that overlap the first and longest, and none of the known traps."""
    found = [
        (match.start(), -match.end(), -strength, index, modality)
        for index, (modality, strength, pattern) in enumerate(table())
        for match in pattern.finditer(text)
    ]
    cues: list[Cue] = []
    end = 0
    for start, stop, strength, _, modality in sorted(found):
        if start < end:
            continue
        end = -stop
        if modality != "-":
            cues.append(Cue(modality, -strength, start, " ".join(text[start:end].split())))
    return cues


@functools.cache
def table() -> tuple[tuple[str, int, re.Pattern[str]], ...]:
    """Return the compiled table: class ("-" for a trap), strength, pattern."""
    lines = resources.files(__package__).joinpath("cues.tsv").read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    named = {name[1:]: pattern for name, _, pattern in rows if name.startswith("=")}
    return tuple((c, int(s), _compiled(p, named)) for c, s, p in rows if not c.startswith("="))


def _compiled(pattern: str, named: dict[str, str]) -> re.Pattern[str]:
    for name, stands_for in named.items():
        pattern = pattern.replace("{" + name + "}", stands_for)
    return re.compile(pattern.replace(" ", _BLANK), re.IGNORECASE)
