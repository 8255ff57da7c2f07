"""Which pictures nearly are one of many others: their marks made in parallel, and compared a chunk at a time.

The marks, and what tells that two of them are of the same picture, are those of `medvlm.data.dedup`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from medvlm.data import dedup
from medvlm.data.sample import Image

Array = np.ndarray[Any, Any]

_CHUNK = 1 << 15
_WAITING = 1 << 21
_BLOCK = 64


def marked(pictures: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the mark of each picture in order, made by as many threads as there are cores; few are in memory."""
    from medvlm.data.prepare import cores

    # Decoders turn warnings off and on again, which threads must not do to one another.
    with warnings.catch_warnings(), ThreadPoolExecutor(cores()) as pool:
        warnings.simplefilter("ignore")
        block: list[bytes] = []
        for picture in pictures:
            block.append(picture)
            if len(block) == _BLOCK:
                yield from pool.map(_mark, block)
                block = []
        yield from pool.map(_mark, block)


def _mark(picture: bytes) -> bytes:
    return dedup.mark(Image(picture, ""))


def chunks(marks: Iterator[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    for mark in marks:
        chunk.append(mark)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def near_places(ours: Sequence[bytes], theirs: Sequence[bytes]) -> Array:
    """Return the places of `ours` (marks) that nearly are one of `theirs`; int64, ascending.

    Each is laid over at most `dedup.TRIES` of them, nearest hashes first.
    """
    marks = np.frombuffer(b"".join([*ours, *theirs]), np.uint8).reshape(-1, dedup.MARK_BYTES)
    copies = marks[:, dedup.HEAD_BYTES :]
    one, other = _candidates(np.ascontiguousarray(marks[:, : dedup.HEAD_BYTES]), len(ours))
    turn = np.arange(len(one)) - np.searchsorted(one, one)
    found = np.zeros(len(ours), bool)
    for number in range(int(turn.max(initial=-1)) + 1):
        here = np.flatnonzero((turn == number) & ~found[one])
        for start in range(0, len(here), 256):
            block = here[start : start + 256]
            same = dedup.alike(_pictures(copies[one[block]]), _pictures(copies[other[block]]))
            found[one[block][same]] = True
    return np.flatnonzero(found)


def _pictures(copies: Array) -> Array:
    return copies.reshape(-1, dedup.SIDE, dedup.SIDE).astype(np.float64)


def _candidates(heads: Array, count: int) -> tuple[Array, Array]:
    """Return which of the first `count` pictures to lay over which of the others: ascending, nearest hashes first."""
    size = len(heads)
    hashes = np.ascontiguousarray(heads[:, :16]).view("<u8").T.ravel()
    aspect = np.ascontiguousarray(heads[:, 16:]).view("<f4")[:, 0]
    kept = np.zeros((0, 3), np.int64)
    fresh, waiting = [kept], 0
    for ones, others in dedup.candidates(hashes):
        # Two pictures that both lack their rim are told by their whole hashes.
        whole = (ones < size) | (others < size)
        apart = np.bitwise_count(hashes[ones] ^ hashes[others])[whole].astype(np.int64)
        low, high = ones[whole] % size, others[whole] % size
        low, high = np.minimum(low, high), np.maximum(low, high)
        fits = (low < count) & (high >= count) & (np.abs(aspect[low] - aspect[high]) <= dedup.MAX_ASPECT)
        fresh.append(np.stack([low[fits], apart[fits], high[fits]], axis=1))
        waiting += len(fresh[-1])
        if waiting > _WAITING:
            kept, fresh, waiting = _nearest(np.concatenate([kept, *fresh])), [], 0
    kept = _nearest(np.concatenate([kept, *fresh]))
    return kept[:, 0], kept[:, 2]


def _nearest(pairs: Array) -> Array:
    """Return of the rows (one, bits apart, other) those of the `dedup.TRIES` nearest others of each one, in order."""
    pairs = np.unique(pairs, axis=0)
    # A pair met twice counts at its smaller distance, which comes first.
    order = np.lexsort((pairs[:, 1], pairs[:, 2], pairs[:, 0]))
    again = np.zeros(len(pairs), bool)
    ranked = pairs[order]
    again[order[1:]] = (ranked[1:, 0] == ranked[:-1, 0]) & (ranked[1:, 2] == ranked[:-1, 2])
    pairs = pairs[~again]
    return pairs[np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0]) < dedup.TRIES]
