"""Tokenized segments as arrays, and the n-gram counts that all metrics read from them.

A segment is one hypothesis with its references; a document is any one of those texts. Documents lie in the order
hypothesis 0, its references, hypothesis 1, its references, ..., so that one stable sort of the n-grams brings a
hypothesis's count and its references' counts of the same n-gram together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.signedinteger[Any]]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NgramCounts:
    """All n-grams of one order: entry e says that `gram[e]` occurs `count[e]` times in `document[e]`.

    Entries are sorted by gram, then document. A group is the run of entries with one gram in one segment: group g
    begins at entry `group_start[g]`; where the hypothesis has the gram, its entry comes first.
    """

    gram: Ints  # [E], 0 .. grams - 1
    document: Ints  # [E]
    count: Ints  # [E]
    group_start: Ints  # [G]
    grams: int


@dataclass
class Corpus:
    """Hypotheses and references as token numbers.

    Args of `from_tokens`: hypotheses, n lists of tokens; references, n non-empty lists of lists of tokens.
    """

    tokens: Ints  # [T] of all documents, one after another
    length: Ints  # [D] tokens in each document
    segment: Ints  # [D] to which segment each document belongs
    hypothesis: Ints  # [n] document number of each segment's hypothesis
    vocabulary: int
    _counts: dict[int, NgramCounts] = field(default_factory=dict, repr=False)
    _grams: dict[int, Ints] = field(default_factory=dict, repr=False)

    @classmethod
    def from_tokens(cls, hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> Corpus:
        """Number the tokens of `hypotheses` [n] and their `references` [n][r]."""
        documents: list[Sequence[str]] = []
        for hypothesis, own in zip(hypotheses, references, strict=True):
            documents.append(hypothesis)
            documents.extend(own)
        vocabulary: defaultdict[str, int] = defaultdict(count().__next__)
        length = np.fromiter(map(len, documents), np.int64, len(documents))
        numbers = map(vocabulary.__getitem__, chain.from_iterable(documents))
        tokens = np.fromiter(numbers, np.int64, int(length.sum()))
        sizes = np.fromiter(map(len, references), np.int64, len(references)) + 1
        return cls(
            tokens=tokens,
            length=length,
            segment=np.repeat(np.arange(len(sizes)), sizes),
            hypothesis=np.cumsum(sizes) - sizes,
            vocabulary=len(vocabulary),
        )

    @property
    def segments(self) -> int:
        """Number of segments n."""
        return len(self.hypothesis)

    def is_hypothesis(self) -> NDArray[np.bool_]:
        """Return for each document [D] whether it is a hypothesis."""
        flags = np.zeros(len(self.length), dtype=bool)
        flags[self.hypothesis] = True
        return flags

    def references(self) -> Ints:
        """Return how many references each segment has [n]."""
        return np.bincount(self.segment, minlength=self.segments) - 1

    def documents(self) -> list[list[int]]:
        """Return each document [D] as a list of token numbers."""
        ends = np.cumsum(self.length).tolist()
        flat = self.tokens.tolist()
        return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def ngrams(self, order: int) -> NgramCounts:
        """Return the counts of all n-grams of `order` >= 1, counted once and kept."""
        if order not in self._counts:
            self._counts[order] = self._count(order)
        return self._counts[order]

    def _count(self, order: int) -> NgramCounts:
        starts = np.repeat(np.cumsum(self.length) - self.length, self.length)
        room = np.repeat(self.length, self.length) - (np.arange(len(self.tokens)) - starts)
        positions = np.flatnonzero(room >= order)
        keys = self._keys(order, positions)
        owners = np.repeat(np.arange(len(self.length)), self.length)[positions]
        by_key = np.argsort(keys, kind="stable")
        keys, owners = keys[by_key], owners[by_key]
        new_gram = _changes(keys)
        gram = np.cumsum(new_gram) - 1
        numbered = np.zeros(len(self.tokens), dtype=np.int64)
        numbered[positions[by_key]] = gram
        self._grams[order] = numbered
        first = np.flatnonzero(new_gram | _changes(owners))
        gram, owners = gram[first], owners[first]
        return NgramCounts(
            gram=gram.astype(np.int32),
            document=owners.astype(np.int32),
            count=np.diff(first, append=len(keys)).astype(np.int32),
            group_start=np.flatnonzero(_changes(gram) | _changes(self.segment[owners])),
            grams=int(gram[-1]) + 1 if len(gram) else 0,
        )

    def _keys(self, order: int, positions: Ints) -> Ints:
        """Return one number for each n-gram: the number of its first order - 1 tokens beside its last token."""
        if order == 1:
            return self.tokens[positions]
        self.ngrams(order - 1)
        # Only the next order needs to know which n-gram begins where, and only once.
        shorter = self._grams.pop(order - 1)
        return shorter[positions] * self.vocabulary + self.tokens[positions + order - 1]


def _changes(values: Ints) -> NDArray[np.bool_]:
    """Return [N] True where a value differs from the one before it, and at the first."""
    changed = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=changed[1:])
    return changed


def group_maximum(values: Ints, starts: Ints) -> Ints:
    """Return the largest of `values` in each run that begins at `starts` (an empty array for no runs)."""
    return np.maximum.reduceat(values, starts) if len(starts) else values[:0]
