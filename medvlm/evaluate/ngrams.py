"""Tokenized segments as arrays, and the n-gram counts that all metrics read from them.

A segment is one hypothesis with its references; a document is any one of those texts. Documents lie in the order
hypothesis 0, its references, hypothesis 1, its references, ..., so that one sort of the n-grams by what they are and
where they stand brings a hypothesis's count and its references' counts of the same n-gram together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvlm.evaluate.tokenize import Tokenizer

Ints = NDArray[np.signedinteger[Any]]
Words = NDArray[np.unsignedinteger[Any]]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

_KEY_BITS = 64


@dataclass(frozen=True)
class NgramCounts:
    """All n-grams of one order: entry e says that `gram[e]` occurs `count[e]` times in `document[e]`.

    Entries are sorted by gram, then document. A group is the run of entries with one gram in one segment: group g
    begins at entry `group_start[g]`; where the hypothesis has the gram, its entry comes first.
    """

    gram: Ints  # [E], 0 .. grams - 1
    document: Ints  # [E]
    count: Ints  # [E]
    group_start: Ints  # [G]
    group_guessed: Bools  # [G] whether the hypothesis has the gram
    grams: int

    @property
    def group_size(self) -> Ints:
        """Number of entries [G] of each group."""
        return run_lengths(self.group_start, len(self.gram))

    @cached_property
    def referenced(self) -> Bools:
        """Whether any reference has the gram, for each group [G]."""
        return ~self.group_guessed | (self.group_size > 1)

    @cached_property
    def shared(self) -> tuple[Ints, Ints]:
        """Return [S] entries of references whose hypothesis has the gram too, and [S] the hypothesis's entries."""
        sizes = self.group_size
        groups = np.flatnonzero(self.group_guessed & (sizes > 1))
        sizes, starts = sizes[groups] - 1, self.group_start[groups]
        own = np.repeat(starts, sizes)
        return own + 1 + _counted_from_zero(sizes), own


@dataclass(frozen=True, slots=True)
class Chunks:
    """Texts cut at blanks: chunk numbers `number` [C] of all texts, one after another, `size` [D] of them in each."""

    number: Ints
    size: Ints
    chunks: list[str]

    @classmethod
    def of(cls, texts: Sequence[str], split: Callable[[str], list[str]]) -> Chunks:
        """Cut `texts` [D] with `split`, and number the different chunks."""
        numbers: defaultdict[str, int] = defaultdict(count().__next__)
        sizes: list[int] = []

        def cut() -> Iterator[list[str]]:
            for text in texts:
                own = split(text)
                sizes.append(len(own))
                yield own

        number = np.fromiter(map(numbers.__getitem__, chain.from_iterable(cut())), np.int32)
        return cls(number, np.array(sizes, dtype=np.int64), list(numbers))

    def words(self, tokenizer: Tokenizer) -> tuple[Ints, list[tuple[str, ...]]]:
        """Return [C] which entry of a list holds the words of each chunk, and that list."""
        words = list(map(tokenizer.tokens, self.chunks))
        before = tokenizer.tokens_before
        contextual = np.fromiter(map(tokenizer.contextual, self.chunks), bool, len(self.chunks))
        if before is None or not contextual.any():
            return self.number, words
        places = np.flatnonzero(contextual[self.number])
        number = self.number.copy()
        last = set((np.cumsum(self.size)[self.size > 0] - 1).tolist())
        known: dict[tuple[int, int], int] = {}
        for place in places.tolist():
            own = int(self.number[place])
            following = -1 if place in last else int(self.number[place + 1])
            if (own, following) not in known:
                known[own, following] = len(words)
                words.append(before(self.chunks[own], self.chunks[following] if following >= 0 else ""))
            number[place] = known[own, following]
        return number, words


