"""Where a prediction and its reference differ, word by word, and where they contradict each other."""

from __future__ import annotations

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from medvlm.report.document import Piece

Span = tuple[int, int]

_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
# Where no blanks part the words, each character is one.
_WORD = re.compile(rf"[{_HAN}]|[^\W{_HAN}]+(?:[-'’./][^\W{_HAN}]+)*")
_MOST_PAIRS = 250_000
"""Words of one text times words of the other, above which places are not compared: that takes their square."""
_LONGEST = 4000
"""Characters of a text that a page shows."""


def compare(
    reference: str, prediction: str, opposite: Iterable[tuple[Span, Span]] = ()
) -> tuple[list[Piece], list[Piece]]:
    """Return both texts in pieces: words that only one of them has are marked "missing" or "extra".

    Case and punctuation do not count. Of two very long texts only words that the other lacks entirely
    are marked.

    Args:
        reference: what should have been said.
        prediction: what the model said.
        opposite: pairs of character spans (reference, prediction) that contradict each other.
    """
    flips = list(opposite)
    left, right = _words(reference), _words(prediction)
    only_left, only_right = _differing([word for word, _ in left], [word for word, _ in right])
    return (
        _pieces(reference, [left[place][1] for place in only_left], [own for own, _ in flips], "missing"),
        _pieces(prediction, [right[place][1] for place in only_right], [own for _, own in flips], "extra"),
    )


def nearest(references: Sequence[str], prediction: str) -> int:
    """Return the place of the reference that shares most words with the prediction (F1, the first of equals)."""
    said = Counter(word for word, _ in _words(prediction))

    def shared(reference: str) -> float:
        own = Counter(word for word, _ in _words(reference))
        return 2 * (own & said).total() / max(own.total() + said.total(), 1)

    found = [shared(reference) for reference in references]
    return found.index(max(found))


def plain(text: str) -> list[Piece]:
    """Return a text that is compared with nothing."""
    return [Piece(text)] if text else []


def shortened(pieces: Sequence[Piece], longest: int = _LONGEST) -> list[Piece]:
    """Return the pieces up to `longest` characters, and how many more there are."""
    kept: list[Piece] = []
    room = longest
    for piece in pieces:
        if room > 0:
            kept.append(Piece(piece.text[:room], piece.mark))
        room -= len(piece.text)
    return [*kept, Piece(f" … ({-room:,} more characters)")] if room < 0 else kept


def _words(text: str) -> list[tuple[str, Span]]:
    return [(match[0].casefold(), match.span()) for match in _WORD.finditer(text)]


def _differing(left: Sequence[str], right: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the places of the words that have no partner in the other text."""
    if len(left) * len(right) > _MOST_PAIRS:
        return _unshared(left, right), _unshared(right, left)
    blocks = difflib.SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks()
    same_left = {block.a + step for block in blocks for step in range(block.size)}
    same_right = {block.b + step for block in blocks for step in range(block.size)}
    return (
        [place for place in range(len(left)) if place not in same_left],
        [place for place in range(len(right)) if place not in same_right],
    )


def _unshared(words: Sequence[str], others: Sequence[str]) -> list[int]:
    known = set(others)
    return [place for place, word in enumerate(words) if word not in known]


def _pieces(text: str, words: Iterable[Span], opposite: Iterable[Span], mark: str) -> list[Piece]:
    """Return `text` cut where its mark changes; what stands between two marked words is marked with them."""
    kinds = [""] * len(text)
    last = -1
    for start, end in words:
        if last >= 0 and not _WORD.search(text, last, start):
            start = last
        kinds[start:end] = [mark] * (end - start)
        last = end
    for start, end in opposite:
        start, end = _trimmed(text, start, end)
        kinds[start:end] = ["opposite"] * len(kinds[start:end])
    cut = itertools.groupby(zip(text, kinds, strict=True), key=lambda pair: pair[1])
    return [Piece("".join(sign for sign, _ in group), kind) for kind, group in cut]


def _trimmed(text: str, start: int, end: int) -> Span:
    """Return a span without what is no letter or digit at its ends."""
    while start < end and not text[start : start + 1].isalnum():
        start += 1
    while start < end and not text[end - 1 : end].isalnum():
        end -= 1
    return start, end
