"""Words that tell what made a picture, found in a text by the table `cues.tsv`."""

from __future__ import annotations

import dataclasses
import functools
import re
from importlib import resources

NAMES_IT = 3
"""The strength of words that name the picture outright."""

_OPENING = 3
_WORD_START = re.compile(rf"\b[^\W_]{{1,{_OPENING}}}")
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
    found = []
    for word in _WORD_START.finditer(text):
        letters = word[0].lower()
        rows = [row for size in range(1, len(letters) + 1) for row in _by_opening().get(letters[:size], ())]
        found += [_hit(row, match) for row in rows if (match := table()[row][2].match(text, word.start()))]
    for row in _by_opening()[""]:
        found += [_hit(row, match) for match in table()[row][2].finditer(text)]
    cues: list[Cue] = []
    end = 0
    for start, stop, _, row in sorted(found):
        if start < end:
            continue
        end = -stop
        modality, strength, _ = table()[row]
        if modality != "-":
            cues.append(Cue(modality, strength, start, " ".join(text[start:end].split())))
    return cues


def _hit(row: int, match: re.Match[str]) -> tuple[int, int, int, int]:
    return match.start(), -match.end(), -table()[row][1], row


@functools.cache
def table() -> tuple[tuple[str, int, re.Pattern[str]], ...]:
    """Return the table, one row for each alternative: class ("-" for a trap), strength, compiled pattern."""
    lines = resources.files(__package__).joinpath("cues.tsv").read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    named = {name[1:]: pattern for name, _, pattern in rows if name.startswith("=")}
    return tuple(
        (name, int(strength), _compiled(alternative))
        for name, strength, pattern in rows
        if not name.startswith("=")
        for alternative in _alternatives(_filled(pattern, named))
    )


def _filled(pattern: str, named: dict[str, str]) -> str:
    for name, stands_for in named.items():
        pattern = pattern.replace("{" + name + "}", stands_for)
    return pattern


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace(" ", _BLANK), re.IGNORECASE)


@functools.cache
def _by_opening() -> dict[str, tuple[int, ...]]:
    """Return the rows of the table by the letters that their words begin with; under "" those that can begin anyhow.

    Only rows whose opening stands in the text are tried: many times faster than to try them all.
    """
    rows: dict[str, list[int]] = {"": []}
    for index, (_, _, pattern) in enumerate(table()):
        for opening in _openings(pattern.pattern):
            rows.setdefault(opening, []).append(index)
    return {opening: tuple(dict.fromkeys(found)) for opening, found in rows.items()}


def _openings(pattern: str) -> set[str]:
    """Return the first letters of all words that a pattern can match, {""} where that cannot be told."""
    found: set[str] = set()
    for alternative in _alternatives(pattern):
        bare = alternative.removeprefix(r"\b")
        group = re.match(r"\((?:\?:|\?-i:)", bare)
        if group:
            inner = _alternatives(bare[group.end() :], closed=True)
            optional = bare[group.end() + sum(map(len, inner)) + len(inner) :][:1] in ("?", "*", "{")
            found |= {""} if optional else {o for part in inner for o in _openings(part)}
        else:
            letters = re.match(r"[a-zA-Z0-9]*", bare)
            literal = letters[0] if letters else ""
            if bare[len(literal) :][:1] in ("?", "*", "{"):
                literal = literal[:-1]
            found.add(literal[:_OPENING].lower())
    return {""} if "" in found else found


def _alternatives(pattern: str, closed: bool = False) -> list[str]:
    """Split a pattern at its outermost bars; where `closed`, up to the parenthesis that closes before its beginning."""
    parts, depth, start, inside, index = [], 0, 0, False, 0
    while index < len(pattern):
        char = pattern[index]
        if char == "\\":
            index += 1
        elif inside:
            inside = char != "]"
        elif char == "[":
            inside = True
        elif char == "(":
            depth += 1
        elif char == ")":
            if depth == 0 and closed:
                break
            depth -= 1
        elif char == "|" and depth == 0:
            parts.append(pattern[start:index])
            start = index + 1
        index += 1
    return [*parts, pattern[start:index]]
