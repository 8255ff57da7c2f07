"""Lengths of longest common subsequences, bit-parallel (Hyyrö 2004) and for all segments at a time."""

from __future__ import annotations

import numpy as np

from medvlm.evaluate.ngrams import Bools, Corpus, Floats, Ints, Words, changes, sorted_by_token

_BITS = 64
# Numbers of 8 bytes that a block of segments may hold for its references' tokens, to bound memory.
_BLOCK = 4_000_000
# Of hypotheses with more words of 64 bits, one pair at a time is as fast, and takes less memory.
_MOST_WORDS = 16


def common_subsequences(corpus: Corpus) -> Floats:
    """Return [D] the length of each reference's longest common subsequence with its hypothesis (hypotheses: 0)."""
    found = np.zeros(len(corpus.length))
    words = np.maximum(-(-corpus.length[corpus.hypothesis] // _BITS), 1)
    tokens = np.bincount(corpus.segment, corpus.length, corpus.segments)
    for size in sorted(set(words.tolist())):
        chosen = np.flatnonzero(words == size)
        if size > _MOST_WORDS:
            for segment in chosen.tolist():
                _one_by_one(corpus, segment, found)
            continue
        blocks = np.cumsum(tokens[chosen]) * size // _BLOCK
        for block in np.split(chosen, np.flatnonzero(np.diff(blocks)) + 1):
            flags = np.zeros(corpus.segments, dtype=bool)
            flags[block] = True
            documents = np.flatnonzero(flags[corpus.segment])
            found[documents] = _lengths(corpus, documents, size)
    return found


def _one_by_one(corpus: Corpus, segment: int, found: Floats) -> None:
    """Set `found` [D] for the references of one segment, with integers of any length."""
    first = int(corpus.hypothesis[segment])
    ends = corpus.start + corpus.length
    places: dict[int, int] = {}
    for place, token in enumerate(corpus.tokens[corpus.start[first] : ends[first]].tolist()):
        places[token] = places.get(token, 0) | 1 << place
    full = (1 << int(corpus.length[first])) - 1
    for document in range(first + 1, int(np.searchsorted(corpus.segment, segment, side="right"))):
        row = full
        for token in corpus.tokens[corpus.start[document] : ends[document]].tolist():
            matched = row & places.get(token, 0)
            row = (row + matched | row - matched) & full
        found[document] = (full ^ row).bit_count()


def _lengths(corpus: Corpus, documents: Ints, size: int) -> Ints:
    """Return what `common_subsequences` gives, of `documents` whose hypotheses take `size` words of 64 bits each."""
    length = corpus.length[documents]
    start = np.cumsum(length) - length
    masks = _masks(corpus, documents, start, size)
    references = np.flatnonzero(~corpus.is_hypothesis[documents])
    references = references[np.argsort(-length[references], kind="stable")]
    # row[w] holds 64 bits of each reference's state: a bit that is off is a token of the hypothesis that is matched.
    row = np.full((size, len(references)), np.iinfo(np.uint64).max, dtype=np.uint64)
    begins, ends = start[references], length[references]
    for step in range(int(ends.max(initial=0))):
        active = int(np.searchsorted(-ends, -step))
        _step(row[:, :active], masks[:, begins[:active] + step])
    lengths = np.zeros(len(documents), dtype=np.int64)
    lengths[references] = np.bitwise_count(~row).sum(axis=0)
    return lengths


def _step(row: Words, masks: Words) -> None:
    """Read one token of each reference: row becomes (row + matched) | (row - matched), over words with a carry."""
    carry: Words | None = None
    for own, mask in zip(row, masks, strict=True):
        matched = own & mask
        added = own + matched
        over: Bools = added < own
        if carry is not None:
            added += carry
            over |= added < carry
        own -= matched
        own |= added
        carry = over.astype(np.uint64)


def _masks(corpus: Corpus, documents: Ints, start: Ints, size: int) -> Words:
    """Return [size, tokens of `documents`] at which places the hypothesis has each token, as bits."""
    if len(documents) == len(corpus.length):
        (places, new), owner = corpus.by_token, corpus.owner
    else:
        length = corpus.length[documents]
        owner = np.repeat(documents.astype(np.int32), length)
        tokens = corpus.tokens[np.repeat(corpus.start[documents] - start, length) + np.arange(len(owner))]
        places, new = sorted_by_token(tokens, len(corpus.vocabulary))
    begin = np.zeros(len(corpus.length), dtype=np.int64)
    begin[documents] = start
    owner = owner[places]
    guessed = corpus.is_hypothesis[owner]
    new = new | changes(corpus.segment[owner])
    starts, group = np.flatnonzero(new), np.cumsum(new, dtype=np.int32) - 1
    within = places - begin[owner]
    bit = np.left_shift(np.uint64(1), (within % _BITS).astype(np.uint64))
    masks = np.zeros((size, len(places)), dtype=np.uint64)
    for word in range(size if len(starts) else 0):
        own = np.where(guessed & (within // _BITS == word), bit, np.uint64(0))
        masks[word, places] = np.bitwise_or.reduceat(own, starts)[group]
    return masks