@dataclass
class Corpus:
    """Hypotheses and references as token numbers."""

    tokens: Ints  # [T] of all documents, one after another
    length: Ints  # [D] tokens in each document
    segment: Ints  # [D] to which segment each document belongs
    hypothesis: Ints  # [n] document number of each segment's hypothesis
    vocabulary: list[str]
    _counts: dict[int, NgramCounts] = field(default_factory=dict, repr=False)
    _grams: dict[int, Ints] = field(default_factory=dict, repr=False)

    @classmethod
    def from_chunks(cls, chunks: Chunks, references: Sequence[int], tokenizer: Tokenizer) -> Corpus:
        """Number the tokens of documents cut into `chunks`; `references` [n] of them follow each hypothesis."""
        number, words = chunks.words(tokenizer)
        numbers: defaultdict[str, int] = defaultdict(count().__next__)
        flat = np.fromiter(map(numbers.__getitem__, chain.from_iterable(words)), np.int32)
        size = np.fromiter(map(len, words), np.int32, len(words))
        start = np.cumsum(size, dtype=np.int32) - size
        sizes = size[number]
        tokens = flat[np.repeat(start[number], sizes) + _counted_from_zero(sizes)]
        total = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        ends = np.cumsum(chunks.size)
        return cls(tokens, total[ends] - total[ends - chunks.size], *_layout(references), list(numbers))

    @property
    def segments(self) -> int:
        """Number of segments n."""
        return len(self.hypothesis)

    @cached_property
    def is_hypothesis(self) -> Bools:
        """For each document [D] whether it is a hypothesis."""
        flags = np.zeros(len(self.length), dtype=bool)
        flags[self.hypothesis] = True
        return flags

    @cached_property
    def own_hypothesis(self) -> Ints:
        """For each document [D] the number of its segment's hypothesis."""
        return self.hypothesis[self.segment]

    @cached_property
    def start(self) -> Ints:
        """Where each document [D] begins in `tokens`."""
        return np.cumsum(self.length) - self.length

    def references(self) -> Ints:
        """Return how many references each segment has [n]."""
        return np.bincount(self.segment, minlength=self.segments) - 1

    def ngrams(self, order: int) -> NgramCounts:
        """Return the counts of all n-grams of `order` >= 1, counted once and kept."""
        if order not in self._counts:
            self._counts[order] = self._count(order)
        return self._counts[order]

    @cached_property
    def owner(self) -> Ints:
        """For each token [T] the document that it stands in."""
        return np.repeat(np.arange(len(self.length), dtype=np.int32), self.length)

    @cached_property
    def _room(self) -> Ints:
        """How many tokens [T] of the same document stand at and after each."""
        room: NDArray[np.int32] = np.repeat((self.start + self.length).astype(np.int32), self.length)
        room -= np.arange(len(room), dtype=np.int32)
        return room

    @cached_property
    def by_token(self) -> tuple[Ints, Bools]:
        """Return the places [T] of all tokens, sorted by token, and [T] whether each token differs from the last."""
        return sorted_by_token(self.tokens, len(self.vocabulary))

    def _count(self, order: int) -> NgramCounts:
        positions, new_gram = self._sorted(order)
        gram = np.cumsum(new_gram, dtype=np.int32)
        gram -= 1
        numbered = np.zeros(len(self.tokens), dtype=np.int32)
        numbered[positions] = gram
        # Only the next order needs to know which n-gram begins where, and only once.
        self._grams = {order: numbered}
        owners = self.owner[positions]
        new_entry = changes(owners)
        new_entry |= new_gram
        first = np.flatnonzero(new_entry)
        grams = int(gram[-1]) + 1 if len(gram) else 0
        gram, owners = gram[first], owners[first]
        new_group = changes(self.segment[owners])
        new_group |= new_gram[first]
        starts = np.flatnonzero(new_group).astype(np.int32)
        return NgramCounts(
            gram=gram,
            document=owners,
            count=run_lengths(first, len(positions)),
            group_start=starts,
            group_guessed=self.is_hypothesis[owners[starts]],
            grams=grams,
        )

    def _sorted(self, order: int) -> tuple[Ints, Bools]:
        """Return where the n-grams of `order` begin, sorted by n-gram, and whether each differs from the last.

        An n-gram is the number of its first order - 1 tokens beside its last token.
        """
        if order == 1:
            return self.by_token
        positions = np.flatnonzero(self._room >= order)
        if order - 1 not in self._grams:
            self._count(order - 1)
        keys = self._grams[order - 1][positions].astype(np.uint64)
        keys *= np.uint64(len(self.vocabulary))
        keys += self.tokens[positions + (order - 1)].view(np.uint32)
        return _sort_with_places(keys, positions, len(self.tokens) * len(self.vocabulary))

    def texts(self, order: int) -> Iterator[str]:
        """Yield the words of each n-gram of `order`, by its number, with a blank between them."""
        words = self.vocabulary
        positions, new = self._sorted(order)
        starts = positions[new]
        rows = np.stack([self.tokens[starts + place] for place in range(order)], axis=1)
        return (" ".join(map(words.__getitem__, row)) for row in rows.tolist())


def _layout(references: Sequence[int]) -> tuple[Ints, Ints]:
    """Return [D] the segment of each document and [n] each hypothesis's document, of `references` [n] a segment."""
    sizes = np.array(references, dtype=np.int64) + 1
    return np.repeat(np.arange(len(sizes), dtype=np.int32), sizes), np.cumsum(sizes) - sizes


def _counted_from_zero(sizes: Ints) -> Ints:
    """Return 0, 1, ..., size - 1 for each of `sizes`, one after another."""
    counted: Ints = np.arange(int(sizes.sum()), dtype=np.int32) - np.repeat(
        np.cumsum(sizes, dtype=np.int32) - sizes, sizes
    )
    return counted


def sorted_by_token(tokens: Ints, vocabulary: int) -> tuple[Ints, Bools]:
    """Return the places [T] of `tokens`, sorted by token, and [T] whether each token differs from the last."""
    if vocabulary <= 1 << 16:
        # A radix sort of 16 bits.
        places = np.argsort(tokens.astype(np.uint16), kind="stable").astype(np.int32)
        return places, changes(tokens[places])
    return _sort_with_places(tokens.astype(np.uint64), np.arange(len(tokens)), vocabulary)


def _sort_with_places(keys: Words, places: Ints, bound: int) -> tuple[Ints, Bools]:
    """Return the `places` [N] of `keys` [N] in the order of the keys, and [N] whether each key differs from the last.

    Both are sorted as one number where they fit: several times faster than sorting an index.

    Args:
        keys: below `bound`; overwritten.
        places: ascending, so that equal keys keep their order.
        bound: more than the largest key.
    """
    bits = int(places[-1]).bit_length() if len(places) else 0
    if bound.bit_length() + bits > _KEY_BITS:
        order = np.argsort(keys, kind="stable")
        return places[order].astype(np.int32), changes(keys[order])
    keys <<= np.uint64(bits)
    keys |= places.view(np.uint64)
    keys.sort()
    found = (keys & np.uint64((1 << bits) - 1)).astype(np.int32)
    keys >>= np.uint64(bits)
    return found, changes(keys)


def run_lengths(starts: Ints, end: int) -> Ints:
    """Return [G] the lengths of the runs that begin at `starts` [G], of which the last ends before `end`."""
    lengths = np.empty(len(starts), dtype=np.int32)
    np.subtract(starts[1:], starts[:-1], out=lengths[:-1], casting="same_kind")
    lengths[-1:] = end - starts[-1:]
    return lengths


def changes(values: Ints | Words) -> Bools:
    """Return [N] True where a value differs from the one before it, and at the first."""
    changed = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=changed[1:])
    return changed
