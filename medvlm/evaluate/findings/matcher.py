"""Many patterns tried at each word of a sentence, fast: only those that can begin as the word does."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_LETTERS = 3  # of a word, by which patterns are chosen
_BEGINNING = re.compile(r"\b\w|[:,?]| -")
_NO_LITERAL = re.compile(r"[\\\[.]")


class Found(NamedTuple):
    """A match of characters `[start, end)`, and the number of its group of patterns."""

    start: int
    end: int
    number: int


class Matcher:
    """Groups of patterns; of several that match at one place the longest pattern counts, and one group before all."""

    def __init__(self, groups: Iterable[tuple[Iterable[str], int]], first: int | None = None) -> None:
        """Take patterns by group number, for lower-case text; each begins at a word, a mark (: , ?) or a blank.

        Those of the group `first` are tried before all others.
        """
        pairs = [(pattern, number) for patterns, number in groups for pattern in patterns]
        pairs.sort(key=lambda pair: (pair[1] != first, -len(pair[0])))
        self._patterns = [(pattern, number, beginnings(pattern)) for pattern, number in pairs]
        self._chosen = functools.lru_cache(maxsize=1 << 14)(self._choose)

    def find(self, text: str) -> Iterator[Found]:
        """Yield the matches in lower-case `text`, left to right, none overlapping."""
        done = 0
        for beginning in _BEGINNING.finditer(text):
            start = beginning.start()
            if start < done or (chosen := self._chosen(text[start : start + _LETTERS])) is None:
                continue
            expression, numbers = chosen
            match = expression.match(text, start)
            if match:
                done = match.end()
                yield Found(start, done, numbers[(match.lastindex or 1) - 1])

    def _choose(self, letters: str) -> tuple[re.Pattern[str], list[int]] | None:
        """Return the patterns that can match where `letters` stand, as one expression, and their group numbers."""
        chosen = [
            (pattern, number)
            for pattern, number, starts in self._patterns
            if any(letters.startswith(start) or start.startswith(letters) for start in starts)
        ]
        if not chosen:
            return None
        parts = "|".join(f"({pattern})" for pattern, _ in chosen)
        return re.compile(rf"(?:{parts})(?!\w)"), [number for _, number in chosen]


def beginnings(pattern: str, letters: int = _LETTERS) -> set[str]:
    """Return the first `letters` characters that a match of `pattern` can have; shorter where anything may follow.

    Reads what `phrases.toml` is written in: literals, (?:groups), look-arounds and the quantifiers ? * +.
    """
    if not letters or not pattern or _NO_LITERAL.match(pattern):
        return {""}
    if pattern[0] != "(":
        return _optional(
            pattern, 1, {pattern[0] + rest for rest in beginnings(_unquantified(pattern[1:]), letters - 1)}, letters
        )
    end = _closing(pattern)
    if not pattern.startswith("(?:"):
        return beginnings(pattern[end + 1 :], letters)
    rest = _unquantified(pattern[end + 1 :])
    own = {start for part in _alternatives(pattern[3:end]) for start in beginnings(part + rest, letters)}
    return _optional(pattern, end + 1, own, letters)


def _optional(pattern: str, end: int, own: set[str], letters: int) -> set[str]:
    """Return `own`, and the beginnings of what follows `end` where the element before it may be left out."""
    return own | beginnings(pattern[end + 1 :], letters) if pattern[end : end + 1] in ("?", "*") else own


def _unquantified(pattern: str) -> str:
    return pattern[1:] if pattern[:1] in ("?", "*", "+") else pattern


def _closing(pattern: str) -> int:
    """Return the place of the bracket that closes the first."""
    depth = 0
    for place, character in enumerate(pattern):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if not depth:
            return place
    raise ValueError(f"unbalanced pattern {pattern!r}")


def _alternatives(inside: str) -> list[str]:
    """Return the parts between the bars that stand in no inner group."""
    parts, depth = [""], 0
    for character in inside:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts
