"""Keys of all rows as hashes in flat arrays, so that memory stays at a few bytes a row."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from medvlm.data.splits import SPLITS
from medvlm.io import sha256_bytes

Array = np.ndarray[Any, Any]

WIDTH = 16
"""Bytes of a key: two that are equal by accident do not occur."""


def key(text: str) -> bytes:
    """Return the key of a text."""
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=WIDTH).digest()


class Keys:
    """Keys in order, each with the split that it was seen in: 17 bytes each."""

    def __init__(self) -> None:
        self._keys = bytearray()
        self._sides = bytearray()

    def __len__(self) -> int:
        return len(self._sides)

    def add(self, text: str, split: str) -> None:
        """Append the key of a text."""
        self.add_key(key(text), split)

    def add_key(self, made: bytes, split: str) -> None:
        """Append a key of `WIDTH` bytes."""
        self._keys += made
        self._sides.append(SPLITS.index(split))

    def _arrays(self) -> tuple[Array, Array]:
        return np.frombuffer(self._keys, "V16"), np.frombuffer(self._sides, np.uint8)

    def numbered(self) -> tuple[Array, Array]:
        """Return int64 [n]: the same number for equal keys; and uint8 [n]: positions in `SPLITS`."""
        keys, sides = self._arrays()
        if not len(keys):
            return np.zeros(0, np.int64), sides
        words = keys.view("<u8").reshape(-1, 2)
        order = np.lexsort(words.T)
        ranked = words[order]
        fresh = np.concatenate([[False], (ranked[1:] != ranked[:-1]).any(axis=1)])
        numbers = np.empty(len(keys), np.int64)
        numbers[order] = np.cumsum(fresh)
        return numbers, sides

    def repeated(self) -> int:
        """Return how many entries have a key that was there before."""
        numbers, _ = self.numbered()
        return len(numbers) - len(np.unique(numbers))

    def absent(self, other: Keys) -> int:
        """Return how many entries have a key that another has not."""
        return int((~np.isin(self._arrays()[0], other._arrays()[0])).sum())

    def split_hash(self) -> str:
        """Return the hash of which key is on which side, as `prepare` writes it into the manifest."""
        keys, sides = self._arrays()
        _, first = np.unique(self.numbered()[0], return_index=True)
        words, sides = keys.view("<u8").reshape(-1, 2)[first], sides[first]
        order = np.lexsort(words.T)
        return sha256_bytes(words[order].tobytes() + sides[order].tobytes())

    def by_split(self) -> dict[str, int]:
        """Return the number of different keys in each split."""
        numbers, sides = self.numbered()
        found = {split: len(np.unique(numbers[sides == side])) for side, split in enumerate(SPLITS)}
        return {split: count for split, count in found.items() if count}

    def entries(self) -> dict[str, int]:
        """Return the number of entries of each split."""
        counts = np.bincount(np.frombuffer(self._sides, np.uint8), minlength=len(SPLITS))
        return {split: int(count) for split, count in zip(SPLITS, counts, strict=True) if count}

    def shared(self, one: str, other: str) -> tuple[int, int]:
        """Return how many different keys two splits share, and how many entries of the second have such a key."""
        numbers, sides = self.numbered()
        first, second = numbers[sides == SPLITS.index(one)], numbers[sides == SPLITS.index(other)]
        common = np.intersect1d(first, second)
        return len(common), int(np.isin(second, common).sum())

    def on_several_sides(self) -> int:
        """Return how many different keys are in more than one split."""
        numbers, sides = self.numbered()
        pairs = np.unique(numbers * len(SPLITS) + sides)
        _, times = np.unique(pairs // len(SPLITS), return_counts=True)
        return int((times > 1).sum())
